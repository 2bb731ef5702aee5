#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "model/kernels/row_kernels.h"
#include "model/kv_pages.h"
#include "model/row_ops.h"
#include "model/thread_pool.h"
#include "numerics/gaussian.h"

namespace temper::model {
namespace {

using numerics::SimdPath;

std::vector<float> Normal(int64_t count, uint32_t site) {
  std::vector<float> values(static_cast<size_t>(count));
  numerics::FillGaussian(values.data(), count, 7, site);
  return values;
}

std::vector<SimdPath> SupportedPaths() {
  std::vector<SimdPath> paths;
  for (SimdPath path : {SimdPath::kScalar, SimdPath::kAvx2, SimdPath::kAvx512}) {
    if (numerics::SimdPathSupported(path)) paths.push_back(path);
  }
  return paths;
}

// One of everything, on sizes that fill no vector.
std::vector<float> RunAll(const kernels::RowKernels& k) {
  constexpr int64_t kRows = 5, kCols = 41, kHeadDim = 10;
  const std::vector<float> x = Normal(kRows * kCols, 1), g = Normal(kRows * kCols, 2);
  const std::vector<float> gamma = Normal(kCols, 3);
  std::vector<float> out;
  const auto keep = [&](const std::vector<float>& v) { out.insert(out.end(), v.begin(), v.end()); };
  std::vector<float> y(kRows * kCols), r(kRows), z(kRows * kCols), c(kCols);
  k.rms_norm(x.data(), kRows, kCols, kCols, gamma.data(), 1e-6f, y.data(), kCols, r.data());
  keep(y);
  k.rms_norm_backward(x.data(), g.data(), gamma.data(), r.data(), kRows, kCols, z.data());
  keep(z);
  k.rms_norm_gamma(x.data(), g.data(), r.data(), kRows, kCols, 0, kCols, c.data());
  keep(c);
  k.column_sums(g.data(), kRows, kCols, c.data());
  keep(c);
  k.swiglu(x.data(), g.data(), kRows, kCols, kCols, y.data(), kCols);
  keep(y);
  k.swiglu_backward(x.data(), g.data(), y.data(), kRows * kCols, y.data(), z.data());
  keep(z);
  const RopeTable rope = [] {
    RopeTable table(10000.0, kHeadDim);
    table.Extend(9);
    return table;
  }();
  k.rope(y.data(), 4, kHeadDim, rope.cosine(8), rope.sine(8), false);
  keep(y);
  std::vector<float> weights(kCols);
  float max = 0.0f;
  out.push_back(static_cast<float>(k.softmax_weights(x.data(), kCols, 0.7f, weights.data(), &max)));
  out.push_back(static_cast<float>(k.weighted_log_sum(x.data(), weights.data(), kCols, 0.7f, max)));
  keep(weights);
  std::vector<float> gw(kCols * kCols);
  k.grad_weight(g.data(), kCols, x.data(), kCols, kRows, 0, kCols, kCols, gw.data(), kCols);
  keep(gw);
  return out;
}

TEST(RowKernels, GiveTheSameBitsOnEveryInstructionSet) {
  const std::vector<float> scalar = RunAll(KernelsFor(SimdPath::kScalar));
  for (SimdPath path : SupportedPaths()) {
    EXPECT_EQ(RunAll(KernelsFor(path)), scalar) << numerics::SimdPathName(path);
  }
}

TEST(RowKernels, SoftmaxAgreesWithDoublePrecision) {
  const std::vector<float> logits = Normal(500, 4);
  std::vector<float> weights(logits.size());
  for (SimdPath path : SupportedPaths()) {
    const RowSoftmax softmax =
        ComputeSoftmax(KernelsFor(path), logits.data(), 500, 2.0f, weights.data());
    double total = 0.0;
    for (float l : logits) total += std::exp(2.0 * l - softmax.max);
    EXPECT_TRUE(softmax.finite);
    EXPECT_NEAR(softmax.LogProb(logits[3], 2.0f), 2.0 * logits[3] - softmax.max - std::log(total),
                1e-6);
  }
}

TEST(RowKernels, ALogitThatIsNotANumberIsSeen) {
  std::vector<float> logits = Normal(100, 4), weights(100);
  for (float bad : {std::nanf(""), INFINITY}) {
    logits[41] = bad;
    for (SimdPath path : SupportedPaths()) {
      EXPECT_FALSE(
          ComputeSoftmax(KernelsFor(path), logits.data(), 100, 1.0f, weights.data()).finite);
    }
  }
}

TEST(ChooseToken, FollowsTheCumulativeSum) {
  const std::vector<float> weights = {0.0f, 1.0f, 0.0f, 3.0f, 0.0f};
  EXPECT_EQ(ChooseToken(weights.data(), 5, 4.0, 0.0001), 1);
  EXPECT_EQ(ChooseToken(weights.data(), 5, 4.0, 0.2499), 1);
  EXPECT_EQ(ChooseToken(weights.data(), 5, 4.0, 0.2501), 3);
  EXPECT_EQ(ChooseToken(weights.data(), 5, 4.0, 0.9999), 3);
  // A total that rounding made too large does not choose an entry without weight.
  EXPECT_EQ(ChooseToken(weights.data(), 5, 4.1, 0.9999), 3);
}

TEST(ChooseToken, FrequenciesMatchTheWeights) {
  const std::vector<float> logits = Normal(150, 6);
  std::vector<float> weights(150);
  const RowSoftmax softmax =
      ComputeSoftmax(BestKernels(), logits.data(), 150, 1.0f, weights.data());
  std::vector<int> counts(150);
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    ++counts[static_cast<size_t>(
        ChooseToken(weights.data(), 150, softmax.total, (i + 0.5) / kDraws))];
  }
  for (size_t i = 0; i < 150; ++i) {
    EXPECT_NEAR(counts[i], kDraws * weights[i] / softmax.total, 1.01) << i;
  }
}

// Attention of one row over `positions`, of which `prompt` lie in the first segment.
std::vector<float> AttendSplit(SimdPath path, int64_t positions, int64_t prompt) {
  ModelConfig config;
  config.num_layers = 1;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 10;
  KvPagePool pool(config);
  const std::vector<float> k = Normal(positions * 20, 8), v = Normal(positions * 20, 9);
  const std::vector<float> q = Normal(40, 10);
  std::vector<float*> pages[2];
  for (int64_t i = 0; i < positions; ++i) {
    const bool own = i >= prompt;
    const int64_t slot = (own ? i - prompt : i) % kernels::kPagePositions;
    if (slot == 0) pages[own].push_back(pool.Take());
    WriteKeyValue(&k[static_cast<size_t>(i * 20)], &v[static_cast<size_t>(i * 20)], 2, 10, slot,
                  pages[own].back());
  }
  std::vector<float> out(40),
      scratch(static_cast<size_t>(kernels::AttendScratchFloats(positions, 10)));
  KernelsFor(path).attend(
      {.q = q.data(),
       .out = out.data(),
       .heads = 4,
       .kv_heads = 2,
       .head_dim = 10,
       .scale = 0.3f,
       .segments = {{pages[0].data(), prompt}, {pages[1].data(), positions - prompt}},
       .layer_offset = 0,
       .scratch = scratch.data()});
  // Against double precision.
  for (int64_t h = 0; h < 4; ++h) {
    std::vector<double> p(static_cast<size_t>(positions));
    double total = 0.0;
    for (int64_t j = 0; j < positions; ++j) {
      double s = 0.0;
      for (int64_t d = 0; d < 10; ++d) s += double{q[h * 10 + d]} * k[j * 20 + h / 2 * 10 + d];
      total += p[j] = std::exp(0.3 * s);
    }
    for (int64_t d = 0; d < 10; ++d) {
      double sum = 0.0;
      for (int64_t j = 0; j < positions; ++j) sum += p[j] * v[j * 20 + h / 2 * 10 + d];
      EXPECT_NEAR(out[static_cast<size_t>(h * 10 + d)], sum / total, 2e-6);
    }
  }
  return out;
}

TEST(Attend, DoesNotDependOnWhereTheCacheIsSplitOrOnTheInstructionSet) {
  const std::vector<float> whole = AttendSplit(SimdPath::kScalar, 75, 75);
  for (SimdPath path : SupportedPaths()) {
    for (int64_t prompt : {1, 16, 37, 74, 75}) {
      EXPECT_EQ(AttendSplit(path, 75, prompt), whole) << prompt;
    }
  }
}

TEST(ThreadPool, RunsEveryTaskOnce) {
  ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<int> runs(97);
    pool.Split(97, 10, [&](int64_t begin, int64_t end, int worker) {
      EXPECT_LT(worker, 3);
      for (int64_t i = begin; i < end; ++i) ++runs[static_cast<size_t>(i)];
    });
    EXPECT_EQ(std::accumulate(runs.begin(), runs.end(), 0), 97);
  }
}

}  // namespace
}  // namespace temper::model
