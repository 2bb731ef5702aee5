#include "learner/gap_probe.h"

#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "learner/dapo_update.h"
#include "model/adapter_parameters.h"
#include "model/parameters.h"
#include "services/base/status_macros.h"

namespace temper::learner {
namespace {

// The weights of a version of our own, which are float32 (learner/publisher.h).
absl::StatusOr<model::Parameters> ParametersOf(const weights::WeightVersion& version,
                                               const model::Parameters& trained) {
  TEMPER_ASSIGN_OR_RETURN(model::Parameters parameters, model::ZeroLike(trained));
  for (const auto& [name, target] : model::MutableViewsOf(parameters)) {
    TEMPER_ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, version.Tensor(name));
    if (bytes.size() != target.size_bytes()) {
      return absl::InternalError(absl::StrCat("version ", version.manifest().version(),
                                              " was published with ", bytes.size(), " bytes of ",
                                              name, ", the model has ", target.size_bytes()));
    }
    std::memcpy(target.data(), bytes.data(), bytes.size());
  }
  return parameters;
}

// Log-probs of the same sequences along the chain of learner/gap_split.h, in nats per token.
struct Passes {
  std::vector<float> recreated;
  std::vector<float> without_aqn;
  std::vector<float> current_weights;
  std::vector<float> without_error;

  GapChain Of(const TrainSequence& sequence, size_t first) const {
    const auto own = [&](const std::vector<float>& all) {
      return std::span<const float>(all).subspan(first, sequence.completion.size());
    };
    return {.recorded = sequence.rollout_logprobs,
            .recreated = own(recreated),
            .without_aqn = own(without_aqn),
            .current_weights = own(current_weights),
            .without_error = own(without_error)};
  }
};

// sampling: the model of `version`, which sampled them; null: the one that is trained. A pass that
// could not differ from the one before it is not made.
absl::StatusOr<Passes> MakePasses(std::span<const TrainSequence> sequences, uint64_t version,
                                  model::TrainModel* sampling, PolicyTrainer* trainer) {
  const std::vector<model::TrainGroup> input = ModelInput(sequences);
  const auto score = [&](model::TrainModel* model, bool error,
                         bool rollout_aqn) -> absl::StatusOr<std::vector<float>> {
    const SamplerPass pass = {.version = version, .error = error, .rollout_aqn = rollout_aqn};
    TEMPER_ASSIGN_OR_RETURN(const model::LogProbs made, trainer->Replay(input, pass, model));
    const std::span<const float> logprobs = FloatsOf(made.logprobs);
    return std::vector<float>(logprobs.begin(), logprobs.end());
  };
  Passes passes;
  TEMPER_ASSIGN_OR_RETURN(passes.recreated, score(sampling, true, true));
  passes.without_aqn = passes.recreated;
  const numerics::AqnPlan& aqn = trainer->options().aqn;
  if (!aqn.in_learner && numerics::Sigma(aqn, static_cast<int64_t>(version)) > 0.0) {
    TEMPER_ASSIGN_OR_RETURN(passes.without_aqn, score(sampling, true, false));
  }
  passes.current_weights = passes.without_aqn;
  if (sampling != nullptr) {
    TEMPER_ASSIGN_OR_RETURN(passes.current_weights, score(nullptr, true, false));
  }
  passes.without_error = passes.current_weights;
  const numerics::NoisePolicy& noise = trainer->options().noise;
  constexpr auto kRollout = numerics::Phase::kRollout;
  if (noise.Any(kRollout, numerics::Direction::kForward) ||
      noise.injection().Any(kRollout, numerics::Direction::kForward)) {
    TEMPER_ASSIGN_OR_RETURN(passes.without_error, score(nullptr, false, false));
  }
  return passes;
}

}  // namespace

void GapProbe::Keep(std::shared_ptr<const weights::WeightVersion> version) {
  if (options_.every == 0) return;
  kept_.push_back(std::move(version));
  while (kept_.size() > options_.max_staleness + 1) kept_.pop_front();
}

absl::StatusOr<std::unique_ptr<model::TrainModel>> GapProbe::ModelOf(uint64_t version) const {
  if (version == trainer_->state().step) return nullptr;
  for (const auto& kept : kept_) {
    if (kept->manifest().version() != version) continue;
    TEMPER_ASSIGN_OR_RETURN(const model::Parameters parameters,
                            ParametersOf(*kept, trainer_->parameters()));
    return model::TrainModel::Create(parameters, {.threads = trainer_->options().threads});
  }
  return absl::InternalError(absl::StrCat("version ", version, " is not kept"));
}

absl::Status GapProbe::ProbeVersion(uint64_t version, std::span<const TrainSequence> sequences,
                                    GapSplit* split) {
  TEMPER_ASSIGN_OR_RETURN(const std::unique_ptr<model::TrainModel> model, ModelOf(version));
  size_t begin = 0;
  for (const size_t end : CutMicroBatches(sequences, options_.micro_batch_tokens)) {
    const std::span<const TrainSequence> part = sequences.subspan(begin, end - begin);
    TEMPER_ASSIGN_OR_RETURN(const Passes passes, MakePasses(part, version, model.get(), trainer_));
    size_t token = 0;
    for (const TrainSequence& sequence : part) {
      if (!sequence.masked) split->Add(passes.Of(sequence, token));
      token += sequence.completion.size();
    }
    begin = end;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<GapSplit>> GapProbe::Run(uint64_t step,
                                                      std::span<const RolloutGroup> groups) {
  if (!ProbeIsDue(step, options_.every) || groups.empty()) return std::nullopt;
  std::set<uint64_t> versions = {trainer_->state().step};
  for (const auto& kept : kept_) versions.insert(kept->manifest().version());
  GapSplit split;
  std::map<uint64_t, std::vector<TrainSequence>> by_version;  // each in ascending group_index
  for (const size_t chosen : ChooseProbeGroups(groups, versions, options_.groups)) {
    std::vector<TrainSequence>& sequences = by_version[groups[chosen].newest_version];
    for (TrainSequence& sequence : SequencesOf(groups[chosen], options_.rules)) {
      sequences.push_back(std::move(sequence));
    }
    ++split.groups;
  }
  for (const auto& [version, sequences] : by_version) {
    TEMPER_RETURN_IF_ERROR(ProbeVersion(version, sequences, &split));
  }
  return split;
}

}  // namespace temper::learner
