#pragma once

// Bodies of the error kernels: numerics/operator_error.h, ApplyError.

#include "numerics/cuda/keyed_normals.h"
#include "numerics/cuda/row_counting.h"
#include "numerics/cuda/row_maximum.h"
#include "numerics/kernels/error_element.h"

namespace temper::numerics::cuda {
namespace {

TEMPER_HOST_DEVICE constexpr bool ReadsRowMaximum(ErrorType type) {
  return type == ErrorType::kDeadzone || type == ErrorType::kSaturation ||
         type == ErrorType::kSpike;
}
// The bit of a site's tensor number that names the word of a spike.
constexpr uint32_t kStrikeBit = 8;

// Block `row` of the kernel that fills row_maxima.
TEMPER_HOST_DEVICE inline void RowMaximumBlock(const ErrorArguments& a, uint32_t row,
                                               RowMaximum* shared) {
  FindRowMaximum(a.y + row * a.row_stride, a.cols, shared);
  ForEachThread([&](int thread) {
    if (thread == 0) a.row_maxima[row] = shared->finite_bits[0];
  });
}

// What the error of this type is measured by in a row: kernels::ErrorArguments::size.
template <ErrorType type>
TEMPER_HOST_DEVICE inline float ErrorSize(bool relative, float strength, float largest) {
  if constexpr (type == ErrorType::kSystematicBias) {
    return relative ? kernels::Add(1.0f, strength) : strength;
  } else if constexpr (type == ErrorType::kDeadzone || type == ErrorType::kSpike) {
    return kernels::Mul(strength, largest);
  } else if constexpr (type == ErrorType::kSaturation) {
    return kernels::Mul(kernels::Sub(1.0f, strength), largest);
  } else {
    return strength;
  }
}

// x' of elements element .. element + 3 of a row.
template <ErrorType type>
TEMPER_HOST_DEVICE inline FourFloats PerturbFour(const FourFloats& x, const ErrorArguments& a,
                                                 const RowKey& key, int64_t element, float size,
                                                 uint32_t last_struck) {
  FourNormals n = {};
  FourWords words = {};
  if constexpr (type == ErrorType::kRelativeGaussian || type == ErrorType::kAbsoluteGaussian ||
                type == ErrorType::kSpike) {
    n = KeyedNormals(key, a.site, element);
  }
  if constexpr (type == ErrorType::kSpike) {
    words = KeyedWords(key, a.site | kStrikeBit, static_cast<uint32_t>(element / 4));
  }
  FourFloats erred;
  for (int i = 0; i < 4; ++i) {
    const float v = x.v[i];
    switch (type) {
      case ErrorType::kRelativeGaussian:
        erred.v[i] = kernels::RelativeGaussian(v, size, n.n[i]);
        break;
      case ErrorType::kAbsoluteGaussian:
        erred.v[i] = kernels::AbsoluteGaussian(v, size, n.n[i]);
        break;
      case ErrorType::kSystematicBias:
        erred.v[i] = a.relative ? kernels::RelativeBias(v, size) : kernels::Bias(v, size);
        break;
      case ErrorType::kTruncation:
        erred.v[i] = kernels::Truncation(v, size);
        break;
      case ErrorType::kDeadzone:
        erred.v[i] = kernels::Deadzone(v, size);
        break;
      case ErrorType::kSaturation:
        erred.v[i] = kernels::Saturation(v, size);
        break;
      case ErrorType::kSpike:
        erred.v[i] = kernels::Spike(v, size, n.n[i], words.w[i], last_struck);
        break;
    }
  }
  return erred;
}

// Block `block` of rows * TilesOf(cols): perturbs one tile of one row and counts it.
template <ErrorType type>
TEMPER_HOST_DEVICE inline void ErrorBlock(const ErrorArguments& a, uint32_t block,
                                          TileCounts* shared) {
  const TilePlace place = PlaceOf(block, a.cols);
  const int64_t row = place.row, first = place.first;
  const auto count = static_cast<int>(Smaller(kTileElements, a.cols - first));
  const bool counted = a.counts != nullptr;
  if (counted) BeginCounting(shared);
  ForEachThread([&](int thread) {
    const int here = static_cast<int>(Smaller(kPerThread, count - kPerThread * thread));
    if (here <= 0) return;
    float* at = a.y + row * a.row_stride + first + kPerThread * thread;
    const FourFloats before = LoadFour(at, here);
    FourFloats after = before;
    const ErrorParameters parameters = *a.parameters;
    if (parameters.strength > 0.0f) {
      const float largest = ReadsRowMaximum(type) ? kernels::FromBits(a.row_maxima[row]) : 0.0f;
      const float size = ErrorSize<type>(a.relative, parameters.strength, largest);
      const int64_t element = first + kPerThread * thread;
      after = PerturbFour<type>(before, a, a.row_keys[row], element, size, parameters.last_struck);
      StoreFour(after, at, here);
    }
    if (counted) CountFour(shared, thread, here, before, after);
  });
  if (counted) EndCounting(shared, count, first == 0, a.cols, a.counts + row);
}

}  // namespace
}  // namespace temper::numerics::cuda
