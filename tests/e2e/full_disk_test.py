"""A disk that fills up while a run goes on: it says so, nothing is half there, it goes on later.

The disk is a small tmpfs in a mount namespace of this process, which is gone when it ends.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import unittest

from run_fixture import UNDISTURBED, Run, RunTestCase, main, temper, wait_until

CLONE_NEWNS = 0x20000
DISK_BYTES = 64 << 20


def mount(*words):
    return subprocess.run(["mount", *words], check=False, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def enter_mount_namespace():
    """Mounts of this process and its children are their own from here on."""
    if shutil.which("mount") is None:
        raise unittest.SkipTest("there is no `mount` command")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise unittest.SkipTest(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    private = mount("--make-rprivate", "/")
    if private.returncode != 0:
        raise unittest.SkipTest(f"mounts cannot be made private: {private.stdout.strip()}")


class FullDisk(RunTestCase):
    @classmethod
    def setUpClass(cls):
        enter_mount_namespace()

    @contextlib.contextmanager
    def run_on_a_small_disk(self, name):
        with Run(name) as run:
            run.dir.mkdir()
            mounted = mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", run.dir)
            if mounted.returncode != 0:
                self.skipTest(f"no tmpfs may be mounted here: {mounted.stdout.strip()}")
            try:
                yield run
            finally:
                run.kill_everything()
                subprocess.run(["umount", run.dir], check=True, stdin=subprocess.DEVNULL)

    @staticmethod
    def fill(run, leave):
        """Takes all room but `leave` bytes; the run stands still meanwhile."""
        pids = [run.await_member(member) for member in ("orchestrator-0", "learner-0")]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        facts = os.statvfs(run.dir)
        with open(run.dir / "ballast", "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, facts.f_bavail * facts.f_frsize - leave)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def check_ended_with(self, run, *words):
        run.finish(60, code=1)
        said = run.output.read_text()
        for word in (*words, "No space left on device|disk is full", "free space there and resume"):
            self.assertRegex(said, word)
        run.await_no_process()
        self.check_accounting(run)
        partial = [path for path in run.dir.rglob("*") if ".partial" in path.name]
        self.assertEqual(partial, [], "nothing is half there")

    def check_goes_on_once_there_is_room(self, run):
        (run.dir / "ballast").unlink()
        run.start("--resume", "auto").finish()
        self.check_ended_clean(run)
        self.check_equal_results(run, Run.finished(UNDISTURBED), ("worker", "attempt"))
        self.assertEqual([event["step"] for event in run.events("step_committed")][-1],
                         run.metrics()[-1]["step"])

    def test_no_room_for_a_checkpoint(self):
        with self.run_on_a_small_disk("full_checkpoint") as run:
            run.start("checkpoint.every=1", "local.max_restarts=1")
            run.await_step(self.draw_step(high=20))
            one = wait_until(lambda: next(run.dir.glob("checkpoints/step_?"), None), 30, "one")
            size = sum(path.stat().st_size for path in one.rglob("*") if path.is_file())
            self.fill(run, leave=size * 2 // 3)
            self.check_ended_with(run, "learner-0 gave up", "cannot write checkpoint",
                                  f"{run.dir}/checkpoints/step_")
            for checkpoint in sorted(run.dir.glob("checkpoints/step_*")):
                whole = temper("tokenize", checkpoint / "hf", stdin=b"1 + 1")
                self.assertEqual(whole.returncode, 0, whole.stderr)
            self.check_goes_on_once_there_is_room(run)

    def test_no_room_for_the_ledger(self):
        with self.run_on_a_small_disk("full_ledger") as run:
            run.start("checkpoint.every=0", "local.max_restarts=1")
            run.await_step(self.draw_step(high=20))
            self.fill(run, leave=0)
            self.check_ended_with(run, f"ledger {run.dir}/ledger.db")
            # Without a checkpoint it begins at the first step again.
            self.check_goes_on_once_there_is_room(run)

    def test_no_room_at_the_start(self):
        with self.run_on_a_small_disk("full_start") as run:
            facts = os.statvfs(run.dir)
            with open(run.dir / "ballast", "wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, facts.f_bavail * facts.f_frsize)
            run.start().finish(30, code=1)
            self.assertRegex(run.output.read_text(), f"{run.dir}/.*No space left on device")
            run.await_no_process()
            (run.dir / "ballast").unlink()
            run.start("--resume", "auto").finish()
            self.check_ended_clean(run)


if __name__ == "__main__":
    main()
