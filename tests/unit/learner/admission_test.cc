#include "learner/admission.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "tests/unit/learner/builders.h"

namespace temper::learner {
namespace {

using ::temper::testing::AdmissionRulesForTest;
using ::temper::testing::SubmitWith;

constexpr AdmissionSnapshot kAtVersionFive = {.timeline = 3, .policy_version = 5};

AdmissionDecision ExamineForTest(const v1::SubmitGroupRequest& submit,
                                 const AdmissionRules& rules = AdmissionRulesForTest(2),
                                 const AdmissionSnapshot& snapshot = kAtVersionFive) {
  return Examine(submit, member::SubmissionChecksum(submit), rules, snapshot);
}

TEST(AdmissionTest, KeepsAGroupWhoseAccuraciesDiffer) {
  const AdmissionDecision decision = ExamineForTest(SubmitWith(0, {1, 0}));
  EXPECT_FALSE(decision.concluded);
  EXPECT_EQ(decision.examination, v1::EXAMINATION_KEPT);
}

TEST(AdmissionTest, GivesAGroupOfEqualAccuraciesToTheFilter) {
  EXPECT_EQ(ExamineForTest(SubmitWith(0, {1, 1})).examination, v1::EXAMINATION_ZERO_VARIANCE);
}

TEST(AdmissionTest, KeepsEqualAccuraciesWithoutDynamicSampling) {
  AdmissionRules rules = AdmissionRulesForTest(2);
  rules.dynamic_sampling = false;
  EXPECT_EQ(ExamineForTest(SubmitWith(0, {1, 1}), rules).examination, v1::EXAMINATION_KEPT);
}

TEST(AdmissionTest, MeasuresStalenessByTheOldestToken) {
  v1::SubmitGroupRequest submit = SubmitWith(0, {1, 0});
  v1::Completion* completion = submit.mutable_completions(1);
  completion->mutable_versions(0)->set_tokens(2);
  completion->mutable_versions(0)->set_version(3);
  completion->add_versions()->set_version(5);
  completion->mutable_versions(1)->set_tokens(1);
  submit.set_checksum(member::SubmissionChecksum(submit));
  AdmissionRules rules = AdmissionRulesForTest(2);
  rules.max_staleness = 1;
  EXPECT_EQ(ExamineForTest(submit, rules).examination, v1::EXAMINATION_STALE);
  rules.max_staleness = 2;
  EXPECT_EQ(ExamineForTest(submit, rules).examination, v1::EXAMINATION_KEPT);
}

TEST(AdmissionTest, AnswersAnotherTimelineWithoutAskingTheOrchestrator) {
  v1::SubmitGroupRequest submit = SubmitWith(0, {1, 0});
  submit.mutable_ref()->set_timeline(2);
  const AdmissionDecision decision = ExamineForTest(submit);
  EXPECT_TRUE(decision.concluded);
  EXPECT_EQ(decision.verdict, v1::SUBMIT_VERDICT_SUPERSEDED);
}

TEST(AdmissionTest, AnswersAnotherRunWithoutAskingTheOrchestrator) {
  v1::SubmitGroupRequest submit = SubmitWith(0, {1, 0});
  submit.mutable_ref()->set_run_id("other");
  EXPECT_TRUE(ExamineForTest(submit).concluded);
}

void SetSigma(double sigma, v1::SubmitGroupRequest* submit) {
  submit->set_aqn_sigma(sigma);
  submit->set_checksum(member::SubmissionChecksum(*submit));
}

TEST(AdmissionTest, ComparesTheSigmaWithThatOfTheVersionThatSampled) {
  AdmissionRules rules = AdmissionRulesForTest(2);
  rules.aqn = {.enabled = true,
               .schedule = numerics::AqnSchedule::kConstant,
               .sigma_start = 0.05,
               .total_steps = 10};
  v1::SubmitGroupRequest submit = SubmitWith(0, {1, 0});
  EXPECT_EQ(ExamineForTest(submit, rules).examination, v1::EXAMINATION_REFUSED);
  SetSigma(0.05, &submit);
  EXPECT_EQ(ExamineForTest(submit, rules).examination, v1::EXAMINATION_KEPT);
}

TEST(AdmissionTest, TheSigmaOfAGroupOfTwoVersionsIsThatOfTheNewer) {
  AdmissionRules rules = AdmissionRulesForTest(2);
  rules.max_staleness = 1;
  rules.aqn = {.enabled = true,
               .schedule = numerics::AqnSchedule::kGlobal,
               .sigma_start = 0.1,
               .sigma_end = 0.01,
               .num_stages = 10,
               .total_steps = 10};
  ASSERT_NE(numerics::Sigma(rules.aqn, 4), numerics::Sigma(rules.aqn, 5));
  v1::SubmitGroupRequest submit = SubmitWith(0, {1, 0}, 4);
  for (v1::Completion& completion : *submit.mutable_completions()) {
    completion.mutable_versions(0)->set_tokens(2);
    completion.add_versions()->set_version(5);
    completion.mutable_versions(1)->set_tokens(1);
  }
  SetSigma(numerics::Sigma(rules.aqn, 4), &submit);
  EXPECT_EQ(ExamineForTest(submit, rules).examination, v1::EXAMINATION_REFUSED);
  SetSigma(numerics::Sigma(rules.aqn, 5), &submit);
  EXPECT_EQ(ExamineForTest(submit, rules).examination, v1::EXAMINATION_KEPT);
}

struct Fault {
  const char* name;
  std::function<void(v1::SubmitGroupRequest*)> make;
  bool keep_checksum = false;
};

class RefusalTest : public ::testing::TestWithParam<Fault> {};

TEST_P(RefusalTest, RefusesWithAReason) {
  v1::SubmitGroupRequest submit = SubmitWith(0, {1, 0});
  GetParam().make(&submit);
  if (!GetParam().keep_checksum) submit.set_checksum(member::SubmissionChecksum(submit));
  const AdmissionDecision decision = ExamineForTest(submit);
  EXPECT_EQ(decision.examination, v1::EXAMINATION_REFUSED);
  EXPECT_FALSE(decision.concluded);
  EXPECT_FALSE(decision.reason.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Faults, RefusalTest,
    ::testing::Values(
        Fault{"Checksum", [](auto* s) { s->mutable_completions(0)->set_token_ids(1, 9); }, true},
        Fault{"Seed", [](auto* s) { s->set_seed(12); }},
        Fault{"NoiseId", [](auto* s) { s->set_noise_id(23); }},
        Fault{"SampleCount", [](auto* s) { s->mutable_completions()->RemoveLast(); }},
        Fault{"NoPrompt", [](auto* s) { s->clear_prompt_token_ids(); }},
        Fault{"LongPrompt",
              [](auto* s) {
                for (int i = 0; i < 9; ++i) s->add_prompt_token_ids(1);
              }},
        Fault{"ForeignPromptToken", [](auto* s) { s->set_prompt_token_ids(0, 40); }},
        Fault{"ForeignToken", [](auto* s) { s->mutable_completions(0)->set_token_ids(0, -1); }},
        Fault{"MissingLogprob",
              [](auto* s) { s->mutable_completions(1)->mutable_rollout_logprobs()->RemoveLast(); }},
        Fault{"NotFiniteLogprob",
              [](auto* s) { s->mutable_completions(1)->set_rollout_logprobs(0, NAN); }},
        Fault{"PositiveLogprob",
              [](auto* s) { s->mutable_completions(1)->set_rollout_logprobs(0, 0.5f); }},
        Fault{"NotFiniteReward",
              [](auto* s) { s->mutable_completions(0)->mutable_score()->set_reward(INFINITY); }},
        Fault{"FailedScore",
              [](auto* s) { s->mutable_completions(0)->mutable_score()->set_failed(true); }},
        Fault{"VersionsDoNotCover",
              [](auto* s) { s->mutable_completions(0)->mutable_versions(0)->set_tokens(2); }},
        Fault{"EmptyCompletion",
              [](auto* s) {
                s->mutable_completions(0)->clear_token_ids();
                s->mutable_completions(0)->clear_rollout_logprobs();
                s->mutable_completions(0)->clear_versions();
              }},
        Fault{"FutureVersion",
              [](auto* s) { s->mutable_completions(0)->mutable_versions(0)->set_version(6); }}),
    [](const auto& info) { return info.param.name; });

TEST(AdmissionTest, AnswersSupersededWhenTheOrchestratorDoesNotAdmit) {
  const AdmissionDecision kept = ExamineForTest(SubmitWith(0, {1, 0}));
  v1::AdmitGroupReply reply;
  reply.set_reason("another attempt was admitted");
  EXPECT_EQ(AnswerFor(kept, reply).verdict(), v1::SUBMIT_VERDICT_SUPERSEDED);
  reply.set_admitted(true);
  EXPECT_EQ(AnswerFor(kept, reply).verdict(), v1::SUBMIT_VERDICT_ADMITTED);
}

}  // namespace
}  // namespace temper::learner
