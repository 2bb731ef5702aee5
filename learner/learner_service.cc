#include "learner/learner_service.h"

#include "services/rpc/reply.h"

namespace temper::learner {

grpc::ServerUnaryReactor* LearnerServiceImpl::SubmitGroup(grpc::CallbackServerContext* context,
                                                          const v1::SubmitGroupRequest* request,
                                                          v1::SubmitGroupReply* response) {
  SubmissionDesk* const desk = desk_.load();
  if (desk == nullptr) {
    return rpc::Reply(context, metrics_, "SubmitGroup",
                      [] { return absl::FailedPreconditionError("no timeline is open yet"); });
  }
  auto reply = rpc::DeferredReply::Create(metrics_, "SubmitGroup");
  grpc::ServerUnaryReactor* const reactor = reply->reactor();
  desk->Submit(*request, [reply, response](const absl::StatusOr<v1::SubmitGroupReply>& answer) {
    reply->Finish([&]() -> absl::Status {
      if (answer.ok()) *response = *answer;
      return answer.status();
    });
  });
  return reactor;
}

}  // namespace temper::learner
