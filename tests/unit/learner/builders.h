#pragma once

// Groups and submits for the learner's tests.

#include <cstdint>
#include <vector>

#include "learner/admission.h"
#include "learner/rollout_group.h"
#include "services/member/submission_checksum.h"
#include "temper/v1/learner.pb.h"

namespace temper::testing {

// A submit that AdmissionRulesForTest admit: run "run", timeline 3, sampled by `version`; one
// completion of three tokens per accuracy.
inline v1::SubmitGroupRequest SubmitWith(uint64_t group_index,
                                         const std::vector<double>& accuracies,
                                         uint64_t version = 5) {
  v1::SubmitGroupRequest submit;
  submit.mutable_ref()->set_run_id("run");
  submit.mutable_ref()->set_timeline(3);
  submit.mutable_ref()->set_group_index(group_index);
  submit.mutable_ref()->set_attempt(1);
  submit.set_problem_id(100 + group_index);
  submit.set_prompt("How many?");
  submit.set_truth("7");
  for (const int id : {4, 5}) submit.add_prompt_token_ids(id);
  int token = 6;
  for (const double accuracy : accuracies) {
    v1::Completion* completion = submit.add_completions();
    for (int t = 0; t < 3; ++t) {
      completion->add_token_ids(token++ % 40);
      completion->add_rollout_logprobs(-1.5f - 0.1f * static_cast<float>(t));
    }
    v1::VersionRun* run = completion->add_versions();
    run->set_version(version);
    run->set_tokens(3);
    completion->mutable_score()->set_reward(accuracy);
    completion->mutable_score()->set_accuracy(accuracy);
    completion->mutable_score()->set_strict(accuracy);
  }
  submit.set_seed(11);
  submit.set_noise_id(22);
  submit.set_worker("worker");
  submit.set_checksum(member::SubmissionChecksum(submit));
  return submit;
}

inline learner::AdmissionRules AdmissionRulesForTest(int samples) {
  return {.run_id = "run",
          .seed = 11,
          .noise_id = 22,
          .samples_per_group = samples,
          .max_prompt_tokens = 10,
          .max_completion_tokens = 8,
          .vocab_size = 40};
}

inline learner::RolloutGroup GroupWith(uint64_t group_index, const std::vector<double>& accuracies,
                                       uint64_t version = 5) {
  learner::RolloutGroup group =
      learner::GroupFromProto(SubmitWith(group_index, accuracies, version));
  group.zero_variance = learner::AccuraciesAreEqual(group);
  return group;
}

}  // namespace temper::testing
