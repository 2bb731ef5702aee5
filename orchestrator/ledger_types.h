#pragma once

// Rows of the ledger. Plain values; the numbers of the enums stand in the database.

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "orchestrator/ending.h"
#include "orchestrator/eval_plan.h"

namespace temper::orchestrator {

enum class GroupState : uint8_t {
  // Legal moves: pending -> leased -> admitted -> ended; leased -> pending (a failure that is
  // retried), leased -> ended (stale); any -> pending by a rewind.
  kPending = 1,
  kLeased = 2,
  kAdmitted = 3,
  kEnded = 4,
};

// One prompt with its completions, in the current timeline.
struct GroupRow {
  uint64_t group_index = 0;
  uint64_t step = 0;   // the step that was open when the group was opened
  uint32_t round = 0;  // filter round of that step
  GroupState state = GroupState::kPending;
  uint32_t attempts = 0;                       // leases in this timeline
  uint64_t closed_step = 0;                    // the step it ended in; 0: not ended
  absl::Time ready_at = absl::InfinitePast();  // pending: not leased before
};

enum class AttemptState : uint8_t {
  kLeased = 1,    // -> admitted, ended
  kAdmitted = 2,  // -> ended
  kEnded = 3,     // -> ended again only as rewound
};

// What the learner found in a submitted group; the numbers equal v1::Examination.
enum class Examination : uint8_t {
  kNone = 0,
  kKept = 1,
  kZeroVariance = 2,
  kStale = 3,
  kRefused = 4,
};

struct AttemptId {
  uint64_t timeline = 0;
  uint64_t group_index = 0;
  uint32_t attempt = 0;  // from 1
  friend auto operator<=>(const AttemptId&, const AttemptId&) = default;
};

// One lease of one group. Never deleted.
struct AttemptRow {
  AttemptId id;
  uint64_t lease_id = 0;
  std::string worker;
  uint64_t incarnation = 0;
  uint64_t version = 0;  // it was leased to sample with
  AttemptState state = AttemptState::kLeased;
  Examination examination = Examination::kNone;
  uint64_t examined_step = 0;  // the step that was open when it was examined
  Ending ending = Ending::kNone;
  uint64_t closed_step = 0;  // the commit that ended it; 0: none did
  std::string detail;        // why it ended so
  absl::Time leased_at;
};

// One closed step: the learner's commit with its metrics.
struct CommitRow {
  uint64_t timeline = 0;
  uint64_t step = 0;    // from 1
  uint64_t cursor = 0;  // next group_index at that moment
  bool skipped = false;
  double update_seconds = 0;
  std::string metrics_json;  // one JSON object, one line
  absl::Time closed_at;
  uint64_t rewound_by = 0;  // the timeline that cut it off; 0: it stands
};

enum class EvalState : uint8_t {
  kPending = 1,  // -> leased
  kLeased = 2,   // -> pending (failed), done
  kDone = 3,
  kRewound = 4,  // of a version that was cut off; from any state
};

struct EvalItemRow {
  uint64_t item_index = 0;
  EvalItemSpec spec;
  EvalState state = EvalState::kPending;
  uint32_t attempts = 0;
  std::string worker;
  uint64_t incarnation = 0;
  absl::Time ready_at = absl::InfinitePast();
  // From inside the operators, once done.
  uint64_t elements = 0;
  double sum_sq_error = 0;
  double sum_sq_value = 0;
  uint64_t injected_elements = 0;  // of hw_error_injection
};

// Scores of one question. Accuracies are 0 or 1.
struct OutcomeRow {
  uint32_t question = 0;
  double accuracy = 0;  // of the run's reward rule
  double strict = 0;
  double flexible = 0;
  double numeric = 0;
  bool truncated = false;
  uint32_t completion_tokens = 0;
  std::string extracted;
};

}  // namespace temper::orchestrator
