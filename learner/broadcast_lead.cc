#include "learner/broadcast_lead.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "learner/broadcast_policy.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"
#include "weights/back_end.h"

namespace temper::learner {
namespace {

using weights::EpochEvent;
using weights::EpochPhase;

// Members that a group waits for fall back to pulling; they are not kept from it for longer.
constexpr absl::Duration kLongestForming = absl::Seconds(20);
// Of one call to the orchestrator: shorter than an abort may take (EpochOptions::abort_timeout).
constexpr absl::Duration kAnnouncePatience = absl::Seconds(4);
constexpr absl::Duration kEndPatience = absl::Seconds(2);

absl::Status Announce(const BroadcastLeadOptions& options, uint64_t comm_epoch,
                      const std::string& id, const std::vector<std::string>& members,
                      absl::Time deadline) {
  v1::FormBroadcastGroupRequest request;
  request.set_run_id(options.run_id);
  request.set_timeline(options.timeline);
  request.set_learner_incarnation(options.incarnation);
  request.set_comm_epoch(comm_epoch);
  request.set_id(id);
  for (const std::string& name : members) *request.add_members() = BroadcastPeerOf(name);
  return options.orchestrator->FormBroadcastGroup(
      request, std::min(deadline, absl::Now() + kAnnouncePatience));
}

void End(const BroadcastLeadOptions& options, uint64_t comm_epoch) {
  v1::EndBroadcastGroupRequest request;
  request.set_run_id(options.run_id);
  request.set_timeline(options.timeline);
  request.set_learner_incarnation(options.incarnation);
  request.set_comm_epoch(comm_epoch);
  const absl::Status told =
      options.orchestrator->EndBroadcastGroup(request, absl::Now() + kEndPatience);
  if (!told.ok()) {  // members then leave the epoch at their deadline
    base::LogWarning("broadcast_end_untold",
                     {{"comm_epoch", comm_epoch}, {"error", told.ToString()}});
  }
}

void Observe(const weights::GroupChange& change, LearnerMetrics* metrics) {
  const weights::EpochState& state = change.move->state;
  base::LogInfo("broadcast_group", {{"phase", weights::EpochPhaseName(change.to)},
                                    {"comm_epoch", state.comm_epoch},
                                    {"members", state.group.size()},
                                    {"reason", change.move->reason}});
  const auto outcome = BroadcastOutcome(change);
  if (outcome.has_value()) metrics->Broadcast(*outcome);
  if (outcome == "sent") metrics->broadcast_seconds.Observe(absl::ToDoubleSeconds(change.in_from));
  if (change.event->kind == EpochEvent::Kind::kFormed && change.from == EpochPhase::kForming) {
    metrics->broadcast_groups.Increment();
  }
  const bool stands = change.to == EpochPhase::kReady || change.to == EpochPhase::kBroadcasting;
  metrics->broadcast_members.Set(stands ? static_cast<double>(state.group.size()) : 0.0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<weights::GroupRunner>> LeadBroadcasts(
    const BroadcastLeadOptions& options) {
  TEMPER_ASSIGN_OR_RETURN(std::shared_ptr<weights::CollectiveBackEnd> back_end,
                          weights::MakeBackEnd(options.config.broadcaster()));
  if (back_end == nullptr) return std::unique_ptr<weights::GroupRunner>();
  const std::string host =
      weights::SpansHosts(options.config.broadcaster()) ? "" : member::HostName();
  const absl::Duration limit = absl::Seconds(options.config.broadcast_timeout_seconds());
  return std::make_unique<weights::GroupRunner>(weights::GroupRunnerOptions{
      .back_end = std::move(back_end),
      .candidates = [membership = options.membership,
                     host] { return BroadcastCandidates(membership->view().peers, host); },
      .announce =
          [options](uint64_t comm_epoch, const std::string& id,
                    const std::vector<std::string>& members, absl::Time deadline) {
            return Announce(options, comm_epoch, id, members, deadline);
          },
      .end = [options](uint64_t comm_epoch) { End(options, comm_epoch); },
      .observe = [metrics = options.metrics](
                     const weights::GroupChange& change) { Observe(change, metrics); },
      .form_timeout = std::min(kLongestForming, limit),
      .broadcast_timeout = limit});
}

}  // namespace temper::learner
