#include "scan/fault.h"

#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "scan/layer_profile.h"
#include "scan/sensitivity.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::scan {
namespace {

constexpr double kSpikeProbability = 0.001;

numerics::OperatorError ErrorOf(const Fault& fault) {
  using enum numerics::ErrorType;
  const auto strength = static_cast<float>(fault.size);
  switch (fault.kind) {
    case FaultKind::kSaturation:
      return {.type = kSaturation, .strength = strength};
    case FaultKind::kBias:
      return {.type = kSystematicBias, .strength = strength};
    case FaultKind::kDeadZone:
      return {.type = kDeadzone, .strength = strength};
    case FaultKind::kSpike:
      return {.type = kSpike, .strength = strength, .spike_probability = kSpikeProbability};
    case FaultKind::kNoise:
    case FaultKind::kNonDeterminism:
      break;
  }
  return {.type = kRelativeGaussian, .strength = strength};
}

}  // namespace

std::string_view FaultKindName(FaultKind kind) {
  switch (kind) {
    case FaultKind::kSaturation:
      return "saturation";
    case FaultKind::kBias:
      return "bias";
    case FaultKind::kNoise:
      return "noise";
    case FaultKind::kDeadZone:
      return "dead_zone";
    case FaultKind::kSpike:
      return "spike";
    case FaultKind::kNonDeterminism:
      return "non_determinism";
  }
  return "unknown";
}

absl::StatusOr<Fault> ParseFault(const std::string& text) {
  const size_t colon = text.find(':');
  const size_t at = text.find('@');
  Fault fault;
  bool known = false;
  if (colon != std::string::npos && at != std::string::npos && colon < at) {
    for (const FaultKind kind : kFaultKinds) {
      if (text.substr(0, colon) != FaultKindName(kind)) continue;
      fault.kind = kind;
      known = true;
    }
  }
  if (!known || !absl::SimpleAtod(text.substr(colon + 1, at - colon - 1), &fault.size) ||
      !absl::SimpleAtoi(text.substr(at + 1), &fault.layer)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text,
                     "' is no fault KIND:SIZE@LAYER, as saturation:0.3@2; kinds: saturation, bias, "
                     "noise, dead_zone, spike, non_determinism"));
  }
  return fault;
}

std::string FaultText(const Fault& fault) {
  return absl::StrFormat("%s:%g@%d", std::string(FaultKindName(fault.kind)), fault.size,
                         fault.layer);
}

absl::StatusOr<numerics::NoisePolicy> FaultPolicy(const Fault& fault, int num_layers) {
  if (fault.layer < 0 || fault.layer >= num_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("a fault in layer ", fault.layer, ": the model has 0 .. ", num_layers - 1));
  }
  return OneLayerPolicy(
      ErrorOf(fault), fault.layer, std::nullopt, num_layers,
      fault.kind == FaultKind::kNoise ? numerics::NoiseKey::kFrozen : numerics::NoiseKey::kFresh);
}

absl::StatusOr<ModelProfile> ProfileDevice(SequenceRunner* runner,
                                           std::span<const Sequence> sequences,
                                           const model::ModelConfig& config,
                                           const numerics::NoisePolicy* policy, uint64_t repeat) {
  std::vector<LayerProfiler> profilers(static_cast<size_t>(runner->workers()),
                                       LayerProfiler(config));
  TEMPER_RETURN_IF_ERROR(
      runner->Run(sequences.size(), [&](model::SequencePass* pass, size_t index, int worker) {
        const Sequence& sequence = sequences[index];
        return pass->Run({.ids = sequence.ids,
                          .prompt_tokens = sequence.prompt_tokens,
                          .policy = policy,
                          .noise_seed = repeat,
                          .question = index,
                          .observer = &profilers[static_cast<size_t>(worker)]});
      }));
  for (size_t i = 1; i < profilers.size(); ++i) profilers[0].Merge(profilers[i]);
  return profilers[0].Profiles();
}

}  // namespace temper::scan
