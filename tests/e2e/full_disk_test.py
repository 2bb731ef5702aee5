"""A disk that fills up while a run goes on: it says so, nothing is half there, it goes on later.

Disks are small tmpfs in a mount namespace of this process, which are gone when it ends.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import unittest

from run_fixture import STEPS, UNDISTURBED, Run, RunTestCase, main

CLONE_NEWNS = 0x20000
DISK_BYTES = 64 << 20
PAGE = 4096  # what tmpfs gives room in


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
    def disk(self, run, folder, size):
        """A disk of `size` bytes at `folder` while the context lasts."""
        folder.mkdir(parents=True)
        mounted = mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
        if mounted.returncode != 0:
            self.skipTest(f"no tmpfs may be mounted here: {mounted.stdout.strip()}")
        try:
            yield
        finally:
            run.kill_everything()
            subprocess.run(["umount", folder], check=True, stdin=subprocess.DEVNULL)

    @staticmethod
    def enlarge(folder):
        grown = mount("-o", f"remount,size={DISK_BYTES}", folder)
        assert grown.returncode == 0, grown.stdout

    @staticmethod
    def take_all_room(folder):
        """Returns the file that takes it; a run may take some of it meanwhile."""
        with open(folder / "ballast", "wb") as ballast:
            size = 0
            for part in (1 << 20, 1 << 16, PAGE):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(ballast.fileno(), size, part)
                        size += part
        return folder / "ballast"

    def check_ended_with(self, run, *words):
        run.finish(60, code=1)
        said = run.output.read_text()
        for word in (*words, "No space left on device|disk is full", f"{run.dir} --resume auto"):
            self.assertRegex(said, word)
        run.await_no_process()
        self.check_accounting(run)
        partial = [path for path in run.dir.rglob("*") if ".partial" in path.name]
        self.assertEqual(partial, [], "nothing is half there")

    def check_goes_on_to_the_same_result(self, run, checkpoints=True):
        run.start("--resume", "auto").finish()
        self.check_ended_clean(run)
        self.check_equal_results(run, Run.finished(UNDISTURBED), ("worker", "attempt"),
                                 checkpoints)
        self.assertEqual(run.events("step_committed")[-1]["step"], STEPS, "no line is broken")

    def test_no_room_for_a_checkpoint(self):
        one = sum((path.stat().st_size + PAGE - 1) // PAGE * PAGE
                  for path in (UNDISTURBED / "run/checkpoints/step_5").rglob("*")
                  if path.is_file())
        fit = self.drawn("checkpoints that fit", self.random.randint(1, 8))
        with Run("full_checkpoint") as run:
            checkpoints = run.dir / "checkpoints"
            with self.disk(run, checkpoints, fit * one + one // 2):
                run.start("checkpoint.every=1", "local.max_restarts=1")
                self.check_ended_with(run, "learner-0 gave up", "cannot write checkpoint",
                                      f"{checkpoints}/step_{fit + 1}", "free space there")
                self.assertEqual({path.name for path in checkpoints.iterdir()},
                                 {f"step_{step}" for step in range(1, fit + 1)})
                self.enlarge(checkpoints)
                self.check_goes_on_to_the_same_result(run, checkpoints=False)
                self.assertEqual(run.events("timeline_begun")[-1]["resume_step"], fit)

    def test_no_room_for_the_ledger(self):
        with Run("full_ledger") as run:
            run.state_dir = run.folder / "state"
            pages = self.drawn("pages", self.random.randint(100, 400))
            with self.disk(run, run.state_dir, pages * PAGE):
                run.start()
                self.check_ended_with(run, f"ledger {run.state_dir}/ledger.db", "free space there")
                self.enlarge(run.state_dir)
                self.check_goes_on_to_the_same_result(run)

    def test_no_room_anywhere(self):
        with Run("full_everything") as run, self.disk(run, run.dir, DISK_BYTES):
            run.start("local.max_restarts=1")
            run.await_step(self.draw_step(high=20))
            ballast = self.take_all_room(run.dir)
            self.check_ended_with(run, f"{run.dir}/")
            ballast.unlink()
            self.check_goes_on_to_the_same_result(run)

    def test_no_room_at_the_start(self):
        with Run("full_start") as run, self.disk(run, run.dir, DISK_BYTES):
            ballast = self.take_all_room(run.dir)
            run.start().finish(30, code=1)
            self.assertRegex(run.output.read_text(), f"{run.dir}/.*No space left on device")
            run.await_no_process()
            ballast.unlink()
            self.check_goes_on_to_the_same_result(run)


if __name__ == "__main__":
    main()
