#pragma once

// One lease in three languages: the wire's, the engine's, and back. Pure functions, thread-safe.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/decode_engine.h"
#include "numerics/noise_policy.h"
#include "rollout_worker/run_setup.h"
#include "temper/v1/learner.pb.h"
#include "temper/v1/orchestrator.pb.h"
#include "temper/v1/reward.pb.h"

namespace temper::rollout_worker {

// More in one lease than any configuration asks for: a lease above it is damaged.
inline constexpr int kMaxLeaseItems = 4096;
inline constexpr int kMaxCompletions = 1 << 16;

// Whether a lease is one this worker can carry out: train items of this run and timeline, or one
// evaluation item, within the bounds above.
// Errors: InvalidArgument, with the reason.
absl::Status CheckLease(const RunSetup& setup, const v1::Lease& lease);

// What the engine is asked for. Not movable once `request.policy` points to `evaluation_policy`.
struct PlannedBatch {
  model::GenerateRequest request;
  numerics::NoisePolicy evaluation_policy;  // used if the lease is an evaluation
};

// Fills `batch` for a lease that CheckLease accepts: one prompt group per item (evaluation: per
// problem), in order. Training: phase rollout, run seed, the run's error and AQN. Evaluation: phase
// eval, noise seed, the named error alone, one sample, AQN off.
// Errors: InvalidArgument, naming the group, if a prompt cannot be encoded.
absl::Status PlanBatch(const RunSetup& setup, const v1::Lease& lease, PlannedBatch* batch);

// Whether the engine's answer is what was asked for: as many groups and completions, log-probs and
// versions for every token, and (`exact`) no other version than the lease's.
// Errors: Internal, with the group.
absl::Status CheckResult(const v1::Lease& lease, const model::GenerateRequest& request,
                         const model::GenerateResult& result, bool exact);

// A lease that was generated and waits to be scored and handed on.
struct GeneratedLease {
  v1::Lease lease;
  std::vector<std::vector<int32_t>> prompt_ids;  // per group
  model::GenerateResult result;
  absl::Duration generate_time;
};

// Every completion of the lease, in order: group by group, sample by sample.
// Errors: those of Tokenizer::Decode.
absl::StatusOr<v1::ScoreRequest> ScoreRequestFor(const RunSetup& setup,
                                                 const GeneratedLease& generated);

// Group `index` of a training lease with its part of the scores, checksum included. scores: all of
// the lease, in the order of ScoreRequestFor.
v1::SubmitGroupRequest SubmissionFor(const RunSetup& setup, const GeneratedLease& generated,
                                     int index, const v1::ScoreReply& scores,
                                     const std::string& worker, absl::Duration score_time);

// First completion of group `index` in the order of ScoreRequestFor.
int FirstCompletion(const v1::Lease& lease, int index);

// Whether the operators of an evaluation erred as the lease names it, each row by itself
// (numerics::CheckSeen), and its norms were clean: the orchestrator, which does not know the
// model's layers, compares totals only. FailedPrecondition names the row.
absl::Status CheckEvalNoise(const RunSetup& setup, const GeneratedLease& generated);

// The outcomes of an evaluation lease. timeline and members' numbers are the caller's to add.
v1::ReportEvalItemRequest EvalReportFor(const RunSetup& setup, const GeneratedLease& generated,
                                        const v1::ScoreReply& scores);

}  // namespace temper::rollout_worker
