"""The inspection commands: JSON lines on standard output, and nothing else there."""

import json
import unittest

from run_fixture import (ROOT, TINY_POLICY, file_hash, fresh_folder, json_lines, main, processes_of,
                         temper, write_recipe)

EXAMPLE = ROOT / "recipes/findings/hw-error.yaml"


class Commands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = fresh_folder("commands")
        cls.recipe = write_recipe(cls.folder)

    def output(self, *arguments, stdin=b""):
        done = temper(*arguments, stdin=stdin)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_schedule_prints_sigma_of_every_update(self):
        lines = json_lines(self.output("schedule", self.recipe, "trainer.total_updates=9"))
        self.assertEqual([line["update"] for line in lines], list(range(9)))
        # Three stages, of three updates each: nothing first, then from start to end by a factor.
        self.assertEqual(lines[0]["sigma"], 0)
        self.assertAlmostEqual(lines[3]["sigma"], 0.05)
        self.assertAlmostEqual(lines[6]["sigma"], 0.0005)

    def test_schedule_takes_epochs_in_place_of_updates(self):
        lines = json_lines(self.output("schedule", EXAMPLE, "trainer.epochs=2",
                                       "trainer.updates_per_epoch=29"))
        self.assertEqual(len(lines), 58)
        # Per epoch one sixth without noise, then five stages; the second epoch begins lower.
        self.assertEqual((lines[0]["sigma"], lines[29]["sigma"]), (0, 0))
        self.assertAlmostEqual(lines[5]["sigma"], 0.05)
        self.assertAlmostEqual(lines[34]["sigma"], 0.005)

    def test_score_reads_the_answer_by_each_rule(self):
        samples = self.folder / "samples.jsonl"
        samples.write_text('{"completion": "So it is 18.\\n#### 18", "answer": "18"}\n'
                           '{"completion": "It is 18", "answer": "18"}\n'
                           '{"completion": "#### 7", "answer": "#### 1,007"}\n')
        lines = json_lines(self.output("score", "--rule", "strict", samples))
        self.assertEqual([line["score"] for line in lines], [1, 0, 0])
        self.assertEqual(lines[0], {"score": 1, "extracted": "18"})
        lines = json_lines(self.output("score", "--rule", "flexible", samples))
        self.assertEqual([line["score"] for line in lines], [1, 1, 0])

    def test_tokenize_keeps_every_byte(self):
        empty = self.output("tokenize", TINY_POLICY)
        self.assertEqual(json.loads(empty), [])
        once = json.loads(self.output("tokenize", TINY_POLICY, stdin=b"2 + 3"))
        line = json.loads(self.output("tokenize", TINY_POLICY, stdin=b"2 + 3\n"))
        self.assertEqual(line[:len(once)], once)
        self.assertEqual(len(line), len(once) + 1, "the line end is a token")

    def test_logprobs_are_one_per_token_after_the_first(self):
        ids = self.folder / "ids.jsonl"
        ids.write_text('{"ids": [5, 6, 7, 8]}\n{"ids": [9, 10]}\n')
        clean = json_lines(self.output("logprobs", TINY_POLICY, ids))
        self.assertEqual([len(line["logprobs"]) for line in clean], [3, 1])
        self.assertTrue(all(value < 0 for line in clean for value in line["logprobs"]))
        noisy = json_lines(self.output("logprobs", TINY_POLICY, ids, "--error-scale", "0.1"))
        self.assertNotEqual(clean, noisy)
        self.assertEqual(clean, json_lines(self.output("logprobs", TINY_POLICY, ids)))

    def test_quantize_writes_a_model_that_other_commands_open(self):
        ids = self.folder / "quantize_ids.jsonl"
        ids.write_text('{"ids": [5, 6, 7, 8, 9, 10]}\n')
        clean = json_lines(self.output("logprobs", TINY_POLICY, ids))
        for name, *flags in (("mxfp4",), ("mxfp4", "--block-2d"), ("nvfp4",),
                             ("fp8", "--fp8-scale", "block")):
            out = self.folder / "-".join(["quantized", name, *flags]).replace("--", "")
            done = temper("quantize", TINY_POLICY, out, "--format", name, *flags)
            self.assertEqual(done.returncode, 0, done.stderr)
            lines = json_lines(done.stdout)
            self.assertTrue(all(line["name"].endswith("_proj.weight") for line in lines), lines)
            for line in lines:
                self.assertEqual(line["format"], name)
                low, high = (25, 40) if name == "fp8" else (15, 25)
                self.assertTrue(low < line["sqnr_db"] < high, line)
                self.assertTrue(0 <= line["dead_zone"] < 0.3, line)
                self.assertTrue(0 < line["relative_error"] < 0.5, line)
                self.assertTrue(0 <= line["saturation"] < 0.3, line)
            self.assertIn("SQNR median", done.stderr)
            quantized = json_lines(self.output("logprobs", out, ids))
            self.assertNotEqual(quantized, clean)
            self.assertEqual(quantized, json_lines(self.output("logprobs", out, ids)))
            again = self.folder / f"{out.name}-again"
            self.output("quantize", TINY_POLICY, again, "--format", name, *flags)
            self.assertEqual(file_hash(again / "model.safetensors"),
                             file_hash(out / "model.safetensors"))

    def test_quantize_refuses_what_exists_and_what_does_not_fit(self):
        out = self.folder / "refused"
        for words, reason in (((TINY_POLICY, self.folder, "--format", "mxfp4"), "exists"),
                              ((TINY_POLICY, out, "--format", "nvfp4", "--block-2d"), "32 x 32"),
                              ((TINY_POLICY, out, "--format", "mxfp4", "--fp8-scale", "row"), "fp8"),
                              ((TINY_POLICY, out, "--format", "int3"), "int3"),
                              ((TINY_POLICY, out, "--format", "fp8", "--exclude", "no_such"),
                               "no_such"),
                              ((self.folder / "nowhere", out, "--format", "fp8"), "nowhere")):
            done = temper("quantize", *words)
            self.assertIn(done.returncode, (1, 2), done.stderr)
            self.assertIn(reason, done.stderr)
            self.assertEqual(done.stdout, "")
        self.assertEqual([path.name for path in self.folder.glob("refused*")], [])

    def test_problems_are_generated_alike_every_time(self):
        first = json_lines(self.output("problems", self.recipe, "--count", "3"))
        self.assertEqual(len(first), 3)
        for problem in first:
            self.assertTrue(problem["solution"].endswith(f"#### {problem['truth']}"), problem)
        self.assertEqual(first, json_lines(self.output("problems", self.recipe, "--count", "3")))
        held_out = json_lines(self.output("problems", self.recipe, "--split", "eval"))
        self.assertNotIn(first[0]["prompt"], [problem["prompt"] for problem in held_out])

    def test_check_prints_the_resolved_configuration(self):
        printed = self.output("check", self.recipe, "seed=7")
        self.assertIn("seed: 7\n", printed)
        self.assertRegex(printed, r"(?m)^# fingerprint: [0-9a-f]{16}$")
        resolved = self.folder / "resolved.yaml"
        resolved.write_text(printed)
        self.assertEqual(self.output("check", resolved), printed, "it reads its own output")

    def test_eval_writes_the_record_that_a_run_writes(self):
        run_dir = self.folder / "eval"
        printed = self.output("eval", TINY_POLICY, "--recipe", self.recipe, "--error-scale",
                              "0,0.05,0.2", f"run_dir={run_dir}")
        summary = json.loads((run_dir / "summary.json").read_text())
        self.assertEqual([row["error_scale"] for row in summary["by_scale"]], [0, 0.05, 0.2])
        for row in summary["evaluations"]:
            self.assertEqual((row["version"], row["n"], row["done"]), (0, 8, 8))
            self.assertAlmostEqual(row["achieved_error_scale"], row["error_scale"], delta=0.01)
        self.assertEqual((summary["state"], summary["steps"]), ("finished", 0))
        self.assertRegex(printed, r"(?m)^20 % +\d")
        self.assertEqual(processes_of(run_dir), {})


if __name__ == "__main__":
    main()
