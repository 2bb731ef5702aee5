#include "model/kernels/lanes_avx512.h"
// The bodies are written in the Lanes of the line above.
#include "model/kernels/norm_body.h"
// norm_body.h has what the other two share.
#include "model/kernels/attention_body.h"
#include "model/kernels/head_body.h"
#include "model/kernels/row_kernels.h"

namespace temper::model::kernels {

const RowKernels kAvx512Kernels = {
    RmsNorm,        RmsNormBackward, RmsNormGamma,   Add,    AddBias,        ColumnSums,
    Rope,           SwiGlu,          SwiGluBackward, Attend, AttendBackward, SoftmaxWeights,
    WeightedLogSum, Scale,           GradWeight,
};

}  // namespace temper::model::kernels
