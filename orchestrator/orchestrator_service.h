#pragma once

// The gRPC face of the coordinator: each method calls it, then lets those who wait for work look
// again. No logic.

#include <functional>
#include <string_view>

#include "orchestrator/coordinator.h"
#include "orchestrator/ledger_snapshots.h"
#include "orchestrator/work_waiters.h"
#include "services/rpc/rpc_metrics.h"
#include "temper/v1/orchestrator.grpc.pb.h"

namespace temper::orchestrator {

class OrchestratorService final : public v1::OrchestratorService::CallbackService {
 public:
  // All outlive the service. on_change (quick, thread-safe): after every message that may have
  // changed when the next thing is due.
  OrchestratorService(Coordinator* coordinator, WorkWaiters* waiters, LedgerSnapshots* snapshots,
                      rpc::RpcMetrics* metrics, std::function<void()> on_change)
      : coordinator_(coordinator),
        waiters_(waiters),
        snapshots_(snapshots),
        metrics_(metrics),
        on_change_(std::move(on_change)) {}

  using Reactor = grpc::ServerUnaryReactor;
  using Context = grpc::CallbackServerContext;
  Reactor* Join(Context*, const v1::JoinRequest*, v1::JoinReply*) override;
  Reactor* Heartbeat(Context*, const v1::HeartbeatRequest*, v1::HeartbeatReply*) override;
  Reactor* Leave(Context*, const v1::LeaveRequest*, v1::LeaveReply*) override;
  Reactor* AcquireWork(Context*, const v1::AcquireWorkRequest*, v1::AcquireWorkReply*) override;
  Reactor* CompleteWork(Context*, const v1::CompleteWorkRequest*, v1::CompleteWorkReply*) override;
  Reactor* ReportEvalItem(Context*, const v1::ReportEvalItemRequest*,
                          v1::ReportEvalItemReply*) override;
  Reactor* AcknowledgeWeights(Context*, const v1::AcknowledgeWeightsRequest*,
                              v1::AcknowledgeWeightsReply*) override;
  Reactor* GetManifest(Context*, const v1::GetManifestRequest*, v1::GetManifestReply*) override;
  Reactor* BeginTimeline(Context*, const v1::BeginTimelineRequest*,
                         v1::BeginTimelineReply*) override;
  Reactor* AdmitGroup(Context*, const v1::AdmitGroupRequest*, v1::AdmitGroupReply*) override;
  Reactor* CommitStep(Context*, const v1::CommitStepRequest*, v1::CommitStepReply*) override;
  Reactor* PublishManifest(Context*, const v1::PublishManifestRequest*,
                           v1::PublishManifestReply*) override;
  Reactor* FormBroadcastGroup(Context*, const v1::FormBroadcastGroupRequest*,
                              v1::FormBroadcastGroupReply*) override;
  Reactor* EndBroadcastGroup(Context*, const v1::EndBroadcastGroupRequest*,
                             v1::EndBroadcastGroupReply*) override;
  Reactor* GetBroadcastGroup(Context*, const v1::GetBroadcastGroupRequest*,
                             v1::GetBroadcastGroupReply*) override;
  grpc::ServerWriteReactor<v1::FileChunk>* SnapshotLedger(
      Context*, const v1::SnapshotLedgerRequest*) override;
  Reactor* GetStatus(Context*, const v1::GetStatusRequest*, v1::GetStatusReply*) override;
  Reactor* SetDesired(Context*, const v1::SetDesiredRequest*, v1::SetDesiredReply*) override;
  Reactor* StopRun(Context*, const v1::StopRunRequest*, v1::StopRunReply*) override;

 private:
  // A message that can make work available or end the run.
  template <typename Request, typename Reply>
  Reactor* Change(Context* context, std::string_view method,
                  absl::Status (Coordinator::*handler)(const Request&, Reply*),
                  const Request* request, Reply* reply);
  // One that cannot.
  template <typename Request, typename Reply>
  Reactor* Look(Context* context, std::string_view method,
                absl::Status (Coordinator::*handler)(const Request&, Reply*),
                const Request* request, Reply* reply);

  Coordinator* const coordinator_;
  WorkWaiters* const waiters_;
  LedgerSnapshots* const snapshots_;
  rpc::RpcMetrics* const metrics_;
  const std::function<void()> on_change_;
};

}  // namespace temper::orchestrator
