#include "services/config/idle_fields.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "services/base/check.h"
#include "services/config/defaults.h"
#include "services/config/injection_plan.h"
#include "services/config/noise_plan.h"
#include "services/config/yaml_writer.h"

namespace temper::config {
namespace {

// Whether `key` has another value than the one it gets where it is not given.
bool IsGiven(const v1::RunConfig& config, const std::string& key) {
  v1::RunConfig without = config;
  google::protobuf::Message* message = &without;
  const std::vector<std::string> path = absl::StrSplit(key, '.');
  for (size_t i = 0; i < path.size(); ++i) {
    const auto* field = message->GetDescriptor()->FindFieldByName(path[i]);
    TEMPER_CHECK(field != nullptr, "a key of the schema");
    if (i + 1 < path.size()) {
      message = message->GetReflection()->MutableMessage(message, field);
    } else {
      message->GetReflection()->ClearField(message, field);
    }
  }
  FillDefaults(&without);
  return Flatten(without) != Flatten(config);
}

class Findings {
 public:
  explicit Findings(const v1::RunConfig& config) : config_(config) {}

  void Note(bool idle, const std::string& key, std::string_view why, bool refused = true) {
    if (!idle || !IsGiven(config_, key)) return;
    found_.push_back(
        {.key = key, .why = absl::StrCat("has no effect ", std::string(why)), .refused = refused});
  }
  std::vector<IdleField> Take() { return std::move(found_); }

 private:
  const v1::RunConfig& config_;
  std::vector<IdleField> found_;
};

bool IsOneOf(const std::string& value, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), value) != names.end();
}

void FindInNoisyOps(const v1::TrainerConfig& trainer, Findings* findings) {
  const v1::NoisyOpsConfig& noisy = trainer.noisy_ops();
  const std::string block = "trainer.noisy_ops.";
  const auto only_for = [&](const char* field, std::initializer_list<std::string_view> types) {
    findings->Note(
        !IsOneOf(noisy.error_type(), types), block + field,
        absl::StrCat("on error_type ", noisy.error_type(), " (only on ",
                     std::string(*types.begin()),
                     types.size() > 1 ? " and " + std::string(types.begin()[1]) : "", ")"));
  };
  only_for("fault_magnitude", {"saturation", "spike"});
  only_for("spike_probability", {"spike"});
  only_for("deadzone_threshold", {"deadzone"});
  only_for("relative", {"systematic_bias"});
  const absl::StatusOr<numerics::OperatorError> error = ErrorFromConfig(noisy);
  if (!error.ok()) return;  // Validate says so
  const std::string on_type = absl::StrCat("on error_type ", noisy.error_type());
  const std::string strength(numerics::StrengthName(error->type));
  findings->Note(strength != "error_scale", block + "error_scale",
                 absl::StrCat(on_type, ": its strength is ", strength));
  findings->Note(!error->random(), block + "noise_key", on_type + ": it draws nothing");
  findings->Note(!error->random(), block + "gaussian", on_type + ": it draws nothing");
  findings->Note(noisy.enabled() && !error->linear(), block + "error_gradient",
                 on_type + ": its gradient is straight-through either way");

  const bool in_learner =
      noisy.enabled() && !noisy.backward_only() && noisy.apply_during() != "rollout";
  findings->Note(noisy.enabled() && (!in_learner || trainer.learner_noise() == "none"),
                 block + "error_gradient",
                 "where the learner's forward pass is without error: it says how the gradient "
                 "passes that");
}

// Which draws the learner's forward passes use.
void FindInLearnerNoise(const v1::RunConfig& config, Findings* findings) {
  const v1::TrainerConfig& trainer = config.trainer();
  const v1::NoisyOpsConfig& noisy = trainer.noisy_ops();
  const v1::HwErrorInjectionConfig& injection = trainer.hw_error_injection();
  const absl::StatusOr<numerics::OperatorError> error = ErrorFromConfig(noisy);
  const absl::StatusOr<numerics::InjectionSpec> spec = InjectionSpecFromConfig(config);
  if (!error.ok() || !spec.ok()) return;  // Validate says so
  const bool noisy_there =
      noisy.enabled() && !noisy.backward_only() && noisy.apply_during() != "rollout";
  const bool injection_there = injection.enabled() && injection.apply_during() != "rollout";
  findings->Note(!noisy_there && !injection_there, "trainer.learner_noise",
                 "without trainer.noisy_ops or trainer.hw_error_injection in the learner's forward "
                 "passes");
  if (trainer.learner_noise() != "fresh" || (injection_there && spec->draws())) return;
  findings->Note(noisy_there && noisy.noise_key() == "frozen", "trainer.learner_noise",
                 "with noise_key frozen: a new draw is the same one");
  findings->Note(
      noisy_there && !error->random(), "trainer.learner_noise",
      absl::StrCat("on error_type ", noisy.error_type(), ": a new draw is the same one"));
  findings->Note(!noisy_there && injection_there, "trainer.learner_noise",
                 absl::StrCat("on trainer.hw_error_injection.error_type ", injection.error_type(),
                              ": it draws nothing"));
}

void FindInInjection(const v1::RunConfig& config, Findings* findings) {
  const v1::HwErrorInjectionConfig& injection = config.trainer().hw_error_injection();
  const absl::StatusOr<numerics::InjectionSpec> spec = InjectionSpecFromConfig(config);
  if (!injection.enabled() || !spec.ok()) return;
  const std::string block = "trainer.hw_error_injection.";
  const std::string on_type = absl::StrCat("on error_type ", injection.error_type());
  const bool format = spec->format.has_value();
  const std::string strength = format ? "" : std::string(numerics::StrengthName(spec->error.type));
  for (const char* field : {"error_scale", "deadzone_threshold", "fault_magnitude"}) {
    findings->Note(strength != field, block + field, on_type);
  }
  findings->Note(injection.error_type() != "spike", block + "spike_probability", on_type);
  findings->Note(injection.error_type() != "systematic_bias", block + "relative", on_type);
  for (const char* field : {"stochastic_rounding", "block_2d"}) {
    findings->Note(!format, block + field, on_type + ": it is no number format");
  }
}

void FindInAqn(const v1::NoiseInjectionConfig& aqn, Findings* findings) {
  const std::string block = "trainer.noise_injection.";
  const std::string under = absl::StrCat("on schedule ", aqn.schedule());
  const bool on = aqn.enabled();
  findings->Note(on && aqn.schedule() != "global", block + "num_stages", under);
  findings->Note(on && !IsOneOf(aqn.schedule(), {"epoch_aware", "epoch_restart"}),
                 block + "stages_per_epoch", under);
  findings->Note(on && IsOneOf(aqn.schedule(), {"constant", "none"}), block + "sigma_end", under);
  findings->Note(on && aqn.schedule() == "none", block + "sigma_start", under);
  const bool final_norm_selected =
      aqn.target_modules().empty() ||
      std::any_of(aqn.target_modules().begin(), aqn.target_modules().end(),
                  [](const std::string& pattern) {
                    return numerics::PatternSelects(pattern, numerics::Operator::kFinalNorm,
                                                    numerics::kNoLayer);
                  });
  findings->Note(on && !final_norm_selected, block + "final_norm",
                 "where target_modules do not select the final norm");
  for (const char* field : {"preset", "scan_file", "layer_multipliers", "default_multiplier"}) {
    findings->Note(!aqn.layer_sigma_config().enabled(),
                   absl::StrCat(block, "layer_sigma_config.", field), "without enabled: true");
  }
}

void FindInDapo(const v1::TrainerConfig& trainer, Findings* findings) {
  const v1::DapoConfig& dapo = trainer.dapo();
  const std::string block = "trainer.dapo.";
  findings->Note(!dapo.dynamic_sampling(), block + "max_rounds", "without dynamic_sampling");
  const bool recorded = dapo.old_logprob() == "recorded";
  findings->Note(recorded, block + "importance_sampling",
                 "with old_logprob recorded: ratio and clip carry the gap, the weight is 1");
  findings->Note(!recorded && dapo.importance_sampling() == "none", block + "importance_cap",
                 "with importance_sampling none");
  findings->Note(recorded, block + "importance_cap", "with old_logprob recorded");
  for (const char* field : {"clip_ratio_low", "clip_ratio_high", "dual_clip"}) {
    findings->Note(dapo.old_logprob() == "current", block + field,
                   "with old_logprob current: the ratio is 1", /*refused=*/false);
  }
  findings->Note(trainer.gap_probe_every() == 0, "trainer.gap_probe_groups",
                 "with gap_probe_every 0");
}

void FindInTheRest(const v1::RunConfig& config, Findings* findings) {
  findings->Note(config.reward().overlong_cache_tokens() == 0, "reward.overlong_factor",
                 "with overlong_cache_tokens 0");
  const v1::EvalConfig& eval = config.eval();
  const auto injected = InjectedEvaluationOf(config);
  const bool injection_draws = injected.has_value() && injected->draws;
  const bool draws = std::any_of(eval.error_scales().begin(), eval.error_scales().end(),
                                 [](double scale) { return scale > 0.0; });
  const bool alone = eval.enabled() && eval.temperature() == 0 && !injection_draws;
  findings->Note(alone && !draws, "eval.noise_seeds",
                 "where no error scale above 0 is evaluated: greedy decoding draws nothing");
  findings->Note(alone && draws && config.trainer().noisy_ops().noise_key() == "frozen",
                 "eval.noise_seeds", "with noise_key frozen: every seed is the same device");
  const auto error = ErrorFromConfig(config.trainer().noisy_ops());
  findings->Note(alone && draws && error.ok() && !error->random(), "eval.noise_seeds",
                 "on an error_type that draws nothing: every seed is the same error");
  const bool generated = config.dataset().name() == "gsm-arith";
  const std::string on = absl::StrCat("on dataset.name ", config.dataset().name());
  findings->Note(generated, "dataset.path", on);
  for (const char* field : {"seed", "min_steps", "max_steps", "max_number", "wrong_share"}) {
    findings->Note(!generated, absl::StrCat("dataset.", field), on);
  }
}

}  // namespace

std::vector<IdleField> IdleFields(const v1::RunConfig& config) {
  Findings findings(config);
  FindInNoisyOps(config.trainer(), &findings);
  FindInInjection(config, &findings);
  FindInLearnerNoise(config, &findings);
  FindInAqn(config.trainer().noise_injection(), &findings);
  FindInDapo(config.trainer(), &findings);
  FindInTheRest(config, &findings);
  return findings.Take();
}

}  // namespace temper::config
