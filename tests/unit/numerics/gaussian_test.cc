#include "numerics/gaussian.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <numbers>
#include <sstream>
#include <string>
#include <vector>

#include "numerics/site.h"
#include "services/base/random_key.h"
#include "tests/unit/numerics/simd_paths.h"

namespace temper::numerics {
namespace {

class Gaussian : public ::testing::TestWithParam<GaussianDraw> {
 protected:
  std::vector<float> Draw(int64_t count, uint64_t key, SimdPath path = BestSimdPath(),
                          uint32_t site = 77, uint32_t position = 5, uint32_t lane = 3) const {
    std::vector<float> out(static_cast<size_t>(count));
    FillGaussian(out.data(), count, key, site, position, lane, path, GetParam());
    return out;
  }
};

INSTANTIATE_TEST_SUITE_P(Draws, Gaussian,
                         ::testing::Values(GaussianDraw::kExact, GaussianDraw::kFast),
                         [](const auto& draw) {
                           return draw.param == GaussianDraw::kExact ? "Exact" : "Fast";
                         });

TEST_P(Gaussian, MatchesTheGoldenVectors) {
  // Lines: key site position lane element bits-of-the-float, numbers in hexadecimal.
  const std::string path_of_file = GetParam() == GaussianDraw::kExact
                                       ? "tests/golden/gaussian.txt"
                                       : "tests/golden/gaussian_fast.txt";
  std::ifstream file(path_of_file);
  ASSERT_TRUE(file) << path_of_file << " (run from the source folder)";
  std::string line;
  int checked = 0;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    uint64_t key = 0, element = 0;
    uint32_t site = 0, position = 0, lane = 0, bits = 0;
    ASSERT_TRUE(fields >> std::hex >> key >> site >> position >> lane >> element >> bits) << line;
    for (SimdPath path : Paths()) {
      std::vector<float> out(element + 1);
      FillGaussian(out.data(), static_cast<int64_t>(out.size()), key, site, position, lane, path,
                   GetParam());
      EXPECT_EQ(std::bit_cast<uint32_t>(out[element]), bits) << line << SimdPathName(path);
    }
    ++checked;
  }
  EXPECT_GE(checked, 30);
}

TEST_P(Gaussian, IsTheSameBitsOnEveryPathAndForEveryLength) {
  for (int64_t count : {1, 3, 4, 31, 32, 33, 63, 64, 65, 127, 576, 1537, 100000}) {
    const std::vector<uint32_t> expected = BitsOf(Draw(count, 1234, SimdPath::kScalar));
    for (SimdPath path : Paths()) {
      EXPECT_EQ(BitsOf(Draw(count, 1234, path)), expected) << SimdPathName(path) << " " << count;
    }
  }
}

// The largest difference to the formula in double precision, of draws under key 42.
double WorstError(const std::vector<float>& numbers) {
  constexpr uint64_t kKey = 42;
  double worst = 0.0;
  for (uint32_t i = 0; i < numbers.size(); i += 2) {
    const auto words = base::Philox({i / 4, 5, 77, 3}, kKey);
    const uint32_t w0 = words[i % 4], w1 = words[i % 4 + 1];
    const double u1 = static_cast<float>(w0 >> 1) * 0x1p-31f + 0x1p-32f;
    const double u2 = static_cast<float>(w1 >> 1) * 0x1p-31f;
    const double radius = std::sqrt(-2.0 * std::log(u1));
    const double angle = 2.0 * std::numbers::pi * u2;
    worst = std::max(worst, std::abs(radius * std::cos(angle) - numbers[i]));
    worst = std::max(worst, std::abs(radius * std::sin(angle) - numbers[i + 1]));
  }
  return worst;
}

double WorstFastError(const std::vector<float>& numbers) {
  constexpr uint64_t kKey = 42;
  double worst = 0.0;
  for (uint32_t i = 0; i < numbers.size(); i += 8) {
    const auto words = base::Philox({i / 8, 5, 77, 3}, kKey);
    for (uint32_t k = 0; k < 4; ++k) {
      const double u1 = ((words[k] & 0xffff) + 0.5) * 0x1p-16;
      const double radius = std::sqrt(-2.0 * std::log(u1));
      const double angle = 2.0 * std::numbers::pi * (words[k] >> 16) * 0x1p-16;
      worst = std::max(worst, std::abs(radius * std::cos(angle) - numbers[i + k]));
      worst = std::max(worst, std::abs(radius * std::sin(angle) - numbers[i + 4 + k]));
    }
  }
  return worst;
}

// A step of the fast draw's angle moves a number by up to 4e-4.
TEST_P(Gaussian, IsTheBoxMullerFormula) {
  const std::vector<float> numbers = Draw(1 << 18, 42);
  if (GetParam() == GaussianDraw::kExact) {
    EXPECT_LT(WorstError(numbers), 7e-7);
  } else {
    EXPECT_LT(WorstFastError(numbers), 7e-5);
  }
}

TEST_P(Gaussian, StaysWithinItsBound) {
  const std::vector<float> numbers = Draw(1 << 22, 5);
  const float bound = GetParam() == GaussianDraw::kExact ? 6.67f : 4.86f;
  const auto [least, most] = std::minmax_element(numbers.begin(), numbers.end());
  EXPECT_LT(*most, bound);
  EXPECT_GT(*least, -bound);
  EXPECT_GT(*most, 4.5f);
}

TEST_P(Gaussian, HasTheMomentsOfANormal) {
  const std::vector<float> numbers = Draw(1 << 21, 2026);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  for (double n : numbers) {
    m1 += n;
    m2 += n * n;
    m3 += n * n * n;
    m4 += n * n * n * n;
  }
  const double count = static_cast<double>(numbers.size());
  const double sd = 1.0 / std::sqrt(count);
  EXPECT_NEAR(m1 / count, 0.0, 4 * sd);
  EXPECT_NEAR(m2 / count, 1.0, 4 * std::sqrt(2.0) * sd);
  EXPECT_NEAR(m3 / count, 0.0, 4 * std::sqrt(15.0) * sd);
  EXPECT_NEAR(m4 / count, 3.0, 4 * std::sqrt(96.0) * sd);
}

TEST_P(Gaussian, PassesKolmogorovSmirnovAndHasTheRightTails) {
  std::vector<float> numbers = Draw(1 << 20, 77);
  std::sort(numbers.begin(), numbers.end());
  const double count = static_cast<double>(numbers.size());
  double distance = 0.0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    const double cdf = 0.5 * std::erfc(-numbers[i] / std::numbers::sqrt2);
    distance = std::max({distance, std::abs(cdf - static_cast<double>(i) / count),
                         std::abs(cdf - static_cast<double>(i + 1) / count)});
  }
  EXPECT_LT(distance * std::sqrt(count), 1.63);  // the 1 % bound
  for (double tail : {3.0, 4.0}) {
    const double expected = count * std::erfc(tail / std::numbers::sqrt2);
    const auto beyond = std::count_if(numbers.begin(), numbers.end(),
                                      [tail](float n) { return std::abs(n) > tail; });
    EXPECT_NEAR(static_cast<double>(beyond), expected, 4 * std::sqrt(expected)) << tail;
  }
}

TEST_P(Gaussian, NeighboursInEveryCounterWordAreUncorrelated) {
  constexpr int64_t kCount = 1 << 16;
  std::vector<std::vector<float>> draws(5);
  draws[0] = Draw(kCount, 8);
  draws[1] = Draw(kCount, 9);
  draws[2] = Draw(kCount, 8, BestSimdPath(), 78);
  draws[3] = Draw(kCount, 8, BestSimdPath(), 77, 6);
  draws[4] = Draw(kCount, 8, BestSimdPath(), 77, 5, 4);
  for (size_t a = 0; a < draws.size(); ++a) {
    for (size_t b = 0; b <= a; ++b) {
      const size_t shift = a == b ? 1 : 0;
      double product = 0.0;
      for (size_t i = shift; i < draws[a].size(); ++i) {
        product += static_cast<double>(draws[a][i - shift]) * draws[b][i];
      }
      EXPECT_LT(std::abs(product) / std::sqrt(static_cast<double>(kCount)), 4.0) << a << " " << b;
    }
  }
}

struct Problem {
  int64_t rows = 5, cols = 0, stride = 0;
  std::vector<float> y;
  std::vector<RowKey> keys;
};

Problem MakeProblem(int64_t cols) {
  Problem p;
  p.cols = cols;
  p.stride = cols + 3;
  p.y.resize(static_cast<size_t>(p.rows * p.stride));
  FillGaussian(p.y.data(), static_cast<int64_t>(p.y.size()), 1, 1);
  for (uint32_t r = 0; r < 5; ++r) p.keys.push_back({.key = 10 + r / 2, .position = r, .lane = 1});
  return p;
}

ErrorStats Apply(Problem* p, float scale, SimdPath path = BestSimdPath(),
                 GaussianDraw draw = GaussianDraw::kExact) {
  ErrorStats stats;
  ApplyRelativeGaussian(p->y.data(), p->rows, p->cols, p->stride, p->keys, 9, scale, &stats, path,
                        draw);
  return stats;
}

TEST(RelativeGaussian, GivesTheSameBitsAndCountsOnEveryPathFastToo) {
  for (int64_t cols : {1, 7, 8, 64, 65, 96, 100, 1024, 1030, 2500}) {
    Problem expected = MakeProblem(cols);
    const ErrorStats expected_stats =
        Apply(&expected, 0.05f, SimdPath::kScalar, GaussianDraw::kFast);
    std::vector<float> normals(static_cast<size_t>(cols));
    FillGaussian(normals.data(), cols, expected.keys[3].key, 9, expected.keys[3].position, 1,
                 BestSimdPath(), GaussianDraw::kFast);
    const Problem before = MakeProblem(cols);
    for (int64_t c = 0; c < cols; ++c) {
      const auto at = static_cast<size_t>(3 * before.stride + c);
      const float factor = std::fma(0.05f, normals[static_cast<size_t>(c)], 1.0f);
      EXPECT_EQ(expected.y[at], before.y[at] * factor);
    }
    for (SimdPath path : Paths()) {
      Problem p = MakeProblem(cols);
      const ErrorStats stats = Apply(&p, 0.05f, path, GaussianDraw::kFast);
      EXPECT_EQ(BitsOf(p.y), BitsOf(expected.y)) << SimdPathName(path) << " " << cols;
      EXPECT_EQ(stats, expected_stats) << SimdPathName(path) << " " << cols;
    }
  }
}

TEST(RelativeGaussian, GivesTheSameBitsAndCountsOnEveryPath) {
  for (int64_t cols : {1, 15, 16, 96, 100, 1024, 1030, 2500}) {
    Problem expected = MakeProblem(cols);
    const ErrorStats expected_stats = Apply(&expected, 0.05f, SimdPath::kScalar);
    for (SimdPath path : Paths()) {
      Problem p = MakeProblem(cols);
      const ErrorStats stats = Apply(&p, 0.05f, path);
      EXPECT_EQ(BitsOf(p.y), BitsOf(expected.y)) << SimdPathName(path) << " " << cols;
      EXPECT_EQ(stats, expected_stats) << SimdPathName(path) << " " << cols;
    }
  }
}

TEST(RelativeGaussian, IsTheSameWhereNothingIsCounted) {
  for (int64_t cols : {1, 15, 96, 100, 1030}) {
    Problem counted = MakeProblem(cols);
    Apply(&counted, 0.05f);
    for (SimdPath path : Paths()) {
      Problem p = MakeProblem(cols);
      ApplyRelativeGaussian(p.y.data(), p.rows, p.cols, p.stride, p.keys, 9, 0.05f, nullptr, path);
      EXPECT_EQ(BitsOf(p.y), BitsOf(counted.y)) << SimdPathName(path) << " " << cols;
    }
  }
}

TEST(RelativeGaussian, MultipliesByItsFactorsAndLeavesThePaddingAlone) {
  Problem p = MakeProblem(96);
  const std::vector<float> before = p.y;
  std::vector<float> factors(p.y.size(), 1.0f);
  RelativeGaussianFactors(factors.data(), p.rows, p.cols, p.stride, p.keys, 9, 0.05f);
  Apply(&p, 0.05f);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ(p.y[i], before[i] * factors[i]) << i;
  std::vector<float> normals(96);
  FillGaussian(normals.data(), 96, p.keys[3].key, 9, p.keys[3].position, p.keys[3].lane);
  for (size_t c = 0; c < 96; ++c) {
    EXPECT_EQ(factors[static_cast<size_t>(3 * p.stride) + c], std::fma(0.05f, normals[c], 1.0f));
  }
}

TEST(RelativeGaussian, RowsDoNotDependOnTheirBatchAndCountsAddUpExactly) {
  Problem whole = MakeProblem(1100);
  Problem split = whole;
  const ErrorStats expected = Apply(&whole, 0.1f);
  ErrorStats merged;
  for (int64_t r = split.rows - 1; r >= 0; --r) {
    ErrorStats stats;
    const std::span<const RowKey> key(&split.keys[static_cast<size_t>(r)], 1);
    ApplyRelativeGaussian(split.y.data() + r * split.stride, 1, split.cols, split.stride, key, 9,
                          0.1f, &stats);
    merged.Merge(stats);
  }
  EXPECT_EQ(BitsOf(whole.y), BitsOf(split.y));
  merged.calls = expected.calls;
  EXPECT_EQ(merged, expected);
}

TEST(RelativeGaussian, AchievesTheScaleItWasAskedFor) {
  for (float scale : {0.001f, 0.05f, 0.2f}) {
    std::vector<float> y(1 << 18);
    FillGaussian(y.data(), 1 << 18, 4, 4);
    ErrorStats stats;
    ApplyRelativeGaussianFlat(y.data(), 1 << 18, 5, 6, scale, &stats);
    EXPECT_NEAR(stats.AchievedScale(), scale, scale * 0.02);
    EXPECT_EQ(stats.elements, uint64_t{1} << 18);
    EXPECT_EQ(stats.calls, 1u);
    EXPECT_GT(stats.changed, stats.elements * 99 / 100);
    EXPECT_EQ(stats.non_finite, 0u);
  }
}

TEST(RelativeGaussian, ZeroScaleChangesNothingAndIsCountedSo) {
  Problem p = MakeProblem(96);
  const std::vector<float> before = p.y;
  const ErrorStats stats = Apply(&p, 0.0f);
  EXPECT_EQ(BitsOf(p.y), BitsOf(before));
  EXPECT_EQ(stats.elements, 480u);
  EXPECT_EQ(stats.changed, 0u);
  EXPECT_EQ(stats.AchievedScale(), 0.0);
}

TEST(RelativeGaussian, CountsWhatIsNotFiniteAndKeepsItOutOfTheSums) {
  for (SimdPath path : Paths()) {
    std::vector<float> y(40, 1.0f);
    y[3] = std::numeric_limits<float>::infinity();
    y[20] = std::numeric_limits<float>::quiet_NaN();
    y[39] = -std::numeric_limits<float>::infinity();
    ErrorStats stats;
    ApplyRelativeGaussianFlat(y.data(), 40, 1, 2, 0.05f, &stats, 0, path);
    EXPECT_EQ(stats.non_finite, 3u);
    EXPECT_DOUBLE_EQ(stats.sum_sq_value.value(), 37.0);
    EXPECT_LT(stats.AchievedScale(), 0.1);
  }
}

TEST(RelativeGaussian, SlicesOfAWeightEqualTheWhole) {
  std::vector<float> whole(5000, 1.0f), sliced(5000, 1.0f);
  ErrorStats whole_stats, sliced_stats;
  ApplyRelativeGaussianFlat(whole.data(), 5000, 1, 2, 0.05f, &whole_stats);
  ApplyRelativeGaussianFlat(sliced.data(), 2048, 1, 2, 0.05f, &sliced_stats, 0);
  ApplyRelativeGaussianFlat(sliced.data() + 2048, 2952, 1, 2, 0.05f, &sliced_stats, 2048);
  EXPECT_EQ(BitsOf(whole), BitsOf(sliced));
  EXPECT_EQ(whole_stats.sum_sq_error, sliced_stats.sum_sq_error);
  std::vector<float> fast(5000, 1.0f), part(16, 1.0f);
  ApplyRelativeGaussianFlat(fast.data(), 5000, 1, 2, 0.05f, nullptr, 0, BestSimdPath(),
                            GaussianDraw::kFast);
  ApplyRelativeGaussianFlat(part.data(), 16, 1, 2, 0.05f, nullptr, 2056, BestSimdPath(),
                            GaussianDraw::kFast);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), fast.begin() + 2056));
}

TEST(RelativeGaussian, CountersBeyond32BitElementsKeepTheirOwnNumbers) {
  constexpr int64_t kFar = (int64_t{1} << 34) - 8;
  std::vector<float> far(8, 1.0f), wrapped(8, 1.0f);
  ApplyRelativeGaussianFlat(far.data(), 8, 1, 2, 0.05f, nullptr, kFar);
  ApplyRelativeGaussianFlat(wrapped.data(), 8, 1, 2, 0.05f, nullptr, kFar % (int64_t{1} << 32));
  EXPECT_NE(BitsOf(far), BitsOf(wrapped));
  EXPECT_DEATH(ApplyRelativeGaussianFlat(far.data(), 8, 1, 2, 0.05f, nullptr, kFar + 4), "counter");
}

TEST(Site, PacksLayerExpertOperatorAndTensor) {
  EXPECT_EQ(Site(3, Operator::kDown, TensorRole::kGradInput), (3u << 22) | (1023u << 12) | 0x61u);
  EXPECT_EQ(Site(kNoLayer, Operator::kLmHead, TensorRole::kOutput),
            (1023u << 22) | (1023u << 12) | 0x70u);
  EXPECT_EQ(Site(0, Operator::kQ, TensorRole::kOutput, 2), 2u << 12);
}

}  // namespace
}  // namespace temper::numerics
