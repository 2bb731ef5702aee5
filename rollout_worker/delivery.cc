#include "rollout_worker/delivery.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"
#include "services/member/names.h"

namespace temper::rollout_worker {
namespace {

constexpr int kScoreBatch = 4096;  // the proto's bound on one call
constexpr absl::Duration kSubmitTimeout = absl::Seconds(30);
// A scoring call: the deadline of one sample plus as much again per this many samples, since a
// server scores several at a time.
constexpr int kSamplesPerTimeout = 256;

int CountFailed(const v1::ScoreReply& reply) {
  return static_cast<int>(
      std::count_if(reply.scores().begin(), reply.scores().end(),
                    [](const v1::SampleScore& score) { return score.failed(); }));
}

}  // namespace

LeaseWeather WeatherOf(const member::MembershipClient& membership) {
  const member::MembershipView view = membership.view();
  return {.now = absl::Now(), .connected = view.connected, .timeline = view.timeline};
}

LeaseStanding Delivery::Standing(const v1::Lease& lease) const {
  return options_.leases->Check(lease.lease_id(), WeatherOf(*options_.membership));
}

void Delivery::Deliver(const GeneratedLease& generated) {
  const v1::Lease& lease = generated.lease;
  const absl::Time begun = absl::Now();
  const auto scores = Score(generated);
  const absl::Duration score_time = absl::Now() - begun;
  if (absl::IsCancelled(scores.status())) {
    if (options_.halt->StopRequested()) return;  // Leave hands it back
    base::LogWarning("lease_lost",
                     {{"lease", lease.lease_id()}, {"reason", scores.status().ToString()}});
    for (int i = 0; i < lease.train_size(); ++i) options_.metrics->CountGroup("lease_lost");
    options_.leases->Close(lease.lease_id());
    return;
  }
  if (!scores.ok()) {
    return GiveUp(lease, v1::ENDING_REWARD_FAILED, std::string(scores.status().message()));
  }
  options_.metrics->score_seconds.Observe(absl::ToDoubleSeconds(score_time));
  if (lease.has_eval()) return DeliverEvaluation(generated, *scores);
  DeliverTraining(generated, *scores, score_time);
}

absl::StatusOr<v1::ScoreReply> Delivery::ScoreOnce(const v1::ScoreRequest& request) {
  const std::vector<std::string> servers =
      member::PeerAddresses(options_.membership->view(), v1::ROLE_REWARD_SERVER);
  if (servers.empty()) return absl::UnavailableError("no reward server is healthy");
  const std::string& server = servers[next_server_++ % servers.size()];
  v1::ScoreReply all;
  for (int begin = 0; begin < request.items_size(); begin += kScoreBatch) {
    const int end = std::min(begin + kScoreBatch, request.items_size());
    v1::ScoreRequest part = request;
    part.mutable_items()->DeleteSubrange(end, request.items_size() - end);
    part.mutable_items()->DeleteSubrange(0, begin);
    const absl::Duration timeout =
        absl::Seconds(request.sample_timeout_seconds()) * (1 + (end - begin) / kSamplesPerTimeout) +
        absl::Seconds(5);
    TEMPER_ASSIGN_OR_RETURN(v1::ScoreReply reply, options_.peers->Score(server, part, timeout));
    if (reply.scores_size() != end - begin) {
      return absl::UnavailableError(absl::StrCat("the reward server at ", server, " answered ",
                                                 reply.scores_size(), " scores for ", end - begin,
                                                 " completions"));
    }
    all.MergeFrom(reply);
  }
  return all;
}

absl::StatusOr<v1::ScoreReply> Delivery::Score(const GeneratedLease& generated) {
  auto request = ScoreRequestFor(*options_.setup, generated);
  if (!request.ok()) return absl::FailedPreconditionError(request.status().message());
  int scorings = 0;
  std::string last_reason;
  for (int tries = 1;; ++tries) {
    auto reply = ScoreOnce(*request);
    if (options_.halt->StopRequested()) return absl::CancelledError("the worker stops");
    if (reply.ok()) ++scorings;
    const DeliveryDecision decision = AfterScoring(Standing(generated.lease), reply.status(),
                                                   reply.ok() ? CountFailed(*reply) : 0, scorings);
    switch (decision.move) {
      case NextMove::kDone:
        return reply;
      case NextMove::kFail:
        return absl::FailedPreconditionError(decision.reason);
      case NextMove::kDrop:
        return absl::CancelledError(decision.reason);
      case NextMove::kRetry:
        if (decision.reason != last_reason) {
          last_reason = decision.reason;
          base::LogWarning(
              "score_retry",
              {{"lease", generated.lease.lease_id()}, {"try", tries}, {"reason", decision.reason}});
        }
        if (!BackOff(tries)) return absl::CancelledError("the worker stops");
    }
  }
}

absl::StatusOr<v1::CompletedAttempt> Delivery::Submit(const GeneratedLease& generated, int index,
                                                      const v1::ScoreReply& scores,
                                                      absl::Duration score_time) {
  const v1::SubmitGroupRequest request = SubmissionFor(
      *options_.setup, generated, index, scores, options_.membership->member_id(), score_time);
  v1::CompletedAttempt attempt;
  *attempt.mutable_ref() = request.ref();
  attempt.set_seconds(absl::ToDoubleSeconds(generated.generate_time + score_time));
  uint64_t tokens = 0;
  for (const v1::Completion& completion : request.completions()) {
    tokens += static_cast<uint64_t>(completion.token_ids_size());
    if (!completion.score().failed()) continue;
    attempt.set_ending(v1::ENDING_REWARD_FAILED);
    attempt.set_detail(absl::StrCat("a completion had no score: ", completion.score().failure()));
  }
  attempt.set_tokens_generated(tokens);
  if (attempt.ending() != v1::ENDING_UNSPECIFIED) return attempt;
  for (int tries = 1;; ++tries) {
    const std::vector<std::string> learner =
        member::PeerAddresses(options_.membership->view(), v1::ROLE_LEARNER);
    absl::StatusOr<v1::SubmitGroupReply> reply = absl::UnavailableError("no learner is there");
    if (!learner.empty()) {
      reply = options_.peers->SubmitGroup(learner.front(), request, kSubmitTimeout);
    }
    if (options_.halt->StopRequested() && !reply.ok()) {
      return absl::CancelledError("the worker stops");
    }
    const DeliveryDecision decision = AfterSubmit(Standing(generated.lease), reply.status());
    if (decision.move == NextMove::kDone) {
      options_.metrics->CountGroup(member::VerdictName(reply->verdict()));
      if (!reply->reason().empty() && reply->verdict() != v1::SUBMIT_VERDICT_ADMITTED) {
        attempt.set_detail(reply->reason());
      }
      return attempt;
    }
    if (decision.move == NextMove::kDrop) return absl::CancelledError(decision.reason);
    if (decision.move == NextMove::kFail) {
      attempt.set_ending(decision.ending);
      attempt.set_detail(decision.reason);
      return attempt;
    }
    if (tries == 1) {
      base::LogWarning("submit_retry",
                       {{"group", request.ref().group_index()}, {"reason", decision.reason}});
    }
    if (!BackOff(tries)) return absl::CancelledError("the worker stops");
  }
}

void Delivery::DeliverTraining(const GeneratedLease& generated, const v1::ScoreReply& scores,
                               absl::Duration score_time) {
  v1::CompleteWorkRequest complete;
  for (int i = 0; i < generated.lease.train_size(); ++i) {
    const v1::GroupRef& ref = generated.lease.train(i).ref();
    auto attempt = Submit(generated, i, scores, score_time);
    if (attempt.ok()) {
      if (attempt->ending() == v1::ENDING_REWARD_FAILED) {
        options_.metrics->CountGroup("reward_failed");
      }
      if (attempt->ending() == v1::ENDING_GENERATION_FAILED) {
        options_.metrics->CountGroup("generation_failed");
      }
      *complete.add_attempts() = *std::move(attempt);
      options_.leases->Release(generated.lease.lease_id(), ref);
      continue;
    }
    if (options_.halt->StopRequested()) break;  // Leave hands the rest back
    options_.metrics->CountGroup("lease_lost");
    base::LogWarning("group_lost", {{"group", ref.group_index()},
                                    {"attempt", ref.attempt()},
                                    {"reason", attempt.status().ToString()}});
  }
  if (!complete.attempts().empty()) {
    const absl::Status status = options_.peers->CompleteWork(complete);
    if (!status.ok()) {
      // A hint that was lost: the learner's answer stands, and leases end by themselves.
      base::LogWarning("complete_work_failed",
                       {{"lease", generated.lease.lease_id()}, {"error", status.ToString()}});
    }
  }
  if (!options_.halt->StopRequested()) options_.leases->Close(generated.lease.lease_id());
}

void Delivery::DeliverEvaluation(const GeneratedLease& generated, const v1::ScoreReply& scores) {
  v1::ReportEvalItemRequest report = EvalReportFor(*options_.setup, generated, scores);
  if (const int failed = CountFailed(scores); failed > 0) {
    report.clear_outcomes();
    report.clear_injections();
    report.set_failure(absl::StrCat(failed, " completions had no score"));
  } else if (const absl::Status seen = CheckEvalNoise(*options_.setup, generated); !seen.ok()) {
    report.set_failure(std::string(seen.message()));
  }
  Report(generated.lease, report);
}

void Delivery::Report(const v1::Lease& lease, const v1::ReportEvalItemRequest& report) {
  for (int tries = 1;; ++tries) {
    const auto reply = options_.peers->ReportEvalItem(report);
    const DeliveryDecision decision = AfterSubmit(Standing(lease), reply.status());
    if (decision.move == NextMove::kDone) {
      options_.metrics->CountGroup("eval_item");
      if (!reply->recorded()) {
        base::LogWarning("eval_item_passed_over",
                         {{"item", report.item_index()}, {"reason", reply->reason()}});
      }
    } else if (decision.move == NextMove::kRetry && BackOff(tries)) {
      continue;
    } else if (!options_.halt->StopRequested()) {
      base::LogWarning("eval_item_lost",
                       {{"item", report.item_index()}, {"reason", decision.reason}});
    }
    options_.leases->Close(lease.lease_id());
    return;
  }
}

void Delivery::GiveUp(const v1::Lease& lease, v1::Ending ending, const std::string& why) {
  base::LogWarning(
      "lease_failed",
      {{"lease", lease.lease_id()}, {"ending", v1::Ending_Name(ending)}, {"reason", why}});
  if (lease.has_eval()) {
    v1::ReportEvalItemRequest report;
    report.set_timeline(lease.timeline());
    report.set_item_index(lease.eval().item_index());
    report.set_attempt(lease.eval().attempt());
    report.set_failure(why.empty() ? v1::Ending_Name(ending) : why);
    return Report(lease, report);
  }
  v1::CompleteWorkRequest complete;
  for (const v1::TrainItem& item : lease.train()) {
    v1::CompletedAttempt& attempt = *complete.add_attempts();
    *attempt.mutable_ref() = item.ref();
    attempt.set_ending(ending);
    attempt.set_detail(why);
    options_.metrics->CountGroup(ending == v1::ENDING_REWARD_FAILED ? "reward_failed"
                                                                    : "generation_failed");
  }
  const absl::Status status = options_.peers->CompleteWork(complete);
  if (!status.ok()) {
    base::LogWarning("complete_work_failed",
                     {{"lease", lease.lease_id()}, {"error", status.ToString()}});
  }
  options_.leases->Close(lease.lease_id());
}

}  // namespace temper::rollout_worker
