"""Every field of the run configuration is obeyed by a line of code, or refused by name.

The table below says where. A field that is added without a reader, a reader that goes, and an option
that is copied from the configuration and then looked at by nobody all fail here. What a field does
under which others is the matter of services/config/idle_fields.h.
"""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# File -> the fields it reads, a line a message.
READERS = {
    "services/config/noise_plan.cc": """
        NoisyOpsConfig enabled error_scale apply_during forward_only backward_only all_ops
            error_gradient noise_key target_modules exclude_modules target_layers
            error_type fault_magnitude spike_probability deadzone_threshold relative gaussian
        NoiseInjectionConfig enabled schedule sigma_start sigma_end num_stages stages_per_epoch
            layer_types sigma_mode draw where final_norm target_modules force
        LayerSigmaConfig enabled default_multiplier layer_multipliers preset scan_file
        TrainerConfig epochs updates_per_epoch learner_noise null_arm""",
    "services/config/lora_selection.cc": """
        LoraConfig enabled rank alpha target_modules exclude_modules""",
    "services/config/injection_plan.cc": """
        HwErrorInjectionConfig enabled error_scale error_type injection_point target_modules
            exclude_modules target_layers apply_during deadzone_threshold stochastic_rounding
            block_2d fault_magnitude spike_probability relative""",
    "services/config/defaults.cc": """
        NoiseInjectionConfig epoch_aware""",
    "prompts/dataset_config.cc": """
        DatasetConfig name path seed min_steps max_steps max_number wrong_share train_problems
            prompt_suffix""",
    "learner/learner_options.cc": """
        RunConfig run_dir seed
        TrainerConfig minibatches_per_step micro_batch_tokens threads gap_probe_groups
            gap_probe_every
        OptimizerConfig learning_rate beta1 beta2 epsilon weight_decay max_grad_norm warmup_steps
        DapoConfig clip_ratio_low clip_ratio_high dual_clip norm_by_std mask_truncated
            loss_aggregation importance_sampling importance_cap old_logprob
        SftConfig fresh_weights
        LoraConfig adapter
        WeightsConfig bucket_bytes chunk_bytes
        CheckpointConfig every keep""",
    "learner/sft.cc": """
        SftConfig problems_per_step""",
    "learner/policy_files.cc": """
        ModelConfig path chat_template""",
    "orchestrator/run_plan.cc": """
        RolloutConfig groups_per_lease
        TrainerConfig loss total_updates groups_per_step max_staleness
        DapoConfig dynamic_sampling max_rounds
        EvalConfig enabled questions error_scales noise_seeds every questions_per_item
        OrchestratorConfig lease_seconds heartbeat_seconds member_timeout_seconds max_attempts
            retry_backoff_seconds no_worker_timeout_seconds
        LocalConfig rollout_workers reward_servers""",
    "orchestrator/coordinator_work.cc": """
        RolloutConfig samples_per_group
        EvalConfig max_completion_tokens temperature""",
    "orchestrator/run_directory.cc": """
        OrchestratorConfig state_dir""",
    "rollout_worker/run_setup.cc": """
        RolloutConfig max_prompt_tokens""",
    "rollout_worker/lease_messages.cc": """
        RolloutConfig max_completion_tokens temperature
        RewardConfig rule overlong_cache_tokens overlong_factor sample_timeout_seconds""",
    "rollout_worker/engine_sampler.cc": """
        RolloutConfig threads""",
    "rollout_worker/weights_keeper.cc": """
        WeightsConfig broadcast_timeout_seconds""",
    "cli/supervisor.cc": """
        LocalConfig max_restarts restart_window_seconds
        NetworkConfig listen_host insecure_network tls_certificate tls_key tls_ca""",
    # Refused where they would act: Validate, Unbuilt.
    "services/config/validate.cc": """
        RolloutConfig top_p top_k min_p device kv_after_swap
        TrainerConfig device
        DapoConfig kl_coefficient
        WeightsConfig broadcaster""",
}
# Messages that are refused whole, by this expression of Unbuilt.
REFUSED_WHOLE = {}

# Structs between configuration and use: every member is looked at outside of the file that fills it.
OPTIONS = {"learner/learner_options.h": ("LearnerOptions", "learner"),
           "orchestrator/run_plan.h": ("RunPlan", "orchestrator")}


def text_of(path):
    return (ROOT / path).read_text(encoding="utf-8")


def fields_of_schema():
    """Message.field of every field that is no block itself."""
    text = text_of("proto/temper/v1/config.proto")
    messages = dict(re.findall(r"^message (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    fields = set()
    for message, body in messages.items():
        for kind, name in re.findall(
                r"^\s+(?:optional |repeated )?([\w.]+|map<[^>]*>) (\w+) = \d+;", body, re.MULTILINE):
            if kind not in messages:
                fields.add(f"{message}.{name}")
    return fields


def fields_of_table():
    """Message.field -> (file, text that must stand in it)."""
    table = {}
    for path, listed in READERS.items():
        message = None
        for word in listed.split():
            if word.endswith("Config"):
                message = word
                continue
            name = word.strip('"')
            said = word if word.startswith('"') else f"{name}()"
            table.setdefault(f"{message}.{name}", []).append((path, said))
    return table


class ConfigFields(unittest.TestCase):
    maxDiff = None

    def test_every_field_has_one_line_in_the_table(self):
        table = fields_of_table()
        unread = {field for field in fields_of_schema() if field not in table
                  and field.split(".")[0] not in REFUSED_WHOLE}
        self.assertEqual(unread, set(), "fields that nothing is known to read")
        self.assertEqual(set(table) - fields_of_schema(), set(), "fields that are gone")

    def test_every_reader_reads_its_field(self):
        for field, readers in fields_of_table().items():
            for path, said in readers:
                self.assertRegex(text_of(path), rf"(?<!\w){re.escape(said)}", f"{field} in {path}")

    def test_what_is_refused_whole_is_refused(self):
        unbuilt = text_of("services/config/validate.cc").split("Unbuilt(", 1)[1]
        for message, expression in REFUSED_WHOLE.items():
            self.assertIn(expression, unbuilt, message)

    def test_no_option_is_filled_in_and_then_looked_at_by_nobody(self):
        for header, (struct, room) in OPTIONS.items():
            body = re.search(rf"^struct {struct} \{{\n(.*?)^\}};", text_of(header),
                             re.MULTILINE | re.DOTALL).group(1)
            code = re.sub(r"//.*", "", body)
            members = re.findall(r"[\w>] (\w+)(?:\s*=[^;]*)?;", code)
            self.assertGreater(len(members), 5, header)
            filler = (ROOT / header).with_suffix(".cc")
            users = "\n".join(path.read_text(encoding="utf-8")
                              for path in sorted((ROOT / room).glob("*.cc")) if path != filler)
            unused = [name for name in members if not re.search(rf"(\.|->){name}\b", users)]
            self.assertEqual(unused, [], header)


if __name__ == "__main__":
    unittest.main()
