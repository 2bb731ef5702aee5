#pragma once

// The static scan: what an error does to each weight and to each linear's input, or to the outputs
// of the decoder layers, counted in one pass over sequences of tokens.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/io/model_config.h"
#include "model/io/tensor_data.h"
#include "model/pass_observer.h"
#include "numerics/site.h"
#include "scan/scan_error.h"

namespace temper::scan {

enum class Role { kWeight, kInput, kLayerOutput };
// "weight", "input", "layer_output".
std::string RoleName(Role role);

// One row of the table. Definitions: numerics/formats/quantization_stats.h.
struct StaticRow {
  std::string error;  // ScanError::name
  Role role = Role::kWeight;
  int layer = 0;
  numerics::Operator op = numerics::Operator::kQ;  // of weights and inputs
  int64_t elements = 0;
  int64_t non_finite = 0;
  double sqnr_db = 0.0;
  double sqnr_db_without_largest = 0.0;   // the 0.1 % of largest magnitude
  std::vector<double> block_row_sqnr_db;  // at kBlockRowQuantiles
  double dead_zone = 0.0;
  double relative_error = 0.0;
  double saturation = 0.0;
};
inline constexpr double kBlockRowQuantiles[] = {0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99};

// Every decoder linear's weight, once for each error. seed: of Gaussian draws. Two copies of one
// tensor per thread are in memory beside the model. Rows: by error, then layer, then operator;
// `elements` are those counted (kCountedValues).
std::vector<StaticRow> ScanWeights(const model::ModelConfig& config,
                                   const model::TensorViewMap& tensors,
                                   std::span<const ScanError> errors, uint64_t seed, int threads);

// Watches passes. Memory depends on the model's shape and the number of errors alone.
// Thread-compatible: one per thread, merged afterwards.
class ActivationScan final : public model::PassObserver {
 public:
  // site: kInput or kLayerOutput.
  ActivationScan(const model::ModelConfig& config, std::span<const ScanError> errors, Role site,
                 uint64_t seed);

  // Before the pass over a sequence: its question keys the draws of its rows.
  void BeginSequence(uint64_t question);
  void Observe(const model::ObservedRows& rows) override;
  void Merge(const ActivationScan& other);

  // Rows of activations seen at one point of one layer: each token once.
  int64_t rows() const { return rows_; }
  // Of all accumulators.
  int64_t bytes() const;
  // q, k and v have the input of q, gate and up that of gate. Order as ScanWeights.
  std::vector<StaticRow> Rows() const;

 private:
  numerics::QuantizationStats* StatsOf(size_t error, const model::ObservedRows& rows);

  const int num_layers_;
  const std::vector<ScanError> errors_;
  const Role site_;
  const uint64_t seed_;
  int64_t rows_ = 0;
  std::vector<RowScanner> scanners_;                // by error
  std::vector<numerics::QuantizationStats> stats_;  // [error][layer][point]
  std::vector<numerics::RowKey> keys_;
  uint64_t key_ = 0;
};

}  // namespace temper::scan
