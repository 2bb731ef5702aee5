// Device time of the CUDA kernels of numerics/cuda, per number and as a share of what a copy of the
// same bytes on the device takes in the same run: every kernel reads and writes each number once (a
// type that looks for its row's maximum, and FP8 and NVFP4 by row, read it twice).

#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "numerics/cuda/noise_kernels.h"
#include "numerics/formats/number_format.h"
#include "numerics/gaussian.h"
#include "numerics/operator_error.h"

namespace temper::bench {
namespace {

using numerics::ErrorType;
using numerics::NumberFormat;
using numerics::RowKey;
namespace cuda = numerics::cuda;

bool Works(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return true;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  return false;
}

// A matrix and all that the kernels read, in device memory.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t cols) : rows_(rows), cols_(cols) {
    const auto count = static_cast<size_t>(rows * cols);
    std::vector<float> normals(count);
    numerics::FillGaussian(normals.data(), rows * cols, 7, 1);
    std::vector<RowKey> keys;
    for (int64_t r = 0; r < rows; ++r) {
      keys.push_back({.key = 7, .position = static_cast<uint32_t>(r), .lane = 1});
    }
    // Small, so that the numbers stay finite over any number of repetitions.
    const cuda::ErrorParameters parameters = {.strength = 1e-6f, .last_struck = 0xffffffu};
    const cuda::NormDraw draw = {.key = 9, .scale = 0.01f};
    x_ = Put(normals.data(), count);
    out_ = Put(normals.data(), count);
    gamma_ = Put(normals.data(), static_cast<size_t>(cols));
    keys_ = Put(keys.data(), keys.size());
    parameters_ = Put(&parameters, 1);
    draw_ = Put(&draw, 1);
    maxima_ = Put<uint32_t>(nullptr, keys.size());
    counts_ = Put<cuda::RowCounts>(nullptr, keys.size());
    amax_ = Put<cuda::TensorAmax>(nullptr, 1);
    whole_ = whole_ && Works(cudaEventCreate(&start_), "event") &&
             Works(cudaEventCreate(&end_), "event");
  }
  ~Matrix() {
    for (void* memory : memory_) cudaFree(memory);
    if (start_ != nullptr) cudaEventDestroy(start_);
    if (end_ != nullptr) cudaEventDestroy(end_);
  }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  absl::Status Error(ErrorType type, bool counted) const {
    return cuda::ApplyErrorOnDevice({.type = type,
                                     .y = x_,
                                     .rows = rows_,
                                     .cols = cols_,
                                     .row_stride = cols_,
                                     .row_keys = keys_,
                                     .parameters = parameters_,
                                     .site = 5,
                                     .row_maxima = maxima_,
                                     .counts = counted ? counts_ : nullptr},
                                    nullptr);
  }
  absl::Status Norm() const {
    return cuda::NormOnDevice({.x = x_,
                               .y = out_,
                               .gamma = gamma_,
                               .rows = rows_,
                               .cols = cols_,
                               .x_stride = cols_,
                               .y_stride = cols_,
                               .eps = 1e-6f,
                               .draws = draw_,
                               .site = 5},
                              nullptr);
  }
  absl::Status Quantize(cuda::QuantizeArguments a) const {
    a.x = x_;
    a.out = out_;
    a.rows = rows_;
    a.cols = a.x_stride = a.out_stride = cols_;
    a.tensor_amax = amax_;
    a.row_keys = keys_;
    return cuda::QuantizeOnDevice(a, nullptr);
  }
  absl::Status CopyBytes() const {
    const cudaError_t error =
        cudaMemcpyAsync(out_, x_, Bytes() / 2, cudaMemcpyDeviceToDevice, nullptr);
    return error == cudaSuccess ? absl::OkStatus()
                                : absl::UnavailableError(cudaGetErrorString(error));
  }

  // Read once and written once.
  size_t Bytes() const { return static_cast<size_t>(rows_ * cols_) * 2 * sizeof(float); }

  // Times `launches` runs of `run` on the device. Seconds of one; negative where it failed.
  template <typename Run>
  double SecondsOf(Run run, int launches) const {
    if (!whole_ || !Works(cudaEventRecord(start_, nullptr), "event")) return -1.0;
    for (int i = 0; i < launches; ++i) {
      if (!run(*this).ok()) return -1.0;
    }
    float milliseconds = 0.0f;
    if (!Works(cudaEventRecord(end_, nullptr), "event") ||
        !Works(cudaEventSynchronize(end_), "the kernels") ||
        !Works(cudaEventElapsedTime(&milliseconds, start_, end_), "event")) {
      return -1.0;
    }
    return static_cast<double>(milliseconds) * 1e-3 / launches;
  }

 private:
  // from: null for zeros.
  template <typename T>
  T* Put(const T* from, size_t count) {
    void* memory = nullptr;
    whole_ = whole_ && Works(cudaMalloc(&memory, count * sizeof(T)), "device memory");
    if (!whole_) return nullptr;
    memory_.push_back(memory);
    whole_ = from == nullptr
                 ? Works(cudaMemset(memory, 0, count * sizeof(T)), "device memory")
                 : Works(cudaMemcpy(memory, from, count * sizeof(T), cudaMemcpyHostToDevice),
                         "copy to the device");
    return static_cast<T*>(memory);
  }

  const int64_t rows_, cols_;
  bool whole_ = true;
  std::vector<void*> memory_;
  float *x_ = nullptr, *out_ = nullptr, *gamma_ = nullptr;
  RowKey* keys_ = nullptr;
  cuda::ErrorParameters* parameters_ = nullptr;
  cuda::NormDraw* draw_ = nullptr;
  uint32_t* maxima_ = nullptr;
  cuda::RowCounts* counts_ = nullptr;
  cuda::TensorAmax* amax_ = nullptr;
  cudaEvent_t start_ = nullptr, end_ = nullptr;
};

// Theoretical bandwidth of the device's memory, bytes per second; 0 where it does not say.
double PeakBandwidth() {
  int kilohertz = 0, bits = 0;
  if (cudaDeviceGetAttribute(&kilohertz, cudaDevAttrMemoryClockRate, 0) != cudaSuccess ||
      cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, 0) != cudaSuccess) {
    return 0.0;
  }
  return 2.0 * kilohertz * 1e3 * bits / 8.0;  // two transfers a clock
}

template <typename Run>
void Register(const std::string& name, Run run) {
  const auto time = [run](benchmark::State& state) {
    const Matrix matrix(state.range(0), state.range(1));
    constexpr int kLaunches = 20;
    const double copy = matrix.SecondsOf([](const Matrix& m) { return m.CopyBytes(); }, kLaunches);
    double total = 0.0;
    for (auto _ : state) {
      const double seconds = matrix.SecondsOf(run, kLaunches);
      if (seconds < 0.0 || copy < 0.0) {
        state.SkipWithError("the device did not run it");
        return;
      }
      total += seconds;
      state.SetIterationTime(seconds);
    }
    const double seconds = total / static_cast<double>(state.iterations());
    const auto bytes = static_cast<double>(matrix.Bytes());
    state.counters["ns_per_number"] = seconds * 1e9 / (bytes / 8.0);
    state.counters["of_copy"] = copy / seconds;
    if (const double peak = PeakBandwidth(); peak > 0.0) {
      state.counters["of_peak"] = bytes / seconds / peak;
    }
  };
  benchmark::RegisterBenchmark(name.c_str(), time)
      ->Args({8, 1536})
      ->Args({256, 8960})
      ->Args({8192, 8192})
      ->UseManualTime();
}

void RegisterAll() {
  Register("copy", [](const Matrix& m) { return m.CopyBytes(); });
  for (int t = 0; t < numerics::kErrorTypeCount; ++t) {
    const auto type = static_cast<ErrorType>(t);
    const std::string name = "error/" + std::string(numerics::ErrorTypeName(type));
    Register(name, [type](const Matrix& m) { return m.Error(type, false); });
    Register(name + "/counted", [type](const Matrix& m) { return m.Error(type, true); });
  }
  Register("norm/aqn", [](const Matrix& m) { return m.Norm(); });
  for (const auto format : {NumberFormat::kMxfp4, NumberFormat::kNvfp4, NumberFormat::kFp8}) {
    for (const bool stochastic : {false, true}) {
      const cuda::QuantizeArguments a =
          cuda::MakeQuantizeArguments({.format = format, .stochastic_rounding = stochastic},
                                      numerics::Operand::kActivation)
              .value();
      const std::string name = "quantize/" + std::string(numerics::NumberFormatName(format));
      Register(name + (stochastic ? "/stochastic" : ""),
               [a](const Matrix& m) { return m.Quantize(a); });
    }
  }
}

}  // namespace
}  // namespace temper::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  cudaDeviceProp device;
  if (!temper::bench::Works(cudaGetDeviceProperties(&device, 0), "no CUDA device")) return 1;
  benchmark::AddCustomContext("device", device.name);
  temper::bench::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
