#pragma once

// How much the output of a model changes when one layer, or one operator of it, alone errs:
// KL(clean || perturbed) in nats, mean over the completion positions of recorded sequences. Equal
// questions and keys for every target, so that targets are compared on the same draws.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "numerics/noise_policy.h"
#include "numerics/site.h"
#include "scan/scan_error.h"
#include "scan/sequence_runner.h"

namespace temper::model {
struct Parameters;  // model/parameters.h, which brings in the tensor header
}

namespace temper::scan {

// Clean log-probs of all completion positions are kept: so many bytes at most.
inline constexpr int64_t kMostCleanBytes = int64_t{4} << 30;

// sum over the vocabulary of p (log p - log q), in double. log_p, log_q: natural log-probs,
// [vocab].
double KlDivergence(std::span<const float> log_p, std::span<const float> log_q);
// log softmax of a row of logits.
void LogSoftmax(std::span<const float> logits, std::span<float> log_probs);

// The clean model's distribution at every completion position of every sequence.
class CleanDistributions final {
 public:
  // ResourceExhausted above kMostCleanBytes (says how many); errors of SequencePass::Run.
  static absl::StatusOr<CleanDistributions> Record(SequenceRunner* runner,
                                                   std::span<const Sequence> sequences,
                                                   int64_t vocab);

  // Mean over all completion positions of KL(clean || what the passes now compute). policy: may be
  // null; observers: one per worker, or empty. Errors of SequencePass::Run; DataLoss for a logit
  // that is not finite.
  absl::StatusOr<double> Divergence(SequenceRunner* runner, const numerics::NoisePolicy* policy,
                                    uint64_t noise_seed,
                                    std::span<model::PassObserver* const> observers = {}) const;

  int64_t positions() const;

 private:
  CleanDistributions(std::span<const Sequence> sequences, int64_t vocab);
  std::span<const Sequence> sequences_;
  int64_t vocab_;
  std::vector<std::vector<float>> log_probs_;  // [sequence][position][vocab]
};

struct LayerSensitivity {
  int layer = 0;
  std::optional<numerics::Operator> op;  // absent: all linears of the layer
  double kl_nats = 0.0;
};

struct SensitivityOptions {
  ScanError error;  // an error type acts on the results of linears, a format on their weights
  bool per_operator = false;
  uint64_t noise_seed = 0;
  int threads = 1;
};

// One row per layer, or per linear of each, in order. parameters: with a format, weights are
// replaced one layer after the other during the call and put back. done: called after each row with
// the number of rows done and of all. Errors: as CleanDistributions.
absl::StatusOr<std::vector<LayerSensitivity>> MeasureSensitivity(
    model::Parameters* parameters, std::span<const Sequence> sequences,
    const SensitivityOptions& options, absl::FunctionRef<void(size_t done, size_t all)> done);

// The policy of an evaluation under which `op` (absent: every linear) of `layer` alone errs.
// InvalidArgument for a layer the model does not have, with both numbers.
absl::StatusOr<numerics::NoisePolicy> OneLayerPolicy(
    const numerics::OperatorError& error, int layer, std::optional<numerics::Operator> op,
    int num_layers, numerics::NoiseKey noise_key = numerics::NoiseKey::kFresh);

}  // namespace temper::scan
