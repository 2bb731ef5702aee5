#include "model/adapter_branch.h"

namespace temper::model {

void AddAdapterBranch(const AdapterRows& call, const kernels::RowKernels& kernels,
                      absl::FunctionRef<void(float*, int64_t, numerics::Operator)> error) {
  const int64_t rank = call.a->out_features();
  const int64_t out = call.b->out_features();
  numerics::Gemm(call.x, call.rows, call.x_stride, *call.a, call.t, rank);
  error(call.t, rank, numerics::Operator::kLoraA);
  numerics::Gemm(call.t, call.rows, rank, *call.b, call.u, out);
  error(call.u, out, numerics::Operator::kLoraB);
  kernels.scale(call.u, call.rows * out, call.scale, call.u);
  for (int64_t row = 0; row < call.rows; ++row) {
    kernels.add(call.y + row * call.y_stride, call.u + row * out, out);
  }
}

}  // namespace temper::model
