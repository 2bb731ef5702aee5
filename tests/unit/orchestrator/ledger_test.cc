// The ledger under random sequences of what can happen to it, and after a kill at any moment.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "orchestrator/eval_ledger.h"
#include "orchestrator/ledger.h"
#include "services/base/random_key.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::orchestrator {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
constexpr absl::Duration kLease = absl::Seconds(60);

struct OpenedLedger {
  std::unique_ptr<LedgerStore> store;
  std::unique_ptr<Ledger> ledger;
};

OpenedLedger OpenLedger(const std::string& path, absl::Time now = kNow) {
  OpenedLedger opened;
  auto store = LedgerStore::Open(path);
  EXPECT_THAT(store, IsOk());
  opened.store = *std::move(store);
  auto ledger = Ledger::Open(opened.store.get(), now, kLease);
  EXPECT_THAT(ledger, IsOk());
  opened.ledger = *std::move(ledger);
  return opened;
}

absl::Status Begin(Ledger* ledger, uint64_t step) {
  return ledger->BeginTimeline(step, [](const RewindPlan&) { return absl::OkStatus(); }).status();
}

CommitRow CommitOf(const Ledger& ledger) {
  return {.timeline = ledger.timeline(), .step = ledger.open_step(), .metrics_json = "{}"};
}

// What a killed process leaves: the files as they are at this moment, without SQLite's closing.
std::string ImageOfKill(const std::string& path, const std::string& directory) {
  std::filesystem::create_directories(directory);
  for (const char* suffix : {"", "-wal"}) {
    std::filesystem::copy_file(path + suffix, directory + "/ledger.db" + suffix,
                               std::filesystem::copy_options::overwrite_existing);
  }
  return directory + "/ledger.db";
}

// Does random things to a ledger, as coordinator and peers could, and remembers what it must say.
class RandomRun {
 public:
  RandomRun(uint64_t seed, std::string directory)
      : key_(base::RandomKey(seed, base::Purpose::kTest, 0)),
        directory_(std::move(directory)),
        path_(directory_ + "/ledger.db"),
        opened_(OpenLedger(path_)) {
    EXPECT_THAT(Begin(opened_.ledger.get(), 0), IsOk());
  }

  void Act() {
    Ledger& ledger = *opened_.ledger;
    switch (Draw(10)) {
      case 0:
        EXPECT_THAT(ledger.OpenGroups(1 + Draw(4), 1), IsOk());
        break;
      case 1:
      case 2:
      case 3:
        LeaseSome();
        break;
      case 4:
        EndOne(Draw(2) == 0 ? Ending::kLeaseExpired : Ending::kDrained, true);
        break;
      case 5:
      case 6:
      case 7:
        AdmitOne();
        break;
      case 8:
        CommitStep();
        break;
      case 9:
        Rarely();
        break;
    }
    ASSERT_THAT(opened_.ledger->VerifyAccounting(), IsOk());
  }

  void CompareWithKilled() {
    OpenedLedger killed = OpenLedger(ImageOfKill(path_, directory_ + "/killed"));
    EXPECT_EQ(killed.ledger->accounting(), opened_.ledger->accounting());
    EXPECT_EQ(killed.ledger->cursor(), opened_.ledger->cursor());
    EXPECT_EQ(killed.ledger->steps_closed(), opened_.ledger->steps_closed());
    EXPECT_EQ(killed.ledger->timeline(), opened_.ledger->timeline());
    EXPECT_EQ(killed.ledger->kept(), opened_.ledger->kept());
    EXPECT_EQ(killed.ledger->examined(), opened_.ledger->examined());
    EXPECT_EQ(killed.ledger->unexamined(), opened_.ledger->unexamined());
    EXPECT_EQ(killed.ledger->ReadyGroups(kNow), opened_.ledger->ReadyGroups(kNow));
    EXPECT_THAT(killed.ledger->VerifyAccounting(), IsOk());
  }

 private:
  uint64_t Draw(uint64_t bound) { return base::UniformBelow(key_, draws_++, bound); }

  void LeaseSome() {
    std::vector<uint64_t> ready = opened_.ledger->ReadyGroups(kNow);
    if (ready.empty()) return;
    ready.resize(1 + Draw(ready.size()));
    auto attempts = opened_.ledger->Lease(ready, {"w", 1}, 0, kNow, kLease);
    ASSERT_THAT(attempts, IsOk());
    for (const AttemptRow& attempt : *attempts) leased_.push_back(attempt.id);
    // The same groups are not leased a second time.
    EXPECT_THAT(opened_.ledger->Lease(ready, {"w", 2}, 0, kNow, kLease),
                StatusIs(absl::StatusCode::kFailedPrecondition));
  }

  AttemptId TakeLeased() {
    const size_t at = Draw(leased_.size());
    const AttemptId id = leased_[at];
    leased_.erase(leased_.begin() + at);
    return id;
  }

  void EndOne(Ending ending, bool again) {
    if (leased_.empty()) return;
    const AttemptId id = TakeLeased();
    const std::vector<AttemptEnd> ends = {{id, ending, "test", again, kNow}};
    EXPECT_THAT(opened_.ledger->End(ends), IsOk());
    EXPECT_THAT(opened_.ledger->End(ends), StatusIs(absl::StatusCode::kFailedPrecondition));
    late_.push_back(id);
  }

  void AdmitOne() {
    if (!late_.empty()) {  // a message of an attempt that has ended
      EXPECT_THAT(opened_.ledger->Admit(late_[Draw(late_.size())], Examination::kKept, ""),
                  StatusIs(absl::StatusCode::kFailedPrecondition));
    }
    if (leased_.empty()) return;
    const AttemptId id = TakeLeased();
    const auto found = Draw(3) == 0 ? Examination::kZeroVariance : Examination::kKept;
    EXPECT_THAT(opened_.ledger->Admit(id, found, "test"), IsOk());
    EXPECT_THAT(opened_.ledger->Admit(id, found, "test"),
                StatusIs(absl::StatusCode::kFailedPrecondition));
    admitted_[id] = found;
  }

  void CommitStep() {
    std::vector<ClosedAttempt> closed;
    for (auto it = admitted_.begin(); it != admitted_.end();) {
      if (Draw(4) == 0) {
        ++it;  // surplus, carried over
        continue;
      }
      const bool kept = it->second == Examination::kKept;
      closed.push_back({it->first.group_index, it->first.attempt,
                        !kept          ? Ending::kDroppedZeroVariance
                        : Draw(5) == 0 ? Ending::kDroppedStale
                                       : Ending::kTrained});
      late_.push_back(it->first);
      it = admitted_.erase(it);
    }
    const CommitRow commit = CommitOf(*opened_.ledger);
    ASSERT_THAT(opened_.ledger->Commit(commit, closed), IsOk());
    EXPECT_THAT(opened_.ledger->Commit(commit, closed),
                StatusIs(absl::StatusCode::kFailedPrecondition));
  }

  void Rarely() {
    if (Draw(3) == 0) {  // the learner restarts
      const uint64_t step = Draw(opened_.ledger->steps_closed() + 1);
      ASSERT_THAT(Begin(opened_.ledger.get(), step), IsOk());
      EXPECT_EQ(opened_.ledger->steps_closed(), step);
      EXPECT_EQ(opened_.ledger->accounting().leased, 0u);
      EXPECT_EQ(opened_.ledger->accounting().admitted, 0u);
      for (const AttemptId& id : leased_) late_.push_back(id);
      leased_.clear();
      admitted_.clear();
    } else {  // the orchestrator restarts
      opened_.ledger.reset();
      opened_.store.reset();
      opened_ = OpenLedger(path_);
    }
  }

  const uint64_t key_;
  uint32_t draws_ = 0;
  const std::string directory_;
  const std::string path_;
  OpenedLedger opened_;
  std::vector<AttemptId> leased_;
  std::vector<AttemptId> late_;
  std::map<AttemptId, Examination> admitted_;
};

TEST(Ledger, AddsUpAfterEveryStepOfRandomHistories) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    temper::testing::TempDir directory;
    RandomRun run(seed, directory.path());
    for (int i = 0; i < 120; ++i) {
      run.Act();
      if (HasFatalFailure()) return;
      if (i % 10 == 0) run.CompareWithKilled();
    }
  }
}

class LedgerTest : public ::testing::Test {
 protected:
  LedgerTest() : opened_(OpenLedger(directory_.File("ledger.db"))) {
    EXPECT_THAT(Begin(ledger(), 0), IsOk());
  }
  Ledger* ledger() { return opened_.ledger.get(); }
  // Opens, leases and admits `count` groups as kept.
  std::vector<ClosedAttempt> Fill(uint32_t count) {
    const uint64_t first = ledger()->cursor();
    EXPECT_THAT(ledger()->OpenGroups(count, 1), IsOk());
    std::vector<ClosedAttempt> closed;
    for (uint32_t i = 0; i < count; ++i) {
      const std::vector<uint64_t> groups = {first + i};
      auto leased = ledger()->Lease(groups, {"w", 1}, 0, kNow, kLease);
      EXPECT_THAT(leased, IsOk());
      EXPECT_THAT(ledger()->Admit(leased->front().id, Examination::kKept, ""), IsOk());
      closed.push_back({first + i, leased->front().id.attempt, Ending::kTrained});
    }
    return closed;
  }

  temper::testing::TempDir directory_;
  OpenedLedger opened_;
};

TEST_F(LedgerTest, ARewoundStepIsTrainedAgainUnderTheSameIndices) {
  for (int step = 0; step < 3; ++step) {
    ASSERT_THAT(ledger()->Commit(CommitOf(*ledger()), Fill(4)), IsOk());
  }
  Fill(2);
  EXPECT_EQ(ledger()->cursor(), 14u);
  ASSERT_THAT(Begin(ledger(), 1), IsOk());
  EXPECT_EQ(ledger()->cursor(), 4u);
  EXPECT_EQ(ledger()->timeline(), 2u);
  EXPECT_EQ(ledger()->accounting().Ended(Ending::kTrained), 4u);
  EXPECT_EQ(ledger()->accounting().Ended(Ending::kRewound), 10u);
  ASSERT_THAT(ledger()->Commit(CommitOf(*ledger()), Fill(4)), IsOk());
  EXPECT_EQ(ledger()->steps_closed(), 2u);
  EXPECT_THAT(ledger()->VerifyAccounting(), IsOk());
}

TEST_F(LedgerTest, ACommitOfWhatIsNotAdmittedChangesNothing) {
  std::vector<ClosedAttempt> closed = Fill(2);
  ASSERT_THAT(ledger()->OpenGroups(1, 1), IsOk());
  closed.push_back({2, 1, Ending::kTrained});
  EXPECT_THAT(ledger()->Commit(CommitOf(*ledger()), closed),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  closed.back() = closed.front();
  EXPECT_THAT(ledger()->Commit(CommitOf(*ledger()), closed),
              StatusIs(absl::StatusCode::kInvalidArgument));
  closed.pop_back();
  closed.front().ending = Ending::kLeaseExpired;
  EXPECT_THAT(ledger()->Commit(CommitOf(*ledger()), closed),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(ledger()->steps_closed(), 0u);
  EXPECT_EQ(ledger()->kept(), 2u);
}

TEST_F(LedgerTest, LeasesFoundAtStartAreArmedAgainFromTheirDuration) {
  ASSERT_THAT(ledger()->OpenGroups(1, 1), IsOk());
  const std::vector<uint64_t> groups = {0};
  ASSERT_THAT(ledger()->Lease(groups, {"w", 1}, 0, kNow, kLease), IsOk());
  opened_.ledger.reset();
  opened_.store.reset();
  const absl::Time restart = kNow + absl::Hours(1);
  opened_ = OpenLedger(directory_.File("ledger.db"), restart);
  EXPECT_THAT(ledger()->Expired(restart), IsEmpty());
  EXPECT_TRUE(ledger()->Renew({1, 0, 1}, {"w", 1}, restart + kLease, kLease));
  EXPECT_FALSE(ledger()->Renew({1, 0, 1}, {"w", 2}, restart + 8 * kLease, kLease));
  EXPECT_THAT(ledger()->Expired(restart + kLease), IsEmpty());
  EXPECT_EQ(ledger()->Expired(restart + 2 * kLease).size(), 1u);
}

TEST_F(LedgerTest, TwoOrchestratorsCannotShareOne) {
  EXPECT_THAT(LedgerStore::Open(directory_.File("ledger.db")),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       ::testing::HasSubstr("another orchestrator")));
}

TEST_F(LedgerTest, AFileThatIsNoDatabaseIsCorruptData) {
  const std::string path = directory_.File("other.db");
  ASSERT_EQ(0, std::system(absl::StrCat("yes garbage | head -c 8192 > ", path).c_str()));
  EXPECT_THAT(LedgerStore::Open(path), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(LedgerTest, EvaluationItemsAreRecordedWork) {
  auto evals = EvalLedger::Open(opened_.store.get(), kNow, kLease);
  ASSERT_THAT(evals, IsOk());
  EvalLedger& ledger = **evals;
  EXPECT_FALSE(ledger.open());
  const std::vector<EvalItemSpec> items = {{0, 0, 1, 0, 1}, {0, 0.1, 1, 0, 1}};
  const auto recorded = [] { return absl::OkStatus(); };
  ASSERT_THAT(ledger.AddItems(items, recorded), IsOk());
  ASSERT_THAT(ledger.AddItems(items, recorded), IsOk());  // a version is evaluated once
  EXPECT_TRUE(ledger.OpenOfOthers(1));
  EXPECT_FALSE(ledger.OpenOfOthers(0));
  EXPECT_EQ(ledger.ReadyItem(kNow), 0u);
  ASSERT_THAT(ledger.Lease(0, "w", 1, kNow, kLease), IsOk());
  EXPECT_EQ(ledger.ReadyItem(kNow), 1u);
  EXPECT_THAT(ledger.HeldBy("w", 1), ElementsAre(0));
  EXPECT_THAT(ledger.Expired(kNow + kLease), ElementsAre(0));
  ASSERT_THAT(ledger.Fail(0, kNow + absl::Seconds(9)), IsOk());
  EXPECT_EQ(ledger.BackingOff(kNow), 1u);
  // The late report of the failed attempt is as good as another's.
  ASSERT_THAT(ledger.Finish(0, {{.question = 0, .accuracy = 1}}, {}), IsOk());
  EXPECT_THAT(ledger.Finish(0, {}, {}), StatusIs(absl::StatusCode::kAlreadyExists));
  ASSERT_THAT(
      ledger.Finish(1, {{.question = 0}}, {.elements = 5, .sum_sq_error = 0.1, .sum_sq_value = 10}),
      IsOk());
  EXPECT_FALSE(ledger.open());
  const auto results = ledger.Results();
  ASSERT_THAT(results, IsOk());
  ASSERT_EQ(results->size(), 2u);
  EXPECT_EQ((*results)[0].outcomes[0].accuracy, 1);
  EXPECT_EQ((*results)[1].injections.elements, 5u);
  ASSERT_THAT(ledger.AddItems({{3, 0, 1, 0, 1}}, recorded), IsOk());
  EXPECT_TRUE(ledger.open());
  ASSERT_THAT(ledger.Rewind(2), IsOk());
  ASSERT_THAT(ledger.Reload(kNow, kLease), IsOk());
  EXPECT_FALSE(ledger.open());
}

TEST_F(LedgerTest, EvaluationItemsAreThereOnlyTogetherWithTheirVersion) {
  auto evals = EvalLedger::Open(opened_.store.get(), kNow, kLease);
  ASSERT_THAT(evals, IsOk());
  const std::vector<EvalItemSpec> items = {{7, 0, 1, 0, 1}, {7, 0.1, 1, 0, 1}};
  const auto full_disk = [] { return absl::ResourceExhaustedError("disk full"); };
  EXPECT_THAT((*evals)->AddItems(items, full_disk), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_FALSE((*evals)->open());
  EXPECT_THAT(*opened_.store->EvalItems(), IsEmpty());
  ASSERT_THAT((*evals)->AddItems(items, [&] { return opened_.store->PutManifest(7, "bytes"); }),
              IsOk());
  EXPECT_EQ(opened_.store->EvalItems()->size(), 2u);
  EXPECT_EQ(opened_.store->Manifests()->size(), 1u);
}

}  // namespace
}  // namespace temper::orchestrator
