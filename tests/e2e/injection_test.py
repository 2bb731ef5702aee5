"""Runs under hw_error_injection: W4A16 and W4A4, replayed by the learner and judged under it."""

from run_fixture import Run, RunTestCase, main, temper

STEPS = 4


class Injection(RunTestCase):
    def check(self, injection, tensors, **trainer):
        changes = {"trainer": {"total_updates": STEPS, "gap_probe_every": 2,
                               "noisy_ops": {"enabled": False},
                               "noise_injection": {"enabled": False},
                               "hw_error_injection": {"enabled": True, **injection}, **trainer},
                   "eval": {"error_scales": [0.0, 0.1]}}
        name = f"{injection['error_type']}_{injection['injection_point']}"
        with Run(f"injection_{name}", changes) as run:
            checked = temper("check", run.recipe)
            self.assertEqual(checked.returncode, 0, checked.stderr)
            self.assertIn(f"# hw_error_injection: {injection['error_type']}", checked.stdout)
            run.start("local.rollout_workers=2").finish()
            self.check_ended_clean(run)
            lines = run.metrics()
            self.assertEqual(len(lines), STEPS)
            for line in lines:
                self.assertEqual(line["logprob_abs_diff_max"], 0, "sampler and learner agree")
                phases = [line["injections"]["rollout"]["forward"]]
                if not line["skipped"]:
                    phases += [line["injections"]["train"][way] for way in ("forward", "backward")]
                for counts in phases:
                    self.assertEqual(counts["elements"], 0, "the rows of noisy_ops are their own")
                    for tensor in ("input_operand", "weight_operand", "injected_output"):
                        self.assertEqual(tensor in counts, tensor in tensors, tensor)
                    for tensor in tensors:
                        self.assertGreater(counts[tensor]["elements_changed"], 0)
                        self.assertGreater(counts[tensor]["achieved_error_scale"], 0.05)
                        self.assertLess(counts[tensor]["achieved_error_scale"], 0.2)
            probes = [line["gap_probe"] for line in lines if "gap_probe" in line]
            self.assertGreater(sum(probe["tokens"] for probe in probes), 0)
            for probe in probes:
                if probe["tokens"]:
                    self.assertEqual(probe["precision_abs_max"], 0)
                    self.assertGreater(probe["noise_abs_max"], 0)
            summary = run.summary()
            self.assertRegex(summary["injection"],
                             f"^{injection['error_type']}.* {injection['injection_point']}$")
            by_injected = {True: [], False: []}
            for evaluation in summary["evaluations"]:
                by_injected[evaluation["injected"]].append(evaluation["version"])
                self.assertEqual(evaluation["injected_elements"] > 0, evaluation["injected"])
                self.assertEqual(evaluation["perturbed_elements"] > 0,
                                 evaluation["error_scale"] > 0)
            self.assertEqual(by_injected, {True: [0, STEPS], False: [0, 0, STEPS, STEPS]})
            self.assertEqual([(row["injected"], row["error_scale"]) for row in summary["paired"]],
                             [(False, 0), (False, 0.1), (True, 0)])
            self.assertIn(f"\n{summary['injection']} ", run.output.read_text())

    def test_weights_of_mxfp4_train(self):
        self.check({"error_type": "mxfp4", "injection_point": "weight",
                    "exclude_modules": ["lm_head", "embed_tokens"]}, ["weight_operand"])

    def test_weights_and_inputs_of_nvfp4_train(self):
        self.check({"error_type": "nvfp4", "injection_point": "both"},
                   ["weight_operand", "input_operand"])

    def test_a_weight_error_is_drawn_alike_in_sampler_and_learner(self):
        self.check({"error_type": "relative_gaussian", "error_scale": 0.1,
                    "injection_point": "weight"}, ["weight_operand"],
                   minibatches_per_step=2, dapo={"old_logprob": "recomputed"})


if __name__ == "__main__":
    main()
