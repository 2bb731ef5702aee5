#include "cli/orchestrator_client.h"

#include <utility>

#include "services/base/status_macros.h"
#include "services/rpc/client.h"

namespace temper::cli {
namespace {

rpc::CallOptions Options(std::string_view method, absl::Duration timeout) {
  return {.method = method,
          .timeout = timeout,
          .deadline = absl::Now() + timeout,
          .retry = {.max_attempts = 100},
          .wait_for_ready = true};
}

}  // namespace

absl::StatusOr<std::unique_ptr<OrchestratorClient>> OrchestratorClient::Create(
    const std::string& address, const rpc::TlsOptions& tls) {
  TEMPER_ASSIGN_OR_RETURN(auto channel, rpc::MakeChannel(address, tls));
  return std::unique_ptr<OrchestratorClient>(
      new OrchestratorClient(v1::OrchestratorService::NewStub(channel)));
}

absl::StatusOr<v1::GetStatusReply> OrchestratorClient::GetStatus(uint64_t after_step,
                                                                 absl::Duration timeout) {
  v1::GetStatusRequest request;
  request.set_after_step(after_step);
  v1::GetStatusReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(stub_.get(), &v1::OrchestratorService::Stub::GetStatus,
                                        request, &reply, Options("GetStatus", timeout)));
  return reply;
}

absl::Status OrchestratorClient::SetDesired(const std::string& run_id, v1::Role role,
                                            uint32_t count) {
  v1::SetDesiredRequest request;
  request.set_run_id(run_id);
  request.set_role(role);
  request.set_count(count);
  v1::SetDesiredReply reply;
  return rpc::CallUnary(stub_.get(), &v1::OrchestratorService::Stub::SetDesired, request, &reply,
                        Options("SetDesired", absl::Seconds(10)));
}

absl::Status OrchestratorClient::StopRun(const std::string& run_id, const std::string& reason,
                                         bool failed) {
  v1::StopRunRequest request;
  request.set_run_id(run_id);
  request.set_reason(reason);
  request.set_failed(failed);
  v1::StopRunReply reply;
  return rpc::CallUnary(stub_.get(), &v1::OrchestratorService::Stub::StopRun, request, &reply,
                        Options("StopRun", absl::Seconds(5)));
}

}  // namespace temper::cli
