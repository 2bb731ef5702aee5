#include "orchestrator/convert.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace temper::orchestrator {
namespace {

constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxExtractedBytes = 256;
constexpr size_t kMaxMetricsBytes = size_t{1} << 20;

bool IsShare(double value) { return std::isfinite(value) && value >= 0 && value <= 1; }

}  // namespace

AttemptId IdOf(const v1::GroupRef& ref) {
  return {ref.timeline(), ref.group_index(), ref.attempt()};
}

v1::GroupRef RefOf(const std::string& run_id, const AttemptId& id) {
  v1::GroupRef ref;
  ref.set_run_id(run_id);
  ref.set_timeline(id.timeline);
  ref.set_group_index(id.group_index);
  ref.set_attempt(id.attempt);
  return ref;
}

v1::Problem ProblemOf(const prompts::Problem& problem) {
  v1::Problem message;
  message.set_problem_id(problem.id);
  message.set_prompt(problem.prompt);
  message.set_truth(problem.truth);
  return message;
}

v1::Peer PeerOf(const Member& member, bool healthy) {
  v1::Peer peer;
  peer.set_role(static_cast<v1::Role>(member.role));
  peer.set_member_id(member.member_id);
  peer.set_address(member.address);
  peer.set_metrics_address(member.metrics_address);
  peer.set_healthy(healthy);
  peer.set_incarnation(member.incarnation);
  peer.set_host(member.host);
  peer.set_has_version(member.has_version);
  return peer;
}

absl::StatusOr<Member> MemberOf(const v1::JoinRequest& request) {
  Member member;
  member.role = RoleFromNumber(request.role());
  member.member_id = request.member_id();
  member.incarnation = request.incarnation();
  member.address = request.address();
  member.metrics_address = request.metrics_address();
  member.host = request.host();
  member.pid = request.pid();
  if (member.role == Role::kUnspecified) {
    return absl::InvalidArgumentError(absl::StrCat("no such role: ", request.role()));
  }
  if (member.member_id.empty()) return absl::InvalidArgumentError("member_id is empty");
  for (const std::string* text :
       {&member.member_id, &member.address, &member.metrics_address, &member.host}) {
    if (text->size() > kMaxNameBytes) {
      return absl::InvalidArgumentError(absl::StrCat("a name of ", text->size(), " bytes; at most ",
                                                     kMaxNameBytes, " are allowed"));
    }
  }
  return member;
}

absl::StatusOr<std::vector<OutcomeRow>> OutcomesOf(const v1::ReportEvalItemRequest& request,
                                                   const EvalItemSpec& item) {
  if (static_cast<uint32_t>(request.outcomes_size()) != item.questions) {
    return absl::InvalidArgumentError(
        absl::StrCat(request.outcomes_size(), " outcomes for ", item.questions, " questions"));
  }
  std::vector<OutcomeRow> outcomes(item.questions);
  std::vector<bool> seen(item.questions, false);
  for (const v1::QuestionOutcome& outcome : request.outcomes()) {
    const uint64_t offset = uint64_t{outcome.question()} - item.first_question;
    if (outcome.question() < item.first_question || offset >= item.questions || seen[offset]) {
      return absl::InvalidArgumentError(
          absl::StrCat("question ", outcome.question(), " is foreign to the item, or there twice"));
    }
    if (!IsShare(outcome.accuracy()) || !IsShare(outcome.strict()) ||
        !IsShare(outcome.flexible()) || !IsShare(outcome.numeric())) {
      return absl::InvalidArgumentError(
          absl::StrCat("question ", outcome.question(), ": an accuracy outside [0, 1]"));
    }
    seen[offset] = true;
    outcomes[offset] = {outcome.question(),
                        outcome.accuracy(),
                        outcome.strict(),
                        outcome.flexible(),
                        outcome.numeric(),
                        outcome.truncated(),
                        outcome.completion_tokens(),
                        outcome.extracted().substr(0, kMaxExtractedBytes)};
  }
  return outcomes;
}

EvalInjections InjectionsOf(const v1::ReportEvalItemRequest& request) {
  EvalInjections sum;
  for (const v1::InjectionCount& count : request.injections()) {
    if (!count.tensor().empty()) {
      sum.injected_elements += count.elements();
      continue;
    }
    sum.elements += count.elements();
    sum.sum_sq_error += count.sum_sq_error();
    sum.sum_sq_value += count.elements() > 0 ? count.sum_sq_value() : 0.0;
  }
  return sum;
}

absl::StatusOr<std::string> MetricsLine(const std::string& text, const Accounting& since) {
  if (text.size() > kMaxMetricsBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics_json has ", text.size(), " bytes; at most ", kMaxMetricsBytes));
  }
  if (text.find('\n') != std::string::npos) {
    return absl::InvalidArgumentError("metrics_json is more than one line");
  }
  using Json = nlohmann::ordered_json;
  Json line = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!line.is_object()) {
    return absl::InvalidArgumentError("metrics_json is not one JSON object");
  }
  Json groups = Json::object();
  groups["attempts_leased"] = since.attempts_leased;
  for (Ending ending : AllEndings()) groups[EndingName(ending)] = since.Ended(ending);
  line["groups"] = std::move(groups);
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace temper::orchestrator
