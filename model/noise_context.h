#pragma once

// How the rows of a pass are keyed for hardware error, and where its counts go. Both engines build
// one RowNoise for the rows they compute; linears ask it per contiguous segment of one group's
// rows, so that counters belong to groups. No LibTorch here.

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "numerics/noise_counters.h"
#include "numerics/noise_policy.h"
#include "numerics/operator_error.h"
#include "numerics/row_key.h"
#include "numerics/site.h"

namespace temper::model {

// Operators whose error these engines do not implement, as a status at start rather than silence in
// a run: Unimplemented if the policy perturbs an operator other than the linears
// (adapters' products among them).
absl::Status CheckPolicySupported(const numerics::NoisePolicy& policy);

// Counts of one group: one row per (direction, layer or none, operator), dense, because the
// operators add to it in the inner loop. Thread-compatible: each thread counts into its own.
class GroupCounts {
 public:
  GroupCounts() = default;
  GroupCounts(numerics::Phase phase, int num_layers);

  numerics::NoiseRow& Row(numerics::Direction direction, numerics::Operator op, int layer);
  // The same of an injection's row. role: kInputOperand, kWeightOperand or kInjectedOutput.
  numerics::NoiseRow& InjectionRow(numerics::Direction direction, numerics::TensorRole role,
                                   numerics::Operator op, int layer);
  // Adds the rows that were called to `counters`.
  void AddTo(numerics::NoiseCounters* counters) const;
  void Merge(const GroupCounts& other);

 private:
  size_t Index(numerics::Direction direction, numerics::Operator op, int layer) const;
  numerics::NoiseRowId IdOf(size_t index) const;  // of rows_

  numerics::Phase phase_ = numerics::Phase::kRollout;
  int num_layers_ = 0;
  std::vector<numerics::NoiseRow> rows_;
  std::vector<numerics::NoiseRow>
      injection_rows_;  // by role above all; empty until one is asked for
};

// Rows begin .. end - 1 of a pass belong to one group.
struct RowSegment {
  int64_t begin = 0;
  int64_t end = 0;
  GroupCounts* counts = nullptr;  // not null
};

// The rows of one pass, or of a part of it. Holds views; built per pass.
struct RowNoise {
  const numerics::NoisePolicy* policy = nullptr;  // null: no error, but operators are counted
  numerics::Phase phase = numerics::Phase::kRollout;
  // Of the draws that `phase` names. keys[r]: row r. May be empty where no error acts.
  std::span<const numerics::RowKey> keys;
  std::span<const RowSegment> segments;  // in order, without gaps, from row 0
  // Of the draws of hw_error_injection; read where it acts on rows.
  std::span<const numerics::RowKey> injection_keys = {};

  // The error of (phase, direction, op, layer); none without policy.
  numerics::OperatorError Error(numerics::Direction direction, numerics::Operator op,
                                int layer) const;
};

// What AQN did to the weight of one norm; nothing (channels 0) where it is clean. The sums are
// rounded to float, so that a count of rows times a sum is exact however the rows were cut.
struct NormPerturbation {
  uint64_t channels = 0;
  uint64_t changed = 0;
  float sum_sq_change = 0.0f;  // of perturbed - clean
  float sum_sq_weight = 0.0f;  // of clean
};
NormPerturbation ComparePerturbed(std::span<const float> clean, std::span<const float> perturbed);

// Counts the application of a norm to `rows` tokens of one group, each as one call: row (forward,
// norm, layer), whose elements are the channels of a perturbed weight.
void CountNormRows(GroupCounts* counts, int64_t rows, numerics::Operator norm, int layer,
                   const NormPerturbation& perturbation);

// Perturbs rows first_row .. first_row + rows - 1 of the pass with the error that `noise` has for
// the operator. y holds the first of them; row_stride in floats. A row is the whole result of the
// operator for its token (cols: all its features), because some errors measure by the row's
// maximum. keys: of these draws, indexed by the row of the pass. role: kOutput
// with kForward, kGradInput with kBackward. Without error only the rows are counted.
//
// Counters count a row (one token) as one call of the operator and one injection, so that they do
// not depend on how rows were batched or cut between threads.
//
// ApplyRowErrorAt names the draws' site itself: that of an adapter (numerics::AdapterSite).
void ApplyRowErrorAt(uint32_t site, float* y, int64_t first_row, int64_t rows, int64_t cols,
                     int64_t row_stride, const RowNoise& noise,
                     std::span<const numerics::RowKey> keys, numerics::Direction direction,
                     numerics::Operator op, int layer);
void ApplyRowError(float* y, int64_t first_row, int64_t rows, int64_t cols, int64_t row_stride,
                   const RowNoise& noise, std::span<const numerics::RowKey> keys,
                   numerics::Direction direction, numerics::Operator op, int layer);

}  // namespace temper::model
