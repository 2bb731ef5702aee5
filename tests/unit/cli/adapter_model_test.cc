#include "cli/adapter_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "model/io/loader.h"
#include "model/io/model_reader.h"
#include "model/score_sequences.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::cli {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::temper::testing::TempDir;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr char kAdapter[] = "tests/golden/tiny_qwen2_lora";
constexpr char kBase[] = "tests/golden/tiny_qwen2";

std::vector<float> Score(const std::string& path) {
  const std::vector<std::vector<int32_t>> ids = {{5, 17, 200, 3, 44, 91, 260, 12, 7, 130}};
  auto policy = LoadPolicy(path);
  EXPECT_THAT(policy, IsOk());
  return model::ScoreSequences(*policy, ids, 1).value()[0];
}

double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0.0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(double{a[i]} - b[i]));
  return worst;
}

TEST(MergeAdapter, TheMergedModelScoresAsTheAdaptedOne) {
  TempDir dir;
  ASSERT_THAT(MergeAdapter(OpenAdapter(kAdapter, "").value(), dir.File("merged")), IsOk());
  EXPECT_LT(LargestDifference(Score(dir.File("merged")), Score(kAdapter)), 1e-5);
  EXPECT_GT(LargestDifference(Score(kBase), Score(kAdapter)), 0.1);
  EXPECT_THAT(model::LoadTokenizer(dir.File("merged")), IsOk());
  const auto base = model::LoadModel(kBase), merged = model::LoadModel(dir.File("merged"));
  for (const auto& [name, tensor] : base->tensors) {
    const bool adapted = name.find("q_proj.weight") != std::string::npos ||
                         name.find("v_proj.weight") != std::string::npos ||
                         name.find("o_proj.weight") != std::string::npos ||
                         name.find("down_proj.weight") != std::string::npos;
    EXPECT_EQ(tensor.values == merged->tensors.at(name).values, !adapted) << name;
  }
}

TEST(MergeAdapter, EachTensorKeepsTheTypeOfTheBase) {
  TempDir dir;
  const auto model = model::LoadModel(kBase);
  ASSERT_THAT(model::SaveHuggingFace(dir.File("bf16"), {.config = model->config,
                                                        .tensors = model::ViewsOf(model->tensors),
                                                        .storage = model::StorageType::kBFloat16}),
              IsOk());
  ASSERT_THAT(MergeAdapter(OpenAdapter(kAdapter, dir.File("bf16")).value(), dir.File("merged")),
              IsOk());
  const auto reader = model::ModelReader::Open(dir.File("merged")).value();
  for (const model::StoredTensor& stored : reader->tensors()) {
    EXPECT_EQ(stored.storage, model::StorageType::kBFloat16) << stored.name;
  }
}

TEST(MergeAdapter, OverwritesNothing) {
  TempDir dir;
  std::filesystem::create_directory(dir.File("merged"));
  EXPECT_THAT(MergeAdapter(OpenAdapter(kAdapter, "").value(), dir.File("merged")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("nothing is overwritten")));
}

TEST(OpenAdapter, FindsTheAdapterOfACheckpointAndNamesWhatIsMissing) {
  TempDir dir;
  std::filesystem::create_directory(dir.File("step_4"));
  std::filesystem::copy(kAdapter, dir.File("step_4/adapter"));
  const auto opened = OpenAdapter(dir.File("step_4"), "");
  ASSERT_THAT(opened, IsOk());
  EXPECT_EQ(opened->dir, dir.File("step_4/adapter"));
  EXPECT_EQ(opened->base, kBase);
  EXPECT_THAT(OverridesFor(*opened), Contains("trainer.lora.rank=4"));
  EXPECT_THAT(OverridesFor(*opened), Contains(HasSubstr("model.layers.1.mlp.down_proj]")));
  EXPECT_THAT(OpenAdapter(dir.path(), "").status(), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(OpenAdapter(kAdapter, "/nowhere/base").status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/base")));
}

}  // namespace
}  // namespace temper::cli
