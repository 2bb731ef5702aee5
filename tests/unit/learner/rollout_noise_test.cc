#include "learner/rollout_noise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "numerics/noise_rows.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/learner/builders.h"

namespace temper::learner {
namespace {

using ::temper::testing::GroupWith;
using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kLayers = 2;
constexpr const char* kLinears[] = {"q", "k", "v", "o", "gate", "up", "down"};

numerics::NoisePolicy PolicyOf(double scale) {
  auto policy = numerics::NoisePolicy::Create({.enabled = scale > 0.0, .error_scale = scale},
                                              {.num_layers = kLayers});
  EXPECT_THAT(policy, IsOk());
  return *policy;
}

v1::InjectionCount CountOf(const char* op, int layer, uint64_t elements) {
  v1::InjectionCount count;
  count.set_phase("rollout");
  count.set_direction("forward");
  count.set_layer(layer);
  count.set_operator_(op);
  count.set_calls(4);
  count.set_elements(elements);
  count.set_elements_changed(elements);
  count.set_sum_sq_error(0.01 * static_cast<double>(elements));
  count.set_sum_sq_value(static_cast<double>(elements));
  return count;
}

// A group whose every linear erred.
RolloutGroup PerturbedGroup(uint64_t group_index) {
  RolloutGroup group = GroupWith(group_index, {1, 0});
  for (int layer = 0; layer < kLayers; ++layer) {
    for (const char* op : kLinears) group.injections.push_back(CountOf(op, layer, 100));
  }
  return group;
}

v1::InjectionCount* Row(RolloutGroup* group, const std::string& op, int layer) {
  for (v1::InjectionCount& count : group->injections) {
    if (count.operator_() == op && count.layer() == layer) return &count;
  }
  return nullptr;
}

absl::Status Check(const ClosedBatch& batch, double scale,
                   numerics::NoiseCounters* counters = nullptr) {
  numerics::NoiseCounters own;
  CountsByWorker by_worker;
  return AddCheckedRolloutCounts(batch, PolicyOf(scale), {}, kLayers, &by_worker,
                                 counters == nullptr ? &own : counters);
}

TEST(RolloutNoiseTest, EveryOperandThatAnInjectionNamesIsLookedFor) {
  numerics::NoisePolicy policy = PolicyOf(0.1);
  policy.set_injection(*numerics::InjectionPolicy::Create(
      {.enabled = true, .format = numerics::FormatSpec{}, .point = numerics::InjectionPoint::kBoth},
      {.num_layers = kLayers}));
  ClosedBatch batch;
  batch.train = {PerturbedGroup(4)};
  const auto check = [&] {
    numerics::NoiseCounters counters;
    CountsByWorker by_worker;
    return AddCheckedRolloutCounts(batch, policy, {}, kLayers, &by_worker, &counters);
  };
  EXPECT_THAT(check(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("operand")));
  for (int layer = 0; layer < kLayers; ++layer) {
    for (const char* op : kLinears) {
      for (const char* tensor : {"input_operand", "weight_operand"}) {
        batch.train[0].injections.push_back(CountOf(op, layer, 100));
        batch.train[0].injections.back().set_tensor(tensor);
      }
    }
  }
  EXPECT_THAT(check(), IsOk());
  EXPECT_THAT(Check(batch, 0.1),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not configured")));
  batch.train[0].injections.back().set_tensor("grad_input");
  EXPECT_THAT(check(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("grad_input")));
}

TEST(RolloutNoiseTest, AcceptsWhatWasConfiguredAndAddsItUp) {
  ClosedBatch batch;
  batch.train = {PerturbedGroup(4)};
  batch.zero_variance = {PerturbedGroup(3)};
  numerics::NoiseCounters counters;
  EXPECT_THAT(Check(batch, 0.1, &counters), IsOk());
  EXPECT_EQ(counters.Total(numerics::Phase::kRollout, numerics::Direction::kForward).elements,
            2u * kLayers * 7 * 100);
}

TEST(RolloutNoiseTest, CountsOfErrorThatIsOffAreWrong) {
  ClosedBatch batch;
  batch.train = {PerturbedGroup(4)};
  EXPECT_THAT(Check(batch, 0.0),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("group 4 of worker"), HasSubstr("not configured"))));
}

TEST(RolloutNoiseTest, OneOperatorOfOneLayerThatDidNotErrIsNamedWhateverOthersCounted) {
  ClosedBatch batch;
  batch.train = {PerturbedGroup(4), PerturbedGroup(5)};
  Row(&batch.train[1], "up", 1)->CopyFrom(CountOf("up", 1, 0));
  EXPECT_THAT(Check(batch, 0.1),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("group 5 of worker"),
                             HasSubstr("rollout forward layers.1 up"), HasSubstr("1 wrong row"))));
}

TEST(RolloutNoiseTest, AnOperatorThatWasNotCountedOrAGroupWithoutCountsIsWrong) {
  ClosedBatch batch;
  batch.train = {PerturbedGroup(4)};
  batch.train[0].injections.erase(batch.train[0].injections.begin());
  EXPECT_THAT(Check(batch, 0.1), StatusIs(absl::StatusCode::kFailedPrecondition,
                                          HasSubstr("rollout forward layers.0 q")));
  batch.train[0].injections.clear();
  EXPECT_THAT(Check(batch, 0.1), StatusIs(absl::StatusCode::kFailedPrecondition,
                                          HasSubstr("no operator was counted")));
  EXPECT_THAT(Check(batch, 0.0), IsOk());
}

TEST(RolloutNoiseTest, CountsOfAPhaseThatIsNoRolloutsAreWrong) {
  for (const auto& [phase, direction] :
       {std::pair{"train", "forward"}, std::pair{"eval", "forward"},
        std::pair{"rollout", "backward"}}) {
    ClosedBatch batch;
    batch.train = {PerturbedGroup(4)};
    v1::InjectionCount foreign = CountOf("q", 0, 100);
    foreign.set_phase(phase);
    foreign.set_direction(direction);
    batch.train[0].injections.push_back(foreign);
    EXPECT_THAT(Check(batch, 0.1), StatusIs(absl::StatusCode::kFailedPrecondition,
                                            HasSubstr(absl::StrCat(phase, " ", direction))));
  }
}

TEST(RolloutNoiseTest, ACountThatMeansNothingHereIsWrongAndNotPassedOver) {
  for (const char* op : {"conv", ""}) {
    ClosedBatch batch;
    batch.train = {PerturbedGroup(4)};
    batch.train[0].injections.push_back(CountOf(op, 0, 100));
    EXPECT_THAT(Check(batch, 0.1), StatusIs(absl::StatusCode::kFailedPrecondition,
                                            HasSubstr("no row of the noise table")));
  }
}

TEST(RolloutNoiseTest, AWorkerInWhoseGroupsARareErrorNeverStrikesIsSeenInTime) {
  const auto spikes = numerics::NoisePolicy::Create({.enabled = true,
                                                     .error_type = numerics::ErrorType::kSpike,
                                                     .fault_magnitude = 1.0,
                                                     .spike_probability = 0.001},
                                                    {.num_layers = kLayers});
  ASSERT_THAT(spikes, IsOk());
  // 45 spikes would be expected in each row of a group: too few to judge one by itself.
  const auto group_of = [](uint64_t index, const char* worker, uint64_t changed) {
    RolloutGroup group = GroupWith(index, {1, 0});
    group.worker = worker;
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const char* op : kLinears) {
        v1::InjectionCount count = CountOf(op, layer, 45'000);
        count.set_elements_changed(changed);
        group.injections.push_back(count);
      }
    }
    return group;
  };
  CountsByWorker by_worker;
  absl::Status status;
  uint64_t index = 0;
  while (status.ok() && index < 30) {
    ClosedBatch batch;
    batch.train = {group_of(index, "honest", 45), group_of(index + 1, "silent", 0)};
    index += 1;
    numerics::NoiseCounters counters;
    status = AddCheckedRolloutCounts(batch, *spikes, {}, kLayers, &by_worker, &counters);
  }
  EXPECT_EQ(index, 23u) << "a thousand spikes are due in its 23rd group";
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                               AllOf(HasSubstr("of silent"), HasSubstr("none of"))));
}

TEST(RolloutNoiseTest, AWorkerThatErrsAtHalfTheStrengthIsSeenInItsTwoHundredthGroup) {
  CountsByWorker by_worker;
  absl::Status status;
  uint64_t index = 0;
  while (status.ok() && index < 600) {
    ClosedBatch batch;
    for (const char* worker : {"honest", "weak"}) {
      RolloutGroup group = PerturbedGroup(index++);
      group.worker = worker;
      // PerturbedGroup errs by a tenth; a quarter of the power is half the strength.
      if (group.worker == "weak") Row(&group, "down", 0)->set_sum_sq_error(0.25);
      batch.train.push_back(group);
    }
    numerics::NoiseCounters counters;
    status = AddCheckedRolloutCounts(batch, PolicyOf(0.1), {}, kLayers, &by_worker, &counters);
  }
  EXPECT_EQ(by_worker["weak"].groups, numerics::kJudgedGroups);
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("of weak"), HasSubstr("rollout forward layers.0 down"),
                             HasSubstr("achieved scale 0.05, configured 0.1"))));
}

TEST(RolloutNoiseTest, AqnIsCheckedGroupByGroupAgainstTheVersionsThatSampledIt) {
  const numerics::AqnPlan aqn = {.enabled = true,
                                 .schedule = numerics::AqnSchedule::kGlobal,
                                 .sigma_start = 0.05,
                                 .sigma_end = 0.05,
                                 .num_stages = 2,
                                 .total_steps = 8};  // 0 before version 4
  const auto with_norms = [](uint64_t index, uint64_t version, uint64_t elements) {
    RolloutGroup group = GroupWith(index, {1, 0}, version);
    for (int layer = 0; layer < kLayers; ++layer) {
      group.injections.push_back(CountOf("input_norm", layer, elements));
      group.injections.push_back(CountOf("post_attention_norm", layer, elements));
    }
    group.injections.push_back(CountOf("final_norm", -1, elements));
    return group;
  };
  const auto check = [&](std::vector<RolloutGroup> groups) {
    ClosedBatch batch;
    batch.train = std::move(groups);
    numerics::NoiseCounters counters;
    CountsByWorker by_worker;
    return AddCheckedRolloutCounts(batch, PolicyOf(0.0), aqn, kLayers, &by_worker, &counters);
  };
  EXPECT_THAT(check({with_norms(1, 3, 0), with_norms(2, 5, 100)}), IsOk());
  EXPECT_THAT(check({with_norms(1, 5, 100), with_norms(2, 5, 0)}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("group 2 of worker")));
  EXPECT_THAT(check({with_norms(1, 3, 100), with_norms(2, 5, 100)}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("group 1 of worker")));
}

}  // namespace
}  // namespace temper::learner
