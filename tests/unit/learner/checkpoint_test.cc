#include "learner/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "model/io/loader.h"
#include "services/base/exit_code.h"
#include "services/base/files.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::learner {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kModel[] = "tests/golden/tiny_qwen2";

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto loaded = model::LoadModel(kModel);
    ASSERT_THAT(loaded, IsOk());
    model_ = *std::move(loaded);
    for (const auto& [name, tensor] : model_.tensors) {
      AdamWMoments moments{name, tensor.values, tensor.values};
      for (float& value : moments.second) value = value * value + 1e-7f;
      moments_.push_back(std::move(moments));
    }
  }

  absl::Status Write(uint64_t step) {
    CheckpointContents contents;
    contents.model = {.config = model_.config, .tensors = model::ViewsOf(model_.tensors)};
    contents.moments = &moments_;
    contents.state = {
        .step = step, .optimizer_steps = 2 * step, .optimizer_updates = 5, .skipped_steps = 1};
    contents.config_fingerprint = 0xabcdef0123456789;
    contents.commit.set_step(step);
    contents.commit.set_metrics_json("{}");
    contents.quantization_json = "{}\n";
    contents.ledger_file = ledger_;
    return WriteCheckpoint(dir_.path(), contents);
  }

  std::string StepDir(uint64_t step) const { return CheckpointPath(dir_.path(), step); }

  testing::TempDir dir_;
  model::LoadedModel model_;
  std::vector<AdamWMoments> moments_;
  std::string ledger_;  // that the next checkpoint takes in
};

TEST_F(CheckpointTest, ReadsBackEveryBit) {
  ASSERT_THAT(Write(7), IsOk());
  const auto loaded = ReadCheckpoint(StepDir(7), 0xabcdef0123456789);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->state.step, 7u);
  EXPECT_EQ(loaded->state.optimizer_steps, 14u);
  EXPECT_EQ(loaded->state.optimizer_updates, 5);
  EXPECT_EQ(loaded->state.skipped_steps, 1u);
  EXPECT_TRUE(loaded->has_commit);
  EXPECT_EQ(loaded->commit.metrics_json(), "{}");
  EXPECT_EQ(loaded->model.config, model_.config);
  for (const auto& [name, tensor] : model_.tensors) {
    EXPECT_EQ(loaded->model.tensors.at(name).values, tensor.values) << name;
  }
  ASSERT_EQ(loaded->moments.size(), moments_.size());
  for (size_t i = 0; i < moments_.size(); ++i) {
    EXPECT_EQ(loaded->moments[i].name, moments_[i].name);
    EXPECT_EQ(loaded->moments[i].first, moments_[i].first);
    EXPECT_EQ(loaded->moments[i].second, moments_[i].second);
  }
}

TEST_F(CheckpointTest, TheLedgersCopyIsMovedInAndIsPartOfTheWhole) {
  ledger_ = LedgerCopyPath(dir_.path(), 4);
  ASSERT_THAT(base::MakeDirectories(dir_.File("checkpoints")), IsOk());
  ASSERT_THAT(base::WriteFileAtomically(ledger_, "pages"), IsOk());
  ASSERT_THAT(Write(4), IsOk());
  EXPECT_FALSE(base::PathExists(ledger_));
  const std::string inside = LedgerOf(StepDir(4));
  EXPECT_EQ(base::ReadFile(inside, 100).value_or(""), "pages");
  EXPECT_THAT(ReadCheckpoint(StepDir(4), 0), IsOk());
  ASSERT_THAT(base::WriteFileAtomically(inside, "pagez"), IsOk());
  EXPECT_THAT(ReadCheckpoint(StepDir(4), 0),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("state/ledger.db")));
  ledger_.clear();
  ASSERT_THAT(Write(5), IsOk());
  EXPECT_EQ(LedgerOf(StepDir(5)), "");
}

TEST_F(CheckpointTest, AdaptersAreKeptAsPeftDoesInPlaceOfTheModel) {
  const model::PeftAdapter adapter =
      model::ReadPeftAdapter("tests/golden/tiny_qwen2_lora", model_.config).value();
  moments_.resize(1);
  const CheckpointContents contents = {
      .adapter = {{.views = {.spec = adapter.spec,
                             .tensors = model::ViewsOf(adapter.tensors),
                             .base_model = kModel},
                   .num_layers = model_.config.num_layers,
                   .base_hash = 0xfedcba9876543210}},
      .moments = &moments_,
      .state = {.step = 4}};
  ASSERT_THAT(WriteCheckpoint(dir_.path(), contents), IsOk());
  EXPECT_FALSE(base::PathExists(StepDir(4) + "/hf"));
  const auto loaded = ReadCheckpoint(StepDir(4), 0);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->base_hash, 0xfedcba9876543210);
  EXPECT_TRUE(loaded->model.tensors.empty());
  const auto again = model::ReadPeftAdapter(loaded->adapter_dir, model_.config);
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->spec, adapter.spec);
  EXPECT_EQ(*FindLatestCheckpoint(dir_.path()), StepDir(4));
  std::ofstream(StepDir(4) + "/adapter/adapter_model.safetensors", std::ios::app) << "x";
  EXPECT_THAT(ReadCheckpoint(StepDir(4), 0).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("adapter_model.safetensors")));
}

TEST_F(CheckpointTest, RefusesAnotherConfiguration) {
  ASSERT_THAT(Write(1), IsOk());
  EXPECT_THAT(ReadCheckpoint(StepDir(1), 5), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(ReadCheckpoint(StepDir(1), 0), IsOk());
}

TEST_F(CheckpointTest, NoticesOneFlippedByteInAnyFile) {
  for (const char* file : {"hf/model.safetensors", "hf/config.json", "state/optimizer.safetensors",
                           "state/trainer.json", "state/commit.binpb"}) {
    ASSERT_THAT(Write(1), IsOk());
    const std::string path = StepDir(1) + "/" + file;
    auto bytes = base::ReadFile(path, 1 << 24);
    ASSERT_THAT(bytes, IsOk());
    (*bytes)[bytes->size() / 2] ^= 1;
    std::ofstream(path, std::ios::binary) << *bytes;
    const absl::Status status = ReadCheckpoint(StepDir(1), 0).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr(file)));
    EXPECT_EQ(base::ExitCode(status), base::kExitData);
  }
}

TEST_F(CheckpointTest, NoticesAMissingFileAndAMissingManifest) {
  ASSERT_THAT(Write(1), IsOk());
  ASSERT_THAT(base::RemoveAll(StepDir(1) + "/hf/model.safetensors"), IsOk());
  EXPECT_THAT(ReadCheckpoint(StepDir(1), 0),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("is missing")));
  ASSERT_THAT(Write(2), IsOk());
  ASSERT_THAT(base::RemoveAll(StepDir(2) + "/MANIFEST.json"), IsOk());
  EXPECT_THAT(ReadCheckpoint(StepDir(2), 0), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(CheckpointTest, NoticesAManifestThatListsLessThanACheckpointNeeds) {
  ASSERT_THAT(Write(1), IsOk());
  std::ofstream(StepDir(1) + "/MANIFEST.json")
      << R"({"format": 1, "config_fingerprint": "00", "files": []})";
  EXPECT_THAT(ReadCheckpoint(StepDir(1), 0),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("does not list")));
  std::ofstream(StepDir(1) + "/MANIFEST.json") << R"([[[)";
  EXPECT_THAT(ReadCheckpoint(StepDir(1), 0), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(CheckpointTest, AFailedWriteLeavesNothingBehind) {
  ASSERT_THAT(base::MakeDirectories(dir_.path()), IsOk());
  // A file where the folder of checkpoints should be: no write below it can succeed.
  std::ofstream(dir_.File("checkpoints")) << "in the way";
  EXPECT_FALSE(Write(1).ok());
  EXPECT_FALSE(base::PathExists(StepDir(1)));
}

TEST_F(CheckpointTest, ADiskThatTakesNoMoreLeavesTheOldCheckpointAndNothingHalfWritten) {
  ASSERT_THAT(Write(3), IsOk());
  ledger_ = LedgerCopyPath(dir_.path(), 3);
  ASSERT_THAT(base::WriteFileAtomically(ledger_, "pages"), IsOk());
  // The kernel refuses to let a file grow past the limit, in the middle of the weights.
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 16 << 10;
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status status = Write(3);
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot write checkpoint"));
  EXPECT_FALSE(base::PathExists(StepDir(3) + ".partial"));
  EXPECT_FALSE(base::PathExists(ledger_));
  EXPECT_THAT(ReadCheckpoint(StepDir(3), 0), IsOk());
}

TEST_F(CheckpointTest, ReplacesACheckpointOfTheSameStep) {
  ASSERT_THAT(Write(3), IsOk());
  moments_[0].first[0] = 42.0f;
  ASSERT_THAT(Write(3), IsOk());
  const auto loaded = ReadCheckpoint(StepDir(3), 0);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->moments[0].first[0], 42.0f);
  EXPECT_FALSE(base::PathExists(StepDir(3) + ".replaced"));
}

TEST_F(CheckpointTest, FindsTheLatestByNumberAndPassesOverUnfinishedOnes) {
  EXPECT_EQ(*FindLatestCheckpoint(dir_.path()), std::nullopt);
  for (const char* name : {"step_11.partial", "step_x", "other_99"}) {
    ASSERT_THAT(base::MakeDirectories(dir_.File("checkpoints") + "/" + name), IsOk());
  }
  EXPECT_EQ(*FindLatestCheckpoint(dir_.path()), std::nullopt);
  ASSERT_THAT(Write(9), IsOk());
  ASSERT_THAT(Write(10), IsOk());
  EXPECT_EQ(*FindLatestCheckpoint(dir_.path()), StepDir(10));
}

TEST_F(CheckpointTest, ADamagedNewestIsMovedAsideAndTheOneBeforeItTaken) {
  for (const uint64_t step : {3, 6, 9}) ASSERT_THAT(Write(step), IsOk());
  std::ofstream(StepDir(9) + "/hf/model.safetensors", std::ios::app) << "x";
  ASSERT_THAT(base::RemoveAll(StepDir(6) + "/MANIFEST.json"), IsOk());
  EXPECT_EQ(*FindLatestCheckpoint(dir_.path()), StepDir(3));
  EXPECT_THAT(ReadCheckpoint(StepDir(3), 0), IsOk());
  for (const char* damaged : {"step_6", "step_9"}) {
    EXPECT_FALSE(base::PathExists(dir_.File("checkpoints") + "/" + damaged));
    EXPECT_TRUE(base::PathExists(dir_.File("rewound/damaged") + "/" + damaged));
  }
}

TEST_F(CheckpointTest, IfNoneIsWholeTheNewestIsNamedAndNothingIsMoved) {
  for (const uint64_t step : {3, 6}) {
    ASSERT_THAT(Write(step), IsOk());
    ASSERT_THAT(base::RemoveAll(StepDir(step) + "/hf/model.safetensors"), IsOk());
  }
  for (int time = 0; time < 2; ++time) {
    EXPECT_THAT(FindLatestCheckpoint(dir_.path()),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("step_6/hf/model.safetensors")));
  }
  EXPECT_TRUE(base::PathExists(StepDir(6)));
}

TEST_F(CheckpointTest, AWriterThatDiedBetweenItsRenamesLeavesTheOldCheckpoint) {
  ASSERT_THAT(Write(3), IsOk());
  ASSERT_THAT(base::RenameDurably(StepDir(3), StepDir(3) + ".replaced"), IsOk());
  EXPECT_EQ(*FindLatestCheckpoint(dir_.path()), StepDir(3));
  ASSERT_THAT(base::RenameDurably(StepDir(3), StepDir(3) + ".replaced"), IsOk());
  ASSERT_THAT(PruneCheckpoints(dir_.path(), 2), IsOk());
  EXPECT_THAT(ReadCheckpoint(StepDir(3), 0), IsOk());
}

TEST_F(CheckpointTest, KeepsTheNewestAndRemovesLeftovers) {
  for (const char* name : {"step_9", "step_10", "step_2", "step_11.partial"}) {
    ASSERT_THAT(base::MakeDirectories(dir_.File("checkpoints") + "/" + name), IsOk());
  }
  ASSERT_THAT(PruneCheckpoints(dir_.path(), 2), IsOk());
  EXPECT_TRUE(base::PathExists(StepDir(9)));
  EXPECT_TRUE(base::PathExists(StepDir(10)));
  EXPECT_FALSE(base::PathExists(StepDir(2)));
  EXPECT_FALSE(base::PathExists(StepDir(11) + ".partial"));
  ASSERT_THAT(PruneCheckpoints(dir_.path(), 0), IsOk());
  EXPECT_TRUE(base::PathExists(StepDir(9)));
}

TEST_F(CheckpointTest, MovesWhatIsAfterTheResumedStepAside) {
  for (const char* name : {"step_4", "step_5", "step_6"}) {
    ASSERT_THAT(base::MakeDirectories(dir_.File("checkpoints") + "/" + name), IsOk());
  }
  ASSERT_THAT(base::MakeDirectories(dir_.File("samples")), IsOk());
  for (const char* name : {"step_5.jsonl", "step_6.jsonl"}) {
    std::ofstream(dir_.File("samples") + "/" + name) << "{}\n";
  }
  ASSERT_THAT(base::WriteFileAtomically(dir_.File("samples/step_6.jsonl.partial-Ab12Cd"), "{"),
              IsOk());
  ASSERT_THAT(MoveLaterFilesAside(dir_.path(), 5, 2), IsOk());
  EXPECT_FALSE(base::PathExists(dir_.File("samples/step_6.jsonl.partial-Ab12Cd")));
  EXPECT_TRUE(base::PathExists(StepDir(5)));
  EXPECT_FALSE(base::PathExists(StepDir(6)));
  EXPECT_TRUE(base::PathExists(dir_.File("samples/step_5.jsonl")));
  EXPECT_FALSE(base::PathExists(dir_.File("samples/step_6.jsonl")));
  EXPECT_TRUE(base::PathExists(dir_.File("rewound/timeline_2/checkpoints/step_6")));
  EXPECT_TRUE(base::PathExists(dir_.File("rewound/timeline_2/samples/step_6.jsonl")));
}

}  // namespace
}  // namespace temper::learner
