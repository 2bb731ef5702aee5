#include "rollout_worker/lease_messages.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/config/noise_plan.h"
#include "services/member/submission_checksum.h"

namespace temper::rollout_worker {
namespace {

std::string GroupName(const v1::Lease& lease, int index) {
  if (lease.has_eval()) {
    return absl::StrCat("question ", lease.eval().first_question() + static_cast<uint32_t>(index));
  }
  return absl::StrCat("group ", lease.train(index).ref().group_index());
}

void AddCounters(const numerics::NoiseCounters& counters,
                 google::protobuf::RepeatedPtrField<v1::InjectionCount>* target) {
  for (const auto& [id, row] : counters.rows()) {
    v1::InjectionCount& count = *target->Add();
    count.set_phase(std::string(numerics::PhaseName(id.phase)));
    count.set_direction(std::string(numerics::DirectionName(id.direction)));
    count.set_layer(id.layer);
    count.set_operator_(std::string(numerics::OperatorName(id.op)));
    if (numerics::IsInjection(id)) {
      count.set_tensor(std::string(numerics::TensorRoleName(id.role)));
    }
    count.set_calls(row.operator_calls);
    count.set_elements(row.stats.elements);
    count.set_elements_changed(row.stats.changed);
    count.set_non_finite(row.stats.non_finite);
    count.set_sum_sq_error(row.stats.sum_sq_error.value());
    count.set_sum_sq_value(row.stats.sum_sq_value.value());
  }
}

void FillCompletion(const model::Completion& source, const v1::SampleScore& score,
                    v1::Completion* target) {
  target->mutable_token_ids()->Add(source.token_ids.begin(), source.token_ids.end());
  target->mutable_rollout_logprobs()->Add(source.logprobs.begin(), source.logprobs.end());
  for (const model::VersionRun& run : source.versions) {
    v1::VersionRun& entry = *target->add_versions();
    entry.set_version(run.version);
    entry.set_tokens(run.tokens);
  }
  target->set_truncated(source.truncated);
  *target->mutable_score() = score;
}

absl::Status CheckCompletion(const model::Completion& completion, uint64_t version, bool exact) {
  uint64_t counted = 0;
  for (const model::VersionRun& run : completion.versions) {
    counted += run.tokens;
    if (exact && run.version != version) {
      return absl::InternalError(
          absl::StrCat("sampled with version ", run.version, ", the lease says ", version));
    }
  }
  if (completion.logprobs.size() != completion.token_ids.size() ||
      counted != completion.token_ids.size()) {
    return absl::InternalError(absl::StrCat(completion.token_ids.size(), " tokens with ",
                                            completion.logprobs.size(), " log-probs and ", counted,
                                            " versions"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckLease(const RunSetup& setup, const v1::Lease& lease) {
  if (!(lease.lease_seconds() > 0)) return absl::InvalidArgumentError("a lease without a term");
  if (lease.has_eval() == (lease.train_size() > 0)) {
    return absl::InvalidArgumentError("a lease is either training items or one evaluation item");
  }
  if (lease.train_size() > kMaxLeaseItems || lease.eval().problems_size() > kMaxLeaseItems) {
    return absl::InvalidArgumentError("a lease with too many items");
  }
  if (lease.has_eval()) {
    if (lease.eval().version() != lease.version()) {
      return absl::InvalidArgumentError("an evaluation of another version than its lease's");
    }
    if (lease.eval().problems().empty()) {
      return absl::InvalidArgumentError("an evaluation without problems");
    }
    return absl::OkStatus();
  }
  uint64_t completions = 0;
  for (const v1::TrainItem& item : lease.train()) {
    if (item.ref().run_id() != setup.run_id || item.ref().timeline() != lease.timeline()) {
      return absl::InvalidArgumentError(
          absl::StrCat("group ", item.ref().group_index(), " is of another run or timeline"));
    }
    if (item.samples() == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("group ", item.ref().group_index(), " asks for no samples"));
    }
    completions += item.samples();
  }
  if (completions > kMaxCompletions) {
    return absl::InvalidArgumentError("a lease with too many completions");
  }
  return absl::OkStatus();
}

absl::Status PlanBatch(const RunSetup& setup, const v1::Lease& lease, PlannedBatch* batch) {
  model::GenerateRequest& request = batch->request;
  request.stop_ids = setup.stop_ids;
  const bool evaluation = lease.has_eval();
  if (evaluation) {
    const v1::EvalItem& item = lease.eval();
    TEMPER_ASSIGN_OR_RETURN(batch->evaluation_policy,
                            config::EvaluationPolicyFromConfig(
                                setup.config, setup.shape, item.error_scale(), item.injected()));
    request.policy = &batch->evaluation_policy;
    request.phase = numerics::Phase::kEval;
    request.seed = item.noise_seed();
    request.temperature = item.temperature();
    request.max_completion_tokens = item.max_completion_tokens();
    request.aqn = false;
  } else {
    request.policy = &setup.policy;
    request.phase = numerics::Phase::kRollout;
    request.seed = setup.config.seed();
    request.temperature = setup.config.rollout().temperature();
    request.max_completion_tokens = setup.config.rollout().max_completion_tokens();
    request.aqn = setup.aqn.enabled;
  }
  const int groups = evaluation ? lease.eval().problems_size() : lease.train_size();
  for (int i = 0; i < groups; ++i) {
    const v1::Problem& problem = evaluation ? lease.eval().problems(i) : lease.train(i).problem();
    auto ids = EncodePrompt(setup, problem.prompt());
    if (!ids.ok()) {
      return absl::Status(ids.status().code(),
                          absl::StrCat(GroupName(lease, i), ": ", ids.status().message()));
    }
    model::PromptGroup& group = request.groups.emplace_back();
    group.scope = evaluation ? uint64_t{lease.eval().first_question()} + static_cast<uint64_t>(i)
                             : lease.train(i).ref().group_index();
    group.samples = evaluation ? 1 : lease.train(i).samples();
    group.prompt_ids = *std::move(ids);
  }
  return absl::OkStatus();
}

absl::Status CheckResult(const v1::Lease& lease, const model::GenerateRequest& request,
                         const model::GenerateResult& result, bool exact) {
  if (result.groups.size() != request.groups.size()) {
    return absl::InternalError(absl::StrCat("the engine returned ", result.groups.size(),
                                            " groups of ", request.groups.size()));
  }
  for (size_t i = 0; i < result.groups.size(); ++i) {
    const std::string name = GroupName(lease, static_cast<int>(i));
    if (result.groups[i].completions.size() != request.groups[i].samples) {
      return absl::InternalError(absl::StrCat(name, ": ", result.groups[i].completions.size(),
                                              " completions of ", request.groups[i].samples));
    }
    for (const model::Completion& completion : result.groups[i].completions) {
      const absl::Status status = CheckCompletion(completion, lease.version(), exact);
      if (!status.ok()) return absl::InternalError(absl::StrCat(name, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::ScoreRequest> ScoreRequestFor(const RunSetup& setup,
                                                 const GeneratedLease& generated) {
  const v1::Lease& lease = generated.lease;
  v1::ScoreRequest request;
  request.set_rule(setup.config.reward().rule());
  request.set_max_completion_tokens(lease.has_eval()
                                        ? lease.eval().max_completion_tokens()
                                        : setup.config.rollout().max_completion_tokens());
  if (!lease.has_eval()) {
    request.set_overlong_cache_tokens(setup.config.reward().overlong_cache_tokens());
    request.set_overlong_factor(setup.config.reward().overlong_factor());
  }
  request.set_sample_timeout_seconds(setup.config.reward().sample_timeout_seconds());
  for (size_t i = 0; i < generated.result.groups.size(); ++i) {
    const int index = static_cast<int>(i);
    const v1::Problem& problem =
        lease.has_eval() ? lease.eval().problems(index) : lease.train(index).problem();
    for (const model::Completion& completion : generated.result.groups[i].completions) {
      TEMPER_ASSIGN_OR_RETURN(std::string text,
                              setup.tokenizer->Decode(completion.token_ids, true));
      v1::ScoreItem& item = *request.add_items();
      item.set_completion(std::move(text));
      item.set_truth(problem.truth());
      item.set_token_count(static_cast<uint32_t>(completion.token_ids.size()));
      item.set_truncated(completion.truncated);
    }
  }
  return request;
}

int FirstCompletion(const v1::Lease& lease, int index) {
  if (lease.has_eval()) return index;
  int first = 0;
  for (int i = 0; i < index; ++i) first += static_cast<int>(lease.train(i).samples());
  return first;
}

v1::SubmitGroupRequest SubmissionFor(const RunSetup& setup, const GeneratedLease& generated,
                                     int index, const v1::ScoreReply& scores,
                                     const std::string& worker, absl::Duration score_time) {
  const v1::TrainItem& item = generated.lease.train(index);
  const model::GeneratedGroup& group = generated.result.groups[static_cast<size_t>(index)];
  v1::SubmitGroupRequest request;
  *request.mutable_ref() = item.ref();
  request.set_problem_id(item.problem().problem_id());
  request.set_prompt(item.problem().prompt());
  request.set_truth(item.problem().truth());
  const std::vector<int32_t>& prompt = generated.prompt_ids[static_cast<size_t>(index)];
  request.mutable_prompt_token_ids()->Add(prompt.begin(), prompt.end());
  const int first = FirstCompletion(generated.lease, index);
  for (size_t sample = 0; sample < group.completions.size(); ++sample) {
    FillCompletion(group.completions[sample], scores.scores(first + static_cast<int>(sample)),
                   request.add_completions());
  }
  request.set_seed(setup.config.seed());
  request.set_noise_id(setup.noise_id);
  request.set_aqn_sigma(group.aqn_sigma);  // of the weights the engine read, not of the lease
  AddCounters(group.counters, request.mutable_injections());
  request.set_worker(worker);
  request.set_generate_seconds(absl::ToDoubleSeconds(generated.generate_time));
  request.set_score_seconds(absl::ToDoubleSeconds(score_time));
  request.set_checksum(member::SubmissionChecksum(request));
  return request;
}

absl::Status CheckEvalNoise(const RunSetup& setup, const GeneratedLease& generated) {
  const v1::EvalItem& item = generated.lease.eval();
  TEMPER_ASSIGN_OR_RETURN(const numerics::NoisePolicy policy,
                          config::EvaluationPolicyFromConfig(setup.config, setup.shape,
                                                             item.error_scale(), item.injected()));
  numerics::NoiseCounters counters;
  for (const model::GeneratedGroup& group : generated.result.groups) counters.Merge(group.counters);
  for (const auto& [id, row] : counters.rows()) {
    if (id.role == numerics::TensorRole::kWeightNoise && row.stats.changed > 0) {
      return absl::FailedPreconditionError(absl::StrCat("noise row ", numerics::NoiseRowName(id),
                                                        ": an evaluation has no AQN, but ",
                                                        row.stats.changed, " channels changed"));
    }
  }
  return numerics::CheckSeen(policy, counters);
}

v1::ReportEvalItemRequest EvalReportFor(const RunSetup& setup, const GeneratedLease& generated,
                                        const v1::ScoreReply& scores) {
  const v1::EvalItem& item = generated.lease.eval();
  v1::ReportEvalItemRequest report;
  report.set_run_id(setup.run_id);
  report.set_timeline(generated.lease.timeline());
  report.set_item_index(item.item_index());
  report.set_attempt(item.attempt());
  numerics::NoiseCounters counters;
  for (size_t i = 0; i < generated.result.groups.size(); ++i) {
    const model::GeneratedGroup& group = generated.result.groups[i];
    const model::Completion& completion = group.completions.front();
    const v1::SampleScore& score = scores.scores(static_cast<int>(i));
    v1::QuestionOutcome& outcome = *report.add_outcomes();
    outcome.set_question(item.first_question() + static_cast<uint32_t>(i));
    outcome.set_accuracy(score.accuracy());
    outcome.set_strict(score.strict());
    outcome.set_flexible(score.flexible());
    outcome.set_numeric(score.numeric());
    outcome.set_truncated(completion.truncated);
    outcome.set_completion_tokens(static_cast<uint32_t>(completion.token_ids.size()));
    outcome.set_extracted(score.extracted());
    counters.Merge(group.counters);
  }
  AddCounters(counters, report.mutable_injections());
  return report;
}

}  // namespace temper::rollout_worker
