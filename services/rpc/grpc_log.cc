#include "services/rpc/grpc_log.h"

#include <mutex>

#include "grpc/support/log.h"
#include "services/base/log.h"

namespace temper::rpc {
namespace {

// Debug: what went wrong reaches us as a status as well, and is logged where it is handled.
void LogFromGrpc(gpr_log_func_args* args) {
  base::Log(base::LogLevel::kDebug, "grpc", {{"message", args->message}, {"source", args->file}});
}

}  // namespace

void RouteGrpcLog() {
  static std::once_flag once;
  std::call_once(once, [] { gpr_set_log_function(LogFromGrpc); });
}

}  // namespace temper::rpc
