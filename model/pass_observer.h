#pragma once

// What a forward pass of the decode engine shows to one who watches it. A pass without an observer
// pays one comparison per operator. No LibTorch here.

#include <cstdint>

#include "numerics/site.h"

namespace temper::model {

enum class ObservedPoint {
  // What a linear multiplies. q, k and v share one input and so do gate and up: each is shown once,
  // as that of q and of gate.
  kLinearInput,
  // The residual stream behind a decoder layer; kNoLayer: before the first one, the embeddings.
  kLayerOutput,
};

struct ObservedRows {
  ObservedPoint point = ObservedPoint::kLinearInput;
  numerics::Operator op = numerics::Operator::kQ;  // of kLinearInput
  int layer = numerics::kNoLayer;
  const float* x = nullptr;  // [rows, cols] without gaps; valid during the call
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t first_row = 0;  // of the pass: 0 but in lm_head, which sees some rows alone
};

// Called on the thread of the pass, in the order of the operators.
class PassObserver {
 public:
  virtual ~PassObserver() = default;
  virtual void Observe(const ObservedRows& rows) = 0;
};

}  // namespace temper::model
