#include "numerics/noise_counters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "numerics/noise_policy.h"

namespace temper::numerics {
namespace {

using testing::HasSubstr;

constexpr Operator kDecoder[] = {Operator::kQ,    Operator::kK,  Operator::kV,   Operator::kO,
                                 Operator::kGate, Operator::kUp, Operator::kDown};

NoiseSpec Spec() { return {.enabled = true, .error_scale = 0.05}; }
NoisePolicy Make(const NoiseSpec& spec) { return *NoisePolicy::Create(spec, {.num_layers = 24}); }

ErrorStats Seen(uint64_t elements, uint64_t changed) {
  ErrorStats stats = {.calls = 1, .elements = elements, .changed = changed};
  stats.sum_sq_value.Add(static_cast<double>(elements));
  stats.sum_sq_error.Add(static_cast<double>(changed) * 0.0025);
  return stats;
}

NoiseCounters FullRollout(const NoisePolicy& policy) {
  NoiseCounters counters;
  for (int layer = 0; layer < policy.num_layers(); ++layer) {
    for (const Operator op : kDecoder) {
      counters.Count({Phase::kRollout, Direction::kForward, layer, op}, Seen(100, 100));
    }
  }
  counters.Count({Phase::kRollout, Direction::kForward, kNoLayer, Operator::kLmHead}, {});
  return counters;
}

// Both gradients of every linear, but for one row, counted with these stats.
NoiseCounters FullBackward(const NoisePolicy& policy, const ErrorStats& stats,
                           std::optional<NoiseRowId> without = std::nullopt) {
  NoiseCounters counters = FullRollout(policy);
  for (int layer = 0; layer < policy.num_layers(); ++layer) {
    for (const Operator op : kDecoder) {
      for (const TensorRole role : {TensorRole::kGradInput, TensorRole::kGradWeight}) {
        const NoiseRowId id = {Phase::kTrain, Direction::kBackward, layer, op, role};
        if (id != without) counters.Count(id, stats);
      }
    }
  }
  return counters;
}

TEST(CheckSeen, AcceptsWhatThePolicySays) {
  const NoisePolicy policy = Make(Spec());
  EXPECT_TRUE(CheckSeen(policy, FullRollout(policy)).ok());
  EXPECT_TRUE(CheckSeen(policy, NoiseCounters()).ok());
}

TEST(CheckSeen, APassThatWasMadeAndCountedNothingIsNamed) {
  const NoisePolicy policy = Make({.enabled = true, .error_scale = 0.1});
  const MadePass rollout[] = {{Phase::kRollout, Direction::kForward}};
  const MadePass both[] = {{Phase::kRollout, Direction::kForward},
                           {Phase::kTrain, Direction::kBackward}};
  EXPECT_TRUE(CheckSeen(policy, FullRollout(policy), rollout).ok());
  EXPECT_THAT(std::string(CheckSeen(policy, NoiseCounters(), rollout).message()),
              HasSubstr("rollout forward"));
  EXPECT_THAT(std::string(CheckSeen(policy, FullRollout(policy), both).message()),
              HasSubstr("train backward"));
  EXPECT_TRUE(CheckSeen(NoisePolicy(), NoiseCounters(), both).ok()) << "nothing is configured";
}

TEST(CheckSeen, NamesAConfiguredRowThatWasNotPerturbed) {
  const NoisePolicy policy = Make(Spec());
  const NoiseRowId clean = {Phase::kTrain, Direction::kBackward, 3, Operator::kUp,
                            TensorRole::kGradInput};
  NoiseCounters counters = FullBackward(policy, Seen(100, 100), clean);
  counters.Count(clean, {});
  const absl::Status status = CheckSeen(policy, counters);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("train backward layers.3 up grad_input: configured"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 wrong row"));
}

TEST(CheckSeen, NamesARowWhoseErrorChangedNothing) {
  const NoisePolicy policy = Make(Spec());
  NoiseCounters counters;
  for (int layer = 0; layer < 24; ++layer) {
    for (const Operator op : kDecoder) {
      counters.Count({Phase::kRollout, Direction::kForward, layer, op},
                     Seen(100, layer == 5 && op == Operator::kO ? 0 : 100));
    }
  }
  EXPECT_THAT(std::string(CheckSeen(policy, counters).message()),
              HasSubstr("rollout forward layers.5 o"));
}

TEST(CheckSeen, AcceptsThatARareErrorStruckNothingUntilItShouldHave) {
  const NoisePolicy spikes = Make({.enabled = true,
                                   .error_type = ErrorType::kSpike,
                                   .fault_magnitude = 0.1,
                                   .spike_probability = 0.001});
  EXPECT_TRUE(CheckSeen(spikes, FullBackward(spikes, Seen(900'000, 0))).ok());
  EXPECT_FALSE(CheckSeen(spikes, FullBackward(spikes, Seen(1'100'000, 0))).ok());
  const NoisePolicy frozen = Make({.enabled = true,
                                   .error_type = ErrorType::kSpike,
                                   .fault_magnitude = 0.1,
                                   .spike_probability = 0.001,
                                   .noise_key = NoiseKey::kFrozen});
  EXPECT_TRUE(CheckSeen(frozen, FullBackward(frozen, Seen(1'100'000, 0))).ok());
  const NoisePolicy dead =
      Make({.enabled = true, .error_type = ErrorType::kDeadzone, .deadzone_threshold = 0.01});
  EXPECT_TRUE(CheckSeen(dead, FullBackward(dead, Seen(90'000, 0))).ok());
  EXPECT_FALSE(CheckSeen(dead, FullBackward(dead, Seen(110'000, 0))).ok());
}

TEST(CheckSeen, AcceptsAllZeroGradientsThatCannotChange) {
  const NoisePolicy policy = Make(Spec());
  EXPECT_TRUE(CheckSeen(policy, FullBackward(policy, {.calls = 1, .elements = 100})).ok());
}

TEST(CheckSeen, NamesAGradientThatWasNeverCountedThoughTheOtherWas) {
  const NoisePolicy policy = Make(Spec());
  EXPECT_TRUE(CheckSeen(policy, FullBackward(policy, Seen(100, 100))).ok());
  for (const TensorRole role : {TensorRole::kGradInput, TensorRole::kGradWeight}) {
    const NoiseRowId lost = {Phase::kTrain, Direction::kBackward, 3, Operator::kUp, role};
    const absl::Status status = CheckSeen(policy, FullBackward(policy, Seen(100, 100), lost));
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(NoiseRowName(lost)));
    EXPECT_THAT(std::string(status.message()), HasSubstr("1 wrong row"));
  }
}

// Norms of a model of two layers; the second of layer 1 as given.
NoiseCounters NormsSeen(const ErrorStats& last_of_layer_1, Phase phase = Phase::kRollout) {
  NoiseCounters counters;
  for (const AqnTarget& norm : AqnNorms({.num_layers = 2})) {
    const bool last = norm == AqnTarget{1, Operator::kPostAttentionNorm};
    counters.Count({phase, Direction::kForward, norm.layer, norm.op, TensorRole::kWeightNoise},
                   last ? last_of_layer_1 : Seen(64, 64));
  }
  return counters;
}

AqnPlan ConstantAqn(double sigma) {
  return {
      .enabled = true, .schedule = AqnSchedule::kConstant, .sigma_start = sigma, .total_steps = 4};
}

TEST(CheckAqnSeen, NamesTheNormsThatWereNotPerturbed) {
  const std::vector<uint64_t> versions = {2};
  const AqnPlan plan = ConstantAqn(0.05);
  EXPECT_TRUE(CheckAqnSeen(plan, 2, versions, NormsSeen(Seen(64, 60))).ok());
  const absl::Status clean = CheckAqnSeen(plan, 2, versions, NormsSeen({}));
  EXPECT_EQ(clean.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(clean.message()),
              HasSubstr("rollout forward layers.1 post_attention_norm"));
  EXPECT_THAT(std::string(clean.message()), HasSubstr("1 wrong row"));
  EXPECT_THAT(std::string(CheckAqnSeen(plan, 2, versions, NormsSeen(Seen(64, 0))).message()),
              HasSubstr("none of 64 elements changed"));
  EXPECT_THAT(std::string(CheckAqnSeen(plan, 2, versions, NoiseCounters()).message()),
              HasSubstr("5 wrong rows"));
  EXPECT_TRUE(CheckAqnSeen(plan, 2, {}, NoiseCounters()).ok()) << "nothing was sampled";
}

TEST(CheckAqnSeen, NamesTheNormsThatWerePerturbedWithoutSigma) {
  const std::vector<uint64_t> versions = {2};
  EXPECT_THAT(std::string(CheckAqnSeen(AqnPlan(), 2, versions, NormsSeen({})).message()),
              HasSubstr("rollout forward layers.0 input_norm weight_noise: not configured"));
  AqnPlan plan = ConstantAqn(0.05);
  plan.target_modules = {"input_layernorm", "layers.0.post_attention_norm", "model.norm"};
  EXPECT_TRUE(CheckAqnSeen(plan, 2, versions, NormsSeen({})).ok()) << "one norm stays clean";
  EXPECT_THAT(std::string(CheckAqnSeen(plan, 2, versions, NormsSeen(Seen(64, 64))).message()),
              HasSubstr("layers.1 post_attention_norm weight_noise: not configured"));
}

TEST(CheckAqnSeen, TheLearnersNormsAreJudgedByWhetherThePlanIsForThemToo) {
  const std::vector<uint64_t> versions = {2};
  AqnPlan plan = ConstantAqn(0.05);
  const NoiseCounters noisy = NormsSeen(Seen(64, 60), Phase::kTrain);
  EXPECT_FALSE(CheckAqnSeen(plan, 2, versions, noisy, Phase::kTrain).ok());
  EXPECT_TRUE(CheckAqnSeen(plan, 2, versions, NoiseCounters(), Phase::kTrain).ok());
  plan.in_learner = true;
  EXPECT_TRUE(CheckAqnSeen(plan, 2, versions, noisy, Phase::kTrain).ok());
  EXPECT_FALSE(CheckAqnSeen(plan, 2, versions, NoiseCounters(), Phase::kTrain).ok());
  EXPECT_FALSE(CheckAqnSeen(plan, 2, versions, NormsSeen({}, Phase::kTrain), Phase::kTrain).ok());
}

TEST(NoiseCounters, AqnIsNoPartOfTheErrorsTotalNorOfItsCheck) {
  const NoiseCounters counters = NormsSeen(Seen(64, 60));
  EXPECT_EQ(counters.Total(Phase::kRollout, Direction::kForward).elements, 0u);
  EXPECT_EQ(counters.Aqn().stats.elements, 320u);
  EXPECT_EQ(counters.Aqn().stats.changed, 316u);
  EXPECT_TRUE(CheckSeen(NoisePolicy(), counters).ok());
}

TEST(CheckSeen, NamesARowThatWasPerturbedButNotConfigured) {
  NoiseCounters counters = FullRollout(Make(Spec()));
  counters.Count({Phase::kEval, Direction::kForward, kNoLayer, Operator::kLmHead}, Seen(10, 9));
  NoiseSpec spec = Spec();
  const absl::Status status = CheckSeen(Make(spec), counters);
  EXPECT_THAT(std::string(status.message()), HasSubstr("eval forward lm_head: not configured"));
}

TEST(CheckSeen, NamesAConfiguredOperatorThatNeverRan) {
  NoiseSpec spec = Spec();
  spec.all_ops = true;
  const NoisePolicy policy = Make(spec);
  EXPECT_THAT(std::string(CheckSeen(policy, FullRollout(policy)).message()),
              HasSubstr("never ran"));
}

TEST(NoiseCounters, MergeGivesTheSameInAnyOrder) {
  const NoiseRowId q = {Phase::kRollout, Direction::kForward, 0, Operator::kQ};
  NoiseCounters a, b, ab, ba;
  a.Count(q, Seen(10, 3));
  b.Count(q, Seen(1000, 77));
  b.Count({Phase::kTrain, Direction::kForward, 0, Operator::kQ}, Seen(5, 5));
  ab.Merge(a);
  ab.Merge(b);
  ba.Merge(b);
  ba.Merge(a);
  EXPECT_EQ(ab, ba);
  EXPECT_EQ(ab.rows().at(q).operator_calls, 2u);
  EXPECT_EQ(ab.Total(Phase::kRollout, Direction::kForward).elements, 1010u);
  EXPECT_EQ(ab.TotalForward().elements, 1015u);
}

}  // namespace
}  // namespace temper::numerics
