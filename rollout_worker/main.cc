// temper-rollout-worker: generates the completions of leased groups. It joins by the orchestrator's
// address alone; configuration, model, weights and work come over the wire. Stopping, in order
// (worker.cc): take no more leases, end generation at the next decode step, join the threads, leave
// the run.

#include <memory>
#include <utility>

#include "rollout_worker/model_pull.h"
#include "rollout_worker/prepare_sampler.h"
#include "rollout_worker/worker.h"
#include "services/base/address.h"
#include "services/base/signals.h"
#include "services/base/status_macros.h"
#include "services/member/membership_client.h"
#include "services/member/process.h"
#include "services/metrics/http_endpoint.h"
#include "weights/back_end.h"

namespace temper::rollout_worker {
namespace {

constexpr char kRole[] = "rollout_worker";

absl::Status Serve(const member::ProcessFlags& flags) {
  if (flags.join.empty()) {
    return absl::InvalidArgumentError("--join: the orchestrator's host:port is needed");
  }
  base::StopToken stop;
  TEMPER_ASSIGN_OR_RETURN(const auto signals, base::SignalWatcher::Create(&stop));
  metrics::MetricsRegistry registry;
  rpc::RpcMetrics rpc_metrics(&registry);
  TEMPER_ASSIGN_OR_RETURN(const base::HostPort http, base::ParseHostPort(flags.metrics_listen));
  TEMPER_ASSIGN_OR_RETURN(const auto endpoint,
                          metrics::HttpEndpoint::Create({.host = http.host,
                                                         .port = http.port,
                                                         .insecure_network = flags.insecure_network,
                                                         .registry = &registry}));
  member::PrintStartLine(kRole, "", endpoint->address());
  TEMPER_ASSIGN_OR_RETURN(const auto membership,
                          member::MembershipClient::Create({.orchestrator_address = flags.join,
                                                            .role = v1::ROLE_ROLLOUT_WORKER,
                                                            .member_id = flags.member_id,
                                                            .incarnation = flags.incarnation,
                                                            .metrics_address = endpoint->address(),
                                                            .stop = &stop,
                                                            .leave_signal = &stop,
                                                            .tls = flags.tls,
                                                            .metrics = &rpc_metrics}));
  std::unique_ptr<RunSetup> setup;
  const absl::StatusOr<std::unique_ptr<Sampler>> sampler = PrepareSampler(
      {.membership = membership.get(), .tls = flags.tls, .stop = &stop, .metrics = &rpc_metrics},
      &setup);
  if (absl::IsCancelled(sampler.status()) && stop.StopRequested()) {
    return LeaveBeforeWork(membership.get());
  }
  TEMPER_RETURN_IF_ERROR(sampler.status());
  TEMPER_ASSIGN_OR_RETURN(std::shared_ptr<weights::CollectiveBackEnd> back_end,
                          weights::MakeBackEnd(setup->config.weights().broadcaster()));
  RolloutWorker worker({.membership = membership.get(),
                        .setup = setup.get(),
                        .sampler = sampler->get(),
                        .registry = &registry,
                        .rpc_metrics = &rpc_metrics,
                        .back_end = std::move(back_end),
                        .tls = flags.tls,
                        .stop = &stop});
  return worker.Run();
}

}  // namespace
}  // namespace temper::rollout_worker

int main(int argc, char** argv) {
  using namespace temper;
  const auto flags =
      member::ParseProcessFlags(argc, argv, "Generates completions under simulated error.");
  if (!flags.ok()) return member::ExitWith("temper-rollout-worker", flags.status());
  if (!flags->help.empty()) return member::PrintHelp(*flags);
  absl::Status status = member::StartProcess(*flags, rollout_worker::kRole);
  if (status.ok()) status = rollout_worker::Serve(*flags);
  return member::ExitWith("temper-rollout-worker", status);
}
