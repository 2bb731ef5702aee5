"""Weights by broadcast groups over shared memory: the same run, whoever is killed or stopped."""

import json
import os
import re
import signal

from run_fixture import STEPS, UNDISTURBED, Run, RunTestCase, http_get, main, temper, wait_until

# Groups may go to other workers, and a group of a killed worker is leased again.
IGNORED = ("worker", "attempt")


def shared_memory():
    return set(os.listdir("/dev/shm"))


def series(text, name):
    """Sum of a metric's series in `text`, by the value of its only label (or '')."""
    found = {}
    for label, value in re.findall(rf'(?m)^{name}(?:{{\w+="([^"]*)"}})? (\S+)$', text):
        found[label] = found.get(label, 0.0) + float(value)
    return found


class Broadcast(RunTestCase):
    def setUp(self):
        self.shared_before = shared_memory()

    def check_equals_undisturbed(self, run):
        run.finish()
        self.check_ended_clean(run)
        self.check_equal_results(run, Run.finished(UNDISTURBED), IGNORED)
        self.assertEqual(shared_memory() - self.shared_before, set(), "left in /dev/shm")

    def learner_log(self, run):
        log = run.dir / "logs/learner-0.log"
        return log.read_text() if log.exists() else ""

    def groups(self, run):
        """Members of each group that a broadcast went through in, in the order of the log."""
        return [int(members) for members in
                re.findall(r"event=broadcast_group phase=ready comm_epoch=\d+ members=(\d+) ",
                           self.learner_log(run))]

    def start_together(self, run, workers, *more):
        """Starts a run whose first step ends when the learner knows all of its workers."""
        run.start("weights.broadcaster=shared_memory", f"local.rollout_workers={workers}", *more)
        with run.held():
            wait_until(lambda: self.learner_log(run).count('reason="member joined') >= workers, 60,
                       f"the learner knows {workers} workers")
            self.assertEqual(run.events("step_committed"), [], "nobody came late")
        self.await_group(run, workers)

    def await_group(self, run, members, seconds=30):
        wait_until(lambda: self.groups(run)[-1:] == [members], seconds,
                   f"a broadcast to a group of {members} went through")

    def exported(self, run):
        """What the learner and the workers export."""
        processes = json.loads(http_get(run.record()["metrics_address"], "/sd"))
        return "".join(http_get(process["targets"][0], "/metrics") for process in processes
                       if process["labels"]["role"] in ("learner", "rollout_worker"))

    def test_three_workers_receive_versions_by_broadcast_and_nothing_changes(self):
        with Run("broadcast") as run:
            self.start_together(run, 3)
            with run.held():
                exported = self.exported(run)
            self.check_equals_undisturbed(run)
            self.assertGreaterEqual(series(exported, "temper_learner_broadcasts_total")["sent"], 1)
            self.assertEqual(series(exported, "temper_learner_broadcast_members"), {"": 3.0})
            formed = series(exported, "temper_learner_broadcast_groups_total")
            self.assertGreaterEqual(formed[""], 1)
            received = series(exported, "temper_rollout_weights_received_total")
            self.assertGreaterEqual(received["broadcast"], 2, received)
            self.assertGreaterEqual(len(self.groups(run)), STEPS // 2, "most are broadcast")
            carried = {event["version"]: event["comm_epoch"] for event in run.events("version_out")}
            self.assertEqual(carried[0], 0, "nobody has weights yet")
            self.assertGreater(sum(epoch > 0 for epoch in carried.values()), STEPS // 2)
            self.assertGreaterEqual(len(run.events("broadcast_group_announced")), 1)

    def test_a_killed_worker_ends_the_group_and_the_others_meet_again(self):
        with Run("broadcast_killed") as run:
            self.start_together(run, 3)
            ended = len(run.events("broadcast_group_ended"))
            with run.held():
                run.kill("rollout_worker-1")
            run.await_event("broadcast_group_ended", 30, count=ended + 1)
            self.check_equals_undisturbed(run)
            self.assertEqual(len(run.events("timeline_begun")), 1)

    def test_a_stopped_worker_holds_the_others_up_no_longer_than_a_deadline(self):
        with Run("broadcast_stopped") as run:
            # Its leases expire long before it is taken for dead: only the broadcast waits for it.
            self.start_together(run, 3, "weights.broadcast_timeout_seconds=6",
                                "orchestrator.lease_seconds=2",
                                "orchestrator.member_timeout_seconds=60")
            stopped = run.await_member("rollout_worker-2")
            ended = len(run.events("broadcast_group_ended"))
            with run.held():
                os.kill(stopped, signal.SIGSTOP)
            try:
                run.await_event("broadcast_group_ended", 30, count=ended + 1)
                self.await_group(run, 2)
                out = len(run.events("version_out"))
                run.await_event("version_out", 30, count=out + 1)
            finally:
                os.kill(stopped, signal.SIGCONT)
            self.check_equals_undisturbed(run)
            left_out = re.findall(r"event=broadcast_member_left_out member=([^/]+)/",
                                  self.learner_log(run))
            self.assertEqual(set(left_out), {"rollout_worker-2"}, "the one that was waited for")
            self.assertEqual(run.events("gone"), [], "it was never taken for dead")

    def test_workers_that_join_are_taken_into_the_next_group(self):
        with Run("broadcast_scaled", {"trainer": {"total_updates": 400},
                                      "checkpoint": {"every": 0}}) as run:
            run.start("weights.broadcaster=shared_memory")
            self.await_group(run, 1)
            scaled = temper("scale", run.dir, "rollout_workers=3")
            self.assertEqual(scaled.returncode, 0, scaled.stderr)
            self.await_group(run, 3)
            temper("scale", run.dir, "rollout_workers=1")
            wait_until(lambda: len(run.events("leave")) >= 2, 30, "two workers drained")
            self.await_group(run, 1)
            run.process.terminate()
            run.finish(40)
            run.await_no_process()
            self.check_accounting(run)
        self.assertEqual(shared_memory() - self.shared_before, set(), "left in /dev/shm")

    def test_an_asynchronous_run_takes_versions_up_from_its_group(self):
        with Run("broadcast_asynchronous", {"trainer": {"max_staleness": 2}}) as run:
            run.start("weights.broadcaster=shared_memory", "local.rollout_workers=2").finish()
            self.check_ended_clean(run)
            self.assertGreaterEqual(len(self.groups(run)), STEPS // 4)
            self.assertLessEqual(max(line["staleness_max"] for line in run.metrics()), 2)

    def test_a_killed_learner_begins_with_a_new_group(self):
        with Run("broadcast_learner") as run:
            run.start("weights.broadcaster=shared_memory", "local.rollout_workers=2")
            self.await_group(run, 2)
            run.await_step(8)
            run.kill("learner-0")
            self.check_equals_undisturbed(run)
            groups = run.events("broadcast_group_announced")
            self.assertEqual({event["timeline"] for event in groups}, {1, 2})

    def test_a_killed_orchestrator_forgets_the_group_and_hears_of_the_next(self):
        with Run("broadcast_orchestrator") as run:
            run.start("weights.broadcaster=shared_memory", "local.rollout_workers=2")
            self.await_group(run, 2)
            run.await_step(8)
            run.kill("orchestrator-0")
            self.check_equals_undisturbed(run)


if __name__ == "__main__":
    main()
