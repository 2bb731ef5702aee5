// temper-reward-server: scores completions; stateless. Stopping, in order: leave the run (no worker
// is sent here any more), answer what runs, close the scorer, exit.

#include "reward_server/reward_service.h"
#include "services/base/address.h"
#include "services/base/signals.h"
#include "services/base/status_macros.h"
#include "services/member/membership_client.h"
#include "services/member/process.h"
#include "services/metrics/http_endpoint.h"
#include "services/rpc/server.h"

namespace temper::reward_server {
namespace {

constexpr char kRole[] = "reward_server";
// A batch takes milliseconds; a client that is idle can hold its connection up to this bound.
constexpr absl::Duration kDrain = absl::Seconds(2);

absl::Status Serve(const member::ProcessFlags& flags) {
  base::StopToken stop;
  TEMPER_ASSIGN_OR_RETURN(const auto signals, base::SignalWatcher::Create(&stop));
  metrics::MetricsRegistry registry;
  RewardMetrics reward_metrics(&registry);
  rpc::RpcMetrics rpc_metrics(&registry);
  TEMPER_ASSIGN_OR_RETURN(const base::HostPort http, base::ParseHostPort(flags.metrics_listen));
  TEMPER_ASSIGN_OR_RETURN(const auto endpoint,
                          metrics::HttpEndpoint::Create({.host = http.host,
                                                         .port = http.port,
                                                         .insecure_network = flags.insecure_network,
                                                         .registry = &registry}));
  TEMPER_ASSIGN_OR_RETURN(const auto scorer, BatchScorer::Create({.metrics = &reward_metrics}));
  RewardService service(scorer.get(), &rpc_metrics);
  TEMPER_ASSIGN_OR_RETURN(const auto server,
                          rpc::RpcServer::Create({.listen_address = flags.listen,
                                                  .services = {&service},
                                                  .tls = flags.tls,
                                                  .insecure_network = flags.insecure_network,
                                                  .advertise_towards = flags.join}));
  member::PrintStartLine(kRole, server->address(), endpoint->address());
  absl::Status end;
  if (flags.join.empty()) {  // serves whoever calls, outside of any run
    stop.WaitUntil(absl::InfiniteFuture());
  } else {
    end = member::BelongUntilStopped({.orchestrator_address = flags.join,
                                      .role = v1::ROLE_REWARD_SERVER,
                                      .member_id = flags.member_id,
                                      .incarnation = flags.incarnation,
                                      .address = server->address(),
                                      .metrics_address = endpoint->address(),
                                      .stop = &stop,
                                      .leave_signal = &stop,
                                      .tls = flags.tls,
                                      .metrics = &rpc_metrics});
  }
  server->Shutdown(kDrain);
  scorer->Close();
  return end;
}

}  // namespace
}  // namespace temper::reward_server

int main(int argc, char** argv) {
  using namespace temper;
  const auto flags = member::ParseProcessFlags(argc, argv, "Scores completions of word problems.");
  if (!flags.ok()) return member::ExitWith("temper-reward-server", flags.status());
  if (!flags->help.empty()) return member::PrintHelp(*flags);
  absl::Status status = member::StartProcess(*flags, reward_server::kRole);
  if (status.ok()) status = reward_server::Serve(*flags);
  return member::ExitWith("temper-reward-server", status);
}
