"""kill -9 of each role in the middle: the run completes with the result it would have had."""

import os
import signal

from run_fixture import UNDISTURBED, Run, RunTestCase, main


class KilledRoles(RunTestCase):
    # A group of a killed worker is leased again, so its attempt is a later one.
    IGNORED = ("worker", "attempt")

    def check_equals_undisturbed(self, run):
        run.finish()
        self.check_ended_clean(run)
        self.check_equal_results(run, Run.finished(UNDISTURBED), self.IGNORED)

    def test_a_killed_worker_costs_only_its_leases(self):
        with Run("killed_worker") as run:
            run.start("local.rollout_workers=2")
            run.await_step(8)
            run.kill("rollout_worker-0")
            self.check_equals_undisturbed(run)
            self.assertEqual(len(run.events("timeline_begun")), 1)

    def test_a_killed_reward_server_is_replaced(self):
        with Run("killed_reward_server") as run:
            run.start()
            run.await_step(8)
            run.kill("reward_server-0")
            self.check_equals_undisturbed(run)

    def test_a_killed_learner_continues_from_its_checkpoint_in_a_new_timeline(self):
        with Run("killed_learner") as run:
            run.start()
            run.await_step(8)
            run.kill("learner-0")
            self.check_equals_undisturbed(run)
            timelines = [event["timeline"] for event in run.events("timeline_begun")]
            self.assertEqual(timelines, [1, 2])

    def test_a_killed_orchestrator_forgets_nothing(self):
        with Run("killed_orchestrator") as run:
            run.start()
            run.await_step(8)
            before = run.record()
            run.kill("orchestrator-0")
            self.check_equals_undisturbed(run)
            after = run.record()
            self.assertNotEqual(after["pid"], before["pid"])
            self.assertEqual(after["address"], before["address"], "the recorded port is used again")

    def test_a_stopped_worker_that_wakes_late_changes_nothing(self):
        with Run("frozen_worker") as run:
            run.start("local.rollout_workers=2")
            run.await_step(1)
            frozen = run.await_member("rollout_worker-0")
            os.kill(frozen, signal.SIGSTOP)
            run.await_event("gone", 30, member="rollout_worker-0")
            os.kill(frozen, signal.SIGCONT)
            self.check_equals_undisturbed(run)


if __name__ == "__main__":
    main()
