#include "learner/sft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "learner/checkpoint.h"
#include "nlohmann/json.hpp"
#include "services/config/run_config.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::learner {
namespace {

using ::nlohmann::json;
using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;

class SftTest : public ::testing::Test {
 protected:
  // A model folder that describes the embedded policy and holds no weights.
  void SetUp() override {
    std::filesystem::create_directory(dir_.File("model"));
    for (const char* name : {"config.json", "tokenizer.json"}) {
      std::filesystem::copy_file(absl::StrCat("recipes/quickstart/", name),
                                 dir_.File(absl::StrCat("model/", name)));
    }
  }

  absl::StatusOr<v1::RunConfig> Config(const std::string& run, uint64_t steps) {
    const std::string path = dir_.File(run + ".yaml");
    std::ofstream(path) << "run_dir: " << dir_.File(run) << "\n"
                        << "model: {path: " << dir_.File("model") << "}\n"
                        << "dataset: {name: gsm-arith, min_steps: 1, max_steps: 2}\n"
                        << "trainer:\n"
                        << "  loss: sft\n"
                        << "  total_updates: " << steps << "\n"
                        << "  threads: 1\n"
                        << "  sft: {problems_per_step: 4}\n"
                        << "  optimizer: {learning_rate: 2e-3}\n"
                        << "checkpoint: {every: 0, keep: 0}\n";
    return config::LoadRunConfig(path);
  }

  // Trains and returns the losses; with stop_after > 0 a stop is raised after so many steps.
  std::vector<double> Train(const std::string& run, uint64_t steps, uint64_t stop_after = 0,
                            const std::string& resume_from = "") {
    auto config = Config(run, steps);
    EXPECT_THAT(config, IsOk());
    base::StopToken stop;
    std::vector<double> losses;
    SftOptions options{.config = *config, .resume_from = resume_from, .log_every = 1};
    options.stop = &stop;
    options.log_line = [&](const std::string& line) {
      losses.push_back(json::parse(line)["loss"].get<double>());
      if (losses.size() == stop_after) stop.RequestStop();
    };
    EXPECT_THAT(RunStandaloneSft(options), IsOk());
    return losses;
  }

  testing::TempDir dir_;
};

TEST_F(SftTest, LearnsFromFreshWeightsAndSavesAModel) {
  const std::vector<double> losses = Train("run", 12);
  ASSERT_EQ(losses.size(), 12u);
  EXPECT_NEAR(losses.front(), std::log(448.0), 0.5);  // uniform over the vocabulary
  EXPECT_LT(losses.back(), losses.front() - 1.0);
  const auto saved = ReadCheckpoint(CheckpointPath(dir_.File("run"), 12), 0);
  ASSERT_THAT(saved, IsOk());
  EXPECT_FALSE(saved->has_commit);
  EXPECT_THAT(model::LoadTokenizer(CheckpointPath(dir_.File("run"), 12) + "/hf"), IsOk());
}

TEST_F(SftTest, AStoppedRunGoesOnWhereItWas) {
  const std::vector<double> whole = Train("whole", 5);
  const std::vector<double> first = Train("parts", 5, /*stop_after=*/2);
  const std::vector<double> rest = Train("parts", 5, 0, CheckpointPath(dir_.File("parts"), 2));
  ASSERT_EQ(first.size(), 2u);
  ASSERT_EQ(rest.size(), 3u);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(whole[i], i < 2 ? first[i] : rest[i - 2]) << i;
  const auto a = ReadCheckpoint(CheckpointPath(dir_.File("whole"), 5), 0);
  const auto b = ReadCheckpoint(CheckpointPath(dir_.File("parts"), 5), 0);
  ASSERT_THAT(a, IsOk());
  ASSERT_THAT(b, IsOk());
  for (const auto& [name, tensor] : a->model.tensors) {
    EXPECT_EQ(tensor.values, b->model.tensors.at(name).values) << name;
  }
}

TEST_F(SftTest, AModelThatIsNotThereIsNamed) {
  auto config = Config("run", 1);
  ASSERT_THAT(config, IsOk());
  config->mutable_model()->set_path("/nowhere/model");
  EXPECT_THAT(RunStandaloneSft({.config = *config}),
              StatusIs(absl::StatusCode::kNotFound, ::testing::HasSubstr("/nowhere/model")));
}

}  // namespace
}  // namespace temper::learner
