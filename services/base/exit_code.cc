#include "services/base/exit_code.h"

namespace temper::base {

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
      return kExitUsage;
    case absl::StatusCode::kDataLoss:
      return kExitData;
    default:
      return kExitRuntime;
  }
}

}  // namespace temper::base
