#include "model/operand_error.h"

#include <algorithm>

#include "numerics/tensor_error.h"
#include "services/base/status_macros.h"

namespace temper::model {
namespace {

using numerics::TensorRole;

const numerics::TensorError* ErrorOf(const ProductRows& product, TensorRole role) {
  if (product.noise.policy == nullptr) return nullptr;
  const numerics::TensorError& error = product.noise.policy->injection().Error(
      product.noise.phase, product.direction, role, product.op, product.layer);
  return error.acts() ? &error : nullptr;
}

// Calls f(first, count, the segment's row of counts) for the part of each segment in the product;
// first: a row of the pass.
template <typename F>
void ForEachSegment(const ProductRows& product, TensorRole role, F f) {
  for (const RowSegment& segment : product.noise.segments) {
    const int64_t begin = std::max(segment.begin, product.first_row);
    const int64_t end = std::min(segment.end, product.first_row + product.rows);
    if (begin >= end) continue;
    f(begin, end - begin,
      segment.counts->InjectionRow(product.direction, role, product.op, product.layer));
  }
}

std::span<const numerics::RowKey> KeysOf(const ProductRows& product, int64_t first, int64_t count) {
  return product.noise.injection_keys.subspan(static_cast<size_t>(first),
                                              static_cast<size_t>(count));
}

void Count(numerics::ErrorStats stats, int64_t rows, numerics::NoiseRow* row) {
  stats.calls = static_cast<uint64_t>(rows);
  row->operator_calls += static_cast<uint64_t>(rows);
  row->stats.Merge(stats);
}

}  // namespace

absl::StatusOr<WeightPerturbation> PerturbWeight(const numerics::TensorError& error, const float* w,
                                                 int64_t out_features, int64_t in_features,
                                                 uint64_t key, uint32_t site,
                                                 std::vector<float>* perturbed) {
  perturbed->resize(static_cast<size_t>(out_features * in_features));
  numerics::ErrorStats stats;
  TEMPER_RETURN_IF_ERROR(
      error.PerturbWeight(w, out_features, in_features, key, site, perturbed->data(), &stats));
  return WeightPerturbation{.elements = stats.elements,
                            .changed = stats.changed,
                            .non_finite = stats.non_finite,
                            .sum_sq_error = static_cast<float>(stats.sum_sq_error.value()),
                            .sum_sq_value = static_cast<float>(stats.sum_sq_value.value())};
}

const float* InputOperand(const float* x, int64_t cols, const ProductRows& product, float* buffer) {
  const numerics::TensorError* error = ErrorOf(product, TensorRole::kInputOperand);
  if (error == nullptr) return x;
  const uint32_t site = numerics::Site(product.layer, product.op, TensorRole::kInputOperand);
  ForEachSegment(product, TensorRole::kInputOperand,
                 [&](int64_t first, int64_t count, numerics::NoiseRow& row) {
                   const int64_t offset = (first - product.first_row) * cols;
                   numerics::ErrorStats stats;
                   error->PerturbRows(x + offset, count, cols, cols, buffer + offset, cols,
                                      KeysOf(product, first, count), site, &stats);
                   Count(stats, count, &row);
                 });
  return buffer;
}

void CountWeight(const ProductRows& product, const WeightPerturbation& perturbation) {
  if (ErrorOf(product, TensorRole::kWeightOperand) == nullptr) return;
  ForEachSegment(
      product, TensorRole::kWeightOperand, [&](int64_t, int64_t count, numerics::NoiseRow& row) {
        const auto times = static_cast<uint64_t>(count);
        row.operator_calls += times;
        if (perturbation.elements == 0) return;
        row.stats.calls += times;
        row.stats.elements += times * perturbation.elements;
        row.stats.changed += times * perturbation.changed;
        row.stats.non_finite += times * perturbation.non_finite;
        const auto factor = static_cast<double>(count);
        row.stats.sum_sq_error.Add(factor * static_cast<double>(perturbation.sum_sq_error));
        row.stats.sum_sq_value.Add(factor * static_cast<double>(perturbation.sum_sq_value));
      });
}

void InjectOutput(float* y, int64_t cols, int64_t row_stride, const ProductRows& product,
                  float* scratch) {
  const numerics::TensorError* error = ErrorOf(product, TensorRole::kInjectedOutput);
  if (error == nullptr) return;
  const uint32_t site = numerics::Site(product.layer, product.op, TensorRole::kInjectedOutput);
  ForEachSegment(product, TensorRole::kInjectedOutput,
                 [&](int64_t first, int64_t count, numerics::NoiseRow& counts) {
                   numerics::ErrorStats stats;
                   for (int64_t row = first; row < first + count; ++row) {
                     float* values = y + (row - product.first_row) * row_stride;
                     std::copy_n(values, cols, scratch);
                     error->PerturbRows(scratch, 1, cols, cols, values, cols,
                                        KeysOf(product, row, 1), site, &stats);
                   }
                   Count(stats, count, &counts);
                 });
}

}  // namespace temper::model
