#include "cli/run_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "learner/checkpoint.h"
#include "model/io/loader.h"
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
  const absl::Status again = PrepareRunDirectory(Config(), Path("recipe.yaml"), {}, false).status();
  EXPECT_EQ(again.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(again.message()), HasSubstr("--resume auto"));
}

TEST_F(RunDirectoryTest, ResumingUnderAnotherSeedIsRefusedWithTheDifference) {
  ASSERT_TRUE(PrepareRunDirectory(Config(), Path("recipe.yaml"), {}, false).ok());
  const absl::Status status =
      PrepareRunDirectory(Config({"seed=2"}), Path("recipe.yaml"), {}, true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("seed: 1 -> 2"));
}

TEST_F(RunDirectoryTest, WorkerCountsMayDifferOnResume) {
  ASSERT_TRUE(PrepareRunDirectory(Config(), Path("recipe.yaml"), {}, false).ok());
  EXPECT_TRUE(
      PrepareRunDirectory(Config({"local.rollout_workers=3"}), Path("recipe.yaml"), {}, true).ok());
}

TEST_F(RunDirectoryTest, ALedgerThatIsGoneIsTakenFromTheNewestCheckpointOrSaidToBeGone) {
  const v1::RunConfig config = Config();
  EXPECT_EQ(LedgerCopyToResume(config).value_or("?"), "") << "there is no checkpoint";
  const auto model = model::LoadModel("tests/golden/tiny_qwen2");
  ASSERT_TRUE(model.ok()) << model.status();
  const std::vector<learner::AdamWMoments> moments;
  learner::CheckpointContents contents{
      .model = {.config = model->config, .tensors = model::ViewsOf(model->tensors)},
      .moments = &moments,
      .state = {.step = 1},
      .ledger_file = learner::LedgerCopyPath(config.run_dir(), 1)};
  ASSERT_TRUE(base::MakeDirectories(Path("run/checkpoints")).ok());
  ASSERT_TRUE(base::WriteFileAtomically(contents.ledger_file, "pages").ok());
  ASSERT_TRUE(learner::WriteCheckpoint(config.run_dir(), contents).ok());
  EXPECT_EQ(LedgerCopyToResume(config).value_or("?"),
            Path("run/checkpoints/step_1/state/ledger.db"));
  contents.state.step = 2;
  contents.ledger_file.clear();
  ASSERT_TRUE(learner::WriteCheckpoint(config.run_dir(), contents).ok());
  const auto gone = LedgerCopyToResume(config);
  EXPECT_EQ(gone.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(gone.status().message()), HasSubstr("step_2 holds no copy"));
  ASSERT_TRUE(base::WriteFileAtomically(Path("run/ledger.db"), "a ledger").ok());
  EXPECT_EQ(LedgerCopyToResume(config).value_or("?"), "");
}

TEST_F(RunDirectoryTest, AFolderThatIsNotThereIsNotMadeByAResume) {
  const auto resumed = PrepareRunDirectory(Config(), Path("recipe.yaml"), {}, true);
  EXPECT_EQ(resumed.status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(base::PathExists(Path("run")));
}

TEST_F(RunDirectoryTest, ARunIsLedByOneTemperAtATime) {
  auto first = PrepareRunDirectory(Config(), Path("recipe.yaml"), {}, false);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second =
      PrepareRunDirectory(Config({"local.rollout_workers=3"}), Path("recipe.yaml"), {}, true);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(std::to_string(getpid())));
  const auto config = config::LoadResolvedConfig(Path("run/resolved.yaml"));
  EXPECT_EQ(config->local().rollout_workers(), 1) << "the second has written nothing";
  first->reset();
  EXPECT_TRUE(PrepareRunDirectory(Config(), Path("recipe.yaml"), {}, true).ok());
}

TEST_F(RunDirectoryTest, WhoAsksARunSpeaksTheTlsItWasStartedWith) {
  ASSERT_TRUE(PrepareRunDirectory(Config({"network.tls_certificate=" + Path("one.pem"),
                                          "network.tls_ca=" + Path("ca.pem")}),
                                  Path("recipe.yaml"), {}, false)
                  .ok());
  ASSERT_TRUE(
      base::WriteFileAtomically(Path("run/orchestrator.json"), "{\"address\": \"a:1\"}").ok());
  const auto record = ReadOrchestratorRecord(Path("run"));
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->tls.certificate_file, Path("one.pem"));
  EXPECT_EQ(record->tls.private_key_file, "");
  EXPECT_EQ(record->tls.ca_file, Path("ca.pem"));
}

TEST_F(RunDirectoryTest, TheOrchestratorsRecordIsReadWithCare) {
  ASSERT_TRUE(base::MakeDirectories(Path("run")).ok());
  EXPECT_EQ(ReadOrchestratorRecord(Path("run")).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(base::WriteFileAtomically(Path("run/orchestrator.json"), "{\"address\": 7}").ok());
  EXPECT_EQ(ReadOrchestratorRecord(Path("run")).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace temper::cli
