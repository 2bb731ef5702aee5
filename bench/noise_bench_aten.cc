// The five-operation way of a framework: randn_like, abs, two products, a sum.

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn_like.h>
#include <benchmark/benchmark.h>

#include <cstdint>

namespace temper::bench {

namespace {

void AtenNoise(benchmark::State& state) {
  at::set_num_threads(1);
  const int64_t rows = state.range(0), cols = state.range(1);
  const at::Tensor y = at::ones({rows, cols});
  for (auto _ : state) {
    at::Tensor noisy = y + at::randn_like(y) * y.abs() * 0.05;
    benchmark::DoNotOptimize(noisy.data_ptr());
  }
  state.SetItemsProcessed(state.iterations() * rows * cols);
  state.counters["per_number"] =
      benchmark::Counter(static_cast<double>(state.iterations() * rows * cols),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

}  // namespace

void RegisterAtenNoise() {
  benchmark::RegisterBenchmark("aten_noise", AtenNoise)
      ->Args({256, 96})
      ->Args({256, 576})
      ->Args({2048, 1536});
}

}  // namespace temper::bench
