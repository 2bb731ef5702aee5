#include "model/score_sequences.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/train_forward.h"
#include "services/base/status_macros.h"

namespace temper::model {

absl::StatusOr<std::vector<std::vector<float>>> ScoreSequences(
    const Parameters& parameters, std::span<const std::vector<int32_t>> sequences, int threads,
    const ScoreNoise& noise) {
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<TrainModel> model,
                          TrainModel::Create(parameters, {.threads = threads}));
  std::vector<std::vector<float>> scores;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const std::vector<int32_t>& ids = sequences[i];
    if (ids.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("sequence ", i, " is empty"));
    }
    const TrainGroup group = {
        .group_index = i,
        .prompt_ids = {ids.front()},
        .completions = {{.sample = 0, .token_ids = {ids.begin() + 1, ids.end()}}}};
    const LogProbOptions options = {.noise = {.policy = noise.policy,
                                              .phase = numerics::Phase::kEval,
                                              .run_seed = noise.noise_seed},
                                    .gradients = false};
    TEMPER_ASSIGN_OR_RETURN(const LogProbs pass, model->Forward({&group, 1}, options, nullptr));
    const float* values = pass.logprobs.data_ptr<float>();
    scores.emplace_back(values, values + pass.logprobs.numel());
  }
  return scores;
}

}  // namespace temper::model
