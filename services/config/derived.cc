#include "services/config/derived.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "services/config/injection_plan.h"

namespace temper::config {

std::vector<std::pair<std::string, std::string>> DerivedNumbers(const v1::RunConfig& config) {
  const v1::TrainerConfig& trainer = config.trainer();
  const v1::RolloutConfig& rollout = config.rollout();
  const uint64_t groups = trainer.total_updates() * trainer.groups_per_step();
  const uint64_t samples = groups * rollout.samples_per_group();
  const uint64_t sample_tokens = rollout.max_prompt_tokens() + rollout.max_completion_tokens();
  uint64_t passes = 0;
  for (const double scale : config.eval().error_scales()) {
    passes += scale == 0.0 ? 1 : config.eval().noise_seeds();
  }
  if (const auto injected = InjectedEvaluationOf(config)) passes += injected->noise_seeds;
  const uint64_t evaluations =
      !config.eval().enabled() ? 0
      : trainer.total_updates() == 0
          ? 1
          : 2 + (config.eval().every() > 0 ? (trainer.total_updates() - 1) / config.eval().every()
                                           : 0);
  return {
      {"steps", absl::StrCat(trainer.total_updates())},
      {"epochs x steps per epoch",
       absl::StrCat(trainer.epochs(), " x ", trainer.updates_per_epoch())},
      {"optimizer steps", absl::StrCat(trainer.total_updates() * trainer.minibatches_per_step())},
      {"trained groups, at most", absl::StrCat(groups)},
      {"groups leased, at most",
       absl::StrCat(groups *
                    (trainer.dapo().dynamic_sampling() ? trainer.dapo().max_rounds() : 1))},
      {"trained samples, at most", absl::StrCat(samples)},
      {"completion tokens trained, at most",
       absl::StrCat(samples * rollout.max_completion_tokens())},
      {"tokens of one step's batch, at most",
       absl::StrCat(uint64_t{trainer.groups_per_step()} * rollout.samples_per_group() *
                    sample_tokens)},
      {"active groups, at most",
       absl::StrCat(uint64_t{trainer.max_staleness() + 1} * trainer.groups_per_step())},
      {"gap probes", trainer.gap_probe_every() == 0
                         ? "none"
                         : absl::StrCat(trainer.total_updates() / trainer.gap_probe_every(), " of ",
                                        trainer.gap_probe_groups(), " groups")},
      {"evaluations", absl::StrCat(evaluations)},
      {"completions of one evaluation", config.eval().questions() == 0
                                            ? absl::StrCat(passes, " x all questions")
                                            : absl::StrCat(passes * config.eval().questions())},
  };
}

}  // namespace temper::config
