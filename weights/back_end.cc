#include "weights/back_end.h"

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "weights/shared_memory_collective.h"
#ifdef TEMPER_HAVE_NCCL
#include "weights/nccl_broadcaster.h"
#endif

namespace temper::weights {
namespace {

std::shared_ptr<CollectiveBackEnd> NcclOrNull() {
#ifdef TEMPER_HAVE_NCCL
  // The first device that the process sees: which one that is, CUDA_VISIBLE_DEVICES says.
  return std::make_shared<NcclBackEnd>(NcclOptions{.device = 0});
#else
  return nullptr;
#endif
}

}  // namespace

absl::Status CheckBroadcaster(std::string_view name) {
  if (name == "grpc" || name == "shared_memory") return absl::OkStatus();
  if (name != "nccl") {
    return absl::InvalidArgumentError(absl::StrCat("weights.broadcaster: '", std::string(name),
                                                   "' is none of grpc, shared_memory, nccl"));
  }
  if (NcclOrNull() != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "weights.broadcaster nccl: this build has no NCCL; configure it with -DTEMPER_CUDA=ON");
}

absl::StatusOr<std::shared_ptr<CollectiveBackEnd>> MakeBackEnd(std::string_view name) {
  TEMPER_RETURN_IF_ERROR(CheckBroadcaster(name));
  if (name == "shared_memory") {
    return std::shared_ptr<CollectiveBackEnd>(std::make_shared<SharedMemoryBackEnd>());
  }
  return name == "nccl" ? NcclOrNull() : nullptr;
}

bool SpansHosts(std::string_view name) { return name != "shared_memory"; }

}  // namespace temper::weights
