#pragma once

// Whether a submitted group may be trained on: one pure decision, with its reason.

#include <cstdint>
#include <string>

#include "learner/rollout_group.h"
#include "numerics/aqn.h"
#include "temper/v1/learner.pb.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::learner {

// What every submit of a run must agree with. Fixed for the run.
struct AdmissionRules {
  std::string run_id;
  uint64_t seed = 0;      // run seed that keys sampling and error
  uint64_t noise_id = 0;  // fingerprint of error policy and AQN
  int samples_per_group = 0;
  int max_prompt_tokens = 0;      // 0: no bound
  int max_completion_tokens = 0;  // with end-of-sequence
  int64_t vocab_size = 0;         // token ids are 0 .. vocab_size - 1
  uint64_t max_staleness = 0;     // steps
  numerics::AqnPlan aqn;          // says which sigma a version samples under
  // Zero-variance groups go to the filter (true), or train with zero advantage (false).
  bool dynamic_sampling = true;
};

// Where the learner stands when the group arrives.
struct AdmissionSnapshot {
  uint64_t timeline = 0;
  uint64_t policy_version = 0;  // newest version that is out, or about to be
};

// The decision. `concluded`: the orchestrator need not be asked, `verdict` is the answer; otherwise
// `examination` goes to AdmitGroup, whose reply completes the answer.
struct AdmissionDecision {
  bool concluded = false;
  v1::SubmitVerdict verdict = v1::SUBMIT_VERDICT_UNSPECIFIED;
  v1::Examination examination = v1::EXAMINATION_UNSPECIFIED;
  std::string reason;  // one sentence with both values where something disagrees
  // True where the submit is bad in a way its sender must know: refused (log it).
  bool refused() const { return examination == v1::EXAMINATION_REFUSED; }
};

// Examines a submit. computed_checksum: services/member/submission_checksum.h over `submit`.
//   another run                       concluded, refused: nothing of ours is meant
//   another timeline                  concluded, superseded: the attempt was rewound with it
//   checksum, counts, lengths, ids, seed, noise id, non-finite numbers, failed scores, versions
//   that do not cover the tokens or are newer than ours, an AQN sigma that is not the one of its
//   newest version                                                 refused
//   policy_version - oldest token's version > max_staleness        stale
//   equal accuracies, with dynamic sampling                        zero variance
//   everything else                                                kept
AdmissionDecision Examine(const v1::SubmitGroupRequest& submit, uint64_t computed_checksum,
                          const AdmissionRules& rules, const AdmissionSnapshot& snapshot);

// The answer to the worker once the orchestrator has spoken.
v1::SubmitGroupReply AnswerFor(const AdmissionDecision& decision, const v1::AdmitGroupReply& reply);

}  // namespace temper::learner
