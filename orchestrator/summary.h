#pragma once

// summary.json: what came out of a run, with intervals and paired tests. Pure.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "orchestrator/accounting.h"
#include "orchestrator/eval_ledger.h"

namespace temper::orchestrator {

struct SummaryInputs {
  std::string run_id;
  std::string state;           // finished, stopped, failed
  std::string failure_reason;  // of stopped and failed
  uint64_t seed = 0;
  uint64_t config_fingerprint = 0;
  std::string reward_rule;  // accuracy is by this rule; the other two are reported beside it
  std::string error_type;   // of which every error_scale is the strength
  std::string injection;    // "mxfp4 weight"; empty: the run has none
  uint64_t timeline = 0;
  uint64_t steps_closed = 0;
  uint64_t planned_steps = 0;
  uint64_t steps_skipped = 0;
  uint64_t groups_opened = 0;
  Accounting accounting;
  absl::Duration wall_time;  // since the run was first started, pauses included
  std::vector<EvalResult> evaluations;
};

// Several lines of JSON with the keys
//   run_id, state, failure_reason, seed, config_fingerprint, reward_rule, error_type, injection,
//   timeline, steps, planned_steps, steps_skipped, wall_seconds, groups {opened, attempts_leased,
//   <ending>}, evaluations [{version, error_scale, injected, noise_seed, n, done, accuracy,
//   interval, strict, flexible,
//     numeric, truncated_ratio, completion_tokens_mean, achieved_error_scale,
//     perturbed_elements, injected_elements}],
//   by_scale [{version, error_scale, injected, noise_seeds, n, accuracy, interval,
//   interval_method}], paired [{error_scale, injected, first_version, last_version, questions,
//   noise_seeds, before, after,
//     difference, interval, p_value, test, only_before, only_after}].
// Intervals are 95 %: Wilson for one noise seed; with several, the percentile bootstrap over
// questions of each question's mean over seeds. Paired: McNemar's exact test for one noise seed,
// the paired bootstrap over questions for several (its interval is given in both cases). Only
// complete evaluations enter by_scale and paired.
// Internal if the bootstrap refuses its input.
absl::StatusOr<std::string> SummaryJson(const SummaryInputs& inputs);

}  // namespace temper::orchestrator
