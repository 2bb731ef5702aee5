#include "model/noise_context.h"

#include <algorithm>

#include "services/base/check.h"
#include "services/base/text.h"

namespace temper::model {

using numerics::Direction;
using numerics::Operator;
using numerics::Phase;

absl::Status CheckPolicySupported(const numerics::NoisePolicy& policy) {
  constexpr Operator kUnsupported[] = {
      Operator::kRouter,          Operator::kLoraA,   Operator::kLoraB, Operator::kAttentionScores,
      Operator::kAttentionValues, Operator::kSoftmax, Operator::kSilu,  Operator::kRmsNorm};
  for (int phase = 0; phase < numerics::kPhaseCount; ++phase) {
    for (Direction direction : {Direction::kForward, Direction::kBackward}) {
      for (Operator op : kUnsupported) {
        for (int layer = numerics::kNoLayer; layer < policy.num_layers(); ++layer) {
          if (policy.Scale(static_cast<Phase>(phase), direction, op, layer) > 0.0) {
            return absl::UnimplementedError(
                base::Cat("error on the operator ", numerics::OperatorName(op),
                          " is not built: only linear layers (q, k, v, o, gate, up, down, "
                          "lm_head) can err"));
          }
        }
      }
    }
  }
  return absl::OkStatus();
}

GroupCounts::GroupCounts(Phase phase, int num_layers)
    : phase_(phase),
      num_layers_(num_layers),
      rows_(static_cast<size_t>(2 * (num_layers + 1) * numerics::kOperatorCount)) {}

numerics::NoiseRow& GroupCounts::Row(Direction direction, Operator op, int layer) {
  const int column = layer < 0 ? num_layers_ : layer;
  const int index =
      (static_cast<int>(direction) * (num_layers_ + 1) + column) * numerics::kOperatorCount +
      static_cast<int>(op);
  return rows_[static_cast<size_t>(index)];
}

void GroupCounts::AddTo(numerics::NoiseCounters* counters) const {
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (rows_[i].operator_calls == 0) continue;
    const int op = static_cast<int>(i) % numerics::kOperatorCount;
    const int column = static_cast<int>(i) / numerics::kOperatorCount % (num_layers_ + 1);
    const int direction = static_cast<int>(i) / numerics::kOperatorCount / (num_layers_ + 1);
    counters->Add({.phase = phase_,
                   .direction = static_cast<Direction>(direction),
                   .layer = column == num_layers_ ? numerics::kNoLayer : column,
                   .op = static_cast<Operator>(op),
                   .role = numerics::RoleInPass(static_cast<Direction>(direction),
                                                static_cast<Operator>(op))},
                  rows_[i]);
  }
}

void GroupCounts::Merge(const GroupCounts& other) {
  TEMPER_CHECK(rows_.size() == other.rows_.size(), "counts of one model");
  for (size_t i = 0; i < rows_.size(); ++i) {
    rows_[i].operator_calls += other.rows_[i].operator_calls;
    if (other.rows_[i].stats.calls != 0) rows_[i].stats.Merge(other.rows_[i].stats);
  }
}

numerics::OperatorError RowNoise::Error(Direction direction, Operator op, int layer) const {
  return policy == nullptr ? numerics::OperatorError() : policy->Error(phase, direction, op, layer);
}

NormPerturbation ComparePerturbed(std::span<const float> clean, std::span<const float> perturbed) {
  TEMPER_CHECK(clean.size() == perturbed.size(), "two weights of one norm");
  NormPerturbation result;
  double sum_sq_change = 0.0;
  double sum_sq_weight = 0.0;
  for (size_t i = 0; i < clean.size(); ++i) {
    const double change = static_cast<double>(perturbed[i]) - static_cast<double>(clean[i]);
    result.changed += change != 0.0 ? 1 : 0;
    sum_sq_change += change * change;
    sum_sq_weight += static_cast<double>(clean[i]) * static_cast<double>(clean[i]);
  }
  result.channels = clean.size();
  result.sum_sq_change = static_cast<float>(sum_sq_change);
  result.sum_sq_weight = static_cast<float>(sum_sq_weight);
  return result;
}

void CountNormRows(const RowNoise& noise, int64_t first_row, int64_t rows, int layer,
                   const NormPerturbation& perturbation) {
  for (const RowSegment& segment : noise.segments) {
    const int64_t begin = std::max(segment.begin, first_row);
    const int64_t end = std::min(segment.end, first_row + rows);
    if (begin >= end) continue;
    const auto count = static_cast<uint64_t>(end - begin);
    numerics::NoiseRow& row = segment.counts->Row(Direction::kForward, Operator::kRmsNorm, layer);
    row.operator_calls += count;
    if (perturbation.channels == 0) continue;
    row.stats.calls += count;
    row.stats.elements += count * perturbation.channels;
    row.stats.changed += count * perturbation.changed;
    const auto times = static_cast<double>(count);
    row.stats.sum_sq_error.Add(times * static_cast<double>(perturbation.sum_sq_change));
    row.stats.sum_sq_value.Add(times * static_cast<double>(perturbation.sum_sq_weight));
  }
}

void ApplyRowError(float* y, int64_t first_row, int64_t rows, int64_t cols, int64_t row_stride,
                   const RowNoise& noise, std::span<const numerics::RowKey> keys,
                   Direction direction, Operator op, int layer) {
  const numerics::OperatorError error = noise.Error(direction, op, layer);
  const uint32_t site =
      numerics::Site(layer, op,
                     direction == Direction::kForward ? numerics::TensorRole::kOutput
                                                      : numerics::TensorRole::kGradInput);
  for (const RowSegment& segment : noise.segments) {
    const int64_t begin = std::max(segment.begin, first_row);
    const int64_t end = std::min(segment.end, first_row + rows);
    if (begin >= end) continue;
    numerics::NoiseRow& row = segment.counts->Row(direction, op, layer);
    row.operator_calls += static_cast<uint64_t>(end - begin);
    if (!error.acts()) continue;
    numerics::ErrorStats stats;
    numerics::ApplyError(error, y + (begin - first_row) * row_stride, end - begin, cols, row_stride,
                         keys.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                         site, &stats);
    stats.calls = static_cast<uint64_t>(end - begin);
    row.stats.Merge(stats);
  }
}

}  // namespace temper::model
