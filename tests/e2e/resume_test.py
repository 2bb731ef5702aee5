"""Runs A and B: a run killed at drawn moments and resumed equals the uninterrupted one to the bit."""

import os
import signal
import subprocess

from run_fixture import BIN, STEPS, UNDISTURBED, Run, RunTestCase, main, pause, processes_of


class ResumedRun(RunTestCase):
    def check_equals_undisturbed(self, run):
        self.check_ended_clean(run)
        self.check_equal_results(run, Run.finished(UNDISTURBED), ("worker", "attempt"))

    def test_killed_with_three_workers_and_resumed_with_two_it_equals_the_uninterrupted_run(self):
        with Run("resumed") as run:
            run.start("local.rollout_workers=3")
            run.await_step(self.draw_step())
            run.kill_everything()
            killed_at = max(event["step"] for event in run.events("step_committed"))

            run.start("local.rollout_workers=2", "--resume", "auto").finish()

            self.check_equals_undisturbed(run)
            resumed = run.events("timeline_begun")[-1]
            self.assertEqual(resumed["timeline"], 2)
            self.assertLess(killed_at, STEPS, "it was killed in the middle")

    def test_killed_again_and_again_with_any_number_of_workers(self):
        with Run("resumed_often") as run:
            words = []
            for kill in range(3):
                workers = self.drawn("workers", self.random.randint(1, 3))
                run.start(f"local.rollout_workers={workers}", *words)
                [begun] = run.await_event("timeline_begun", timeline=kill + 1)
                low = begun["resume_step"] + 1
                step = self.draw_step(low, max(low, STEPS - 5 * (3 - kill)))
                run.await_event("version_out", timeline=kill + 1, version=step)
                pause(self.drawn("seconds into it", round(self.random.uniform(0, 0.1), 3)))
                run.kill_everything()
                words = ["--resume", "auto"]
            run.start(*words).finish()
            self.check_equals_undisturbed(run)

    def test_when_temper_alone_is_killed_nothing_outlives_it_and_the_run_can_go_on(self):
        with Run("killed_temper") as run:
            run.start("local.rollout_workers=2")
            run.await_step(self.draw_step())
            self.assertGreaterEqual(len(processes_of(run.dir)), 6)
            os.kill(run.process.pid, signal.SIGKILL)
            run.process.wait(10)
            # At once: what the kill left is still about to die.
            run.start("--resume", "auto").finish()
            self.check_equals_undisturbed(run)

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
            run.await_step(self.draw_step())
            run.process.terminate()
            run.finish(40)
            run.await_no_process()
            self.check_accounting(run)
            self.assertEqual(run.summary()["state"], "stopped")
            self.check_stays_ended_when_its_orchestrator_is_restarted(run)

            run.start("--resume", "auto").finish()

            self.check_equals_undisturbed(run)


if __name__ == "__main__":
    main()
