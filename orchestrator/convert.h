#pragma once

// Between messages and the orchestrator's own types.

#include <string>

#include "absl/status/statusor.h"
#include "orchestrator/accounting.h"
#include "orchestrator/eval_ledger.h"
#include "orchestrator/ledger_types.h"
#include "orchestrator/membership.h"
#include "prompts/problem.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::orchestrator {

AttemptId IdOf(const v1::GroupRef& ref);
v1::GroupRef RefOf(const std::string& run_id, const AttemptId& id);
v1::Problem ProblemOf(const prompts::Problem& problem);
v1::Peer PeerOf(const Member& member, bool healthy);

// A joining process. InvalidArgument: no member_id or role, or texts beyond their limits.
absl::StatusOr<Member> MemberOf(const v1::JoinRequest& request);

// What a worker reports of an item: one outcome for each question of it, in order.
// InvalidArgument: a question missing, foreign or twice; an accuracy outside [0, 1].
absl::StatusOr<std::vector<OutcomeRow>> OutcomesOf(const v1::ReportEvalItemRequest& request,
                                                   const EvalItemSpec& item);
EvalInjections InjectionsOf(const v1::ReportEvalItemRequest& request);

// The step's line of metrics.jsonl: the learner's `text`, its "groups" replaced by what the ledger
// counted since the step before: {"attempts_leased": n, "trained": n, "dropped_zero_variance": n,
// ...}, all ten endings, zeros too. docs/life-of-a-group.md says what may differ between equal
// runs. InvalidArgument unless `text` is one JSON object on one line, at most 1 MiB.
absl::StatusOr<std::string> MetricsLine(const std::string& text, const Accounting& since);

}  // namespace temper::orchestrator
