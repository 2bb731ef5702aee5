#include "learner/rollout_group.h"

#include <algorithm>
#include <limits>

namespace temper::learner {
namespace {

Score ScoreFromProto(const v1::SampleScore& score) {
  return {.reward = score.reward(),
          .accuracy = score.accuracy(),
          .strict = score.strict(),
          .flexible = score.flexible(),
          .numeric = score.numeric(),
          .format_ok = score.format_ok(),
          .overlong_penalty = score.overlong_penalty(),
          .extracted = score.extracted(),
          .has_extracted = score.has_extracted()};
}

SampledCompletion CompletionFromProto(const v1::Completion& completion) {
  SampledCompletion sampled;
  sampled.token_ids.assign(completion.token_ids().begin(), completion.token_ids().end());
  sampled.rollout_logprobs.assign(completion.rollout_logprobs().begin(),
                                  completion.rollout_logprobs().end());
  for (const v1::VersionRun& run : completion.versions()) {
    sampled.versions.push_back({.version = run.version(), .tokens = run.tokens()});
  }
  sampled.truncated = completion.truncated();
  sampled.score = ScoreFromProto(completion.score());
  return sampled;
}

}  // namespace

RolloutGroup GroupFromProto(const v1::SubmitGroupRequest& submit) {
  RolloutGroup group;
  group.group_index = submit.ref().group_index();
  group.attempt = submit.ref().attempt();
  group.problem_id = submit.problem_id();
  group.prompt = submit.prompt();
  group.truth = submit.truth();
  group.prompt_token_ids.assign(submit.prompt_token_ids().begin(), submit.prompt_token_ids().end());
  group.aqn_sigma = submit.aqn_sigma();
  group.injections.assign(submit.injections().begin(), submit.injections().end());
  group.worker = submit.worker();
  group.generate_seconds = submit.generate_seconds();
  group.score_seconds = submit.score_seconds();
  uint64_t oldest = std::numeric_limits<uint64_t>::max();
  for (const v1::Completion& completion : submit.completions()) {
    group.completions.push_back(CompletionFromProto(completion));
    for (const VersionSpan& span : group.completions.back().versions) {
      oldest = std::min(oldest, span.version);
      group.newest_version = std::max(group.newest_version, span.version);
    }
  }
  group.oldest_version = std::min(oldest, group.newest_version);
  return group;
}

bool AccuraciesAreEqual(const RolloutGroup& group) {
  return std::adjacent_find(group.completions.begin(), group.completions.end(),
                            [](const SampledCompletion& a, const SampledCompletion& b) {
                              return a.score.accuracy != b.score.accuracy;
                            }) == group.completions.end();
}

bool DiffersByOverlongOnly(const RolloutGroup& group) {
  if (!AccuraciesAreEqual(group)) return false;
  return std::adjacent_find(group.completions.begin(), group.completions.end(),
                            [](const SampledCompletion& a, const SampledCompletion& b) {
                              return a.score.overlong_penalty != b.score.overlong_penalty;
                            }) != group.completions.end();
}

}  // namespace temper::learner
