#include "scan/static_scan.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "model/thread_pool.h"
#include "numerics/noise_policy.h"
#include "services/base/check.h"
#include "services/base/random_key.h"

namespace temper::scan {
namespace {

using numerics::Operator;
using numerics::QuantizationStats;

constexpr std::array kLinears = {Operator::kQ,    Operator::kK,  Operator::kV,   Operator::kO,
                                 Operator::kGate, Operator::kUp, Operator::kDown};
// Distinct inputs of a layer's linears.
constexpr size_t kInputs = 4;

size_t InputOf(Operator op) {
  switch (op) {
    case Operator::kO:
      return 1;
    case Operator::kGate:
    case Operator::kUp:
      return 2;
    case Operator::kDown:
      return 3;
    default:
      return 0;
  }
}

StaticRow RowOf(const QuantizationStats& stats, const ScanError& error, Role role, int layer,
                Operator op) {
  StaticRow row = {.error = error.name,
                   .role = role,
                   .layer = layer,
                   .op = op,
                   .elements = stats.elements(),
                   .non_finite = stats.non_finite(),
                   .sqnr_db = stats.sqnr_db(),
                   .sqnr_db_without_largest = stats.SqnrDbWithoutLargest(),
                   .block_row_sqnr_db = {},
                   .dead_zone = stats.dead_zone(),
                   .relative_error = stats.relative_error(),
                   .saturation = stats.saturation()};
  for (const double q : kBlockRowQuantiles) {
    row.block_row_sqnr_db.push_back(stats.BlockRowSqnrDb(q));
  }
  return row;
}

}  // namespace

std::string RoleName(Role role) {
  switch (role) {
    case Role::kWeight:
      return "weight";
    case Role::kInput:
      return "input";
    case Role::kLayerOutput:
      return "layer_output";
  }
  return "unknown";
}

std::vector<StaticRow> ScanWeights(const model::ModelConfig& config,
                                   const model::TensorViewMap& tensors,
                                   std::span<const ScanError> errors, uint64_t seed, int threads) {
  const auto layers = static_cast<int>(config.num_layers);
  const int64_t per_error = int64_t{layers} * static_cast<int64_t>(kLinears.size());
  std::vector<StaticRow> rows(errors.size() * static_cast<size_t>(per_error));
  model::ThreadPool pool(threads);
  std::vector<std::vector<float>> scratch(static_cast<size_t>(threads));
  pool.Run(static_cast<int64_t>(rows.size()), [&](int64_t task, int worker) {
    const ScanError& error = errors[static_cast<size_t>(task / per_error)];
    const int64_t linear = task % per_error;
    const auto layer = static_cast<int>(linear / static_cast<int64_t>(kLinears.size()));
    const Operator op = kLinears[static_cast<size_t>(linear) % kLinears.size()];
    const auto found = tensors.find(absl::StrCat(numerics::OperatorPath(op, layer), ".weight"));
    TEMPER_CHECK(found != tensors.end(), "a model holds the tensors of its configuration");
    const model::TensorView& weight = found->second;
    const QuantizationStats stats =
        ScanWeight(error,
                   {.w = weight.values.data(),
                    .out = weight.shape[0],
                    .in = weight.shape[1],
                    .key = base::RandomKey(seed, base::Purpose::kWeightError, 0),
                    .site = numerics::Site(layer, op, numerics::TensorRole::kWeightOperand)},
                   &scratch[static_cast<size_t>(worker)]);
    rows[static_cast<size_t>(task)] = RowOf(stats, error, Role::kWeight, layer, op);
  });
  return rows;
}

ActivationScan::ActivationScan(const model::ModelConfig& config, std::span<const ScanError> errors,
                               Role site, uint64_t seed)
    : num_layers_(static_cast<int>(config.num_layers)),
      errors_(errors.begin(), errors.end()),
      site_(site),
      seed_(seed) {
  const size_t points = site == Role::kLayerOutput ? 1 : kInputs;
  for (const ScanError& error : errors_) {
    scanners_.emplace_back(error);
    for (size_t i = 0; i < static_cast<size_t>(num_layers_) * points; ++i) {
      stats_.push_back(EmptyStats(error));
    }
  }
}

void ActivationScan::BeginSequence(uint64_t question) {
  key_ = base::EvaluationErrorKey(seed_, question);
}

QuantizationStats* ActivationScan::StatsOf(size_t error, const model::ObservedRows& rows) {
  const size_t points = site_ == Role::kLayerOutput ? 1 : kInputs;
  const size_t point = site_ == Role::kLayerOutput ? 0 : InputOf(rows.op);
  const size_t layer = error * static_cast<size_t>(num_layers_) + static_cast<size_t>(rows.layer);
  return &stats_[layer * points + point];
}

void ActivationScan::Observe(const model::ObservedRows& rows) {
  const bool layer_output = rows.point == model::ObservedPoint::kLayerOutput;
  if (rows.layer == numerics::kNoLayer || layer_output != (site_ == Role::kLayerOutput)) return;
  if (rows.layer == 0 && (layer_output || rows.op == Operator::kQ)) rows_ += rows.rows;
  keys_.resize(static_cast<size_t>(rows.rows));
  for (size_t r = 0; r < keys_.size(); ++r) {
    keys_[r] = {.key = key_, .position = static_cast<uint32_t>(r)};
  }
  const uint32_t site = numerics::Site(rows.layer, rows.op, numerics::TensorRole::kInputOperand);
  for (size_t e = 0; e < errors_.size(); ++e) {
    scanners_[e].Add(rows.x, rows.rows, rows.cols, keys_, site, StatsOf(e, rows));
  }
}

void ActivationScan::Merge(const ActivationScan& other) {
  TEMPER_CHECK(stats_.size() == other.stats_.size(), "scans of one model are merged");
  rows_ += other.rows_;
  for (size_t i = 0; i < stats_.size(); ++i) stats_[i].Merge(other.stats_[i]);
}

int64_t ActivationScan::bytes() const {
  int64_t total = 0;
  for (const QuantizationStats& stats : stats_) total += stats.bytes();
  return total;
}

std::vector<StaticRow> ActivationScan::Rows() const {
  std::vector<StaticRow> rows;
  const auto layers = static_cast<size_t>(num_layers_);
  for (size_t e = 0; e < errors_.size(); ++e) {
    for (size_t layer = 0; layer < layers; ++layer) {
      const int number = static_cast<int>(layer);
      if (site_ == Role::kLayerOutput) {
        rows.push_back(RowOf(stats_[e * layers + layer], errors_[e], site_, number, Operator::kQ));
        continue;
      }
      for (const Operator op : kLinears) {
        rows.push_back(RowOf(stats_[(e * layers + layer) * kInputs + InputOf(op)], errors_[e],
                             site_, number, op));
      }
    }
  }
  return rows;
}

}  // namespace temper::scan
