#include "weights/bucket_plan.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/random_key.h"

namespace temper::weights {
namespace {

TensorSpec Floats(const std::string& name, std::vector<int64_t> shape) {
  return {.name = name, .shape = std::move(shape), .dtype = "float32"};
}

TEST(TensorBytesTest, MultipliesExtentsByTheElementSize) {
  EXPECT_EQ(*TensorBytes(Floats("a", {3, 5})), 60u);
  EXPECT_EQ(*TensorBytes({.name = "a", .shape = {3, 5}, .dtype = "bfloat16"}), 30u);
  EXPECT_EQ(*TensorBytes(Floats("scalar", {})), 4u);
}

TEST(TensorBytesTest, RefusesWhatCannotBeATensor) {
  EXPECT_EQ(TensorBytes({.name = "a", .shape = {1}, .dtype = "int8"}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(TensorBytes(Floats("a", {0})).ok());
  EXPECT_FALSE(TensorBytes(Floats("a", {-4})).ok());
  EXPECT_FALSE(TensorBytes(Floats("a", {int64_t{1} << 40, int64_t{1} << 40})).ok());
  EXPECT_FALSE(TensorBytes(Floats("a", std::vector<int64_t>(9, 1))).ok());
}

TEST(PlanBucketsTest, FillsBucketsInOrderAndNeverCutsATensor) {
  const std::vector<TensorSpec> tensors = {Floats("a", {100}), Floats("b", {100}),
                                           Floats("c", {1000}), Floats("d", {1})};
  const BucketPlan plan = *PlanBuckets(tensors, 1000);
  // a: 0..400, b at 448 (aligned): ends at 848. c is larger than a bucket; d fits no more.
  ASSERT_EQ(plan.placements.size(), 4u);
  EXPECT_THAT(plan.bucket_bytes, ::testing::ElementsAre(848u, 4000u, 4u));
  EXPECT_EQ(plan.placements[1].bucket, 0u);
  EXPECT_EQ(plan.placements[1].offset_bytes, 448u);
  EXPECT_EQ(plan.placements[2].bucket, 1u);
  EXPECT_EQ(plan.placements[3].bucket, 2u);
}

TEST(PlanBucketsTest, RefusesNothingTwoOfOneNameAndBucketsOfNoBytes) {
  EXPECT_FALSE(PlanBuckets({}, 100).ok());
  EXPECT_FALSE(PlanBuckets(std::vector{Floats("a", {1})}, 0).ok());
  EXPECT_FALSE(PlanBuckets(std::vector{Floats("a", {1}), Floats("a", {2})}, 100).ok());
  EXPECT_FALSE(PlanBuckets(std::vector{Floats("", {1})}, 100).ok());
}

TEST(PlanBucketsTest, HoldsItsPromisesForRandomTensors) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::vector<TensorSpec> tensors;
    const uint64_t count = 1 + base::UniformBelow(seed, 0, 30);
    for (uint32_t i = 0; i < count; ++i) {
      const auto extent = static_cast<int64_t>(1 + base::UniformBelow(seed, i + 1, 500));
      tensors.push_back(Floats(absl::StrCat("t", i), {extent}));
    }
    const uint64_t bucket_bytes = 1 + base::UniformBelow(seed, 1000, 3000);
    const BucketPlan plan = *PlanBuckets(tensors, bucket_bytes);
    ASSERT_EQ(plan.placements.size(), tensors.size());
    std::vector<uint64_t> ends(plan.bucket_bytes.size(), 0);
    std::vector<int> held(plan.bucket_bytes.size(), 0);
    for (size_t i = 0; i < tensors.size(); ++i) {
      const Placement& place = plan.placements[i];
      EXPECT_EQ(place.offset_bytes % kTensorAlignment, 0u);
      EXPECT_GE(place.offset_bytes, ends[place.bucket]) << "overlap, seed " << seed;
      ends[place.bucket] = place.offset_bytes + place.size_bytes;
      ++held[place.bucket];
    }
    for (size_t b = 0; b < ends.size(); ++b) {
      EXPECT_EQ(ends[b], plan.bucket_bytes[b]);
      EXPECT_TRUE(plan.bucket_bytes[b] <= bucket_bytes || held[b] == 1) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace temper::weights
