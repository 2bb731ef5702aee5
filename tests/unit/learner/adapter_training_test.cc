// Training adapters beside a frozen base, from files to files, by the supervised loss.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "learner/checkpoint.h"
#include "learner/policy_files.h"
#include "learner/sft.h"
#include "model/adapter_parameters.h"
#include "nlohmann/json.hpp"
#include "services/config/run_config.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::learner {
namespace {

namespace fs = std::filesystem;
using ::nlohmann::json;
using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

class AdapterTraining : public ::testing::Test {
 protected:
  // A copy of the embedded policy, so that a test may change it.
  void SetUp() override { fs::copy("recipes/quickstart", base_); }

  v1::RunConfig Config(const std::string& run, const std::vector<std::string>& more = {}) {
    const std::string path = dir_.File(run + ".yaml");
    std::ofstream(path)
        << "run_dir: " << dir_.File(run) << "\n"
        << "model: {path: " << base_ << "}\n"
        << "dataset: {name: gsm-arith, min_steps: 1, max_steps: 2}\n"
        << "trainer:\n"
        << "  loss: sft\n"
        << "  total_updates: 5\n"
        << "  threads: 1\n"
        << "  sft: {problems_per_step: 4}\n"
        << "  optimizer: {learning_rate: 1e-2}\n"
        << "  noisy_ops: {enabled: true, error_scale: 0.05}\n"
        << "  lora: {enabled: true, rank: 4, alpha: 8, target_modules: [q, v, down]}\n"
        << "checkpoint: {every: 0, keep: 0}\n";
    auto config = config::LoadRunConfig(path, more);
    EXPECT_THAT(config, IsOk());
    return *std::move(config);
  }

  std::vector<double> Train(const v1::RunConfig& config, uint64_t stop_after = 0,
                            const std::string& resume_from = "") {
    base::StopToken stop;
    std::vector<double> losses;
    SftOptions options{.config = config, .resume_from = resume_from, .log_every = 1};
    options.stop = &stop;
    options.log_line = [&](const std::string& line) {
      losses.push_back(json::parse(line)["loss"].get<double>());
      if (losses.size() == stop_after) stop.RequestStop();
    };
    EXPECT_THAT(RunStandaloneSft(options), IsOk());
    return losses;
  }

  absl::Status MakeTrainerOf(const v1::RunConfig& config, const std::string& checkpoint = "") {
    const PolicyFiles files = ReadPolicyFiles(config.model()).value();
    const auto options = LearnerOptionsFromConfig(config, files.parts.config);
    if (!options.ok()) return options.status();
    return MakeTrainer(*options, config.model().path(), checkpoint, false, nullptr).status();
  }

  std::string Step(const std::string& run, uint64_t step) {
    return CheckpointPath(dir_.File(run), step);
  }
  model::PeftAdapter AdapterOf(const std::string& checkpoint) {
    auto adapter =
        model::ReadPeftAdapter(checkpoint + "/adapter", model::LoadModelConfig(base_).value());
    EXPECT_THAT(adapter, IsOk());
    return *std::move(adapter);
  }

  testing::TempDir dir_;
  const std::string base_ = dir_.File("base");
};

TEST_F(AdapterTraining, AStoppedRunGoesOnToTheSameBitsAndKeepsNoCopyOfTheBase) {
  const std::vector<double> whole = Train(Config("whole"));
  const std::vector<double> first = Train(Config("parts"), /*stop_after=*/2);
  const std::vector<double> rest = Train(Config("parts"), 0, Step("parts", 2));
  ASSERT_EQ(whole.size(), 5u);
  ASSERT_EQ(rest.size(), 3u);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(whole[i], i < 2 ? first[i] : rest[i - 2]) << i;
  EXPECT_NE(whole[0], whole[4]);
  const model::PeftAdapter a = AdapterOf(Step("whole", 5)), b = AdapterOf(Step("parts", 5));
  EXPECT_EQ(a.base_model, base_);
  double moved = 0.0;
  for (const auto& [name, tensor] : a.tensors) {
    EXPECT_EQ(tensor.values, b.tensors.at(name).values) << name;
    if (name.find("lora_B") == std::string::npos) continue;
    for (const float value : tensor.values) moved += std::abs(value);
  }
  EXPECT_GT(moved, 0.0) << "B stayed where it began";
  const auto one = ReadCheckpoint(Step("whole", 5), 0), two = ReadCheckpoint(Step("parts", 5), 0);
  ASSERT_EQ(one->moments.size(), a.tensors.size()) << "moments of adapters alone";
  for (size_t i = 0; i < one->moments.size(); ++i) {
    EXPECT_TRUE(a.tensors.contains(one->moments[i].name));
    EXPECT_EQ(one->moments[i].first, two->moments[i].first);
    EXPECT_EQ(one->moments[i].second, two->moments[i].second);
  }
  EXPECT_FALSE(fs::exists(Step("whole", 5) + "/hf"));
}

TEST_F(AdapterTraining, ACheckpointIsRefusedOnAnotherBase) {
  const v1::RunConfig config = Config("run");
  Train(config, /*stop_after=*/1);
  EXPECT_THAT(MakeTrainerOf(config, Step("run", 1)), IsOk());
  std::fstream weights(base_ + "/model.safetensors", std::ios::in | std::ios::out);
  weights.seekp(-4, std::ios::end);
  weights.write("\0\0\x80\x3f", 4);
  weights.close();
  EXPECT_THAT(MakeTrainerOf(config, Step("run", 1)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("were trained on")));
}

TEST_F(AdapterTraining, ARunMayBeginWithTheAdapterOfAnotherAndWithNoneOfAnotherShape) {
  Train(Config("first"));
  const std::string start = "trainer.lora.adapter=" + Step("first", 5) + "/adapter";
  EXPECT_THAT(MakeTrainerOf(Config("second", {start})), IsOk());
  EXPECT_LT(Train(Config("second", {start}))[0], Train(Config("fresh"))[0]);
  EXPECT_THAT(MakeTrainerOf(Config("third", {start, "trainer.lora.rank=8"})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rank 8")));
  EXPECT_THAT(MakeTrainerOf(Config("fourth", {start, "trainer.lora.target_modules=[q, v, up]"})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("or other linears")));
  EXPECT_THAT(MakeTrainerOf(Config("fifth", {"trainer.lora.target_modules=[qq]"})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'qq' selects no linear")));
}

TEST_F(AdapterTraining, ABaseWithoutWeightsIsNamed) {
  fs::remove(base_ + "/model.safetensors");
  EXPECT_THAT(RunStandaloneSft({.config = Config("run")}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("model.safetensors")));
}

}  // namespace
}  // namespace temper::learner
