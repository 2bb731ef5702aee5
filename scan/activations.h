#pragma once

// One pass over the sequences that fills the activation half of the static scan and the profile.

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "scan/localise.h"
#include "scan/sequence_runner.h"
#include "scan/static_scan.h"

namespace temper::scan {

struct ActivationFindings {
  std::vector<StaticRow> rows;
  ModelProfile profile;
};

// site: kInput or kLayerOutput. done: called on the threads of the runner after each sequence.
// Errors of SequencePass::Run.
absl::StatusOr<ActivationFindings> ScanActivations(SequenceRunner* runner,
                                                   std::span<const Sequence> sequences,
                                                   const model::ModelConfig& config,
                                                   std::span<const ScanError> errors, Role site,
                                                   uint64_t seed, absl::FunctionRef<void()> done);

}  // namespace temper::scan
