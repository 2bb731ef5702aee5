"""kill -9 of roles at drawn moments: the run completes with the result it would have had."""

import os
import pathlib
import signal
import subprocess
import time

from run_fixture import (BIN, ROLES, STEPS, UNDISTURBED, Run, RunTestCase, main, pause,
                         wait_until)


class KilledRoles(RunTestCase):
    # A group of a killed worker is leased again, so its attempt is a later one.
    IGNORED = ("worker", "attempt")

    def check_equals_undisturbed(self, run, checkpoints=True):
        run.finish()
        self.check_ended_clean(run)
        self.check_equal_results(run, Run.finished(UNDISTURBED), self.IGNORED, checkpoints)

    def await_drawn_moment(self, run):
        """Somewhere within some step."""
        run.await_step(self.draw_step())
        pause(self.drawn("seconds into it", round(self.random.uniform(0, 0.1), 3)))

    def test_a_killed_worker_costs_only_its_leases(self):
        with Run("killed_worker") as run:
            run.start("local.rollout_workers=2")
            self.await_drawn_moment(run)
            run.kill("rollout_worker-0")
            self.check_equals_undisturbed(run)
            self.assertEqual(len(run.events("timeline_begun")), 1)

    def test_a_killed_reward_server_is_replaced(self):
        with Run("killed_reward_server") as run:
            run.start()
            self.await_drawn_moment(run)
            run.kill("reward_server-0")
            self.check_equals_undisturbed(run)

    def test_a_killed_learner_continues_from_its_checkpoint_in_a_new_timeline(self):
        with Run("killed_learner") as run:
            run.start()
            self.await_drawn_moment(run)
            run.kill("learner-0")
            self.check_equals_undisturbed(run)
            timelines = [event["timeline"] for event in run.events("timeline_begun")]
            self.assertEqual(timelines, [1, 2])

    def test_a_killed_orchestrator_forgets_nothing(self):
        with Run("killed_orchestrator") as run:
            run.state_dir = run.folder / "state"
            run.start()
            self.await_drawn_moment(run)
            before = run.record()
            run.kill("orchestrator-0")
            self.check_equals_undisturbed(run)
            after = run.record()
            self.assertNotEqual(after["pid"], before["pid"])
            self.assertEqual(after["address"], before["address"], "the recorded port is used again")

    def test_two_roles_killed_within_a_tenth_of_a_second(self):
        with Run("killed_two") as run:
            run.start()
            two = self.drawn("roles", self.random.sample(ROLES, 2))
            self.await_drawn_moment(run)
            run.kill(*two, apart=self.drawn("apart", round(self.random.uniform(0, 0.1), 3)))
            self.check_equals_undisturbed(run)

    def test_every_role_killed_at_once(self):
        with Run("killed_all") as run:
            run.start("local.rollout_workers=2")
            self.await_drawn_moment(run)
            run.kill(*ROLES, "rollout_worker-1")
            self.check_equals_undisturbed(run)

    def test_a_learner_killed_while_it_writes_a_checkpoint_leaves_whole_ones_only(self):
        with Run("killed_in_checkpoint") as run:
            run.start("checkpoint.every=2")
            run.await_step(self.draw_step())
            learner = run.await_member("learner-0")
            partial = stop_while_it_writes(run, learner)
            os.kill(learner, signal.SIGKILL)
            wait_until(lambda: run.member("learner-0") not in (None, learner), 30,
                       "another learner has started")
            self.assertTrue(partial.exists(), "the kill came in the middle of a write")
            self.check_equals_undisturbed(run, checkpoints=False)
            self.assertEqual(list(run.dir.glob("checkpoints/*.*")), [], "what is half is removed")

    def test_an_orchestrator_killed_during_evaluation_keeps_the_answers_it_has(self):
        with Run("killed_in_evaluation") as run:
            run.start("local.rollout_workers=0")
            run.await_event("eval_started", version=0)
            run.kill("orchestrator-0")
            run.await_event("restart")
            worker = subprocess.Popen(
                [BIN / "temper-rollout-worker", "--join", run.record()["address"], "--member-id",
                 "by-hand", "--log-file", run.dir / "logs/by-hand.log"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(worker.kill)
            wait_until(lambda: moved_a_little(worker.pid) and answers(run), 60, "a first answer")
            run.kill("orchestrator-0")
            worker.send_signal(signal.SIGCONT)
            self.check_equals_undisturbed(run)
            self.assertEqual(worker.wait(20), 0)
            self.assertEqual(len(run.events("restart")), 2)
            self.assertEqual(answers(run), 2 * 2 * 8, "versions, error scales, questions")

    def test_a_stopped_worker_that_wakes_late_changes_nothing(self):
        with Run("frozen_worker") as run:
            run.start("local.rollout_workers=2")
            run.await_step(self.draw_step(high=5))
            frozen = run.await_member("rollout_worker-0")
            os.kill(frozen, signal.SIGSTOP)
            run.await_event("gone", 30, member="rollout_worker-0")
            os.kill(frozen, signal.SIGCONT)
            self.check_equals_undisturbed(run)

    def test_a_worker_that_stands_still_again_and_again_is_only_slow(self):
        with Run("slow_worker") as run:
            run.start()
            run.await_step(self.draw_step(high=10))
            slow = run.await_member("rollout_worker-0")
            for _ in range(6):  # each shorter than the time after which it would count as gone
                os.kill(slow, signal.SIGSTOP)
                pause(round(self.random.uniform(0.2, 1.0), 3))
                os.kill(slow, signal.SIGCONT)
                pause(round(self.random.uniform(0.01, 0.1), 3))
            self.check_equals_undisturbed(run)
            self.assertEqual(run.events("gone"), [])
            self.assertEqual(run.ledger("SELECT COUNT(*) FROM attempts WHERE ending = 7"), [(0,)])


def moved_a_little(pid):
    """Lets a process run for a moment and leaves it stopped, so that it does not run ahead."""
    os.kill(pid, signal.SIGCONT)
    pause(0.02)
    os.kill(pid, signal.SIGSTOP)
    return True


def answers(run):
    [(count,)] = run.ledger("SELECT COUNT(*) FROM eval_outcomes")
    return count


def stop_while_it_writes(run, learner):
    """Stops the learner in the middle of a checkpoint and returns the folder of its writing. Looks
    without pause, since that is there for milliseconds."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for partial in run.dir.glob("checkpoints/*.partial"):
            os.kill(learner, signal.SIGSTOP)
            wait_until(lambda: state_of(learner) == "T", 10, "the learner stands still")
            if partial.exists():
                return partial
            os.kill(learner, signal.SIGCONT)
    raise AssertionError("no checkpoint was caught being written within 30 s")


def state_of(pid):
    """The letter of /proc that says what a process does; T: stopped."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


if __name__ == "__main__":
    main()
