"""Runs under errors other than relative Gaussian: they act where configured and are replayed."""

from run_fixture import Run, RunTestCase, main

STEPS = 6
TYPES = {
    "saturation": {"fault_magnitude": 0.1},
    "spike": {"fault_magnitude": 0.1, "spike_probability": 0.01, "noise_key": "frozen"},
    # Steps of this size would leave nothing of a gradient.
    "truncation": {"error_scale": 0.02, "forward_only": True},
}


class ErrorTypes(RunTestCase):
    def check(self, error_type, parameters):
        both_ways = not parameters.get("forward_only", False)
        noisy = {"enabled": True, "error_type": error_type, **parameters}
        # The default, which is never idle, in place of the fixture's own.
        noisy.setdefault("error_scale", 0.05)
        changes = {"trainer": {"total_updates": STEPS, "noisy_ops": noisy,
                               "noise_injection": {"enabled": False}},
                   "eval": {"error_scales": [0.0, 0.2], "noise_seeds": 3}}
        with Run(f"error_{error_type}", changes) as run:
            run.start("local.rollout_workers=2").finish()
            self.check_ended_clean(run)
            lines = run.metrics()
            self.assertEqual(len(lines), STEPS)
            trained = [line for line in lines if not line["skipped"]]
            self.assertGreater(len(trained), 0)
            for line in lines:
                self.assertEqual(line["logprob_abs_diff_max"], 0, "sampler and learner agree")
                injections = line["injections"]
                self.assertGreater(injections["rollout"]["forward"]["elements_changed"], 0)
                self.assertGreater(injections["rollout"]["forward"]["achieved_error_scale"], 0)
                if line["skipped"]:
                    continue
                self.assertGreater(injections["train"]["forward"]["elements_changed"], 0)
                self.assertEqual(injections["train"]["backward"]["elements_changed"] > 0, both_ways)
            summary = run.summary()
            self.assertEqual(summary["error_type"], error_type)
            for evaluation in summary["evaluations"]:
                self.assertEqual(evaluation["perturbed_elements"] > 0,
                                 evaluation["error_scale"] > 0, evaluation)

    def test_saturation_acts_both_ways(self):
        self.check("saturation", TYPES["saturation"])

    def test_spikes_of_one_device_act_both_ways(self):
        self.check("spike", TYPES["spike"])

    def test_truncation_of_the_forward_pass_acts_there_alone(self):
        self.check("truncation", TYPES["truncation"])


if __name__ == "__main__":
    main()
