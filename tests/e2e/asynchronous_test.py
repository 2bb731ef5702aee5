"""Training that samples ahead of the learner, within its bound of staleness."""

from run_fixture import ROLES, STEPS, Run, RunTestCase, main

RECIPE = {"trainer": {"max_staleness": 2, "total_updates": STEPS}}


class Asynchronous(RunTestCase):
    def check_completed_within_its_bound(self, run):
        self.check_ended_clean(run)
        lines = run.metrics()
        self.assertEqual([line["step"] for line in lines], list(range(1, STEPS + 1)))
        for line in lines:
            self.assertLessEqual(line["staleness_max"], 2)
        return lines

    def test_killed_in_part_and_then_as_a_whole_it_loses_and_repeats_no_group(self):
        with Run("asynchronous_killed", RECIPE) as run:
            run.start("local.rollout_workers=2")
            run.await_step(self.draw_step(high=15))
            run.kill(*self.drawn("roles", self.random.sample(ROLES, 2)))
            committed = len(run.events("step_committed"))
            run.await_event("step_committed", count=committed + self.random.randint(1, 10))
            run.kill_everything()
            run.start("local.rollout_workers=3", "--resume", "auto").finish()
            self.check_completed_within_its_bound(run)

    def test_it_completes_within_the_staleness_bound(self):
        with Run("asynchronous", RECIPE) as run:
            run.start("local.rollout_workers=2").finish()
            lines = self.check_completed_within_its_bound(run)
            trained = [line for line in lines if not line["skipped"]]
            self.assertGreaterEqual(len(trained), STEPS // 2)
            for line in trained:
                self.assertTrue(0 < line["effective_sample_size"] <= 1, line)
            self.assertGreater(max(line["staleness_max"] for line in trained), 0,
                               "sampling ran ahead of the learner")
            resolved = (run.dir / "resolved.yaml").read_text()
            self.assertRegex(resolved, r'importance_sampling: "token"')


if __name__ == "__main__":
    main()
