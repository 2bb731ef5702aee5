"""temper scan from the outside: JSON lines and nothing else on standard output, files, refusals."""

import json
import unittest

from run_fixture import TINY_POLICY, fresh_folder, json_lines, main, temper, write_recipe

FEW = ["--prompts", "3", "--completion-tokens", "8", "--seed", "3"]


class Scan(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = fresh_folder("scan")
        cls.out = cls.folder / "healthy"
        done = temper("scan", TINY_POLICY, *FEW, "--format", "mxfp4,fp8", "--sensitivity", "--out", cls.out)
        assert done.returncode == 0, done.stderr
        cls.lines = json_lines(done.stdout)

    def of_kind(self, kind, lines=None):
        return [line for line in lines or self.lines if line["kind"] == kind]

    def refused(self, *arguments, code=2):
        done = temper("scan", TINY_POLICY, *FEW, *arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, "")
        return done.stderr

    def test_every_linear_has_a_line_for_each_role_and_format(self):
        layers = self.of_kind("scan")[0]["model"]["layers"]
        rows = self.of_kind("static")
        self.assertEqual(len(rows), layers * 7 * 2 * 2)
        for row in rows:
            self.assertGreater(row["sqnr_db"], 10 if row["error"] == "mxfp4" else 25, row)
            self.assertGreater(row["elements"], 0)
        self.assertEqual(len(self.of_kind("sensitivity")), layers)
        self.assertTrue(all(row["kl_nats"] > 0 for row in self.of_kind("sensitivity")))
        self.assertEqual({row["by"] for row in self.of_kind("label")}, {"sensitivity"})
        self.assertEqual([row["format"] for row in self.of_kind("advice")], ["mxfp4", "fp8"])

    def test_the_files_say_what_the_lines_say(self):
        scan = json.loads((self.out / "scan.json").read_text())
        self.assertEqual(len(scan["static"]), len(self.of_kind("static")))
        self.assertEqual(scan["model"], self.of_kind("scan")[0]["model"])
        page = (self.out / "scan.html").read_text()
        self.assertIn("</html>", page)
        self.assertNotIn("<script", page)

    def test_a_second_scan_gives_the_same_numbers(self):
        done = temper("scan", TINY_POLICY, *FEW, "--format", "mxfp4,fp8", "--sensitivity")
        self.assertEqual(json_lines(done.stdout)[1:], self.lines[1:])  # the first has seconds

    def test_an_injected_fault_is_found_by_the_reference(self):
        done = temper("scan", TINY_POLICY, *FEW, "--format", "fp8", "--find-fault", "--inject", "saturation:0.6@1",
                      "--reference", self.out / "scan.json")
        self.assertEqual(done.returncode, 0, done.stderr)
        fault = self.of_kind("fault", json_lines(done.stdout))[0]
        self.assertEqual((fault["layer"], fault["evidence"]), (1, "departure"))
        self.assertGreater(fault["kl_nats"], 0)

    def test_this_machine_departs_from_its_own_reference_by_nothing(self):
        done = temper("scan", TINY_POLICY, *FEW, "--format", "fp8", "--find-fault",
                      "--reference", self.out / "scan.json")
        fault = self.of_kind("fault", json_lines(done.stdout))[0]
        self.assertEqual(fault["evidence"], "none")
        self.assertNotIn("layer", fault)

    def test_without_a_reference_a_guess_is_called_one(self):
        done = temper("scan", TINY_POLICY, *FEW, "--format", "fp8", "--find-fault")
        self.assertEqual(self.of_kind("fault", json_lines(done.stdout))[0]["evidence"], "outlier")
        self.assertIn("give --reference", done.stderr)

    def test_recorded_sequences_are_used_as_they_are(self):
        data = self.folder / "data.jsonl"
        data.write_text('{"prompt": "2 + 3", "completion": " = 5"}\n{"question": "What is 4?", "answer": "#### 4"}\n')
        done = temper("scan", TINY_POLICY, *FEW, "--data", data, "--format", "mxfp4", "--site", "layer_output")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = json_lines(done.stdout)
        self.assertEqual(lines[0]["prompts"]["sequences"], 2)
        self.assertEqual({row["role"] for row in self.of_kind("static", lines)}, {"weight", "layer_output"})

    def test_bad_input_is_refused_with_its_name(self):
        self.assertIn("mxfp5", self.refused("--format", "mxfp5"))
        nowhere = temper("scan", self.folder / "nowhere")
        self.assertEqual((nowhere.returncode, nowhere.stdout), (2, ""))
        self.assertIn("there is no model", nowhere.stderr)
        self.assertIn("rust:1", self.refused("--error", "rust:1"))
        self.assertIn("the model has", self.refused("--find-fault", "--inject", "noise:0.1@99"))
        self.assertIn("--find-fault", self.refused("--inject", "noise:0.1@0"))
        self.assertIn("needs --sensitivity", self.refused("--label-by", "sensitivity"))
        self.assertIn("nowhere.jsonl", self.refused("--data", self.folder / "nowhere.jsonl"))
        cut = self.folder / "cut.json"
        cut.write_text((self.out / "scan.json").read_text()[:500])
        self.assertIn("cut short", self.refused("--find-fault", "--reference", cut, code=4))
        other = self.folder / "other.json"
        scan = json.loads((self.out / "scan.json").read_text())
        scan["model"]["hash"] = "0" * 16
        other.write_text(json.dumps(scan))
        self.assertIn("a scan file of another model", self.refused("--find-fault", "--reference", other))
        done = temper("scan", TINY_POLICY, "--prompts", "2", "--find-fault", "--reference", self.out / "scan.json")
        self.assertEqual(done.returncode, 2)
        self.assertIn("other tokens", done.stderr)

    def test_a_recipe_takes_its_multipliers_from_the_scan(self):
        recipe = write_recipe(self.folder)
        block = "trainer.noise_injection.layer_sigma_config"
        settings = ["trainer.noise_injection.enabled=true", f"{block}.enabled=true", f"{block}.preset=from_scan"]
        done = temper("check", recipe, *settings, f"{block}.scan_file={self.out}/scan.json")
        self.assertEqual(done.returncode, 0, done.stderr)
        for label in self.of_kind("label"):
            self.assertRegex(done.stdout, rf"layer_multipliers: \{{.*\b{label['layer']}: {label['multiplier']:g}[,}}]")


if __name__ == "__main__":
    main()
