#include "scan/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/decode_weights.h"
#include "model/parameters.h"
#include "model/row_ops.h"
#include "numerics/formats/fake_quantize.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::scan {
namespace {

using numerics::Operator;

constexpr Operator kLinears[] = {Operator::kQ,    Operator::kK,  Operator::kV,   Operator::kO,
                                 Operator::kGate, Operator::kUp, Operator::kDown};

// What one worker has added up.
struct Part {
  double sum = 0.0;
  bool finite = true;
};

// Replaces the weights of a target by what a format makes of them; puts them back at its end.
class QuantizedTarget final {
 public:
  QuantizedTarget(model::Parameters* parameters, const LayerSensitivity& target,
                  numerics::NumberFormat format) {
    std::map<std::string, std::span<float>> views = model::MutableViewsOf(*parameters);
    const numerics::FakeQuantizer quantizer =
        numerics::FakeQuantizer::Create({.format = format}, numerics::Operand::kWeight).value();
    for (const Operator op : kLinears) {
      if (target.op.has_value() && *target.op != op) continue;
      const std::string name = numerics::OperatorPath(op, target.layer) + ".weight";
      const std::span<float> values = views.at(name);
      saved_.emplace_back(values, std::vector<float>(values.begin(), values.end()));
      const at::Tensor& tensor = parameters->Get(name);
      const int64_t shape[] = {tensor.size(0), tensor.size(1)};
      (void)quantizer.QuantizeWeight(shape, values.data(), values.data());  // any matrix can be
    }
  }
  ~QuantizedTarget() {
    for (auto& [values, before] : saved_) std::copy(before.begin(), before.end(), values.begin());
  }
  QuantizedTarget(const QuantizedTarget&) = delete;
  QuantizedTarget& operator=(const QuantizedTarget&) = delete;

 private:
  std::vector<std::pair<std::span<float>, std::vector<float>>> saved_;
};

absl::StatusOr<double> TargetDivergence(model::Parameters* parameters,
                                        const LayerSensitivity& target,
                                        const SensitivityOptions& options, SequenceRunner* runner,
                                        const CleanDistributions& clean) {
  if (options.error.format.has_value()) {
    const QuantizedTarget quantized(parameters, target, *options.error.format);
    TEMPER_ASSIGN_OR_RETURN(model::InstalledWeights weights,
                            model::PackForDecoding(*parameters, 0, {}, {}));
    SequenceRunner other(std::move(weights), options.threads);
    return clean.Divergence(&other, nullptr, options.noise_seed);
  }
  TEMPER_ASSIGN_OR_RETURN(const numerics::NoisePolicy policy,
                          OneLayerPolicy(options.error.error, target.layer, target.op,
                                         static_cast<int>(parameters->config.num_layers)));
  return clean.Divergence(runner, &policy, options.noise_seed);
}

}  // namespace

double KlDivergence(std::span<const float> log_p, std::span<const float> log_q) {
  double sum = 0.0;
  for (size_t i = 0; i < log_p.size(); ++i) {
    const auto log_p_i = static_cast<double>(log_p[i]);
    sum += std::exp(log_p_i) * (log_p_i - static_cast<double>(log_q[i]));
  }
  return sum;
}

void LogSoftmax(std::span<const float> logits, std::span<float> log_probs) {
  const model::RowSoftmax softmax =
      model::ComputeSoftmax(model::BestKernels(), logits.data(),
                            static_cast<int64_t>(logits.size()), 1.0f, log_probs.data());
  for (size_t i = 0; i < logits.size(); ++i) log_probs[i] = softmax.LogProb(logits[i], 1.0f);
}

CleanDistributions::CleanDistributions(std::span<const Sequence> sequences, int64_t vocab)
    : sequences_(sequences), vocab_(vocab) {
  for (const Sequence& sequence : sequences) {
    const int64_t positions = static_cast<int64_t>(sequence.ids.size()) - sequence.prompt_tokens;
    log_probs_.emplace_back(static_cast<size_t>(std::max<int64_t>(positions, 0) * vocab));
  }
}

int64_t CleanDistributions::positions() const {
  int64_t total = 0;
  for (const std::vector<float>& rows : log_probs_) {
    total += static_cast<int64_t>(rows.size()) / vocab_;
  }
  return total;
}

absl::StatusOr<CleanDistributions> CleanDistributions::Record(SequenceRunner* runner,
                                                              std::span<const Sequence> sequences,
                                                              int64_t vocab) {
  int64_t positions = 0;
  for (const Sequence& sequence : sequences) {
    positions += static_cast<int64_t>(sequence.ids.size()) - sequence.prompt_tokens;
  }
  const int64_t bytes = positions * vocab * static_cast<int64_t>(sizeof(float));
  if (bytes > kMostCleanBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the clean distributions of ", positions, " positions would take ",
                     bytes >> 20, " MiB, at most ", kMostCleanBytes >> 20,
                     " are taken: give fewer prompts or shorter completions"));
  }
  CleanDistributions clean(sequences, vocab);
  TEMPER_RETURN_IF_ERROR(
      runner->Run(sequences.size(), [&](model::SequencePass* pass, size_t index, int) {
        const Sequence& sequence = sequences[index];
        std::vector<float>& rows = clean.log_probs_[index];
        return pass->Run({.ids = sequence.ids, .prompt_tokens = sequence.prompt_tokens},
                         [&](int64_t position, std::span<const float> logits) {
                           LogSoftmax(logits,
                                      std::span(rows).subspan(static_cast<size_t>(position * vocab),
                                                              static_cast<size_t>(vocab)));
                         });
      }));
  return clean;
}

absl::StatusOr<double> CleanDistributions::Divergence(
    SequenceRunner* runner, const numerics::NoisePolicy* policy, uint64_t noise_seed,
    std::span<model::PassObserver* const> observers) const {
  std::vector<Part> parts(sequences_.size());
  const auto vocab = static_cast<size_t>(vocab_);
  TEMPER_RETURN_IF_ERROR(
      runner->Run(sequences_.size(), [&](model::SequencePass* pass, size_t index, int worker) {
        const Sequence& sequence = sequences_[index];
        std::vector<float> log_probs(vocab);
        Part& part = parts[index];
        return pass->Run(
            {.ids = sequence.ids,
             .prompt_tokens = sequence.prompt_tokens,
             .policy = policy,
             .noise_seed = noise_seed,
             .question = index,
             .observer = observers.empty() ? nullptr : observers[static_cast<size_t>(worker)]},
            [&](int64_t position, std::span<const float> logits) {
              LogSoftmax(logits, log_probs);
              const std::span<const float> clean = log_probs_[index];
              const double kl = KlDivergence(
                  clean.subspan(static_cast<size_t>(position) * vocab, vocab), log_probs);
              part.sum += kl;
              part.finite = part.finite && std::isfinite(kl);
            });
      }));
  double sum = 0.0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i].finite) {
      return absl::DataLossError(absl::StrCat("a logit of sequence ", i, " is not finite"));
    }
    sum += parts[i].sum;
  }
  return sum / static_cast<double>(std::max<int64_t>(positions(), 1));
}

absl::StatusOr<numerics::NoisePolicy> OneLayerPolicy(const numerics::OperatorError& error,
                                                     int layer, std::optional<Operator> op,
                                                     int num_layers, numerics::NoiseKey noise_key) {
  const double strength = error.strength;
  const auto name = numerics::StrengthName(error.type);
  numerics::NoiseSpec spec = {.enabled = true,
                              .error_type = error.type,
                              .error_scale = name == "error_scale" ? strength : 0.0,
                              .deadzone_threshold = name == "deadzone_threshold" ? strength : 0.0,
                              .fault_magnitude = name == "fault_magnitude" ? strength : 0.0,
                              .spike_probability = error.spike_probability,
                              .relative = error.relative,
                              .noise_key = noise_key,
                              .target_layers = {layer}};
  if (op.has_value()) spec.target_modules = {std::string(numerics::OperatorName(*op))};
  TEMPER_ASSIGN_OR_RETURN(const numerics::NoisePolicy base,
                          numerics::NoisePolicy::Create(spec, {.num_layers = num_layers}));
  return numerics::EvaluationPolicy(base, strength);
}

absl::StatusOr<std::vector<LayerSensitivity>> MeasureSensitivity(
    model::Parameters* parameters, std::span<const Sequence> sequences,
    const SensitivityOptions& options, absl::FunctionRef<void(size_t done, size_t all)> done) {
  TEMPER_ASSIGN_OR_RETURN(model::InstalledWeights weights,
                          model::PackForDecoding(*parameters, 0, {}, {}));
  SequenceRunner runner(std::move(weights), options.threads);
  TEMPER_ASSIGN_OR_RETURN(
      const CleanDistributions clean,
      CleanDistributions::Record(&runner, sequences, parameters->config.vocab_size));
  std::vector<LayerSensitivity> rows;
  for (int layer = 0; layer < static_cast<int>(parameters->config.num_layers); ++layer) {
    if (!options.per_operator) {
      rows.push_back({.layer = layer});
      continue;
    }
    for (const Operator op : kLinears) rows.push_back({.layer = layer, .op = op});
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    TEMPER_ASSIGN_OR_RETURN(rows[i].kl_nats,
                            TargetDivergence(parameters, rows[i], options, &runner, clean));
    done(i + 1, rows.size());
  }
  return rows;
}

}  // namespace temper::scan
