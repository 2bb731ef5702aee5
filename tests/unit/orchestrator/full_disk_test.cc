// A ledger whose disk has no room: every call says so and changes nothing; a limit of the size of
// files stands in for the disk.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>

#include "orchestrator/coordinator.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/orchestrator/test_run.h"

namespace temper::orchestrator {
namespace {

using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

// While it lives no file grows beyond what the write-ahead log of the ledger has now.
class NoRoom final {
 public:
  explicit NoRoom(TestRun* run) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const auto size = std::filesystem::file_size(run->Path("ledger.db-wal"));
    const rlimit limit = {.rlim_cur = size, .rlim_max = before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~NoRoom() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_;
};

const auto kFull = StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("free space there"));

absl::Status Acquire(TestRun* run) {
  v1::AcquireWorkRequest request;
  request.set_run_id("run");
  request.set_member_id("w1");
  request.set_incarnation(1);
  request.set_acknowledged_timeline(run->timeline_);
  request.set_has_version(true);
  v1::AcquireWorkReply reply;
  return (*run)->AcquireWork(request, true, &reply);
}

absl::Status Admit(TestRun* run, const v1::GroupRef& ref) {
  v1::AdmitGroupRequest request;
  *request.mutable_ref() = ref;
  request.set_learner_incarnation(run->learner_);
  request.set_examination(v1::EXAMINATION_KEPT);
  v1::AdmitGroupReply reply;
  return (*run)->AdmitGroup(request, &reply);
}

absl::Status HandBack(TestRun* run, const v1::GroupRef& ref) {
  v1::CompleteWorkRequest request;
  request.set_run_id("run");
  request.set_member_id("w1");
  request.set_incarnation(1);
  *request.add_attempts()->mutable_ref() = ref;
  request.mutable_attempts(0)->set_ending(v1::ENDING_DRAINED);
  v1::CompleteWorkReply reply;
  return (*run)->CompleteWork(request, &reply);
}

// Time passes while every member is heard from.
void Pass(TestRun* run, absl::Duration time) {
  run->clock().Advance(time);
  for (const char* member : {"reward", "learner", "w1"}) EXPECT_THAT(run->Beat(member), IsOk());
  (*run)->Tick();
}

TEST(FullDisk, EveryCallSaysSoAndChangesNothing) {
  TestRun run;
  run.BeginTraining();
  const v1::Lease lease = run.Acquire("w1").lease();
  ASSERT_EQ(lease.train_size(), 3);
  ASSERT_TRUE(run.Admit(lease.train(0).ref()).admitted());
  const Accounting before = *run.store().CountAttempts();
  {
    NoRoom no_room(&run);
    EXPECT_THAT(Acquire(&run), kFull);
    EXPECT_THAT(Admit(&run, lease.train(1).ref()), kFull);
    EXPECT_THAT(HandBack(&run, lease.train(2).ref()), kFull);
    EXPECT_THAT(run.Commit(run.CommitRequest(1, {lease.train(0).ref()})), kFull);
    EXPECT_THAT(run.Join(v1::ROLE_ROLLOUT_WORKER, "w2"), kFull);
    EXPECT_THAT(run.Join(v1::ROLE_LEARNER, "learner", 7), kFull);
    EXPECT_THAT(run->VerifyAccounting(), IsOk());
    EXPECT_EQ(*run.store().CountAttempts(), before);
  }
  // The same calls, once there is room: as if they had never been made.
  EXPECT_THAT(Admit(&run, lease.train(1).ref()), IsOk());
  EXPECT_THAT(HandBack(&run, lease.train(2).ref()), IsOk());
  const v1::Lease rest = run.Acquire("w1").lease();
  ASSERT_EQ(rest.train_size(), 2) << "the one handed back and the fourth of the round";
  std::vector<v1::GroupRef> trained = {lease.train(0).ref(), lease.train(1).ref()};
  for (const v1::TrainItem& item : rest.train()) {
    EXPECT_THAT(Admit(&run, item.ref()), IsOk());
    trained.push_back(item.ref());
  }
  EXPECT_THAT(run.Commit(run.CommitRequest(1, trained)), IsOk());
  EXPECT_THAT(run->VerifyAccounting(), IsOk());
}

TEST(FullDisk, RoomThatIsMadeInTimeIsEnough) {
  TestRun run;
  run.BeginTraining();
  const v1::Lease lease = run.Acquire("w1").lease();
  {
    NoRoom no_room(&run);
    EXPECT_THAT(Admit(&run, lease.train(0).ref()), kFull);
    Pass(&run, absl::Seconds(5));
  }
  EXPECT_THAT(Admit(&run, lease.train(0).ref()), IsOk());
  Pass(&run, absl::Seconds(6));
  Pass(&run, absl::Seconds(6));
  EXPECT_EQ(run->state(), v1::RUN_STATE_TRAINING);
}

TEST(FullDisk, RoomThatNobodyHasWrittenIntoIsSeen) {
  TestRun run;
  run.BeginTraining();
  const v1::Lease lease = run.Acquire("w1").lease();
  {
    NoRoom no_room(&run);
    EXPECT_THAT(Admit(&run, lease.train(0).ref()), kFull);
    Pass(&run, absl::Seconds(1));
  }
  Pass(&run, absl::Seconds(20));
  EXPECT_EQ(run->state(), v1::RUN_STATE_TRAINING);
  EXPECT_THAT(Admit(&run, lease.train(0).ref()), IsOk());
}

TEST(FullDisk, ADiskThatStaysFullEndsTheRunWithTheReasonAndTheRemedy) {
  TestRun run;
  run.BeginTraining();
  const v1::Lease lease = run.Acquire("w1").lease();
  NoRoom no_room(&run);
  EXPECT_THAT(Admit(&run, lease.train(0).ref()), kFull);
  Pass(&run, absl::Seconds(1));
  Pass(&run, absl::Seconds(9));
  EXPECT_EQ(run->state(), v1::RUN_STATE_TRAINING);
  Pass(&run, absl::Seconds(1));
  EXPECT_EQ(run->state(), v1::RUN_STATE_FAILED) << "though that cannot be recorded";
  v1::GetStatusReply status;
  EXPECT_THAT(run->GetStatus({}, &status), IsOk());
  EXPECT_THAT(status.state_reason(), HasSubstr(run.Path("ledger.db")));
  EXPECT_THAT(status.state_reason(), HasSubstr("free space there and resume the run"));
}

}  // namespace
}  // namespace temper::orchestrator
