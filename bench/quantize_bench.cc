// Fake quantization of a weight matrix that is larger than the caches, on every path, against a
// memcpy of the same bytes (one read, one write) in the same run. One thread.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "bench/machine.h"
#include "numerics/formats/fake_quantize.h"
#include "numerics/gaussian.h"
#include "numerics/simd_path.h"

namespace temper::bench {
namespace {

using numerics::FakeQuantizer;
using numerics::FormatSpec;
using numerics::NumberFormat;
using numerics::ScaleSpan;
using numerics::SimdPath;

// 256 MiB each way: many times any cache.
constexpr int64_t kRows = 8192;
constexpr int64_t kCols = 8192;

// The matrix and the place for its copy, made once.
struct Buffers {
  std::vector<float> x, out;
  Buffers() : x(kRows * kCols), out(kRows * kCols) {
    numerics::FillGaussian(x.data(), kRows * kCols, /*key=*/7, /*site=*/5);
    for (float& value : x) value *= 0.02f;
  }
};

Buffers& Matrix() {
  static Buffers buffers;
  return buffers;
}

// bytes_per_second counts the matrix once, for the copy and for the formats alike.
void SetRate(benchmark::State& state) {
  state.SetBytesProcessed(state.iterations() * kRows * kCols * static_cast<int64_t>(sizeof(float)));
}

void Memcpy(benchmark::State& state) {
  Buffers& matrix = Matrix();
  for (auto _ : state) {
    std::memcpy(matrix.out.data(), matrix.x.data(), matrix.x.size() * sizeof(float));
    benchmark::ClobberMemory();
  }
  SetRate(state);
}

void Quantize(benchmark::State& state, const FormatSpec& spec, SimdPath path) {
  if (!numerics::SimdPathSupported(path)) {
    state.SkipWithError("this machine cannot run the path");
    return;
  }
  Buffers& matrix = Matrix();
  const FakeQuantizer quantizer =
      FakeQuantizer::Create(spec, numerics::Operand::kWeight, path).value();
  const int64_t shape[2] = {kRows, kCols};
  for (auto _ : state) {
    if (!quantizer.QuantizeWeight(shape, matrix.x.data(), matrix.out.data()).ok()) {
      state.SkipWithError("not quantized");
    }
    benchmark::ClobberMemory();
  }
  SetRate(state);
}

void Register() {
  const std::pair<const char*, FormatSpec> specs[] = {
      {"mxfp4", {.format = NumberFormat::kMxfp4}},
      {"mxfp4_2d", {.format = NumberFormat::kMxfp4, .block_2d = true}},
      {"nvfp4", {.format = NumberFormat::kNvfp4}},
      {"fp8_tensor", {.format = NumberFormat::kFp8}},
      {"fp8_row", {.format = NumberFormat::kFp8, .scale_span = ScaleSpan::kRow}},
      {"fp8_block", {.format = NumberFormat::kFp8, .scale_span = ScaleSpan::kBlock}},
      {"mxfp4_stochastic", {.format = NumberFormat::kMxfp4, .stochastic_rounding = true}},
  };
  benchmark::RegisterBenchmark("memcpy", Memcpy);
  for (const SimdPath path : {SimdPath::kAvx2, SimdPath::kAvx512}) {
    for (const auto& [name, spec] : specs) {
      const std::string full = std::string(name) + "/" + std::string(numerics::SimdPathName(path));
      benchmark::RegisterBenchmark(full.c_str(), Quantize, spec, path);
    }
  }
}

}  // namespace
}  // namespace temper::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  temper::bench::AddMachineContext(/*threads=*/1);
  temper::bench::Register();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
