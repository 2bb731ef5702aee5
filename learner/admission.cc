#include "learner/admission.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/base/hash.h"

namespace temper::learner {
namespace {

AdmissionDecision Conclude(v1::SubmitVerdict verdict, std::string reason) {
  AdmissionDecision decision;
  decision.concluded = true;
  decision.verdict = verdict;
  decision.reason = std::move(reason);
  return decision;
}

AdmissionDecision Found(v1::Examination examination, std::string reason) {
  AdmissionDecision decision;
  decision.examination = examination;
  decision.reason = std::move(reason);
  return decision;
}

// Empty if the ids are of the vocabulary.
template <typename Ids>
std::string ForeignToken(const Ids& ids, int64_t vocab_size, absl::string_view where) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      return absl::StrCat(where, " holds token ", id, ", the vocabulary ends at ", vocab_size - 1);
    }
  }
  return "";
}

// Empty if the completion can be used; otherwise what is wrong with it.
std::string CompletionFault(const v1::Completion& completion, const AdmissionRules& rules) {
  const int tokens = completion.token_ids_size();
  if (tokens == 0) return "has no tokens";
  if (tokens > rules.max_completion_tokens) {
    return absl::StrCat("has ", tokens, " tokens, the limit is ", rules.max_completion_tokens);
  }
  if (completion.rollout_logprobs_size() != tokens) {
    return absl::StrCat("has ", tokens, " tokens and ", completion.rollout_logprobs_size(),
                        " log-probabilities");
  }
  uint64_t covered = 0;
  for (const v1::VersionRun& run : completion.versions()) covered += run.tokens();
  if (covered != static_cast<uint64_t>(tokens)) {
    return absl::StrCat("has ", tokens, " tokens and versions of ", covered);
  }
  for (const float logprob : completion.rollout_logprobs()) {
    if (!std::isfinite(logprob)) return "has a log-probability that is not finite";
    if (logprob > 1e-4f) return absl::StrCat("has a log-probability of ", logprob);
  }
  const v1::SampleScore& score = completion.score();
  if (score.failed()) return absl::StrCat("was not scored: ", score.failure());
  if (!std::isfinite(score.reward()) || !std::isfinite(score.accuracy())) {
    return "has a reward that is not finite";
  }
  return ForeignToken(completion.token_ids(), rules.vocab_size, "it");
}

// Empty if the group can be used; otherwise why it is refused. Versions are judged by the caller.
std::string GroupFault(const v1::SubmitGroupRequest& submit, uint64_t computed_checksum,
                       const AdmissionRules& rules) {
  if (submit.checksum() != computed_checksum) {
    return absl::StrCat("checksum ", base::HexDigest(submit.checksum()), ", the bytes have ",
                        base::HexDigest(computed_checksum));
  }
  if (submit.seed() != rules.seed) {
    return absl::StrCat("sampled with seed ", submit.seed(), ", the run has ", rules.seed);
  }
  if (submit.noise_id() != rules.noise_id) {
    return absl::StrCat("sampled under noise ", base::HexDigest(submit.noise_id()),
                        ", the run has ", base::HexDigest(rules.noise_id));
  }
  if (submit.completions_size() != rules.samples_per_group) {
    return absl::StrCat(submit.completions_size(), " completions, the run takes ",
                        rules.samples_per_group);
  }
  const int prompt_tokens = submit.prompt_token_ids_size();
  if (prompt_tokens == 0) return "the prompt has no tokens";
  if (rules.max_prompt_tokens > 0 && prompt_tokens > rules.max_prompt_tokens) {
    return absl::StrCat("the prompt has ", prompt_tokens, " tokens, the limit is ",
                        rules.max_prompt_tokens);
  }
  std::string foreign = ForeignToken(submit.prompt_token_ids(), rules.vocab_size, "the prompt");
  if (!foreign.empty()) return foreign;
  for (int i = 0; i < submit.completions_size(); ++i) {
    const std::string fault = CompletionFault(submit.completions(i), rules);
    if (!fault.empty()) return absl::StrCat("completion ", i, " ", fault);
  }
  return "";
}

// Whether the sigma that was applied is that of the newest version that sampled. Both come from the
// same function of the same integers, so they are equal but for a rounding on the way.
bool SigmaFits(double applied, uint64_t newest, const numerics::AqnPlan& plan) {
  const double sigma = numerics::Sigma(plan, static_cast<int64_t>(newest));
  return std::fabs(sigma - applied) <= 1e-9 * sigma;
}

}  // namespace

AdmissionDecision Examine(const v1::SubmitGroupRequest& submit, uint64_t computed_checksum,
                          const AdmissionRules& rules, const AdmissionSnapshot& snapshot) {
  const v1::GroupRef& ref = submit.ref();
  if (ref.run_id() != rules.run_id) {
    return Conclude(v1::SUBMIT_VERDICT_REFUSED,
                    absl::StrCat("of run ", ref.run_id(), ", this is run ", rules.run_id));
  }
  if (ref.timeline() != snapshot.timeline) {
    return Conclude(v1::SUBMIT_VERDICT_SUPERSEDED,
                    absl::StrCat("of timeline ", ref.timeline(), ", open is ", snapshot.timeline));
  }
  std::string fault = GroupFault(submit, computed_checksum, rules);
  if (!fault.empty()) return Found(v1::EXAMINATION_REFUSED, std::move(fault));

  uint64_t oldest = std::numeric_limits<uint64_t>::max();
  uint64_t newest = 0;
  bool equal = true;
  for (const v1::Completion& completion : submit.completions()) {
    for (const v1::VersionRun& run : completion.versions()) {
      oldest = std::min(oldest, run.version());
      newest = std::max(newest, run.version());
    }
    equal = equal && completion.score().accuracy() == submit.completions(0).score().accuracy();
  }
  if (newest > snapshot.policy_version) {
    return Found(
        v1::EXAMINATION_REFUSED,
        absl::StrCat("sampled by version ", newest, ", the newest is ", snapshot.policy_version));
  }
  if (!SigmaFits(submit.aqn_sigma(), newest, rules.aqn)) {
    return Found(v1::EXAMINATION_REFUSED,
                 absl::StrCat("sampled under AQN sigma ", submit.aqn_sigma(), ", version ", newest,
                              " has ", numerics::Sigma(rules.aqn, static_cast<int64_t>(newest))));
  }
  if (snapshot.policy_version - oldest > rules.max_staleness) {
    return Found(
        v1::EXAMINATION_STALE,
        absl::StrCat("oldest token is of version ", oldest, ", the learner is at ",
                     snapshot.policy_version, ", allowed are ", rules.max_staleness, " steps"));
  }
  if (equal && rules.dynamic_sampling) {
    return Found(v1::EXAMINATION_ZERO_VARIANCE,
                 absl::StrCat("all ", submit.completions_size(), " accuracies are ",
                              submit.completions(0).score().accuracy()));
  }
  return Found(v1::EXAMINATION_KEPT, "may be trained");
}

v1::SubmitGroupReply AnswerFor(const AdmissionDecision& decision,
                               const v1::AdmitGroupReply& reply) {
  v1::SubmitGroupReply answer;
  answer.set_reason(decision.reason);
  switch (decision.examination) {
    case v1::EXAMINATION_STALE:
      answer.set_verdict(v1::SUBMIT_VERDICT_STALE);
      return answer;
    case v1::EXAMINATION_REFUSED:
      answer.set_verdict(v1::SUBMIT_VERDICT_REFUSED);
      return answer;
    case v1::EXAMINATION_ZERO_VARIANCE:
      answer.set_verdict(v1::SUBMIT_VERDICT_ZERO_VARIANCE);
      break;
    default:
      answer.set_verdict(v1::SUBMIT_VERDICT_ADMITTED);
      break;
  }
  if (!reply.admitted()) {
    answer.set_verdict(v1::SUBMIT_VERDICT_SUPERSEDED);
    answer.set_reason(reply.reason());
  }
  return answer;
}

}  // namespace temper::learner
