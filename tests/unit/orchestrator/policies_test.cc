// Every pure decision of the orchestrator, with the reason it gives.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "orchestrator/accounting.h"
#include "orchestrator/acknowledgement.h"
#include "orchestrator/eval_plan.h"
#include "orchestrator/lease_policy.h"
#include "orchestrator/membership.h"
#include "orchestrator/retry_policy.h"
#include "orchestrator/rewind.h"
#include "orchestrator/step_policy.h"
#include "tests/support/status_matchers.h"

namespace temper::orchestrator {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

StepOptions Synchronous() {
  return {.groups_per_step = 4, .max_staleness = 0, .max_rounds = 3, .planned_steps = 10};
}
StepOptions Asynchronous(uint32_t staleness) {
  StepOptions options = Synchronous();
  options.max_staleness = staleness;
  return options;
}
// A synchronous run at the beginning of step 3.
StepSnapshot AtStepThree() { return {.steps_closed = 2, .has_version = true, .latest_version = 2}; }

TEST(Accounting, HoldsOnlyWhereEveryAttemptIsSomewhereOnce) {
  Accounting accounting;
  EXPECT_THAT(CheckAccounting(accounting), IsOk());
  accounting.attempts_leased = 5;
  accounting.leased = 1;
  accounting.admitted = 2;
  accounting.Ended(Ending::kTrained) = 1;
  EXPECT_THAT(CheckAccounting(accounting),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("5 attempts leased, but 4")));
  accounting.Ended(Ending::kDrained) = 1;
  EXPECT_THAT(CheckAccounting(accounting), IsOk());
  accounting.Ended(Ending::kTrained) = 2;
  EXPECT_THAT(CheckAccounting(accounting), StatusIs(absl::StatusCode::kInternal));
}

TEST(Endings, HaveTheNumbersOfTheWireAndOneNameEach) {
  std::set<std::string> names;
  for (size_t i = 0; i < AllEndings().size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(AllEndings()[i]), i + 1);
    EXPECT_EQ(EndingFromNumber(static_cast<int64_t>(i + 1)), AllEndings()[i]);
    names.insert(EndingName(AllEndings()[i]));
  }
  EXPECT_EQ(names.size(), AllEndings().size());
  EXPECT_EQ(EndingFromNumber(11), Ending::kNone);
  EXPECT_EQ(EndingFromNumber(-1), Ending::kNone);
}

TEST(Retry, LeasesAgainExactlyAfterInfrastructureAndRefusals) {
  const RetryOptions options{.max_attempts = 5, .first_backoff = absl::Seconds(1)};
  for (Ending ending : AllEndings()) {
    const bool again = ending == Ending::kRefused || ending == Ending::kGenerationFailed ||
                       ending == Ending::kRewardFailed || ending == Ending::kLeaseExpired ||
                       ending == Ending::kDrained;
    EXPECT_EQ(DecideRetry(options, ending, 1).action,
              again ? RetryAction::kLeaseAgain : RetryAction::kEndGroup)
        << EndingName(ending);
    EXPECT_EQ(DecideRetry(options, ending, 5).action,
              again ? RetryAction::kStopRun : RetryAction::kEndGroup)
        << EndingName(ending);
  }
}

TEST(Retry, WaitsDoubleUpToTheLimitAndHandedBackGroupsWaitNot) {
  const RetryOptions options{
      .max_attempts = 100, .first_backoff = absl::Seconds(1), .max_backoff = absl::Seconds(30)};
  auto wait = [&](uint32_t attempts) {
    return DecideRetry(options, Ending::kLeaseExpired, attempts).wait;
  };
  EXPECT_EQ(wait(1), absl::Seconds(1));
  EXPECT_EQ(wait(2), absl::Seconds(2));
  EXPECT_EQ(wait(5), absl::Seconds(16));
  EXPECT_EQ(wait(6), absl::Seconds(30));
  EXPECT_EQ(wait(99), absl::Seconds(30));
  EXPECT_EQ(DecideRetry(options, Ending::kDrained, 3).wait, absl::ZeroDuration());
}

TEST(SynchronousStep, OpensTheBatchThenTheExactDeficitThenNothing) {
  StepSnapshot step = AtStepThree();
  OpenDecision open = DecideOpen(Synchronous(), step);
  EXPECT_EQ(open.groups, 4u);
  EXPECT_EQ(open.round, 1u);
  EXPECT_EQ(open.reason, "first_round");

  step.rounds_opened = 1;
  step.unexamined = 1;
  step.kept = 1;
  EXPECT_EQ(DecideOpen(Synchronous(), step).reason, "round_in_progress");
  EXPECT_EQ(DecideOpen(Synchronous(), step).groups, 0u);

  step.unexamined = 0;
  open = DecideOpen(Synchronous(), step);
  EXPECT_EQ(open.groups, 3u);
  EXPECT_EQ(open.round, 2u);
  EXPECT_EQ(open.reason, "deficit");

  step.rounds_opened = 3;
  EXPECT_EQ(DecideOpen(Synchronous(), step).reason, "filter_bound");
  step.kept = 4;
  EXPECT_EQ(DecideOpen(Synchronous(), step).reason, "batch_full");
}

TEST(SynchronousStep, WaitsForTheVersionOfTheStepBefore) {
  StepSnapshot step = AtStepThree();
  step.latest_version = 1;
  EXPECT_EQ(DecideOpen(Synchronous(), step).reason, "awaiting_version");
  step.has_version = false;
  EXPECT_EQ(DecideOpen(Synchronous(), step).reason, "no_version");
  step = AtStepThree();
  step.steps_closed = step.latest_version = 10;
  EXPECT_EQ(DecideOpen(Synchronous(), step).reason, "all_steps_closed");
}

TEST(SynchronousStep, ClosesAtTheFilterBoundWithWhatWasKept) {
  StepSnapshot step = AtStepThree();
  EXPECT_EQ(DecideClose(Synchronous(), step).reason, "not_begun");
  step.rounds_opened = 3;
  step.unexamined = 1;
  EXPECT_EQ(DecideClose(Synchronous(), step).reason, "round_in_progress");
  step.unexamined = 0;
  EXPECT_TRUE(DecideClose(Synchronous(), step).close);
  EXPECT_EQ(DecideClose(Synchronous(), step).reason, "filter_bound");
  step.kept = 3;
  EXPECT_TRUE(DecideClose(Synchronous(), step).close);
  step.rounds_opened = 2;
  EXPECT_EQ(DecideClose(Synchronous(), step).reason, "another_round");
  step.kept = 4;
  EXPECT_EQ(DecideClose(Synchronous(), step).reason, "batch_full");
  EXPECT_FALSE(DecideClose(Synchronous(), step).close);
}

TEST(AsynchronousStep, FillsTheCapacityThatStalenessAllows) {
  StepSnapshot step = AtStepThree();
  EXPECT_EQ(DecideOpen(Asynchronous(1), step).groups, 8u);
  EXPECT_EQ(DecideOpen(Asynchronous(2), step).groups, 12u);
  step.unexamined = 5;
  step.kept = 2;
  EXPECT_EQ(DecideOpen(Asynchronous(1), step).groups, 1u);
  step.kept = 3;
  EXPECT_EQ(DecideOpen(Asynchronous(1), step).reason, "at_capacity");
}

TEST(AsynchronousStep, OpensNoMoreThanTheLastStepsNeed) {
  StepSnapshot step = AtStepThree();
  step.steps_closed = 9;
  EXPECT_EQ(DecideOpen(Asynchronous(3), step).groups, 4u);
}

TEST(AsynchronousStep, ClosesAfterTheBoundOfExaminedGroups) {
  StepSnapshot step = AtStepThree();
  step.examined = 11;
  step.kept = 2;
  EXPECT_EQ(DecideClose(Asynchronous(1), step).reason, "below_filter_bound");
  step.examined = 12;
  EXPECT_TRUE(DecideClose(Asynchronous(1), step).close);
  step.kept = 4;
  EXPECT_FALSE(DecideClose(Asynchronous(1), step).close);
}

WorkSnapshot Training() {
  WorkSnapshot work;
  work.timeline = 1;
  work.reward_servers = 1;
  work.step = AtStepThree();
  return work;
}
constexpr WorkerVersion kCurrent{true, 1, 2};

TEST(Lease, SaysWhyThereIsNone) {
  auto reason = [](const WorkSnapshot& work, const WorkerVersion& worker) {
    const LeaseDecision decision = DecideLease(Synchronous(), 8, work, worker);
    EXPECT_EQ(decision.kind, LeaseDecision::Kind::kNone);
    return decision.reason;
  };
  WorkSnapshot work = Training();
  work.ended = "stopped";
  EXPECT_EQ(reason(work, kCurrent), "stopped");
  work = Training();
  work.timeline = 0;
  EXPECT_EQ(reason(work, kCurrent), "no_timeline");
  work = Training();
  work.step.has_version = false;
  EXPECT_EQ(reason(work, kCurrent), "no_version");
  work = Training();
  work.reward_servers = 0;
  EXPECT_EQ(reason(work, kCurrent), "no_reward_server");
  work = Training();
  EXPECT_EQ(reason(work, {false, 1, 2}), "stale_weights");
  EXPECT_EQ(reason(work, {true, 2, 2}), "stale_weights");  // another timeline
  EXPECT_EQ(reason(work, {true, 1, 1}), "stale_weights");
  EXPECT_EQ(reason(work, {true, 1, 3}), "stale_weights");  // not out
  work.evaluating = true;
  EXPECT_EQ(reason(work, kCurrent), "evaluating");
  work.backing_off_items = 1;
  EXPECT_EQ(reason(work, kCurrent), "backing_off");
  work = Training();
  work.step.latest_version = 1;
  EXPECT_EQ(reason(work, {true, 1, 1}), "awaiting_version");
  work = Training();
  work.step.rounds_opened = 1;
  work.step.unexamined = 1;
  EXPECT_EQ(reason(work, kCurrent), "round_in_progress");
  work.backing_off_groups = 1;
  EXPECT_EQ(reason(work, kCurrent), "backing_off");
}

TEST(Lease, TakesTheOldestPendingGroupsAndFillsUpWithNewOnes) {
  WorkSnapshot work = Training();
  LeaseDecision lease = DecideLease(Synchronous(), 3, work, kCurrent);
  EXPECT_EQ(lease.kind, LeaseDecision::Kind::kTrain);
  EXPECT_EQ(lease.version, 2u);
  EXPECT_EQ(lease.open.groups, 4u);
  EXPECT_EQ(lease.lease_opened, 3u);
  EXPECT_THAT(lease.groups, IsEmpty());

  work.step.rounds_opened = 1;
  work.step.unexamined = 4;
  work.ready_groups = {8, 9, 10, 11};
  lease = DecideLease(Synchronous(), 3, work, kCurrent);
  EXPECT_THAT(lease.groups, ElementsAre(8, 9, 10));
  EXPECT_EQ(lease.open.groups, 0u);

  work.ready_groups = {11};  // fewer than a lease holds
  lease = DecideLease(Synchronous(), 3, work, kCurrent);
  EXPECT_THAT(lease.groups, ElementsAre(11));
  EXPECT_EQ(lease.lease_opened, 0u);

  work.ready_groups = {3};
  lease = DecideLease(Asynchronous(1), 3, work, kCurrent);
  EXPECT_THAT(lease.groups, ElementsAre(3));
  EXPECT_EQ(lease.open.groups, 4u);
  EXPECT_EQ(lease.lease_opened, 2u);
}

TEST(Lease, EvaluationIsABarrierAndWantsTheNewestVersion) {
  WorkSnapshot work = Training();
  work.evaluating = true;
  work.ready_item = 7;
  work.ready_groups = {1};
  LeaseDecision lease = DecideLease(Asynchronous(3), 3, work, kCurrent);
  EXPECT_EQ(lease.kind, LeaseDecision::Kind::kEval);
  EXPECT_EQ(lease.item, 7u);
  EXPECT_EQ(lease.version, 2u);
  EXPECT_EQ(DecideLease(Asynchronous(3), 3, work, {true, 1, 1}).reason, "stale_weights");
}

TEST(Lease, AsynchronousWorkersMayBeBehindByLessThanTheStaleness) {
  WorkSnapshot work = Training();
  EXPECT_EQ(DecideLease(Asynchronous(1), 3, work, {true, 1, 1}).reason, "stale_weights");
  const LeaseDecision lease = DecideLease(Asynchronous(2), 3, work, {true, 1, 1});
  EXPECT_EQ(lease.kind, LeaseDecision::Kind::kTrain);
  EXPECT_EQ(lease.version, 1u);
  EXPECT_EQ(DecideLease(Asynchronous(2), 3, work, {true, 1, 0}).reason, "stale_weights");
}

TEST(Membership, AnIncarnationReplacesOlderOnesOnly) {
  Members members;
  EXPECT_EQ(DecideJoin(members, "w", Role::kRolloutWorker, 5).verdict, JoinVerdict::kNew);
  members["w"] = {.role = Role::kRolloutWorker, .member_id = "w", .incarnation = 5};
  EXPECT_EQ(DecideJoin(members, "w", Role::kRolloutWorker, 5).verdict, JoinVerdict::kAgain);
  EXPECT_EQ(DecideJoin(members, "w", Role::kRolloutWorker, 6).verdict, JoinVerdict::kReplaces);
  EXPECT_EQ(DecideJoin(members, "w", Role::kRolloutWorker, 4).verdict, JoinVerdict::kOutdated);
  const JoinDecision taken = DecideJoin(members, "w", Role::kLearner, 6);
  EXPECT_EQ(taken.verdict, JoinVerdict::kRoleTaken);
  EXPECT_THAT(taken.reason, HasSubstr("rollout_worker"));
}

TEST(Membership, SilenceBeyondTheTimeoutIsDeath) {
  Members members;
  members["a"] = {.role = Role::kRolloutWorker, .member_id = "a", .last_heard = kNow};
  members["b"] = {
      .role = Role::kRolloutWorker, .member_id = "b", .last_heard = kNow - absl::Seconds(10)};
  const absl::Duration timeout = absl::Seconds(10);
  EXPECT_THAT(SilentMembers(members, kNow, timeout), IsEmpty());
  EXPECT_EQ(NextSilence(members, timeout), kNow);
  const absl::Time later = kNow + absl::Milliseconds(1);
  EXPECT_THAT(SilentMembers(members, later, timeout), ElementsAre("b"));
  EXPECT_EQ(CountAlive(members, Role::kRolloutWorker, later, timeout), 1);
  EXPECT_EQ(CountAlive(members, Role::kLearner, later, timeout), 0);
}

TEST(EvalPlan, ScalesAreSortedAndNoneComesTwice) {
  EXPECT_THAT(EvalScales({0.1, 0, 0.1}), ElementsAre(0, 0.1));
  EXPECT_THAT(EvalScales({0.2, 0.2 + 1e-12, 0.05}), ElementsAre(0.05, 0.2));
}

TEST(EvalPlan, IsDueAtTheFirstTheLastAndEverySoManyVersions) {
  EvalPlan plan{.questions = 10, .error_scales = {0}, .every = 4, .planned_steps = 10};
  EXPECT_EQ(DecideEvalDue(plan, 0).reason, "first");
  EXPECT_FALSE(DecideEvalDue(plan, 3).due);
  EXPECT_EQ(DecideEvalDue(plan, 4).reason, "every");
  EXPECT_EQ(DecideEvalDue(plan, 10).reason, "last");
  plan.every = 0;
  EXPECT_FALSE(DecideEvalDue(plan, 4).due);
  plan.enabled = false;
  EXPECT_EQ(DecideEvalDue(plan, 0).reason, "disabled");
}

TEST(EvalPlan, ItemsCoverEveryQuestionOfEveryScaleAndSeedOnce) {
  const EvalPlan plan{
      .questions = 10, .error_scales = {0, 0.1}, .noise_seeds = 2, .questions_per_item = 4};
  const std::vector<EvalItemSpec> items = PlanEvalItems(plan, 7);
  ASSERT_EQ(items.size(), 9u);  // (1 + 2 seeds) x 3 ranges
  EXPECT_EQ(items[0], (EvalItemSpec{7, 0, 1, 0, 4}));
  EXPECT_EQ(items[2], (EvalItemSpec{7, 0, 1, 8, 2}));
  EXPECT_EQ(items[3], (EvalItemSpec{7, 0.1, 1, 0, 4}));
  EXPECT_EQ(items[8], (EvalItemSpec{7, 0.1, 2, 8, 2}));
}

TEST(EvalPlan, TheInjectedEvaluationComesLastWithSeedsOfItsOwn) {
  const EvalPlan plan{.questions = 4,
                      .error_scales = {0, 0.1},
                      .noise_seeds = 3,
                      .injected_scale = 0.0,
                      .injected_seeds = 2,
                      .questions_per_item = 4};
  const std::vector<EvalItemSpec> items = PlanEvalItems(plan, 7);
  ASSERT_EQ(items.size(), 6u);
  EXPECT_FALSE(items[3].injected);
  EXPECT_EQ(items[4], (EvalItemSpec{7, 0, 1, 0, 4, true}));
  EXPECT_EQ(items[5], (EvalItemSpec{7, 0, 2, 0, 4, true}));
}

TEST(Rewind, ReturnsTheCursorAndForgetsWhatCameLater) {
  const std::vector<CommitRow> commits = {{.timeline = 1, .step = 1, .cursor = 4},
                                          {.timeline = 1, .step = 2, .cursor = 8}};
  std::vector<GroupRow> groups;
  for (uint64_t i = 0; i < 10; ++i) {
    groups.push_back({.group_index = i, .step = i / 4 + 1, .state = GroupState::kEnded});
    groups.back().closed_step = i / 4 + 1;
  }
  groups[9].state = GroupState::kLeased;
  const auto plan = PlanRewind(1, commits, groups);
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->cursor, 4u);
  EXPECT_THAT(plan->pending_groups, IsEmpty());
  EXPECT_THAT(plan->forgotten_groups, ElementsAre(4, 5, 6, 7, 8, 9));
  EXPECT_THAT(plan->rewound_steps, ElementsAre(2));

  const auto fresh = PlanRewind(0, commits, groups);
  ASSERT_THAT(fresh, IsOk());
  EXPECT_EQ(fresh->cursor, 0u);
  EXPECT_EQ(fresh->forgotten_groups.size(), 10u);
  EXPECT_THAT(PlanRewind(3, commits, groups),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("closed 2 steps")));
}

TEST(Rewind, GroupsInFlightAtThatCommitArePendingAgain) {
  const std::vector<CommitRow> commits = {{.timeline = 1, .step = 1, .cursor = 6},
                                          {.timeline = 1, .step = 2, .cursor = 9}};
  std::vector<GroupRow> groups;
  for (uint64_t i = 0; i < 9; ++i) {
    groups.push_back(
        {.group_index = i, .state = GroupState::kEnded, .closed_step = i < 4 ? 1u : 2u});
  }
  groups[5].state = GroupState::kAdmitted;
  groups[5].closed_step = 0;
  const auto plan = PlanRewind(1, commits, groups);
  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(plan->pending_groups, ElementsAre(4, 5));
  EXPECT_THAT(plan->forgotten_groups, ElementsAre(6, 7, 8));
}

TEST(Acknowledgement, MustMatchManifestAndTheFirstWorker) {
  const VersionFacts facts{.base_weights_hash = 5, .aqn_sigma = 0.05};
  const Acknowledgement good{5, 0.05, 9, 77, "worker-0"};
  EXPECT_TRUE(DecideAcknowledgement(facts, std::nullopt, good).accepted);
  EXPECT_TRUE(DecideAcknowledgement(facts, good, good).accepted);
  Acknowledgement bad = good;
  bad.base_weights_hash = 6;
  EXPECT_THAT(DecideAcknowledgement(facts, good, bad).reason, HasSubstr("weights hash"));
  bad = good;
  bad.aqn_sigma = 0;
  EXPECT_THAT(DecideAcknowledgement(facts, good, bad).reason, HasSubstr("AQN sigma"));
  bad = good;
  bad.aqn_norms = 8;
  EXPECT_THAT(DecideAcknowledgement(facts, good, bad).reason, HasSubstr("norms"));
  bad = good;
  bad.aqn_checksum = 78;
  EXPECT_THAT(DecideAcknowledgement(facts, good, bad).reason, HasSubstr("checksum"));
  bad = good;
  bad.aqn_norms = 0;
  EXPECT_THAT(DecideAcknowledgement(facts, std::nullopt, bad).reason, HasSubstr("touched 0 norms"));
  EXPECT_TRUE(
      DecideAcknowledgement({.base_weights_hash = 5}, std::nullopt, {5, 0, 0, 0, ""}).accepted);
  bad = good;
  bad.aqn_checksum = 78;
  const VersionFacts own_draws{5, 0.05, /*same_draw_everywhere=*/false};
  EXPECT_TRUE(DecideAcknowledgement(own_draws, good, bad).accepted);
  EXPECT_TRUE(DecideAcknowledgement(own_draws, good, good).accepted) << "said again";
  bad = good;
  bad.member = "worker-1";
  EXPECT_THAT(DecideAcknowledgement(own_draws, good, bad).reason, HasSubstr("is that of worker-0"));
}

}  // namespace
}  // namespace temper::orchestrator
