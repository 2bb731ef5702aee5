#include "tests/unit/numerics/cuda/emulated_device.h"

#include "numerics/cuda/error_block.h"
#include "numerics/cuda/launch_checks.h"
#include "numerics/cuda/norm_block.h"
#include "numerics/cuda/quantize_block.h"
#include "services/base/status_macros.h"

namespace temper::numerics::cuda {
namespace {

template <class Shared, class Body>
void RunBlocks(int64_t blocks, Body body) {
  const auto shared = std::make_unique<Shared>();
  for (int64_t block = blocks - 1; block >= 0; --block) {
    body(static_cast<uint32_t>(block), shared.get());
  }
}

template <ErrorType type>
void RunError(const ErrorArguments& a) {
  if (ReadsRowMaximum(type)) {
    RunBlocks<RowMaximum>(
        a.rows, [&](uint32_t block, RowMaximum* shared) { RowMaximumBlock(a, block, shared); });
  }
  RunBlocks<TileCounts>(a.rows * TilesOf(a.cols), [&](uint32_t block, TileCounts* shared) {
    ErrorBlock<type>(a, block, shared);
  });
}

template <QuantizeFormat format>
void RunQuantize(const QuantizeArguments& a) {
  RunBlocks<QuantizeShared>(a.rows * BlocksPerRow(a), [&](uint32_t block, QuantizeShared* shared) {
    if (a.stochastic) {
      QuantizeBlock<format, true>(a, block, shared);
    } else {
      QuantizeBlock<format, false>(a, block, shared);
    }
  });
}

}  // namespace

void* EmulatedDevice::Allocate(size_t bytes) {
  memory_.push_back(std::make_unique<uint64_t[]>(bytes / sizeof(uint64_t) + 1));
  return memory_.back().get();
}

absl::Status EmulatedDevice::Error(const ErrorArguments& a) {
  TEMPER_RETURN_IF_ERROR(CheckError(a));
  switch (a.type) {
    case ErrorType::kRelativeGaussian:
      RunError<ErrorType::kRelativeGaussian>(a);
      break;
    case ErrorType::kAbsoluteGaussian:
      RunError<ErrorType::kAbsoluteGaussian>(a);
      break;
    case ErrorType::kSystematicBias:
      RunError<ErrorType::kSystematicBias>(a);
      break;
    case ErrorType::kTruncation:
      RunError<ErrorType::kTruncation>(a);
      break;
    case ErrorType::kDeadzone:
      RunError<ErrorType::kDeadzone>(a);
      break;
    case ErrorType::kSaturation:
      RunError<ErrorType::kSaturation>(a);
      break;
    case ErrorType::kSpike:
      RunError<ErrorType::kSpike>(a);
      break;
  }
  return absl::OkStatus();
}

absl::Status EmulatedDevice::Norm(const NormArguments& a) {
  TEMPER_RETURN_IF_ERROR(CheckNorm(a));
  RunBlocks<NormShared>(a.rows,
                        [&](uint32_t block, NormShared* shared) { NormBlock(a, block, shared); });
  return absl::OkStatus();
}

absl::Status EmulatedDevice::Quantize(const QuantizeArguments& a) {
  TEMPER_RETURN_IF_ERROR(CheckQuantize(a));
  if (a.span == QuantizeSpan::kTensor) {
    *a.tensor_amax = {};
    RunBlocks<RowMaximum>(a.rows * TilesOf(a.cols), [&](uint32_t block, RowMaximum* shared) {
      TensorAmaxBlock(a, block, shared);
    });
  }
  switch (a.format) {
    case QuantizeFormat::kMxfp4:
      RunQuantize<QuantizeFormat::kMxfp4>(a);
      break;
    case QuantizeFormat::kNvfp4:
      RunQuantize<QuantizeFormat::kNvfp4>(a);
      break;
    case QuantizeFormat::kFp8:
      RunQuantize<QuantizeFormat::kFp8>(a);
      break;
  }
  return absl::OkStatus();
}

}  // namespace temper::numerics::cuda
