#pragma once

// Faults that are injected into one decoder layer to see whether they are found.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "numerics/noise_policy.h"
#include "scan/localise.h"
#include "scan/sequence_runner.h"

namespace temper::scan {

// All act on the results of the seven linears of one layer. size: the strength of the error.
enum class FaultKind {
  kSaturation,      // clamped to (1 - size) of the row's maximum
  kBias,            // size added away from zero
  kNoise,           // relative Gaussian, the same at every repeat (frozen): a mis-calibrated device
  kDeadZone,        // zero below size times the row's maximum
  kSpike,           // one value in a thousand is off by size times the row's maximum, at random
  kNonDeterminism,  // relative Gaussian, drawn anew at every repeat
};
inline constexpr FaultKind kFaultKinds[] = {FaultKind::kSaturation, FaultKind::kBias,
                                            FaultKind::kNoise,      FaultKind::kDeadZone,
                                            FaultKind::kSpike,      FaultKind::kNonDeterminism};

// "saturation", "bias", "noise", "dead_zone", "spike", "non_determinism".
std::string_view FaultKindName(FaultKind kind);

struct Fault {
  FaultKind kind = FaultKind::kSaturation;
  double size = 0.0;
  int layer = 0;
};

// "KIND:SIZE@LAYER", as "saturation:0.3@2". InvalidArgument, with what was given.
absl::StatusOr<Fault> ParseFault(const std::string& text);
std::string FaultText(const Fault& fault);

// The policy of a device with this fault. InvalidArgument for a layer that a model of num_layers
// does not have, and a size that is out of the error's range or 0.
absl::StatusOr<numerics::NoisePolicy> FaultPolicy(const Fault& fault, int num_layers);

// What the layers of a device look like over `sequences`. policy: null for this machine as it is.
// repeat: number of the repeat; draws that are not frozen differ between repeats. Errors of
// SequencePass::Run.
absl::StatusOr<ModelProfile> ProfileDevice(SequenceRunner* runner,
                                           std::span<const Sequence> sequences,
                                           const model::ModelConfig& config,
                                           const numerics::NoisePolicy* policy, uint64_t repeat);

}  // namespace temper::scan
