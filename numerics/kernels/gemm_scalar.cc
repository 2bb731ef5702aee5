// The reference path of the matrix product: the definition, one number at a time.

#include "numerics/kernels/gemm_kernels.h"

namespace temper::numerics::kernels {

void GemmScalar(const GemmArguments& g) {
  for (int64_t m = 0; m < g.rows; ++m) {
    for (int64_t n = 0; n < g.N; ++n) {
      const float* w = g.panels + (n / kGemmPanel) * kGemmPanel * g.K + n % kGemmPanel;
      float sum = 0.0f;
      for (int64_t k = 0; k < g.K; ++k) {
        sum = __builtin_fmaf(g.x[m * g.ldx + k], w[k * kGemmPanel], sum);
      }
      g.y[m * g.ldy + n] = sum;
    }
  }
}

}  // namespace temper::numerics::kernels
