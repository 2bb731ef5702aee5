#include "prompts/prompt_source.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prompts/prompt_order.h"
#include "services/base/files.h"

namespace temper::prompts {
namespace {

using ::testing::HasSubstr;

std::string DataFolder(const std::string& name, const std::string& train, const std::string& test) {
  const std::string folder = ::testing::TempDir() + "/" + name;
  EXPECT_TRUE(base::MakeDirectories(folder).ok());
  EXPECT_TRUE(base::WriteFileAtomically(folder + "/train.jsonl", train).ok());
  EXPECT_TRUE(base::WriteFileAtomically(folder + "/test.jsonl", test).ok());
  return folder;
}

std::unique_ptr<PromptSource> Make(const DatasetOptions& options, Split split) {
  auto source = CreatePromptSource(options, split);
  EXPECT_TRUE(source.ok()) << source.status();
  return *std::move(source);
}

TEST(PromptSourceTest, TrainAndEvalComeFromTheirOwnFiles) {
  const std::string folder =
      DataFolder("own", R"({"question": "How many hats?", "answer": "#### 1"})",
                 R"({"question": "How many cats?", "answer": "#### 2"})");
  const DatasetOptions options{.name = "gsm8k", .path = folder};
  const auto train = Make(options, Split::kTrain);
  const auto warm = Make(options, Split::kWarmStart);
  const auto eval = Make(options, Split::kEval);
  EXPECT_EQ(train->Get(0)->truth, "1");
  EXPECT_EQ(warm->Get(0)->truth, "1");
  EXPECT_EQ(eval->Get(0)->truth, "2");
  EXPECT_THAT(eval->Get(0)->prompt, HasSubstr("####"));
  EXPECT_TRUE(CheckSeparated(*train, 100, *eval, 100).ok());
}

TEST(PromptSourceTest, SharedQuestionsAreFoundThroughCaseAndPunctuation) {
  const std::string folder =
      DataFolder("shared", R"({"question": "How  many hats, Tom?", "answer": "#### 1"})",
                 R"({"question": "how many hats tom", "answer": "#### 2"})");
  const DatasetOptions options{.name = "gsm8k", .path = folder};
  const auto status =
      CheckSeparated(*Make(options, Split::kTrain), 9, *Make(options, Split::kEval), 9);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("training problem 0 is evaluation problem 0"));
}

TEST(PromptSourceTest, GeneratedSplitsAreSeparatedAndUnbounded) {
  const auto train = Make({}, Split::kTrain);
  const auto eval = Make({}, Split::kEval);
  EXPECT_EQ(train->size(), std::nullopt);
  EXPECT_TRUE(CheckSeparated(*train, 2000, *eval, 500).ok());
  EXPECT_EQ(Make({.train_problems = 64}, Split::kTrain)->size(), 64);
  EXPECT_EQ(Make({.train_problems = 64}, Split::kEval)->size(), std::nullopt);
}

TEST(PromptSourceTest, OnlyWarmStartSolutionsHoldMistakes) {
  const auto train = Make({.wrong_share = 1}, Split::kTrain);
  const auto warm = Make({.wrong_share = 1}, Split::kWarmStart);
  for (uint64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(TruthOf(train->Get(i)->answer_text).value_or(""), train->Get(i)->truth);
    EXPECT_NE(TruthOf(warm->Get(i)->answer_text).value_or(""), warm->Get(i)->truth);
  }
}

TEST(PromptSourceTest, AnUnknownDatasetNamesTheKnownOnes) {
  const auto status = CreatePromptSource({.name = "math"}, Split::kTrain).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("gsm-arith"));
}

TEST(ProblemTest, NormalizedTextKeepsWordsAlone) {
  EXPECT_EQ(NormalizedText("  Tom's  2 HATS -- really?! "), "tom s 2 hats really");
  EXPECT_EQ(NormalizedText("caf\xC3\xA9!"), "caf\xC3\xA9");
  EXPECT_EQ(NormalizedText(""), "");
}

TEST(ProblemTest, TruthFollowsTheLastMark) {
  EXPECT_EQ(TruthOf("#### 1\n#### 2,000 ").value_or(""), "2000");
  EXPECT_FALSE(TruthOf("####5").ok());
}

TEST(PromptOrderTest, AnEpochTakesEveryProblemOnce) {
  for (const uint64_t size : {1, 2, 3, 1000}) {
    std::vector<uint32_t> order = EpochOrder(5, 2, size);
    std::ranges::sort(order);
    std::vector<uint32_t> all(size);
    std::iota(all.begin(), all.end(), 0u);
    EXPECT_EQ(order, all);
  }
}

TEST(PromptOrderTest, SeedAndEpochDecideTheOrder) {
  EXPECT_EQ(EpochOrder(5, 2, 100), EpochOrder(5, 2, 100));
  EXPECT_NE(EpochOrder(5, 2, 100), EpochOrder(5, 3, 100));
  EXPECT_NE(EpochOrder(5, 2, 100), EpochOrder(6, 2, 100));
}

TEST(PromptOrderTest, EachPlaceSeesEachProblemAboutEquallyOften) {
  std::vector<int> first(10, 0);
  for (uint64_t epoch = 0; epoch < 10000; ++epoch) ++first[EpochOrder(1, epoch, 10)[3]];
  for (const int count : first) EXPECT_NEAR(count, 1000, 150);  // five standard deviations
}

TEST(PromptOrderTest, PositionsRunOnThroughTheEpochsInAnyOrderOfAsking) {
  PromptOrder order(5, 7);
  EXPECT_EQ(order.At(15), EpochOrder(5, 2, 7)[1]);
  EXPECT_EQ(order.At(3), EpochOrder(5, 0, 7)[3]);
  PromptOrder unbounded(5, 0);
  EXPECT_EQ(unbounded.At(123456), 123456);
}

}  // namespace
}  // namespace temper::prompts
