#pragma once

// LearnerService over gRPC.

#include <atomic>

#include "learner/submission_desk.h"
#include "services/rpc/rpc_metrics.h"
#include "temper/v1/learner.grpc.pb.h"

namespace temper::learner {

// Handlers only queue; the desk answers later. The server is up before the learner knows its run,
// so the desk comes with Open. Thread-safe.
class LearnerServiceImpl final : public v1::LearnerService::CallbackService {
 public:
  explicit LearnerServiceImpl(rpc::RpcMetrics* metrics) : metrics_(metrics) {}

  // From now on groups go to `desk`, which outlives the server's Shutdown.
  void Open(SubmissionDesk* desk) { desk_.store(desk); }

  grpc::ServerUnaryReactor* SubmitGroup(grpc::CallbackServerContext* context,
                                        const v1::SubmitGroupRequest* request,
                                        v1::SubmitGroupReply* response) override;

 private:
  rpc::RpcMetrics* const metrics_;
  std::atomic<SubmissionDesk*> desk_ = nullptr;
};

}  // namespace temper::learner
