#pragma once

// A rollout group as the learner holds it, from its admission until the commit of the step that
// closes it. Plain values: thread-compatible.

#include <cstdint>
#include <string>
#include <vector>

#include "temper/v1/learner.pb.h"

namespace temper::learner {

// Which policy version sampled how many neighbouring tokens.
struct VersionSpan {
  uint64_t version = 0;
  uint32_t tokens = 0;
};

// What the reward server said of one completion.
struct Score {
  double reward = 0.0;    // accuracy under the run's rule plus the overlong penalty
  double accuracy = 0.0;  // raw, 0 or 1
  double strict = 0.0;
  double flexible = 0.0;
  double numeric = 0.0;
  bool format_ok = false;
  double overlong_penalty = 0.0;  // <= 0
  std::string extracted;
  bool has_extracted = false;
};

// One sampled completion; rollout_logprobs has one entry per token.
struct SampledCompletion {
  std::vector<int32_t> token_ids;       // with end-of-sequence unless truncated
  std::vector<float> rollout_logprobs;  // nats, under the policy that sampled
  std::vector<VersionSpan> versions;    // covers all tokens, in order
  bool truncated = false;
  Score score;
};

// One prompt with its completions.
struct RolloutGroup {
  uint64_t group_index = 0;
  uint32_t attempt = 0;
  uint64_t problem_id = 0;
  std::string prompt;
  std::string truth;
  std::vector<int32_t> prompt_token_ids;
  std::vector<SampledCompletion> completions;
  double aqn_sigma = 0.0;
  std::vector<v1::InjectionCount> injections;  // of this group's rows in the rollout
  std::string worker;
  double generate_seconds = 0.0;
  double score_seconds = 0.0;

  uint64_t oldest_version = 0;  // of any token; staleness is measured from it
  uint64_t newest_version = 0;
  bool zero_variance = false;  // examined as such by the dynamic-sampling filter: never trained
};

// Copies what was received, as it is; learner/admission.h says whether it may be used. Version
// bounds are 0 for a group without tokens.
RolloutGroup GroupFromProto(const v1::SubmitGroupRequest& submit);

// True where all raw accuracies are equal, or there are fewer than two: the group teaches nothing.
bool AccuraciesAreEqual(const RolloutGroup& group);

// True where accuracies are equal and only overlong penalties tell the rewards apart.
bool DiffersByOverlongOnly(const RolloutGroup& group);

}  // namespace temper::learner
