#include "reward_server/reward_service.h"

#include <cmath>
#include <utility>

#include "reward_server/answer_extraction.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::reward_server {
namespace {

// A day: no batch is worth a longer wait, and the arithmetic of deadlines stays finite.
constexpr double kLongestTimeoutSeconds = 86'400;

absl::StatusOr<Sample> DecodeItem(const v1::ScoreItem& item, int index) {
  if (item.completion().size() > kMaxCompletionBytes) {
    return absl::ResourceExhaustedError(base::Cat("sample ", index, ": its completion has ",
                                                  item.completion().size(), " bytes, more than ",
                                                  kMaxCompletionBytes));
  }
  if (item.truth().empty()) {
    return absl::InvalidArgumentError(base::Cat("sample ", index, " has no truth"));
  }
  if (item.truth().size() > kMaxTruthBytes) {
    return absl::ResourceExhaustedError(base::Cat("sample ", index, ": its truth has ",
                                                  item.truth().size(), " bytes, more than ",
                                                  kMaxTruthBytes));
  }
  return Sample{.tail = std::string(Tail(item.completion())),
                .truth = item.truth(),
                .completion_tokens = item.token_count()};
}

}  // namespace

absl::StatusOr<Batch> DecodeScoreRequest(const v1::ScoreRequest& request, absl::Time arrival) {
  const auto rule = ParseRule(request.rule());
  if (!rule) {
    return absl::InvalidArgumentError(base::Cat("rule is \"", request.rule().substr(0, 40),
                                                "\"; known are strict, flexible, numeric"));
  }
  const double timeout = request.sample_timeout_seconds();
  if (!(timeout > 0 && timeout <= kLongestTimeoutSeconds)) {
    return absl::InvalidArgumentError(base::Cat("sample_timeout_seconds is ", timeout,
                                                "; above 0 and at most ", kLongestTimeoutSeconds,
                                                " is needed"));
  }
  if (!std::isfinite(request.overlong_factor()) || request.overlong_factor() < 0) {
    return absl::InvalidArgumentError(
        base::Cat("overlong_factor is ", request.overlong_factor(), "; 0 or more is needed"));
  }
  if (static_cast<size_t>(request.items_size()) > kMaxSamples) {
    return absl::ResourceExhaustedError(
        base::Cat("the batch has ", request.items_size(), " samples, more than ", kMaxSamples));
  }
  Batch batch{.rule = *rule,
              .overlong = {.max_completion_tokens = request.max_completion_tokens(),
                           .cache_tokens = request.overlong_cache_tokens(),
                           .factor = request.overlong_factor()},
              .arrival = arrival,
              .sample_timeout = absl::Seconds(timeout)};
  batch.samples.reserve(request.items_size());
  for (int i = 0; i < request.items_size(); ++i) {
    TEMPER_ASSIGN_OR_RETURN(Sample sample, DecodeItem(request.items(i), i));
    batch.samples.push_back(std::move(sample));
  }
  return batch;
}

void EncodeScoreReply(const Batch& batch, const std::vector<SampleOutcome>& outcomes,
                      v1::ScoreReply* reply) {
  for (const SampleOutcome& outcome : outcomes) {
    v1::SampleScore* score = reply->add_scores();
    if (!outcome.status.ok()) {
      score->set_failed(true);
      score->set_failure(outcome.status.ToString());
      continue;
    }
    const ScoreResult& asked = outcome.scores.ByRule(batch.rule);
    score->set_accuracy(asked.score);
    score->set_overlong_penalty(outcome.overlong_penalty);
    score->set_reward(asked.score + outcome.overlong_penalty);
    score->set_strict(outcome.scores.strict.score);
    score->set_flexible(outcome.scores.flexible.score);
    score->set_numeric(outcome.scores.numeric.score);
    score->set_format_ok(outcome.scores.format_ok);
    score->set_has_extracted(asked.extracted.has_value());
    score->set_extracted(asked.extracted.value_or(""));
  }
}

grpc::ServerUnaryReactor* RewardService::Score(grpc::CallbackServerContext*,
                                               const v1::ScoreRequest* request,
                                               v1::ScoreReply* reply) {
  auto answer = rpc::DeferredReply::Create(rpc_metrics_, "Score");
  grpc::ServerUnaryReactor* reactor = answer->reactor();
  auto batch = DecodeScoreRequest(*request, clock_->Now());
  absl::Status taken = batch.status();
  if (batch.ok()) {
    taken = scorer_->Submit(*std::move(batch),
                            [answer, reply](const Batch& scored, const auto& outcomes) {
                              answer->Finish([&] {
                                EncodeScoreReply(scored, outcomes, reply);
                                return absl::OkStatus();
                              });
                            });
  }
  if (!taken.ok()) answer->Finish([&] { return taken; });
  return reactor;
}

}  // namespace temper::reward_server
