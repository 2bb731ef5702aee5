"""A tiny run from the first process to the last file. Other tests compare theirs with it."""

import json
import unittest

from run_fixture import STEPS, UNDISTURBED, Run, RunTestCase, http_get, main, temper

METRICS = """step timeline policy_version skipped reward_mean accuracy_raw format_rate sigma entropy
    completion_tokens_mean truncated_ratio clip_fraction_low clip_fraction_high grad_norm
    learning_rate groups staleness_max logprob_abs_diff_mean logprob_abs_diff_max kl_sampler_learner
    tokens_generated tokens_trained injections achieved_error_scale base_weights_hash
    update_seconds""".split()
ROLES = {"orchestrator", "reward_server", "learner", "rollout_worker"}


class UndisturbedRun(RunTestCase):
    @classmethod
    def setUpClass(cls):
        cls.run_ = Run(UNDISTURBED.name)
        cls.addClassCleanup(cls.run_.kill_everything)
        cls.run_.start()
        cls.run_.await_step(1)
        address = cls.run_.record()["metrics_address"]
        cls.discovered = json.loads(http_get(address, "/sd"))
        cls.exported = {target["labels"]["role"]: http_get(target["targets"][0], "/metrics")
                        for target in cls.discovered}
        cls.metrics_address = address
        cls.run_.finish()

    def test_it_finishes_and_keeps_the_accounting_law(self):
        self.check_ended_clean(self.run_)

    def test_the_run_directory_holds_every_file(self):
        last = f"checkpoints/step_{STEPS}"
        files = ["config.yaml", "resolved.yaml", "metrics.jsonl", "events.jsonl", "summary.json",
                 "ledger.db", "prometheus.yml", "logs/learner-0.log",
                 f"{last}/hf/config.json", f"{last}/hf/model.safetensors",
                 f"{last}/hf/tokenizer.json", f"{last}/state/optimizer.safetensors",
                 f"{last}/state/trainer.json", f"{last}/MANIFEST.json",
                 *(f"samples/step_{step}.jsonl" for step in range(1, STEPS + 1))]
        self.assertEqual([name for name in files if not (self.run_.dir / name).is_file()], [])

    def test_every_step_has_one_complete_line(self):
        lines = self.run_.metrics()
        self.assertEqual([line["step"] for line in lines], list(range(1, STEPS + 1)))
        for line in lines:
            self.assertEqual([name for name in METRICS if name not in line], [])
            self.assertEqual(line["policy_version"], line["step"])
            self.assertEqual(line["staleness_max"], 0)
        sigmas = [line["sigma"] for line in lines]
        self.assertEqual(sigmas[0], 0, "the first stage is without noise")
        self.assertEqual((max(sigmas), sigmas[-1]), (0.05, 0.0005))

    def test_something_was_learned_from(self):
        trained = [line for line in self.run_.metrics() if not line["skipped"]]
        self.assertGreaterEqual(len(trained), STEPS // 2, "most steps were skipped")
        for line in trained:
            self.assertGreater(line["grad_norm"], 0)
            self.assertGreater(line["tokens_trained"], 0)
        hashes = [line["base_weights_hash"] for line in trained]
        self.assertEqual(len(set(hashes)), len(hashes), "an update that changed nothing")

    def test_noise_acted_in_rollouts_and_in_training(self):
        for line in self.run_.metrics():
            seen = {phase: set(directions) for phase, directions in line["injections"].items()}
            self.assertIn("forward", seen.get("rollout", ()))
            if line["skipped"]:
                continue
            self.assertEqual(seen["train"], {"forward", "backward"})
            for direction in line["injections"]["train"].values():
                self.assertAlmostEqual(direction["achieved_error_scale"], 0.1, delta=0.02)
            self.assertAlmostEqual(line["achieved_error_scale"], 0.1, delta=0.01)

    def test_the_learner_sees_what_the_sampler_saw_but_for_aqn(self):
        # The same error is replayed; AQN perturbs the norms of the rollouts alone.
        for line in self.run_.metrics():
            self.assertLess(line["logprob_abs_diff_mean"], 0.5)

    def test_every_tenth_step_splits_the_gap_and_none_of_it_is_imprecision(self):
        trained = [line for line in self.run_.metrics() if line["groups"]["trained"] > 0]
        probed = [line for line in trained if "gap_probe" in line]
        self.assertEqual([line["step"] for line in probed],
                         [line["step"] for line in trained if line["step"] % 10 == 0])
        self.assertGreaterEqual(len(probed), 2)
        for line in probed:
            probe = line["gap_probe"]
            self.assertEqual(probe["groups"], min(2, line["groups"]["trained"]))
            self.assertEqual((probe["precision_abs_max"], probe["staleness_abs_max"]), (0, 0))
            self.assertEqual(probe["aqn_abs_max"] > 0, line["sigma"] > 0)
            self.assertGreater(probe["noise_abs_mean"], 0)
            terms = ("precision", "aqn", "staleness", "noise")
            self.assertAlmostEqual(sum(probe[f"{term}_mean"] for term in terms),
                                   probe["whole_mean"], places=9)

    def test_the_summary_holds_intervals_and_paired_tests(self):
        summary = self.run_.summary()
        self.assertEqual({(row["version"], row["error_scale"]) for row in summary["evaluations"]},
                         {(0, 0.0), (0, 0.1), (STEPS, 0.0), (STEPS, 0.1)})
        for row in summary["evaluations"]:
            self.assertEqual((row["n"], row["done"]), (8, 8))
            low, high = row["interval"]
            self.assertTrue(0 <= low <= row["accuracy"] <= high <= 1, row)
            self.assertAlmostEqual(row["achieved_error_scale"], row["error_scale"], delta=0.01)
        self.assertEqual([row["error_scale"] for row in summary["paired"]], [0.0, 0.1])
        for row in summary["paired"]:
            self.assertTrue(0 <= row["p_value"] <= 1)
        self.assertGreater(summary["wall_seconds"], 0)
        self.assertGreater(summary["groups"]["trained"], 0)

    def test_samples_hold_completions_and_their_scores(self):
        for step in range(1, STEPS + 1):
            groups = self.run_.lines(f"samples/step_{step}.jsonl")
            self.assertGreaterEqual(len(groups), 4)
            for group in groups:
                self.assertEqual(len(group["completions"]), 4)
        shown = temper("samples", self.run_.dir, "--step", 1)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        first = self.run_.lines("samples/step_1.jsonl")[0]
        for text in (first["prompt"], first["truth"], first["completions"][0]["text"]):
            self.assertIn(text, shown.stdout)

    def test_the_table_of_accuracies_is_printed(self):
        printed = self.run_.output.read_text()
        self.assertIn(str(self.run_.dir), printed)
        self.assertRegex(printed, r"(?m)^10 % +\d+\.\d %.*\[.*\].* \d+\.\d %.*\[.*\]")
        self.assertEqual(printed.count("\r"), 0, "plain lines where standard output is no terminal")

    def test_every_role_is_discovered_and_exports_metrics(self):
        self.assertEqual({target["labels"]["role"] for target in self.discovered}, ROLES)
        own = {"orchestrator": "temper_orchestrator_step", "learner": "temper_learner_step",
               "reward_server": "temper_reward_samples_total",
               "rollout_worker": "temper_rollout_tokens_total"}
        for role, metric in own.items():
            self.assertRegex(self.exported[role], rf"(?m)^{metric}[ {{]")
            self.assertIn("temper_rpc_", self.exported[role])

    def test_prometheus_is_told_the_real_address(self):
        self.assertIn(f"http://{self.metrics_address}/sd",
                      (self.run_.dir / "prometheus.yml").read_text())


if __name__ == "__main__":
    main()
