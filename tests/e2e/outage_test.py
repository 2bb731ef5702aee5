"""A reward server that hangs for 20 s: nothing is lost, nothing is skipped, nothing fails."""

import os
import signal
import time

from run_fixture import STEPS, UNDISTURBED, Run, RunTestCase, main, wait_until

OUTAGE_SECONDS = 20


class Outage(RunTestCase):
    def test_a_reward_server_that_hangs_for_20_seconds_costs_time_alone(self):
        with Run("outage", {"orchestrator": {"lease_seconds": 60.0}}) as run:
            run.start()
            run.await_step(8)
            server = run.await_member("reward_server-0")
            os.kill(server, signal.SIGSTOP)
            began = time.monotonic()
            run.await_event("gone", 30, member="reward_server-0")
            steps = len(run.events("step_committed"))
            self.assertLess(steps, STEPS, "it hung in the middle")
            wait_until(lambda: time.monotonic() - began > OUTAGE_SECONDS, OUTAGE_SECONDS + 5,
                       "the outage lasts")
            self.assertEqual(len(run.events("step_committed")), steps, "nothing can be scored")
            self.assertEqual(run.events("run_ended"), [])
            os.kill(server, signal.SIGCONT)
            run.finish()

            self.check_ended_clean(run)
            self.check_equal_results(run, Run.finished(UNDISTURBED), ("worker", "attempt"))


if __name__ == "__main__":
    main()
