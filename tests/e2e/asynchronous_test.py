"""Training that samples ahead of the learner, within its bound of staleness."""

from run_fixture import STEPS, Run, RunTestCase, main


class Asynchronous(RunTestCase):
    def test_it_completes_within_the_staleness_bound(self):
        with Run("asynchronous", {"trainer": {"max_staleness": 2, "total_updates": STEPS}}) as run:
            run.start("local.rollout_workers=2").finish()
            self.check_ended_clean(run)
            lines = run.metrics()
            self.assertEqual(len(lines), STEPS)
            for line in lines:
                self.assertLessEqual(line["staleness_max"], 2)
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
