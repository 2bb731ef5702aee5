#include "services/base/random_key.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <array>
#include <cstdint>
#include <set>

namespace temper::base {
namespace {

using Words = std::array<uint32_t, 4>;

// The three known answers that Random123 ships for philox4x32-10.
TEST(Philox, MatchesTheKnownAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomKey, IsXxh3OfFourLittleEndianWords) {
  const unsigned char bytes[32] = {0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,  // seed
                                   8,    0,    0,    0,    0,    0,    0,    0,     // sampling
                                   0x2a, 0,    0,    0,    0,    0,    0,    0,     // scope
                                   0,    1,    0,    0,    0,    0,    0,    0};    // subscope
  EXPECT_EQ(RandomKey(0x0102030405060708, Purpose::kSampling, 42, 256), XXH3_64bits(bytes, 32));
}

TEST(RandomKey, DiffersInEveryWordAndPurpose) {
  std::set<uint64_t> keys = {RandomKey(1, Purpose::kForwardError, 2, 3),
                             RandomKey(2, Purpose::kForwardError, 1, 3),
                             RandomKey(1, Purpose::kForwardError, 3, 2),
                             ForwardErrorKey(1, 2),
                             FreshForwardErrorKey(1, 2, 0, 3),
                             FreshForwardErrorKey(1, 2, 0, 1),
                             FreshForwardErrorKey(1, 2, 1, 3),
                             GradInputErrorKey(1, 2, 0),
                             GradWeightErrorKey(1, 2),
                             FrozenErrorKey(1),
                             AqnKey(1, 2),
                             AqnKey(1, 2, 1),
                             SamplingKey(1, 2),
                             EvaluationErrorKey(1, 2),
                             EvaluationSamplingKey(1, 2)};
  EXPECT_EQ(keys.size(), 15u);
}

TEST(TokenLane, IsSharedInThePromptAndOwnAfterIt) {
  EXPECT_EQ(TokenLane(0, 3, 5), 0u);
  EXPECT_EQ(TokenLane(2, 3, 5), 0u);
  EXPECT_EQ(TokenLane(3, 3, 5), 6u);
  EXPECT_EQ(TokenLane(3, 3, 0), 1u);
}

TEST(Uniform, StaysInsideTheOpenInterval) {
  EXPECT_GT(UniformFromWord(0), 0.0);
  EXPECT_LT(UniformFromWord(0xffffffff), 1.0);
  EXPECT_EQ(UniformFromWords(0, 0), 0.0);
  EXPECT_LT(UniformFromWords(0xffffffff, 0xffffffff), 1.0);
}

TEST(SamplingUniform, IsUniformOverPositions) {
  const uint64_t key = SamplingKey(7, 11);
  constexpr int kDraws = 20000;
  double sum = 0.0, sum_sq = 0.0;
  for (uint32_t position = 0; position < kDraws; ++position) {
    const double u = SamplingUniform(key, 1, position);
    ASSERT_GT(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    sum_sq += u * u;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 4 * 0.2887 / 141.4);
  EXPECT_NEAR(sum_sq / kDraws, 1.0 / 3, 4 * 0.298 / 141.4);
}

TEST(SamplingUniform, IsTheFirstPhiloxWord) {
  const uint64_t key = SamplingKey(7, 11);
  EXPECT_EQ(SamplingUniform(key, 3, 17), UniformFromWord(Philox({0, 17, 0, 3}, key)[0]));
}

TEST(UniformBelow, CoversTheRangeEvenly) {
  std::array<int, 7> counts = {};
  for (uint32_t i = 0; i < 14000; ++i) {
    const uint64_t value = UniformBelow(99, i, 7);
    ASSERT_LT(value, 7u);
    ++counts[value];
  }
  for (int count : counts) EXPECT_NEAR(count, 2000, 4 * 41.4);  // sd of Binomial(14000, 1/7)
}

}  // namespace
}  // namespace temper::base
