#include "weights/nccl_broadcaster.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "services/base/status_macros.h"
#include "services/base/stop_token.h"

namespace temper::weights {
namespace {

absl::Status FromCuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message)
                                            : absl::UnavailableError(message);
}

absl::Status FromNccl(ncclResult_t result, const char* what) {
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(what, ": ", ncclGetErrorString(result)));
}

}  // namespace

struct NcclBroadcaster::Impl {
  Impl(const Seat& given_seat, const NcclOptions& given) : seat(given_seat), options(given) {}
  ~Impl() {
    EndGroup();
    if (stream != nullptr) cudaStreamDestroy(stream);
    if (buffer != nullptr) cudaFree(buffer);
  }

  // Ends the communicator; calls after it are refused. On the calling thread of Send and Receive,
  // or in the destructor, so never beside another call into NCCL.
  void EndGroup() {
    if (comm != nullptr) ncclCommAbort(comm);
    comm = nullptr;
  }

  absl::Status Refusal() {
    absl::MutexLock lock(&mutex);
    if (!abort_reason.empty()) return absl::AbortedError(abort_reason);
    return absl::AbortedError("the communicator has not formed, or ended with a failure");
  }

  // Ends the group after a failed call, which it returns.
  absl::Status Fail(absl::Status status) {
    EndGroup();
    absl::MutexLock lock(&mutex);
    for (int rank = 0; rank < seat.world_size && !absl::IsAborted(status); ++rank) {
      if (rank != seat.rank) lost.push_back(rank);
    }
    return status;
  }

  // Waits until NCCL's call and the work on the stream are done. Anything else ends the group.
  absl::Status AwaitDone(const char* what, bool stream_too, absl::Time deadline) {
    while (true) {
      ncclResult_t state = ncclSuccess;
      absl::Status status = FromNccl(ncclCommGetAsyncError(comm, &state), what);
      if (status.ok()) status = FromNccl(state, what);
      if (!status.ok()) return status;
      if (state == ncclSuccess) {
        if (!stream_too) return absl::OkStatus();
        const cudaError_t work = cudaStreamQuery(stream);
        if (work == cudaSuccess) return absl::OkStatus();
        if (work != cudaErrorNotReady) return FromCuda(work, what);
      }
      if (absl::Now() >= deadline) {
        return absl::DeadlineExceededError(absl::StrCat(what, " missed its deadline"));
      }
      if (aborted.WaitUntil(std::min(deadline, absl::Now() + options.poll))) return Refusal();
    }
  }

  absl::Status Reserve(uint64_t bytes) {
    if (bytes <= buffer_bytes) return absl::OkStatus();
    if (buffer != nullptr) cudaFree(buffer);
    buffer = nullptr;
    buffer_bytes = 0;
    TEMPER_RETURN_IF_ERROR(FromCuda(cudaMalloc(&buffer, bytes), "cudaMalloc"));
    buffer_bytes = bytes;
    return absl::OkStatus();
  }

  // One bucket: host -> device (root), broadcast, device -> host (members with `target`).
  absl::Status Carry(const std::byte* source, std::byte* target, uint64_t bytes,
                     absl::Time deadline) {
    TEMPER_RETURN_IF_ERROR(Reserve(bytes));
    if (source != nullptr) {
      TEMPER_RETURN_IF_ERROR(
          FromCuda(cudaMemcpyAsync(buffer, source, bytes, cudaMemcpyHostToDevice, stream),
                   "copy to the device"));
    }
    TEMPER_RETURN_IF_ERROR(FromNccl(
        ncclBroadcast(buffer, buffer, bytes, ncclUint8, 0, comm, stream), "ncclBroadcast"));
    TEMPER_RETURN_IF_ERROR(AwaitDone("the broadcast of a bucket", true, deadline));
    if (target == nullptr) return absl::OkStatus();
    TEMPER_RETURN_IF_ERROR(
        FromCuda(cudaMemcpyAsync(target, buffer, bytes, cudaMemcpyDeviceToHost, stream),
                 "copy from the device"));
    return AwaitDone("the copy of a bucket", true, deadline);
  }

  // Carry of one number, from the root to all.
  absl::StatusOr<uint64_t> CarryNumber(uint64_t number, absl::Time deadline) {
    auto* const bytes = reinterpret_cast<std::byte*>(&number);
    const bool root = seat.rank == 0;
    TEMPER_RETURN_IF_ERROR(
        Carry(root ? bytes : nullptr, root ? nullptr : bytes, sizeof(number), deadline));
    return number;
  }

  const Seat seat;
  const NcclOptions options;
  ncclComm_t comm = nullptr;  // null until formed, and once ended
  cudaStream_t stream = nullptr;
  void* buffer = nullptr;  // device memory of the largest bucket so far
  uint64_t buffer_bytes = 0;
  std::optional<uint64_t> carried;  // the newest version that this member has taken or let pass
  base::StopToken aborted;
  absl::Mutex mutex;
  std::string abort_reason ABSL_GUARDED_BY(mutex);
  std::vector<int> lost ABSL_GUARDED_BY(mutex);
};

absl::StatusOr<std::string> NcclBackEnd::MakeId() {
  ncclUniqueId id;
  TEMPER_RETURN_IF_ERROR(FromNccl(ncclGetUniqueId(&id), "ncclGetUniqueId"));
  return std::string(id.internal, sizeof(id.internal));
}

absl::StatusOr<std::unique_ptr<Collective>> NcclBackEnd::Join(const Seat& seat) {
  if (seat.id.size() != sizeof(ncclUniqueId::internal) || seat.world_size < 2 || seat.rank < 0 ||
      seat.rank >= seat.world_size) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", seat.rank, " of ", seat.world_size,
                                                   " with an id of ", seat.id.size(), " bytes"));
  }
  return std::make_unique<NcclBroadcaster>(seat, options_);
}

NcclBroadcaster::NcclBroadcaster(const Seat& seat, const NcclOptions& options)
    : impl_(std::make_unique<Impl>(seat, options)) {}
NcclBroadcaster::~NcclBroadcaster() = default;

absl::Status NcclBroadcaster::Form(absl::Time deadline) {
  ncclUniqueId id;
  std::memcpy(id.internal, impl_->seat.id.data(), sizeof(id.internal));
  TEMPER_RETURN_IF_ERROR(FromCuda(cudaSetDevice(impl_->options.device), "cudaSetDevice"));
  TEMPER_RETURN_IF_ERROR(FromCuda(cudaStreamCreateWithFlags(&impl_->stream, cudaStreamNonBlocking),
                                  "cudaStreamCreate"));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  absl::Status status = FromNccl(
      ncclCommInitRankConfig(&impl_->comm, impl_->seat.world_size, id, impl_->seat.rank, &config),
      "ncclCommInitRankConfig");
  if (status.ok()) status = impl_->AwaitDone("the forming of the group", false, deadline);
  return status.ok() ? status : impl_->Fail(std::move(status));
}

absl::Status NcclBroadcaster::Send(std::shared_ptr<const WeightVersion> version,
                                   absl::Time deadline) {
  if (impl_->seat.rank != 0) return absl::FailedPreconditionError("only rank 0 sends");
  if (impl_->comm == nullptr || impl_->aborted.StopRequested()) return impl_->Refusal();
  // The current device is the thread's, and the caller need not be the one that made the group.
  TEMPER_RETURN_IF_ERROR(FromCuda(cudaSetDevice(impl_->options.device), "cudaSetDevice"));
  absl::Status status = impl_->CarryNumber(version->manifest().version(), deadline).status();
  for (const SharedBucket& bucket : version->buckets()) {
    if (status.ok()) status = impl_->Carry(bucket->data(), nullptr, bucket->size(), deadline);
  }
  return status.ok() ? status : impl_->Fail(std::move(status));
}

absl::Status NcclBroadcaster::Receive(VersionAssembler* assembler, absl::Time deadline) {
  if (impl_->seat.rank == 0) return absl::FailedPreconditionError("rank 0 has the bytes");
  if (impl_->comm == nullptr || impl_->aborted.StopRequested()) return impl_->Refusal();
  // The current device is the thread's, and the caller need not be the one that made the group.
  TEMPER_RETURN_IF_ERROR(FromCuda(cudaSetDevice(impl_->options.device), "cudaSetDevice"));
  const v1::Manifest& manifest = assembler->manifest();
  while (true) {
    // What has passed does not come again, whoever waits for it.
    if (impl_->carried.has_value() && *impl_->carried >= manifest.version()) {
      return absl::NotFoundError(
          absl::StrCat("version ", *impl_->carried, " came, ", manifest.version(), " is wanted"));
    }
    const absl::StatusOr<uint64_t> sent = impl_->CarryNumber(0, deadline);
    if (!sent.ok()) return impl_->Fail(sent.status());
    // A collective carries every bucket, wanted or not; those that are verified already stay.
    // All versions of a run are cut alike.
    const std::vector<uint32_t> missing =
        *sent == manifest.version() ? assembler->Missing() : std::vector<uint32_t>{};
    absl::Status verified;
    for (int b = 0; b < manifest.buckets_size(); ++b) {
      const auto bucket = static_cast<uint32_t>(b);
      const bool wanted = std::find(missing.begin(), missing.end(), bucket) != missing.end();
      std::byte* target = wanted ? assembler->MutableBucket(bucket).data() : nullptr;
      const absl::Status status =
          impl_->Carry(nullptr, target, manifest.buckets(b).size_bytes(), deadline);
      if (!status.ok()) return impl_->Fail(status);
      if (wanted) verified.Update(assembler->FinishBucket(bucket));
    }
    impl_->carried = *sent;
    if (*sent == manifest.version()) return verified;
  }
}

std::vector<int> NcclBroadcaster::Lost() const {
  absl::MutexLock lock(&impl_->mutex);
  return impl_->lost;
}

void NcclBroadcaster::Abort(std::string_view reason) {
  {
    absl::MutexLock lock(&impl_->mutex);
    if (impl_->abort_reason.empty()) {
      impl_->abort_reason = absl::StrCat("aborted: ", std::string(reason));
    }
  }
  impl_->aborted.RequestStop();
}

}  // namespace temper::weights
