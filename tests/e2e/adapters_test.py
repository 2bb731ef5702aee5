"""Runs that train adapters, with real processes: the base stays and is sent once, a killed run resumed
equals the uninterrupted one, and the merged model evaluates as the adapted one."""

import json
import re

from run_fixture import Run, RunTestCase, file_hash, json_lines, main, temper, without_times

STEPS = 12
DISTURBED = ("timeline", "attempts_leased", "refused", "generation_failed", "reward_failed",
             "lease_expired", "superseded", "drained", "rewound")
LORA = {"trainer": {"total_updates": STEPS, "noise_injection": {"enabled": False},
                    "optimizer": {"learning_rate": 1e-2},
                    "lora": {"enabled": True, "rank": 8, "alpha": 16}},
        "checkpoint": {"every": 3}}


class Adapters(RunTestCase):
    @classmethod
    def setUpClass(cls):
        with Run("adapters", LORA) as run:
            run.start("local.rollout_workers=2").finish()
            cls.whole = Run.finished(run.folder)
        cls.recipe = run.recipe

    def last(self, run):
        return run.dir / f"checkpoints/step_{STEPS}"

    def summary_of(self, model, folder):
        done = temper("eval", model, "--recipe", self.recipe, "--error-scale", "0,0.1",
                      f"run_dir={folder}", seconds=90)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads((folder / "summary.json").read_text())

    def test_the_base_stays_the_gap_is_zero_and_adapters_alone_are_sent(self):
        run = self.whole
        self.check_ended_clean(run)
        lines = run.metrics()
        self.assertEqual(len(lines), STEPS)
        self.assertEqual(len({line["base_weights_hash"] for line in lines}), 1)
        trained = [line for line in lines if not line["skipped"]]
        self.assertGreater(len(trained), STEPS // 2)
        self.assertEqual(len({line["adapter_weights_hash"] for line in trained}), len(trained))
        for line in lines:
            self.assertEqual(line["logprob_abs_diff_max"], 0, "sampler and learner agree")
        for worker in (0, 1):
            log = (run.dir / f"logs/rollout_worker-{worker}.log").read_text()
            self.assertEqual(len(re.findall(r"event=base_pulled ", log)), 1, "once per worker")
        self.assertEqual(sorted(path.name for path in (self.last(run) / "adapter").iterdir()),
                         ["adapter_config.json", "adapter_model.safetensors"])
        self.assertFalse((self.last(run) / "hf").exists())
        config = json.loads((self.last(run) / "adapter/adapter_config.json").read_text())
        self.assertEqual((config["peft_type"], config["r"], config["lora_alpha"]), ("LORA", 8, 16))

    def test_killed_and_resumed_it_equals_the_uninterrupted_run(self):
        with Run("adapters_resumed", LORA) as run:
            run.start("local.rollout_workers=1", "weights.broadcaster=shared_memory")
            run.await_step(self.draw_step(4, STEPS - 4))
            run.kill_everything()
            run.start("local.rollout_workers=2", "weights.broadcaster=shared_memory", "--resume",
                      "auto").finish()
            self.check_ended_clean(run)
            for one, two in zip(run.metrics(), self.whole.metrics(), strict=True):
                self.assertEqual(without_times(one, DISTURBED), without_times(two, DISTURBED))
            for name in ("adapter/adapter_model.safetensors", "state/optimizer.safetensors",
                         "state/trainer.json"):
                self.assertEqual(file_hash(self.last(run) / name),
                                 file_hash(self.last(self.whole) / name), name)
            self.assertEqual(run.summary()["by_scale"], self.whole.summary()["by_scale"])

    def test_the_merged_model_evaluates_as_the_adapter_and_as_the_run_did(self):
        folder = self.whole.folder / "merge"
        done = temper("merge", self.last(self.whole), folder / "merged")
        self.assertEqual(done.returncode, 0, done.stderr)
        ids = json.dumps({"ids": list(range(3, 60))}).encode()
        adapted, merged = (
            json_lines(temper("logprobs", model, stdin=ids).stdout)[0]["logprobs"]
            for model in (self.last(self.whole), folder / "merged"))
        self.assertLess(max(abs(a - b) for a, b in zip(adapted, merged, strict=True)), 1e-5)
        by_adapter = self.summary_of(self.last(self.whole), folder / "eval_adapter")
        by_merged = self.summary_of(folder / "merged", folder / "eval_merged")
        after = {evaluation["error_scale"]: evaluation["accuracy"]
                 for evaluation in self.whole.summary()["evaluations"]
                 if evaluation["version"] == STEPS}
        for summary in (by_adapter, by_merged):
            self.assertEqual([row["error_scale"] for row in summary["evaluations"]], [0, 0.1])
        for one, two in zip(by_adapter["evaluations"], by_merged["evaluations"], strict=True):
            self.assertEqual(one["accuracy"], after[one["error_scale"]])
            # Error on the merged weight acts on the adapter's part too: another model.
            if one["error_scale"] == 0:
                self.assertEqual(two["accuracy"], one["accuracy"])

    def test_mistakes_are_named_before_anything_starts(self):
        for override, said in (
                ("trainer.lora.rank=17", "trainer.lora.rank: 17 is outside 1 to 16"),
                ("trainer.lora.target_modules=[q_prok]", "'q_prok' selects no linear"),
                ("trainer.lora.enabled=false", None),
                ("trainer.noisy_ops.target_modules=[q, lora_a]", None)):
            done = temper("check", self.recipe, override)
            if said is None:
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, r"(?m)^# trained parameters: \d+")
            else:
                self.assertEqual(done.returncode, 2, done.stdout)
                self.assertIn(said, done.stderr)
        off = temper("check", self.recipe, "trainer.lora.enabled=false",
                     "trainer.noisy_ops.target_modules=[q, lora_a]")
        self.assertEqual(off.returncode, 2)
        self.assertIn("lora_a", off.stderr)


if __name__ == "__main__":
    main()
