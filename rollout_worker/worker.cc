#include "rollout_worker/worker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"

namespace temper::rollout_worker {
namespace {

// A lease must find its version held within this; installations take seconds at most.
constexpr absl::Duration kUseWait = absl::Seconds(30);
// An answer without work that comes earlier than this is not followed by the next poll at once.
constexpr absl::Duration kPause = absl::Milliseconds(100);
constexpr absl::Duration kLeaveTimeout = absl::Seconds(3);
// Waits on things other than `stop` are cut into pieces of this, so that a stop is seen.
constexpr absl::Duration kSlice = absl::Milliseconds(250);

}  // namespace

RolloutWorker::RolloutWorker(const WorkerOptions& options)
    : options_(options),
      metrics_(options.registry),
      peers_({.orchestrator = options.membership->channel(),
              .run_id = options.membership->run_id(),
              .member_id = options.membership->member_id(),
              .incarnation = options.membership->incarnation(),
              .tls = options.tls,
              .stop = options.stop,
              .metrics = options.rpc_metrics}),
      leases_([membership = options.membership](std::vector<v1::GroupRef> holding) {
        membership->SetHolding(std::move(holding));
      }),
      keeper_({.setup = options.setup,
               .membership = options.membership,
               .peers = &peers_,
               .sampler = options.sampler,
               .metrics = &metrics_,
               .back_end = options.back_end,
               .tls = options.tls,
               .halt = options.stop}),
      delivery_({.setup = options.setup,
                 .membership = options.membership,
                 .peers = &peers_,
                 .leases = &leases_,
                 .metrics = &metrics_,
                 .halt = options.stop}),
      generated_(1) {}

RolloutWorker::~RolloutWorker() = default;

absl::Status RolloutWorker::Run() {
  keeper_.Start();
  delivery_thread_ = std::thread([this] { DeliverQueued(); });
  work_thread_ = std::thread([this] { Work(); });
  // The membership ends every run: by its state, by a drain, or after silence_limit without answer.
  options_.stop->WaitUntil(absl::InfiniteFuture());
  work_thread_.join();
  generated_.Close();
  delivery_thread_.join();
  keeper_.Stop();
  const member::MembershipView view = options_.membership->view();
  base::LogInfo("worker_leaves", {{"leases_handed_back", leases_.size()},
                                  {"reason", view.leave ? view.leave_reason : "stopped"}});
  const absl::Status left = options_.membership->Leave(kLeaveTimeout);
  if (!left.ok()) base::LogWarning("leave_failed", {{"error", left.ToString()}});
  TEMPER_RETURN_IF_ERROR(keeper_.failure());
  return view.leave ? view.end : absl::OkStatus();
}

void RolloutWorker::Work() {
  int failures = 0;
  while (!options_.stop->StopRequested()) {
    const absl::Time begun = absl::Now();
    std::optional<VersionKey> asked;
    auto reply = Acquire(&asked);
    metrics_.acquire_wait_seconds.Observe(absl::ToDoubleSeconds(absl::Now() - begun));
    if (options_.stop->StopRequested()) return;  // Leave hands back what the answer may have held
    if (!reply.ok()) {
      if (++failures == 1) {
        base::LogWarning("acquire_failed", {{"error", reply.status().ToString()}});
      }
      options_.stop->WaitFor(DeliveryBackoff(failures));
      continue;
    }
    failures = 0;
    if (reply->has_lease()) {
      Carry(reply->lease());
    } else if (absl::Now() - begun < kPause) {
      keeper_.AwaitHeld(asked, absl::Now() + kPause);  // most often newer weights are on their way
    }
  }
}

absl::StatusOr<v1::AcquireWorkReply> RolloutWorker::Acquire(std::optional<VersionKey>* asked) {
  const member::MembershipView view = options_.membership->view();
  std::optional<VersionKey> held = keeper_.Held();
  // A poll with an outdated version gets no work: let the keeper catch up first, within reason.
  if (NextFetch(view.timeline, view.latest_version, held).fetch.has_value()) {
    held = keeper_.AwaitHeld(held, absl::Now() + kSlice);
  }
  *asked = held;
  v1::AcquireWorkRequest request;
  if (held.has_value()) {
    request.set_acknowledged_timeline(held->timeline);
    request.set_acknowledged_version(held->version);
    request.set_has_version(true);
  }
  request.set_wait_seconds(absl::ToDoubleSeconds(options_.poll));
  TEMPER_ASSIGN_OR_RETURN(v1::AcquireWorkReply reply, peers_.AcquireWork(std::move(request)));
  const bool news = reply.timeline() != view.timeline ||
                    (reply.has_version() && reply.latest_version() != view.latest_version);
  if (news) options_.membership->BeatNow();  // the view is where versions are heard of
  return reply;
}

void RolloutWorker::Carry(const v1::Lease& lease) {
  const absl::Status valid = CheckLease(*options_.setup, lease);
  leases_.Add(lease, absl::Now());
  if (!valid.ok()) {
    return delivery_.GiveUp(lease, v1::ENDING_GENERATION_FAILED, std::string(valid.message()));
  }
  auto generated = Generate(lease);
  if (generated.ok()) return HandOver(*std::move(generated));
  if (options_.stop->StopRequested()) return;  // Leave hands it back
  const LeaseStanding standing = leases_.Check(lease.lease_id(), WeatherOf(*options_.membership));
  if (standing != LeaseStanding::kHeld) {
    base::LogWarning("lease_lost",
                     {{"lease", lease.lease_id()}, {"reason", LeaseStandingName(standing)}});
    for (int i = 0; i < lease.train_size(); ++i) metrics_.CountGroup("lease_lost");
    return leases_.Close(lease.lease_id());
  }
  delivery_.GiveUp(lease, v1::ENDING_GENERATION_FAILED, generated.status().ToString());
}

absl::StatusOr<GeneratedLease> RolloutWorker::Generate(const v1::Lease& lease) {
  const bool exact = options_.setup->synchronous() || lease.has_eval();
  PlannedBatch batch;
  TEMPER_RETURN_IF_ERROR(PlanBatch(*options_.setup, lease, &batch));
  TEMPER_ASSIGN_OR_RETURN(
      model::InstalledWeights claimed,
      keeper_.BeginUse({lease.timeline(), lease.version()}, exact, absl::Now() + kUseWait));
  const absl::Time begun = absl::Now();
  model::GenerateHooks hooks;
  hooks.between_steps = [&](const model::StepState& state) {
    return BetweenSteps(lease, exact, state.version);
  };
  // The engine may hold a newer version that is not acknowledged yet: it decodes with what is held.
  hooks.weights = [&] {
    return claimed != nullptr ? std::exchange(claimed, nullptr)
                              : keeper_.HeldWeights(lease.timeline());
  };
  auto result = options_.sampler->Generate(batch.request, hooks);
  keeper_.EndUse();
  TEMPER_RETURN_IF_ERROR(result.status());
  TEMPER_RETURN_IF_ERROR(CheckResult(lease, batch.request, *result, exact));
  GeneratedLease generated{
      .lease = lease, .result = *std::move(result), .generate_time = absl::Now() - begun};
  for (model::PromptGroup& group : batch.request.groups) {
    generated.prompt_ids.push_back(std::move(group.prompt_ids));
  }
  metrics_.generate_seconds.Observe(absl::ToDoubleSeconds(generated.generate_time));
  metrics_.tokens.Increment(static_cast<double>(generated.result.generated_tokens));
  metrics_.weight_swaps.Increment(static_cast<double>(generated.result.swaps));
  numerics::NoiseCounters counted;
  for (const model::GeneratedGroup& group : generated.result.groups) counted.Merge(group.counters);
  metrics_.CountNoise(counted);
  return generated;
}

model::StepDecision RolloutWorker::BetweenSteps(const v1::Lease& lease, bool exact,
                                                uint64_t version_in_use) {
  if (options_.stop->StopRequested()) return model::StepDecision::kCancel;
  if (leases_.Check(lease.lease_id(), WeatherOf(*options_.membership)) != LeaseStanding::kHeld) {
    return model::StepDecision::kCancel;
  }
  if (!exact && keeper_.NewerThan(lease.timeline(), version_in_use)) {
    return model::StepDecision::kSwapWeights;
  }
  return model::StepDecision::kContinue;
}

void RolloutWorker::HandOver(GeneratedLease generated) {
  const uint64_t lease_id = generated.lease.lease_id();
  while (!options_.stop->StopRequested()) {
    const absl::Status pushed = generated_.Push(std::move(generated), absl::Now() + kSlice);
    if (pushed.ok()) {
      metrics_.deliveries_waiting.Set(static_cast<double>(generated_.size()));
      return;
    }
    if (leases_.Check(lease_id, WeatherOf(*options_.membership)) != LeaseStanding::kHeld) {
      base::LogWarning("lease_lost", {{"lease", lease_id}, {"reason", "waiting for delivery"}});
      return leases_.Close(lease_id);
    }
  }
}

void RolloutWorker::DeliverQueued() {
  while (!options_.stop->StopRequested()) {
    auto generated = generated_.Pop(absl::Now() + kSlice);
    metrics_.deliveries_waiting.Set(static_cast<double>(generated_.size()));
    if (generated.ok()) {
      delivery_.Deliver(*generated);
    } else if (absl::IsCancelled(generated.status())) {
      return;
    }
  }
}

}  // namespace temper::rollout_worker
