"""AQN's draws and places with real processes: what the sampler drew, the learner draws too."""

from run_fixture import Run, RunTestCase, fresh_folder, main, temper, write_recipe

STEPS = 9  # the first three without AQN


def changes(trainer, **aqn):
    return {"trainer": {"total_updates": STEPS, "gap_probe_every": 1, "noise_injection": aqn,
                        **trainer},
            "eval": {"enabled": False}}


class Aqn(RunTestCase):
    def test_every_group_has_a_draw_of_its_own_that_the_learner_replays(self):
        with Run("aqn_per_group", changes({}, draw="per_group", where="both")) as run:
            run.start("local.rollout_workers=2").finish()
            self.check_ended_clean(run)
            noisy = [line for line in run.metrics() if not line["skipped"] and line["sigma"] > 0]
            self.assertGreater(len(noisy), 0)
            for line in noisy:
                self.assertEqual(line["logprob_abs_diff_max"], 0, "one function, one draw")
                self.assertGreater(line["aqn"]["elements_changed"], 0)
                self.assertGreater(line["aqn_learner"]["elements_changed"], 0)

    def test_a_worker_has_draws_of_its_own_that_a_probe_recreates_from_its_name(self):
        with Run("aqn_per_worker", changes({"max_staleness": 1}, draw="per_worker")) as run:
            run.start("local.rollout_workers=2").finish()
            self.check_ended_clean(run)
            probes = [line["gap_probe"] for line in run.metrics()
                      if line.get("gap_probe", {}).get("tokens")]
            self.assertGreater(len(probes), 0)
            for probe in probes:
                self.assertEqual(probe["precision_abs_max"], 0, probe)
            self.assertGreater(max(probe["aqn_abs_mean"] for probe in probes), 0)

    def test_what_cannot_act_is_refused_before_anything_starts(self):
        folder = fresh_folder("aqn_refused")
        for aqn, reason in (({"target_modules": ["mlp.router"]}, "a dense model has no router"),
                            ({"target_modules": ["q_norm"]}, "no q_norm"),
                            ({"draw": "per_worker"}, "max_staleness above 0"),
                            ({"target_modules": ["o_proj"]}, "of linears")):
            recipe = write_recipe(folder, changes({}, **aqn))
            done = temper("run", recipe, f"run_dir={folder / 'run'}")
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(reason, done.stderr)


if __name__ == "__main__":
    main()
