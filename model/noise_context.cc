#include "model/noise_context.h"

#include <algorithm>
#include <array>

#include "services/base/check.h"
#include "services/base/text.h"

namespace temper::model {

using numerics::Direction;
using numerics::Operator;
using numerics::Phase;
using numerics::TensorRole;

namespace {

constexpr std::array<TensorRole, 3> kInjectionRoles = {
    TensorRole::kInputOperand, TensorRole::kWeightOperand, TensorRole::kInjectedOutput};

}  // namespace

absl::Status CheckPolicySupported(const numerics::NoisePolicy& policy) {
  constexpr Operator kUnsupported[] = {
      Operator::kRouter, Operator::kAttentionScores, Operator::kAttentionValues, Operator::kSoftmax,
      Operator::kSilu,   Operator::kRmsNorm};
  const auto errs = [&](Operator op, int layer) {
    if (policy.injection().enabled() && policy.injection().Selects(op, layer)) return true;
    for (int phase = 0; phase < numerics::kPhaseCount; ++phase) {
      for (Direction direction : {Direction::kForward, Direction::kBackward}) {
        if (policy.Scale(static_cast<Phase>(phase), direction, op, layer) > 0.0) return true;
      }
    }
    return false;
  };
  for (Operator op : kUnsupported) {
    for (int layer = numerics::kNoLayer; layer < policy.num_layers(); ++layer) {
      if (!errs(op, layer)) continue;
      return absl::UnimplementedError(
          base::Cat("error on the operator ", numerics::OperatorName(op),
                    " is not built: only linear layers (q, k, v, o, gate, up, down, "
                    "lm_head, lora_a, lora_b) can err"));
    }
  }
  return absl::OkStatus();
}

GroupCounts::GroupCounts(Phase phase, int num_layers)
    : phase_(phase),
      num_layers_(num_layers),
      rows_(static_cast<size_t>(2 * (num_layers + 1) * numerics::kOperatorCount)) {}

numerics::NoiseRow& GroupCounts::Row(Direction direction, Operator op, int layer) {
  return rows_[Index(direction, op, layer)];
}

numerics::NoiseRow& GroupCounts::InjectionRow(Direction direction, TensorRole role, Operator op,
                                              int layer) {
  if (injection_rows_.empty()) injection_rows_.resize(kInjectionRoles.size() * rows_.size());
  const auto it = std::find(kInjectionRoles.begin(), kInjectionRoles.end(), role);
  TEMPER_CHECK(it != kInjectionRoles.end(), "a role of hw_error_injection");
  return injection_rows_[static_cast<size_t>(it - kInjectionRoles.begin()) * rows_.size() +
                         Index(direction, op, layer)];
}

size_t GroupCounts::Index(Direction direction, Operator op, int layer) const {
  const int column = layer < 0 ? num_layers_ : layer;
  return static_cast<size_t>((static_cast<int>(direction) * (num_layers_ + 1) + column) *
                                 numerics::kOperatorCount +
                             static_cast<int>(op));
}

numerics::NoiseRowId GroupCounts::IdOf(size_t index) const {
  const int op = static_cast<int>(index) % numerics::kOperatorCount;
  const int column = static_cast<int>(index) / numerics::kOperatorCount % (num_layers_ + 1);
  const int direction = static_cast<int>(index) / numerics::kOperatorCount / (num_layers_ + 1);
  return {
      .phase = phase_,
      .direction = static_cast<Direction>(direction),
      .layer = column == num_layers_ ? numerics::kNoLayer : column,
      .op = static_cast<Operator>(op),
      .role = numerics::RoleInPass(static_cast<Direction>(direction), static_cast<Operator>(op))};
}

void GroupCounts::AddTo(numerics::NoiseCounters* counters) const {
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (rows_[i].operator_calls > 0) counters->Add(IdOf(i), rows_[i]);
  }
  for (size_t i = 0; i < injection_rows_.size(); ++i) {
    if (injection_rows_[i].operator_calls == 0) continue;
    numerics::NoiseRowId id = IdOf(i % rows_.size());
    id.role = kInjectionRoles[i / rows_.size()];
    counters->Add(id, injection_rows_[i]);
  }
}

void GroupCounts::Merge(const GroupCounts& other) {
  TEMPER_CHECK(rows_.size() == other.rows_.size(), "counts of one model");
  const auto merge = [](const std::vector<numerics::NoiseRow>& from,
                        std::vector<numerics::NoiseRow>* to) {
    if (to->size() < from.size()) to->resize(from.size());
    for (size_t i = 0; i < from.size(); ++i) {
      (*to)[i].operator_calls += from[i].operator_calls;
      if (from[i].stats.calls != 0) (*to)[i].stats.Merge(from[i].stats);
    }
  };
  merge(other.rows_, &rows_);
  merge(other.injection_rows_, &injection_rows_);
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

void CountNormRows(GroupCounts* counts, int64_t rows, Operator norm, int layer,
                   const NormPerturbation& perturbation) {
  const auto count = static_cast<uint64_t>(rows);
  numerics::NoiseRow& row = counts->Row(Direction::kForward, norm, layer);
  row.operator_calls += count;
  if (perturbation.channels == 0) return;
  row.stats.calls += count;
  row.stats.elements += count * perturbation.channels;
  row.stats.changed += count * perturbation.changed;
  const auto times = static_cast<double>(count);
  row.stats.sum_sq_error.Add(times * static_cast<double>(perturbation.sum_sq_change));
  row.stats.sum_sq_value.Add(times * static_cast<double>(perturbation.sum_sq_weight));
}

void ApplyRowErrorAt(uint32_t site, float* y, int64_t first_row, int64_t rows, int64_t cols,
                     int64_t row_stride, const RowNoise& noise,
                     std::span<const numerics::RowKey> keys, Direction direction, Operator op,
                     int layer) {
  const numerics::OperatorError error = noise.Error(direction, op, layer);
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

void ApplyRowError(float* y, int64_t first_row, int64_t rows, int64_t cols, int64_t row_stride,
                   const RowNoise& noise, std::span<const numerics::RowKey> keys,
                   Direction direction, Operator op, int layer) {
  const uint32_t site =
      numerics::Site(layer, op,
                     direction == Direction::kForward ? numerics::TensorRole::kOutput
                                                      : numerics::TensorRole::kGradInput);
  ApplyRowErrorAt(site, y, first_row, rows, cols, row_stride, noise, keys, direction, op, layer);
}

}  // namespace temper::model
