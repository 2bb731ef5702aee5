"""Rebuilds a small warm start with `temper sft`, which the other tests here sample from."""

import json
import shutil
import unittest

from run_fixture import (ROOT, TINY_DATASET, TINY_POLICY, TINY_ROLLOUT, fresh_folder, json_lines,
                         main, temper, write_recipe)

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64}
STEPS = 400


class TinyPolicy(unittest.TestCase):
    def test_a_small_warm_start_learns_and_its_checkpoint_is_a_model(self):
        folder = fresh_folder("tiny_policy_making")
        shape = json.loads((ROOT / "recipes/quickstart/config.json").read_text()) | SHAPE
        begin = folder / "untrained"
        begin.mkdir()
        (begin / "config.json").write_text(json.dumps(shape))
        shutil.copy(ROOT / "recipes/quickstart/tokenizer.json", begin)
        recipe = write_recipe(folder, base={
            "model": {"path": str(begin)}, "dataset": TINY_DATASET, "rollout": TINY_ROLLOUT,
            "trainer": {"loss": "sft", "total_updates": STEPS, "threads": 2,
                        "sft": {"problems_per_step": 32},
                        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 10}},
            "checkpoint": {"every": 0}})

        done = temper("sft", recipe, f"run_dir={folder}/run", seconds=100)

        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        losses = [line["loss"] for line in json_lines(done.stdout) if "loss" in line]
        self.assertGreater(losses[0], 3.0, "an untrained policy knows nothing")
        self.assertLess(losses[-1], 0.2, losses)
        made = folder / f"run/checkpoints/step_{STEPS}/hf"
        shutil.rmtree(TINY_POLICY, ignore_errors=True)
        shutil.copytree(made, TINY_POLICY)
        ids = temper("tokenize", TINY_POLICY, stdin=b"2 + 3 = 5")
        self.assertEqual(ids.returncode, 0, ids.stderr)


if __name__ == "__main__":
    main()
