// The kernels on a CUDA device against the CPU's kernels. Skipped, with the reason, without one.

#include <cuda_runtime_api.h>

#include "numerics/cuda/noise_kernels.h"
#include "tests/unit/numerics/cuda/cuda_device.h"
#include "tests/unit/numerics/cuda/noise_conformance.h"
#include "tests/unit/numerics/cuda/norm_conformance.h"
#include "tests/unit/numerics/cuda/quantize_conformance.h"

namespace temper::numerics::cuda {

INSTANTIATE_TYPED_TEST_SUITE_P(Cuda, NoiseConformance, CudaDevice);
INSTANTIATE_TYPED_TEST_SUITE_P(Cuda, QuantizeConformance, CudaDevice);
INSTANTIATE_TYPED_TEST_SUITE_P(Cuda, NormConformance, CudaDevice);

namespace {

// Enough blocks that they interleave differently from run to run.
TEST(DeviceNoise, CountsOfManyBlocksAreTheCpusInEveryRun) {
  CudaDevice device;
  if (!device.Missing().empty()) GTEST_SKIP() << device.Missing();
  constexpr int64_t kRows = 512, kCols = 8960;
  const std::vector<RowKey> keys = Keys(kRows, 3);
  std::vector<float> x = Gaussians(kRows * kCols, 2.0f);
  const size_t bytes = x.size() * sizeof(float);
  auto* const y = static_cast<float*>(device.Allocate(bytes));
  auto* const row_keys = static_cast<RowKey*>(device.Allocate(keys.size() * sizeof(RowKey)));
  auto* const counts = static_cast<RowCounts*>(device.Allocate(kRows * sizeof(RowCounts)));
  auto* const parameters = static_cast<ErrorParameters*>(device.Allocate(sizeof(ErrorParameters)));
  std::copy(keys.begin(), keys.end(), row_keys);
  *parameters = {.strength = 0.05f};
  std::vector<float> expected = x;
  ErrorStats expected_counts;
  ApplyError({.strength = 0.05f}, expected.data(), kRows, kCols, kCols, keys, kSite,
             &expected_counts);
  for (int run = 0; run < 5; ++run) {
    std::copy(x.begin(), x.end(), y);
    std::fill_n(counts, kRows, RowCounts());
    ASSERT_TRUE(device
                    .Error({.y = y,
                            .rows = kRows,
                            .cols = kCols,
                            .row_stride = kCols,
                            .row_keys = row_keys,
                            .parameters = parameters,
                            .site = kSite,
                            .counts = counts})
                    .ok());
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), y)) << run;
    EXPECT_EQ(CountsOfRows({counts, kRows}), expected_counts) << run;
  }
}

// Memory that the device alone sees.
template <typename T>
class DeviceMemory final {
 public:
  explicit DeviceMemory(size_t count) : count_(count) {
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, count * sizeof(T)), cudaSuccess);
    at_ = static_cast<T*>(memory);
    EXPECT_EQ(cudaMemset(at_, 0, count * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // the test's stream does not wait for it
  }
  ~DeviceMemory() { cudaFree(at_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  T* get() const { return at_; }
  void Write(const std::vector<T>& from, cudaStream_t stream) {
    EXPECT_EQ(cudaMemcpyAsync(at_, from.data(), count_ * sizeof(T), cudaMemcpyHostToDevice, stream),
              cudaSuccess);
  }
  std::vector<T> Read(cudaStream_t stream) const {
    std::vector<T> to(count_);
    EXPECT_EQ(cudaMemcpyAsync(to.data(), at_, count_ * sizeof(T), cudaMemcpyDeviceToHost, stream),
              cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    return to;
  }

 private:
  T* at_ = nullptr;
  const size_t count_;
};

constexpr int64_t kRows = 8, kCols = 576;
constexpr AqnTarget kNorm = {.layer = 1, .op = Operator::kInputNorm};

// What one replay reads, beside the values.
struct Step {
  std::vector<RowKey> keys;
  OperatorError error;
  uint64_t aqn_key = 0;
  double sigma = 0.0;
};

// An operator's error, a norm under AQN, and the norm's result in NVFP4: the CPU's way.
std::vector<float> OnTheCpu(const Step& step, const std::vector<float>& x,
                            const std::vector<float>& gamma, ErrorStats* counts) {
  std::vector<float> y = x, normed(x.size()), weight = gamma, quantized(x.size());
  ApplyError(step.error, y.data(), kRows, kCols, kCols, step.keys, kSite, counts);
  ApplyAqn(gamma, weight, kNorm, {.key = step.aqn_key, .sigma = step.sigma}, 1.0, nullptr);
  model::kernels::kScalarKernels.rms_norm(y.data(), kRows, kCols, kCols, weight.data(), 1e-6f,
                                          normed.data(), kCols, nullptr);
  Quantizer({.format = NumberFormat::kNvfp4}, Operand::kActivation)
      .QuantizeRows({.x = normed.data(),
                     .out = quantized.data(),
                     .rows = kRows,
                     .cols = kCols,
                     .x_stride = kCols,
                     .out_stride = kCols},
                    {}, 0);
  return quantized;
}

TEST(DeviceNoise, ACapturedGraphDrawsNewNoiseFromRewrittenKeys) {
  if (!MissingCudaDevice().empty()) GTEST_SKIP() << MissingCudaDevice();
  CudaDevice device;
  const cudaStream_t stream = device.stream();
  const std::vector<float> x = Gaussians(kRows * kCols, 1.0f), gamma = Gaussians(kCols, 1.0f, 2);
  DeviceMemory<float> clean(x.size()), y(x.size()), normed(x.size()), quantized(x.size());
  DeviceMemory<float> weight(gamma.size());
  DeviceMemory<RowKey> keys(kRows);
  DeviceMemory<ErrorParameters> parameters(1);
  DeviceMemory<NormDraw> draw(1);
  DeviceMemory<RowCounts> counts(kRows);
  clean.Write(x, stream);
  weight.Write(gamma, stream);

  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replayed = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(y.get(), clean.get(), x.size() * sizeof(float),
                            cudaMemcpyDeviceToDevice, stream),
            cudaSuccess);
  EXPECT_TRUE(ApplyErrorOnDevice({.y = y.get(),
                                  .rows = kRows,
                                  .cols = kCols,
                                  .row_stride = kCols,
                                  .row_keys = keys.get(),
                                  .parameters = parameters.get(),
                                  .site = kSite,
                                  .counts = counts.get()},
                                 stream)
                  .ok());
  EXPECT_TRUE(NormOnDevice({.x = y.get(),
                            .y = normed.get(),
                            .gamma = weight.get(),
                            .rows = kRows,
                            .cols = kCols,
                            .x_stride = kCols,
                            .y_stride = kCols,
                            .eps = 1e-6f,
                            .draws = draw.get(),
                            .site = AqnSite(kNorm)},
                           stream)
                  .ok());
  QuantizeArguments q =
      MakeQuantizeArguments({.format = NumberFormat::kNvfp4}, Operand::kActivation).value();
  q.x = normed.get();
  q.out = quantized.get();
  q.rows = kRows;
  q.cols = q.x_stride = q.out_stride = kCols;
  EXPECT_TRUE(QuantizeOnDevice(q, stream).ok());
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&replayed, graph, 0), cudaSuccess);

  std::vector<std::vector<float>> results;
  ErrorStats expected_counts;
  for (const uint64_t version : {1, 2, 3}) {
    const Step step = {.keys = Keys(kRows, 10 * version),
                       .error = {.strength = version == 3 ? 0.2f : 0.05f},
                       .aqn_key = version,
                       .sigma = 0.01 * static_cast<double>(version)};
    keys.Write(step.keys, stream);
    parameters.Write({MakeErrorParameters(step.error).value()}, stream);
    draw.Write({{.key = step.aqn_key, .scale = static_cast<float>(step.sigma)}}, stream);
    ASSERT_EQ(cudaGraphLaunch(replayed, stream), cudaSuccess);
    results.push_back(quantized.Read(stream));
    EXPECT_EQ(results.back(), OnTheCpu(step, x, gamma, &expected_counts)) << version;
    EXPECT_EQ(CountsOfRows(counts.Read(stream)), expected_counts) << version;
  }
  EXPECT_NE(results[0], results[1]);
  EXPECT_NE(results[1], results[2]);
  cudaGraphExecDestroy(replayed);
  cudaGraphDestroy(graph);
}

TEST(DeviceNoise, ALaunchWithoutItsKeysIsRefusedBeforeTheDevice) {
  EXPECT_EQ(ApplyErrorOnDevice({.rows = 1, .cols = 1}, nullptr).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(NormOnDevice({}, nullptr).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(QuantizeOnDevice({}, nullptr).code(), absl::StatusCode::kInvalidArgument);
}

// What a process sees that has no device: a status, not a crash.
TEST(DeviceNoise, WithoutADeviceALaunchIsUnavailable) {
  if (MissingCudaDevice().empty()) GTEST_SKIP() << "there is a CUDA device";
  float number = 1.0f;
  RowKey key;
  ErrorParameters parameters;
  const absl::Status status = ApplyErrorOnDevice({.y = &number,
                                                  .rows = 1,
                                                  .cols = 1,
                                                  .row_stride = 1,
                                                  .row_keys = &key,
                                                  .parameters = &parameters},
                                                 nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

}  // namespace
}  // namespace temper::numerics::cuda
