#include "cli/run_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "services/base/files.h"
#include "services/config/run_config.h"
#include "tests/support/temp_dir.h"

namespace temper::cli {
namespace {

using ::testing::HasSubstr;

class RunDirectoryTest : public ::testing::Test {
 protected:
  std::string Path(const char* name) { return dir_.path() + "/" + name; }
  v1::RunConfig Config(const std::vector<std::string>& overrides = {}) {
    EXPECT_TRUE(base::WriteFileAtomically(Path("recipe.yaml"), "seed: 1\n").ok());
    std::vector<std::string> all = overrides;
    all.push_back("run_dir=" + Path("run"));
    auto config = config::LoadRunConfig(Path("recipe.yaml"), all);
    EXPECT_TRUE(config.ok()) << config.status();
    return *config;
  }
  testing::TempDir dir_;
};

TEST_F(RunDirectoryTest, AnExistingRunIsNotOverwritten) {
  ASSERT_TRUE(PrepareRunDirectory(Config(), Path("recipe.yaml"), {}, false).ok());
  EXPECT_TRUE(base::PathExists(Path("run/config.yaml")));
  const absl::Status again = PrepareRunDirectory(Config(), Path("recipe.yaml"), {}, false);
  EXPECT_EQ(again.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(again.message()), HasSubstr("--resume auto"));
}

TEST_F(RunDirectoryTest, ResumingUnderAnotherSeedIsRefusedWithTheDifference) {
  ASSERT_TRUE(PrepareRunDirectory(Config(), Path("recipe.yaml"), {}, false).ok());
  const absl::Status status =
      PrepareRunDirectory(Config({"seed=2"}), Path("recipe.yaml"), {}, true);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("seed: 1 -> 2"));
}

TEST_F(RunDirectoryTest, WorkerCountsMayDifferOnResume) {
  ASSERT_TRUE(PrepareRunDirectory(Config(), Path("recipe.yaml"), {}, false).ok());
  EXPECT_TRUE(
      PrepareRunDirectory(Config({"local.rollout_workers=3"}), Path("recipe.yaml"), {}, true).ok());
}

TEST_F(RunDirectoryTest, TheOrchestratorsRecordIsReadWithCare) {
  ASSERT_TRUE(base::MakeDirectories(Path("run")).ok());
  EXPECT_EQ(ReadOrchestratorRecord(Path("run")).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(base::WriteFileAtomically(Path("run/orchestrator.json"), "{\"address\": 7}").ok());
  EXPECT_EQ(ReadOrchestratorRecord(Path("run")).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace temper::cli
