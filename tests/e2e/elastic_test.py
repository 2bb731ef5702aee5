"""Workers come and go while a run goes on, and nothing outlives its launcher."""

import os
import signal
import subprocess

from run_fixture import BIN, Run, RunTestCase, main, processes_of, temper, wait_until

LONG = {"trainer": {"total_updates": 4000}, "checkpoint": {"every": 0},
        "eval": {"enabled": False}}


def workers_of(run):
    return {event["member"] for event in run.events("join") if event["role"] == "rollout_worker"}


def live_workers(run):
    return [pid for pid, command in processes_of(run.dir).items()
            if command[0].endswith("temper-rollout-worker")]


class Elastic(RunTestCase):
    def test_workers_scale_up_and_down_and_one_joins_by_hand(self):
        with Run("scaled", LONG) as run:
            run.start()
            run.await_step(1)
            self.assertEqual(workers_of(run), {"rollout_worker-0"})

            scaled = temper("scale", run.dir, "rollout_workers=3")
            self.assertEqual(scaled.returncode, 0, scaled.stderr)
            wait_until(lambda: len(workers_of(run)) == 3, 30, "three workers have joined")
            temper("scale", run.dir, "rollout_workers=1")
            wait_until(lambda: len(live_workers(run)) == 1, 30, "one worker is left")
            left = {event["member"] for event in run.events("leave")}
            self.assertEqual(left, {"rollout_worker-1", "rollout_worker-2"}, "they drained")

            by_hand = subprocess.Popen(
                [BIN / "temper-rollout-worker", "--join", run.record()["address"],
                 "--member-id", "by-hand", "--log-file", run.dir / "logs/by-hand.log"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(by_hand.kill)
            run.await_event("join", 30, member="by-hand")
            wait_until(lambda: run.ledger("SELECT 1 FROM attempts WHERE worker = 'by-hand'"
                                          " AND ending = 1 LIMIT 1"), 30, "it is given work")
            by_hand.terminate()
            self.assertEqual(by_hand.wait(20), 0, "SIGTERM drains")
            run.await_event("leave", 10, member="by-hand")

            status = temper("status", run.dir)
            self.assertEqual(status.returncode, 0, status.stderr)
            self.assertIn("rollout_worker-0", status.stdout)
            run.process.terminate()
            run.finish(40)
            run.await_no_process()
            self.check_accounting(run)
            expired = run.ledger("SELECT COUNT(*) FROM attempts WHERE ending = 7")
            self.assertEqual(expired, [(0,)], "who drains hands back, nothing expires")

    def test_a_worker_that_joined_by_hand_hears_of_the_end(self):
        # Its heartbeat comes long after temper's own processes have gone.
        slow = {"orchestrator": {"heartbeat_seconds": 2.0, "member_timeout_seconds": 10.0},
                "trainer": {"total_updates": 3}, "eval": {"enabled": False}}
        with Run("by_hand_to_the_end", slow) as run:
            run.start("local.rollout_workers=0")
            run.await_event("version_out", version=0)
            by_hand = subprocess.Popen(
                [BIN / "temper-rollout-worker", "--join", run.record()["address"],
                 "--member-id", "by-hand", "--log-file", run.folder / "by-hand.log"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(by_hand.kill)
            run.finish()
            self.assertEqual(by_hand.wait(10), 0)
            self.check_ended_clean(run)

    def test_kill_9_of_temper_leaves_no_process(self):
        with Run("orphans", LONG) as run:
            run.start("local.rollout_workers=2")
            run.await_step(1)
            self.assertGreaterEqual(len(processes_of(run.dir)), 6)
            os.kill(run.process.pid, signal.SIGKILL)
            run.process.wait(10)
            run.await_no_process()


if __name__ == "__main__":
    main()
