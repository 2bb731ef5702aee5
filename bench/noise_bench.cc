// Cost of relative Gaussian error per number: the keyed kernel on every path, against the way of a
// framework, y + randn_like(y) * y.abs() * s, which makes and reads four temporaries. One thread.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "bench/machine.h"
#include "numerics/gaussian.h"
#include "numerics/operator_error.h"
#include "numerics/simd_path.h"

#ifdef TEMPER_BENCH_ATEN
namespace temper::bench {
void RegisterAtenNoise();  // noise_bench_aten.cc
}
#endif

namespace temper::bench {
namespace {

using numerics::ErrorStats;
using numerics::RowKey;
using numerics::SimdPath;

// Small, so that the numbers stay finite over any number of repetitions.
constexpr float kScale = 1e-6f;

void SetRate(benchmark::State& state, int64_t numbers) {
  state.SetItemsProcessed(state.iterations() * numbers);
  state.counters["per_number"] =
      benchmark::Counter(static_cast<double>(state.iterations() * numbers),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void KeyedNoise(benchmark::State& state, SimdPath path, numerics::GaussianDraw draw) {
  if (!numerics::SimdPathSupported(path)) {
    state.SkipWithError("this machine cannot run the path");
    return;
  }
  const int64_t rows = state.range(0), cols = state.range(1);
  std::vector<float> y(static_cast<size_t>(rows * cols), 1.0f);
  std::vector<RowKey> keys;
  for (int64_t r = 0; r < rows; ++r) {
    keys.push_back({.key = 7, .position = static_cast<uint32_t>(r), .lane = 1});
  }
  ErrorStats stats;
  for (auto _ : state) {
    numerics::ApplyRelativeGaussian(y.data(), rows, cols, cols, keys, 5, kScale, &stats, path,
                                    draw);
    benchmark::ClobberMemory();
  }
  SetRate(state, rows * cols);
}

// An error other than relative Gaussian on the widest path.
void OtherError(benchmark::State& state, numerics::ErrorType type) {
  const int64_t rows = state.range(0), cols = state.range(1);
  std::vector<float> y(static_cast<size_t>(rows * cols));
  numerics::FillGaussian(y.data(), rows * cols, 3, 1);
  const std::vector<RowKey> keys(static_cast<size_t>(rows), RowKey{.key = 7});
  const numerics::OperatorError error = {
      .type = type, .strength = kScale, .spike_probability = 0.01};
  ErrorStats stats;
  for (auto _ : state) {
    numerics::ApplyError(error, y.data(), rows, cols, cols, keys, 5, &stats);
    benchmark::ClobberMemory();
  }
  SetRate(state, rows * cols);
}

void Normals(benchmark::State& state, SimdPath path, numerics::GaussianDraw draw) {
  if (!numerics::SimdPathSupported(path)) {
    state.SkipWithError("this machine cannot run the path");
    return;
  }
  std::vector<float> out(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    numerics::FillGaussian(out.data(), state.range(0), 7, 5, 0, 0, path, draw);
    benchmark::ClobberMemory();
  }
  SetRate(state, state.range(0));
}

void Shapes(benchmark::internal::Benchmark* b) {
  b->Args({256, 96})->Args({256, 576})->Args({2048, 1536});
}

void RegisterKeyedNoise() {
  for (const SimdPath path : {SimdPath::kScalar, SimdPath::kAvx2, SimdPath::kAvx512}) {
    const std::string name(numerics::SimdPathName(path));
    for (const auto& [draw, how] : {std::pair(numerics::GaussianDraw::kExact, ""),
                                    std::pair(numerics::GaussianDraw::kFast, "fast_")}) {
      const std::string suffix = how + name;
      benchmark::RegisterBenchmark(("normals/" + suffix).c_str(), Normals, path, draw)
          ->Arg(1 << 16);
      Shapes(
          benchmark::RegisterBenchmark(("keyed_noise/" + suffix).c_str(), KeyedNoise, path, draw));
    }
  }
  for (int t = 1; t < numerics::kErrorTypeCount; ++t) {
    const auto type = static_cast<numerics::ErrorType>(t);
    const std::string name(numerics::ErrorTypeName(type));
    benchmark::RegisterBenchmark(("error/" + name).c_str(), OtherError, type)->Args({256, 576});
  }
}

}  // namespace
}  // namespace temper::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  temper::bench::AddMachineContext(/*threads=*/1);
  temper::bench::RegisterKeyedNoise();
#ifdef TEMPER_BENCH_ATEN
  temper::bench::RegisterAtenNoise();
#endif
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
