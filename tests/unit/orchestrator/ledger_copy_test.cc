// Copies of the ledger: made while it is written, and taken where the ledger is lost.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "orchestrator/ledger_restore.h"
#include "orchestrator/ledger_snapshots.h"
#include "services/base/hash.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/orchestrator/test_run.h"

namespace temper::orchestrator {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::temper::testing::TempDir;
using ::testing::HasSubstr;

LedgerSnapshots::Copy CopyOf(LedgerSnapshots* snapshots) {
  LedgerSnapshots::Copy copy = absl::UnknownError("");
  absl::Notification done;
  snapshots->Make([&](LedgerSnapshots::Copy made) {
    copy = std::move(made);
    done.Notify();
  });
  EXPECT_TRUE(done.WaitForNotificationWithTimeout(absl::Seconds(30)));
  return copy;
}

void Save(const LedgerCopy& copy, const std::string& path) {
  const auto bytes = copy.Read(0, copy.size_bytes());
  ASSERT_THAT(bytes, IsOk());
  EXPECT_EQ(base::Hash64(*bytes), copy.xxh3());
  ASSERT_THAT(base::WriteFileAtomically(path, *bytes), IsOk());
}

TEST(LedgerSnapshotsTest, ACopyIsMadeInTheMiddleOfATransactionAndDoesNotSeeIt) {
  TempDir folder;
  const auto store = LedgerStore::Open(folder.File("ledger.db"));
  ASSERT_THAT(store, IsOk());
  ASSERT_THAT((*store)->PutNumber("cursor", 1), IsOk());
  LedgerSnapshots snapshots(folder.File("ledger.db"));
  ASSERT_THAT((*store)->Transact(SqlDatabase::Durability::kProcess,
                                 [&]() -> absl::Status {
                                   TEMPER_RETURN_IF_ERROR((*store)->PutNumber("cursor", 2));
                                   const auto copy = CopyOf(&snapshots);
                                   EXPECT_THAT(copy, IsOk());
                                   Save(**copy, folder.File("copy.db"));
                                   return absl::OkStatus();
                                 }),
              IsOk());
  const auto copied = LedgerStore::Open(folder.File("copy.db"));
  ASSERT_THAT(copied, IsOk());
  EXPECT_EQ(*(*copied)->Number("cursor"), 1u);
  EXPECT_EQ(*(*store)->Number("cursor"), 2u);
}

TEST(LedgerSnapshotsTest, OneCopyIsMadeAtATimeAndNoneAfterTheEnd) {
  TempDir folder;
  const auto store = LedgerStore::Open(folder.File("ledger.db"));
  ASSERT_THAT(store, IsOk());
  LedgerSnapshots snapshots(folder.File("ledger.db"));
  absl::Notification first, refused;
  snapshots.Make([&](LedgerSnapshots::Copy copy) {
    EXPECT_THAT(copy, IsOk());
    first.Notify();
  });
  EXPECT_TRUE(first.WaitForNotificationWithTimeout(absl::Seconds(30)));
  snapshots.Close();
  snapshots.Make([&](LedgerSnapshots::Copy copy) {
    EXPECT_THAT(copy, StatusIs(absl::StatusCode::kUnavailable));
    refused.Notify();
  });
  EXPECT_TRUE(refused.HasBeenNotified()) << "at once";
}

TEST(LedgerSnapshotsTest, ACopyIsGivenUpOnceNobodyWantsIt) {
  TempDir folder;
  const auto store = LedgerStore::Open(folder.File("ledger.db"));
  ASSERT_THAT(store, IsOk());
  for (int i = 0; i < 2000; ++i) {  // more than SQLite does between two looks
    ASSERT_THAT((*store)->PutNumber(absl::StrCat("number ", i), 1), IsOk());
  }
  const std::atomic<bool> cancel = true;
  EXPECT_THAT(CopyDatabase(folder.File("ledger.db"), folder.File("copy.db"), &cancel),
              StatusIs(absl::StatusCode::kCancelled));
}

TEST(LedgerSnapshotsTest, SaysWhyThereIsNone) {
  TempDir folder;
  LedgerSnapshots snapshots(folder.File("missing.db"));
  EXPECT_THAT(CopyOf(&snapshots), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("missing")));
}

// A run that loses its ledger after step 2, of which a copy was made as the learner does: when all
// of the step's groups are admitted, before the commit.
class LostLedgerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_THAT(run_.store().PutFact("run_id", "run"), IsOk());  // as the run directory does
    run_.BeginTraining();
    Close(1, run_.SampleRound({"w1"}));
    const std::vector<v1::TrainItem> second = run_.SampleRound({"w1"});
    commit_ = run_.CommitRequest(2, TestRun::Refs(second));
    ASSERT_THAT(CopyDatabase(run_.Path("ledger.db"), run_.Path("copy.db")), IsOk());
    Close(2, second);
    third_ = run_.SampleRound({"w1"});
    // A timeline that the copy does not know of.
    ASSERT_THAT(run_.BeginTimeline(2), IsOk());
    ASSERT_EQ(run_.timeline_, 2u);
    metrics_ = run_.File("metrics.jsonl");
    run_.Close();
  }

  void Close(uint64_t step, const std::vector<v1::TrainItem>& items) {
    ASSERT_THAT(run_.Commit(run_.CommitRequest(step, TestRun::Refs(items))), IsOk());
    ASSERT_THAT(run_.Publish(step), IsOk());
    ASSERT_TRUE(run_.Acknowledge("w1", step));
  }

  absl::StatusOr<std::optional<LedgerRestored>> Restore() {
    return RestoreLedgerIfLost({.ledger = run_.Path("ledger.db"),
                                .copy = run_.Path("copy.db"),
                                .run_dir = run_.directory(),
                                .now = absl::FromUnixSeconds(1'000'000'000)});
  }

  void DeleteLedger() {
    for (const char* part : {"", "-wal", "-shm"}) {
      std::filesystem::remove(run_.Path(absl::StrCat("ledger.db", part)));
    }
  }

  // With the commit the restored ledger is what it was at the end of step 2.
  void ExpectGoesOnAfterStep2() {
    run_.Start();
    ASSERT_THAT(run_.BeginTimeline(2, &commit_), IsOk());
    EXPECT_EQ(run_.timeline_, 3u) << "numbers 1 and 2 were given";
    EXPECT_EQ(run_.File("metrics.jsonl"), metrics_);
    EXPECT_THAT(run_->VerifyAccounting(), IsOk());
    ASSERT_THAT(run_.Publish(2), IsOk());
    ASSERT_TRUE(run_.Acknowledge("w1", 2));
    const std::vector<v1::TrainItem> again = run_.SampleRound({"w1"});
    ASSERT_EQ(again.size(), third_.size());
    for (size_t i = 0; i < again.size(); ++i) {
      EXPECT_EQ(again[i].ref().group_index(), third_[i].ref().group_index());
      EXPECT_EQ(again[i].problem().problem_id(), third_[i].problem().problem_id());
    }
  }

  TestRun run_;
  v1::CommitStepRequest commit_;
  std::vector<v1::TrainItem> third_;
  std::string metrics_;
};

TEST_F(LostLedgerTest, AMissingLedgerIsMadeAnewFromTheCopy) {
  DeleteLedger();
  const auto restored = Restore();
  ASSERT_THAT(restored, IsOk());
  ASSERT_TRUE(restored->has_value());
  EXPECT_EQ((*restored)->moved_aside, "");
  EXPECT_EQ(base::ReadFile(run_.Path("rewound/metrics.lost_ledger-20010909-014640.jsonl"), 1 << 20)
                .value_or(""),
            metrics_);
  ExpectGoesOnAfterStep2();
}

TEST_F(LostLedgerTest, GarbageIsMovedAsideUnderANameThatSaysSo) {
  DeleteLedger();
  const std::string garbage(8192, 'x');
  for (const char* part : {"", "-wal", "-shm"}) {
    ASSERT_THAT(base::WriteFileAtomically(run_.Path(absl::StrCat("ledger.db", part)), garbage),
                IsOk());
  }
  const auto restored = Restore();
  ASSERT_THAT(restored, IsOk());
  ASSERT_TRUE(restored->has_value());
  const std::string aside = run_.Path("ledger.db.corrupt-20010909-014640");
  EXPECT_EQ((*restored)->moved_aside, aside);
  EXPECT_EQ(base::ReadFile(aside, 1 << 20).value_or(""), garbage);
  ExpectGoesOnAfterStep2();
}

TEST_F(LostLedgerTest, ADamagedPageInTheMiddleIsFound) {
  const std::string path = run_.Path("ledger.db");
  std::string bytes = base::ReadFile(path, 1 << 24).value_or("");
  ASSERT_GT(bytes.size(), 3u * 4096);
  for (size_t page = 1; (page + 1) * 4096 <= bytes.size(); ++page) bytes[page * 4096] = '\x55';
  ASSERT_THAT(base::WriteFileAtomically(path, bytes), IsOk());
  const auto restored = Restore();
  ASSERT_THAT(restored, IsOk());
  EXPECT_TRUE(restored->has_value());
  ExpectGoesOnAfterStep2();
}

TEST_F(LostLedgerTest, AWholeLedgerIsLeftAsItIs) {
  const auto restored = Restore();
  ASSERT_THAT(restored, IsOk());
  EXPECT_FALSE(restored->has_value());
  run_.Start();
  EXPECT_EQ(run_.store().Commits()->size(), 2u);
  EXPECT_EQ(*run_.store().Number("timeline"), 2u);
}

TEST_F(LostLedgerTest, ACopyThatIsNoLedgerIsRefusedAndNothingIsMoved) {
  DeleteLedger();
  ASSERT_THAT(base::WriteFileAtomically(run_.Path("copy.db"), "no database"), IsOk());
  EXPECT_THAT(Restore(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("copy.db")));
  EXPECT_FALSE(base::PathExists(run_.Path("ledger.db")));
  EXPECT_TRUE(base::PathExists(run_.Path("metrics.jsonl")));
}

}  // namespace
}  // namespace temper::orchestrator
