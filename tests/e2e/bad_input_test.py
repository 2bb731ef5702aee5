"""Bad input: a clear message, the right exit code, and nothing half-written."""

import os
import shutil
import socket
import subprocess

from run_fixture import (BIN, ROOT, TINY_POLICY, Run, RunTestCase, UNDISTURBED, fresh_folder, main,
                         temper, write_recipe)

USAGE, RUNTIME, DATA = 2, 1, 4


class BadInput(RunTestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = fresh_folder("bad_input")

    def refused(self, code, *words, arguments):
        """Runs `temper`; it must end with `code` and say all of `words`."""
        done = temper(*arguments)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        for word in words:
            self.assertIn(word, done.stderr + done.stdout)

    def recipe(self, name, changes=None):
        folder = self.folder / name
        folder.mkdir()
        return write_recipe(folder, changes), folder / "run"

    def test_all_mistakes_of_a_recipe_are_told_at_once_with_their_places(self):
        path = self.folder / "mistakes.yaml"
        path.write_text("trainer:\n  groups_per_stop: 4\n  total_updates: many\n")
        for command in ("check", "run"):
            self.refused(USAGE, f"{path}:2:3", "groups_per_stop", "groups_per_step",
                         f"{path}:3:", arguments=(command, path))

    def test_a_recipe_or_a_flag_that_does_not_exist(self):
        self.refused(USAGE, "no-such-recipe", arguments=("run", "no-such-recipe"))
        self.refused(USAGE, "--no-such-flag", arguments=("run", "--no-such-flag"))
        self.refused(USAGE, "auto", arguments=("run", "--resume", "yes"))

    def test_a_model_that_is_not_there(self):
        recipe, run_dir = self.recipe("missing", {"model": {"path": "/no/such/model"}})
        self.refused(USAGE, "/no/such/model", arguments=("run", recipe, f"run_dir={run_dir}"))
        self.assertFalse(run_dir.exists(), "nothing was written")

    def test_weights_that_are_cut_off(self):
        model = self.folder / "cut_off_model"
        shutil.copytree(TINY_POLICY, model)
        os.truncate(model / "model.safetensors", 5000)
        ids = self.folder / "ids.jsonl"
        ids.write_text('{"ids": [5, 6]}\n')
        self.refused(DATA, "model.safetensors", arguments=("logprobs", model, ids))
        recipe, run_dir = self.recipe("cut_off", {"model": {"path": str(model)}})
        self.refused(DATA, "model.safetensors", arguments=("run", recipe, f"run_dir={run_dir}"))
        Run.finished(run_dir.parent).await_no_process()

    def test_a_learner_whose_model_is_corrupt_is_not_started_again(self):
        model = self.folder / "corrupt_model"
        shutil.copytree(TINY_POLICY, model)
        os.truncate(model / "model.safetensors", 5000)
        # Without AQN `temper run` itself does not look at the weights.
        recipe, run_dir = self.recipe("corrupt", {
            "model": {"path": str(model)}, "trainer": {"noise_injection": {"enabled": False}}})
        done = temper("run", "--verbose", recipe, f"run_dir={run_dir}")
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, DATA, said)
        self.assertIn("learner-0 ended (exit code 4", said)
        self.assertIn("model.safetensors", said)
        self.assertEqual(said.count("started learner-0"), 1, said)
        Run.finished(run_dir.parent).await_no_process()

    def test_a_run_directory_that_is_taken(self):
        taken = UNDISTURBED / "run"
        before = sorted(taken.rglob("*"))
        self.refused(USAGE, str(taken), "--resume auto",
                     arguments=("run", UNDISTURBED / "recipe.yaml", f"run_dir={taken}"))
        self.assertEqual(sorted(taken.rglob("*")), before)

    def test_a_second_temper_on_a_run_that_goes_on(self):
        with Run("bad_input/led_already", {"trainer": {"total_updates": 400}}) as run:
            run.start()
            run.await_step(1)
            before = (run.dir / "resolved.yaml").read_bytes()
            for words in ([], ["--resume", "auto"]):
                self.refused(RUNTIME, str(run.dir), f"process {run.process.pid}",
                             arguments=("run", run.recipe, f"run_dir={run.dir}",
                                        "local.rollout_workers=2", *words))
            self.assertEqual((run.dir / "resolved.yaml").read_bytes(), before)
            run.await_step(run.events("step_committed")[-1]["step"] + 1)
            self.assertEqual(len(run.events("start") + run.events("restart")), 1)

    def test_a_resume_under_another_configuration_shows_the_difference(self):
        copy = self.folder / "other_seed"
        shutil.copytree(UNDISTURBED, copy)
        self.refused(USAGE, "seed", "1 -> 2",
                     arguments=("run", copy / "recipe.yaml", f"run_dir={copy}/run", "seed=2",
                                "--resume", "auto"))

    def test_a_bind_off_loopback_without_tls(self):
        recipe, run_dir = self.recipe("open_network", {"network": {"listen_host": "0.0.0.0"}})
        self.refused(USAGE, "0.0.0.0", "insecure",
                     arguments=("run", recipe, f"run_dir={run_dir}"))
        worker = subprocess.run(
            [BIN / "temper-reward-server", "--listen", "0.0.0.0:0"], check=False, timeout=30,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(worker.returncode, USAGE, worker.stdout)

    def test_what_is_not_built_passes_check_and_is_refused_by_run(self):
        recipe, run_dir = self.recipe("unbuilt", {"trainer": {"noisy_ops": {"all_ops": True}}})
        checked = temper("check", recipe)
        self.assertEqual(checked.returncode, 0, checked.stderr)
        self.assertIn("trainer.noisy_ops.all_ops: not built yet", checked.stdout)
        self.refused(USAGE, "all_ops", arguments=("run", recipe, f"run_dir={run_dir}"))
        for block in ("noisy_ops", "hw_error_injection"):
            recipe, run_dir = self.recipe(f"unbuilt_{block}", {"trainer": {
                block: {"enabled": True, "target_modules": ["attention_scores"]}}})
            checked = temper("check", recipe)
            self.assertIn("attention_scores is not built", checked.stdout)
            self.refused(USAGE, "attention_scores is not built",
                         arguments=("run", recipe, f"run_dir={run_dir}"))

    def test_a_broadcaster_that_was_not_compiled_or_does_not_exist(self):
        recipe, run_dir = self.recipe("broadcaster", {})
        self.refused(USAGE, "shared_memory", "carrier_pigeon", arguments=(
            "check", recipe, "weights.broadcaster=carrier_pigeon"))
        if temper("check", recipe, "weights.broadcaster=nccl").stdout.count("has no NCCL") == 1:
            self.refused(USAGE, "has no NCCL", arguments=(
                "run", recipe, f"run_dir={run_dir}", "weights.broadcaster=nccl"))
            self.assertFalse(run_dir.exists(), "nothing was written")

    def test_noise_that_would_do_nothing(self):
        recipe, run_dir = self.recipe(
            "no_noise", {"trainer": {"noisy_ops": {"target_layers": [17]}}})
        self.refused(USAGE, "target_layers", "17", arguments=("run", recipe, f"run_dir={run_dir}"))

    def test_a_line_that_is_not_json_is_corrupt_data_whoever_reads_it(self):
        scored = self.folder / "broken.jsonl"
        scored.write_text('{"completion": "#### 1", "answer": "1"}\n{"completion": \n')
        self.refused(DATA, f"{scored}:2", arguments=("score", scored))
        self.refused(DATA, f"{scored}:1", arguments=("logprobs", TINY_POLICY, scored))
        self.refused(USAGE, "no-such-file", arguments=("score", "no-such-file"))
        for name in ("train.jsonl", "test.jsonl"):
            (self.folder / name).write_text('{"question": "1 + 1?", "answer": \n')
        recipe, run_dir = self.recipe("broken_gsm8k")
        self.refused(DATA, "train.jsonl:1",
                     arguments=("run", recipe, "dataset.name=gsm8k", f"dataset.path={self.folder}",
                                f"run_dir={run_dir}"))

    def test_a_checkpoint_that_was_altered_is_not_resumed_from(self):
        with Run("bad_input/altered_checkpoint", {"trainer": {"total_updates": 60}}) as run:
            run.start()
            run.await_step(12)
            run.kill_everything()
            [weights] = (run.dir / "checkpoints/step_5/hf").glob("*.safetensors")
            for later in run.dir.glob("checkpoints/step_*"):
                if later.name != "step_5":
                    shutil.rmtree(later)
            content = bytearray(weights.read_bytes())
            content[-1] ^= 1
            weights.write_bytes(content)
            run.start("--resume", "auto").finish(60, code=DATA)
            self.assertIn("model.safetensors", run.output.read_text())
            run.await_no_process()

    def test_a_port_in_use_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            for flag in ("--listen", "--metrics-listen"):
                done = subprocess.run(
                    [BIN / "temper-reward-server", flag, address], check=False, timeout=30,
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                self.assertEqual(done.returncode, RUNTIME, done.stdout)
                self.assertIn(address.encode(), done.stdout)

    def test_a_peer_of_another_run_is_refused(self):
        with Run("bad_input/two_runs", {"trainer": {"total_updates": 400}}) as run:
            run.start()
            run.await_step(1)
            recipe, _ = self.recipe("another_run", {"seed": 5})
            other = self.folder / "another_run/resolved.yaml"
            other.write_text(temper("check", recipe, "seed=5").stdout)
            learner = subprocess.run(
                [BIN / "temper-learner", "--join", run.record()["address"], "--config", other],
                check=False, timeout=30, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT)
            self.assertEqual(learner.returncode, RUNTIME, learner.stdout)
            self.assertIn(b"fingerprint", learner.stdout)
            step = run.events("step_committed")[-1]["step"]
            run.await_step(step + 1)


if __name__ == "__main__":
    main()
