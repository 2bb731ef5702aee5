"""Runs A and B: a run killed in the middle and resumed equals the uninterrupted one to the bit."""

import subprocess

from run_fixture import BIN, STEPS, UNDISTURBED, Run, RunTestCase, main


class ResumedRun(RunTestCase):
    def test_killed_with_three_workers_and_resumed_with_two_it_equals_the_uninterrupted_run(self):
        with Run("resumed") as run:
            run.start("local.rollout_workers=3")
            run.await_step(12)
            run.kill_everything()
            killed_at = max(event["step"] for event in run.events("step_committed"))

            run.start("local.rollout_workers=2", "--resume", "auto").finish()

            self.check_ended_clean(run)
            self.check_equal_results(run, Run.finished(UNDISTURBED))
            resumed = run.events("timeline_begun")[-1]
            self.assertEqual(resumed["timeline"], 2)
            self.assertLess(killed_at, STEPS, "it was killed in the middle")

    def check_stays_ended_when_its_orchestrator_is_restarted(self, run):
        """A supervisor's restart of the orchestrator is not a person's resume."""
        done = subprocess.run(
            [BIN / "temper-orchestrator", "--restarted", "--config", run.dir / "resolved.yaml",
             "--run-dir", run.dir], check=False, timeout=40, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(run.events()[-1]["event"], "exit")
        self.assertEqual(run.events()[-1]["state"], "RUN_STATE_STOPPED")

    def test_stopped_by_a_signal_it_drains_and_goes_on_from_there(self):
        with Run("stopped") as run:
            run.start("local.rollout_workers=2")
            run.await_step(8)
            run.process.terminate()
            run.finish(40)
            run.await_no_process()
            self.check_accounting(run)
            self.assertEqual(run.summary()["state"], "stopped")
            self.check_stays_ended_when_its_orchestrator_is_restarted(run)

            run.start("--resume", "auto").finish()

            self.check_ended_clean(run)
            self.check_equal_results(run, Run.finished(UNDISTURBED))


if __name__ == "__main__":
    main()
