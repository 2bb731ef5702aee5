"""A worker on another host joins by address alone.

The other host is a network namespace, in which the model's folder is an empty one.
"""

import os
import shutil
import subprocess

from run_fixture import (BIN, STEPS, TINY_POLICY, UNDISTURBED, Run, RunTestCase, fresh_folder, main,
                         pause, wait_until)
from tls_test import Authority, flags

HERE, THERE = "10.231.77.1", "10.231.77.2"


def ip(*words):
    return subprocess.run(["ip", *words], check=False, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


class Namespaces(RunTestCase):
    def setUp(self):
        super().setUp()
        if shutil.which("ip") is None:
            self.skipTest("there is no `ip` command (package iproute2)")
        self.name = f"temper{os.getpid()}"
        made = ip("netns", "add", self.name)
        if made.returncode != 0:
            self.skipTest(f"network namespaces may not be made here: {made.stdout.strip()}")
        self.addCleanup(ip, "netns", "del", self.name)
        self.near = near = f"tn{os.getpid()}"[:15]
        far = f"tf{os.getpid()}"[:15]
        for words in (["link", "add", near, "type", "veth", "peer", "name", far],
                      ["link", "set", far, "netns", self.name],
                      ["addr", "add", f"{HERE}/30", "dev", near],
                      ["link", "set", near, "up"],
                      ["-n", self.name, "link", "set", "lo", "up"],
                      ["-n", self.name, "addr", "add", f"{THERE}/30", "dev", far],
                      ["-n", self.name, "link", "set", far, "up"]):
            done = ip(*words)
            if done.returncode != 0:
                self.skipTest(f"ip {' '.join(words)}: {done.stdout.strip()}")
        # Over there the model is not to be seen.
        self.far = ["ip", "netns", "exec", self.name, "unshare", "--mount", "sh", "-c",
                    'mount -t tmpfs none "$0" && exec "$@"', TINY_POLICY]
        hidden = subprocess.run([*self.far, "ls", "-A", TINY_POLICY], check=False,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
        if hidden.returncode != 0:
            self.skipTest(f"a folder may not be hidden from a process here: {hidden.stdout.strip()}")
        self.assertEqual(hidden.stdout, "", "the far host sees no model")

    def start_far_worker(self, run, *words):
        """A worker in the namespace; run.far_log is its log."""
        wait_until((run.dir / "orchestrator.json").exists, 30, "the orchestrator serves")
        address = run.record()["address"]
        self.assertTrue(address.startswith(f"{HERE}:"), address)
        run.far_log = run.folder / "far-worker.log"
        worker = subprocess.Popen(
            [*self.far, BIN / "temper-rollout-worker", "--join", address,
             "--member-id", "far-worker", "--log-file", run.far_log, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(worker.kill)
        return worker

    def check_far_worker_alone_made_it(self, run, worker):
        run.finish()
        self.assertEqual(worker.wait(20), 0, run.far_log.read_text())
        self.check_ended_clean(run)
        self.assertEqual(run.ledger("SELECT DISTINCT worker FROM attempts"), [("far-worker",)])

    def test_a_worker_in_another_namespace_trains_with_the_run(self):
        changes = {"network": {"listen_host": HERE, "insecure_network": True},
                   "local": {"rollout_workers": 0}, "eval": {"enabled": False},
                   "trainer": {"total_updates": 3}}
        with Run("namespaces", changes) as run:
            run.start()
            self.check_far_worker_alone_made_it(run, self.start_far_worker(run))
            self.assertIn("model_files_pulled", run.far_log.read_text())

    def test_off_loopback_under_tls_nothing_needs_to_be_said_aloud(self):
        certificates = fresh_folder("namespaces_certificates")
        network = Authority(certificates / "ours").certificate("every-role", f"IP:{HERE}")
        changes = {"network": network | {"listen_host": HERE},
                   "local": {"rollout_workers": 0}, "eval": {"enabled": False},
                   "trainer": {"total_updates": 3}}
        with Run("namespaces_tls", changes) as run:
            run.start()
            self.check_far_worker_alone_made_it(run, self.start_far_worker(run, *flags(network)))
            self.assertIn("http://127.0.0.1:", (run.dir / "prometheus.yml").read_text())

    def test_a_worker_behind_a_cut_cable_loses_its_leases_and_comes_back(self):
        changes = {"network": {"listen_host": HERE, "insecure_network": True},
                   "local": {"rollout_workers": 0}}
        with Run("partition", changes) as run:
            run.start()
            worker = self.start_far_worker(run)
            run.await_step(self.draw_step())
            self.assertEqual(ip("link", "set", self.near, "down").returncode, 0)
            run.await_event("gone", 30, member="far-worker")
            self.assertLess(len(run.events("step_committed")), STEPS, "cut off in the middle")
            pause(self.drawn("seconds more", round(self.random.uniform(0, 2), 3)))
            self.assertEqual(ip("link", "set", self.near, "up").returncode, 0)
            self.check_far_worker_alone_made_it(run, worker)
            self.check_equal_results(run, Run.finished(UNDISTURBED), ("worker", "attempt"))


if __name__ == "__main__":
    main()
