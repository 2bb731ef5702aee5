#include "orchestrator/orchestrator_service.h"

#include "services/base/status_macros.h"
#include "services/rpc/reply.h"
#include "services/rpc/stream.h"

namespace temper::orchestrator {

namespace {

constexpr size_t kChunkBytes = 1 << 20;

// Cuts a copy of the ledger, which it holds, into chunks.
class CopyCutter {
 public:
  explicit CopyCutter(std::shared_ptr<const LedgerCopy> copy) : copy_(std::move(copy)) {}

  absl::StatusOr<bool> operator()(v1::FileChunk* chunk) {
    if (offset_ == copy_->size_bytes()) return false;
    chunk->set_name("ledger.db");
    chunk->set_offset_bytes(offset_);
    chunk->set_size_bytes(copy_->size_bytes());
    chunk->set_xxh3(copy_->xxh3());
    TEMPER_ASSIGN_OR_RETURN(*chunk->mutable_payload(), copy_->Read(offset_, kChunkBytes));
    if (chunk->payload().empty()) return absl::DataLossError("the ledger's copy was cut off");
    offset_ += chunk->payload().size();
    return true;
  }

 private:
  std::shared_ptr<const LedgerCopy> copy_;
  uint64_t offset_ = 0;
};

}  // namespace

using Reactor = OrchestratorService::Reactor;
using Context = OrchestratorService::Context;

template <typename Request, typename Reply>
Reactor* OrchestratorService::Look(Context* context, std::string_view method,
                                   absl::Status (Coordinator::*handler)(const Request&, Reply*),
                                   const Request* request, Reply* reply) {
  return rpc::Reply(context, metrics_, method,
                    [&] { return (coordinator_->*handler)(*request, reply); });
}

template <typename Request, typename Reply>
Reactor* OrchestratorService::Change(Context* context, std::string_view method,
                                     absl::Status (Coordinator::*handler)(const Request&, Reply*),
                                     const Request* request, Reply* reply) {
  Reactor* reactor = Look(context, method, handler, request, reply);
  waiters_->LookAgain();
  on_change_();
  return reactor;
}

Reactor* OrchestratorService::AcquireWork(Context*, const v1::AcquireWorkRequest* request,
                                          v1::AcquireWorkReply* reply) {
  Reactor* reactor = waiters_->Add(request, reply);
  on_change_();
  return reactor;
}

Reactor* OrchestratorService::Join(Context* context, const v1::JoinRequest* request,
                                   v1::JoinReply* reply) {
  return Change(context, "Join", &Coordinator::Join, request, reply);
}

Reactor* OrchestratorService::Leave(Context* context, const v1::LeaveRequest* request,
                                    v1::LeaveReply* reply) {
  return Change(context, "Leave", &Coordinator::Leave, request, reply);
}

Reactor* OrchestratorService::CompleteWork(Context* context, const v1::CompleteWorkRequest* request,
                                           v1::CompleteWorkReply* reply) {
  return Change(context, "CompleteWork", &Coordinator::CompleteWork, request, reply);
}

Reactor* OrchestratorService::ReportEvalItem(Context* context,
                                             const v1::ReportEvalItemRequest* request,
                                             v1::ReportEvalItemReply* reply) {
  return Change(context, "ReportEvalItem", &Coordinator::ReportEvalItem, request, reply);
}

Reactor* OrchestratorService::AcknowledgeWeights(Context* context,
                                                 const v1::AcknowledgeWeightsRequest* request,
                                                 v1::AcknowledgeWeightsReply* reply) {
  return Change(context, "AcknowledgeWeights", &Coordinator::AcknowledgeWeights, request, reply);
}

Reactor* OrchestratorService::BeginTimeline(Context* context,
                                            const v1::BeginTimelineRequest* request,
                                            v1::BeginTimelineReply* reply) {
  return Change(context, "BeginTimeline", &Coordinator::BeginTimeline, request, reply);
}

Reactor* OrchestratorService::AdmitGroup(Context* context, const v1::AdmitGroupRequest* request,
                                         v1::AdmitGroupReply* reply) {
  return Change(context, "AdmitGroup", &Coordinator::AdmitGroup, request, reply);
}

Reactor* OrchestratorService::CommitStep(Context* context, const v1::CommitStepRequest* request,
                                         v1::CommitStepReply* reply) {
  return Change(context, "CommitStep", &Coordinator::CommitStep, request, reply);
}

Reactor* OrchestratorService::PublishManifest(Context* context,
                                              const v1::PublishManifestRequest* request,
                                              v1::PublishManifestReply* reply) {
  return Change(context, "PublishManifest", &Coordinator::PublishManifest, request, reply);
}

Reactor* OrchestratorService::SetDesired(Context* context, const v1::SetDesiredRequest* request,
                                         v1::SetDesiredReply* reply) {
  return Change(context, "SetDesired", &Coordinator::SetDesired, request, reply);
}

Reactor* OrchestratorService::StopRun(Context* context, const v1::StopRunRequest* request,
                                      v1::StopRunReply* reply) {
  return Change(context, "StopRun", &Coordinator::StopRun, request, reply);
}

Reactor* OrchestratorService::Heartbeat(Context* context, const v1::HeartbeatRequest* request,
                                        v1::HeartbeatReply* reply) {
  return Look(context, "Heartbeat", &Coordinator::Heartbeat, request, reply);
}

Reactor* OrchestratorService::GetManifest(Context* context, const v1::GetManifestRequest* request,
                                          v1::GetManifestReply* reply) {
  return Look(context, "GetManifest", &Coordinator::GetManifest, request, reply);
}

Reactor* OrchestratorService::GetStatus(Context* context, const v1::GetStatusRequest* request,
                                        v1::GetStatusReply* reply) {
  return Look(context, "GetStatus", &Coordinator::GetStatus, request, reply);
}

Reactor* OrchestratorService::FormBroadcastGroup(Context* context,
                                                 const v1::FormBroadcastGroupRequest* request,
                                                 v1::FormBroadcastGroupReply* reply) {
  return Look(context, "FormBroadcastGroup", &Coordinator::FormBroadcastGroup, request, reply);
}

Reactor* OrchestratorService::EndBroadcastGroup(Context* context,
                                                const v1::EndBroadcastGroupRequest* request,
                                                v1::EndBroadcastGroupReply* reply) {
  return Look(context, "EndBroadcastGroup", &Coordinator::EndBroadcastGroup, request, reply);
}

Reactor* OrchestratorService::GetBroadcastGroup(Context* context,
                                                const v1::GetBroadcastGroupRequest* request,
                                                v1::GetBroadcastGroupReply* reply) {
  return Look(context, "GetBroadcastGroup", &Coordinator::GetBroadcastGroup, request, reply);
}

grpc::ServerWriteReactor<v1::FileChunk>* OrchestratorService::SnapshotLedger(
    Context*, const v1::SnapshotLedgerRequest* request) {
  auto* reply =
      new rpc::StreamReply<v1::FileChunk>({.metrics = metrics_, .method = "SnapshotLedger"});
  if (const absl::Status may = coordinator_->MaySnapshot(*request); !may.ok()) {
    reply->Refuse(may);
    return reply;
  }
  snapshots_->Make([reply](LedgerSnapshots::Copy copy) {
    if (!copy.ok()) return reply->Refuse(copy.status());
    reply->Begin(CopyCutter(*std::move(copy)));
  });
  return reply;
}

}  // namespace temper::orchestrator
