#include "numerics/gemm.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "numerics/kernels/gemm_kernels.h"
#include "services/base/check.h"

namespace temper::numerics {
namespace {

static_assert(PackedMatrix::kPanel == kernels::kGemmPanel);
constexpr size_t kAlignment = 64;

}  // namespace

void PackedMatrix::Free::operator()(float* p) const {
  ::operator delete[](p, std::align_val_t{kAlignment});
}

PackedMatrix Pack(const float* w, int64_t out_features, int64_t in_features, int64_t ldw) {
  TEMPER_CHECK(out_features >= 0 && in_features >= 0, "sizes are not negative");
  constexpr int64_t kPanel = PackedMatrix::kPanel;
  PackedMatrix packed;
  packed.out_features_ = out_features;
  packed.in_features_ = in_features;
  const int64_t panels = (out_features + kPanel - 1) / kPanel;
  const auto count = static_cast<size_t>(std::max<int64_t>(1, panels * kPanel * in_features));
  packed.values_.reset(
      static_cast<float*>(::operator new[](count * sizeof(float), std::align_val_t{kAlignment})));
  for (int64_t p = 0; p < panels; ++p) {
    float* panel = packed.values_.get() + p * kPanel * in_features;
    const int64_t features = std::min(kPanel, out_features - p * kPanel);
    for (int64_t n = 0; n < kPanel; ++n) {
      const float* row = w + (p * kPanel + n) * ldw;
      for (int64_t k = 0; k < in_features; ++k) {
        panel[k * kPanel + n] = n < features ? row[k] : 0.0f;
      }
    }
  }
  return packed;
}

void Gemm(const float* x, int64_t M, int64_t ldx, const PackedMatrix& w, float* y, int64_t ldy,
          SimdPath path) {
  if (M <= 0 || w.out_features() == 0) return;
  const kernels::GemmArguments arguments = {.x = x,
                                            .rows = M,
                                            .ldx = ldx,
                                            .panels = w.panel(0),
                                            .K = w.in_features(),
                                            .N = w.out_features(),
                                            .y = y,
                                            .ldy = ldy};
  switch (path) {
    case SimdPath::kAvx512:
      return kernels::GemmAvx512(arguments);
    case SimdPath::kAvx2:
      return kernels::GemmAvx2(arguments);
    case SimdPath::kScalar:
      return kernels::GemmScalar(arguments);
  }
}

}  // namespace temper::numerics
