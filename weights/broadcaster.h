#pragma once

// The seam between what weights are (the manifest) and how their bytes travel. A back end moves the
// buckets of a version from one root to any number of members; it never decides what a version is
// and never installs one.
//
// Back ends, all held to one conformance test (tests/unit/weights/broadcaster_test.cc):
//   in-process   InProcessHub                    threads of one process
//   gRPC         WeightSource + WeightServiceImpl -> WeightClient, a stream that members pull
//   shared memory  SharedMemoryCollective        processes of one host
//   NCCL         NcclBroadcaster                 only with TEMPER_CUDA
// The last two are met as collective.h says.
//
// Contract of both sides: no call waits past its deadline; after an error nothing is installed and
// a later try with the same assembler brings only what is missing; Abort may come from any thread.

#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "weights/version_assembler.h"
#include "weights/weight_version.h"

namespace temper::weights {

// The side that has the bytes. Send is called by one thread at a time.
class BroadcastRoot {
 public:
  virtual ~BroadcastRoot() = default;

  // Makes `version` available to the members: a collective returns when its bytes are out, a pulled
  // back end at once. Returns: DeadlineExceeded; Aborted after Abort; Unavailable if a peer is lost
  // (a collective: the group must be rebuilt).
  virtual absl::Status Send(std::shared_ptr<const WeightVersion> version, absl::Time deadline) = 0;

  // Ends a Send in flight and refuses later ones with Aborted. Thread-safe, idempotent.
  virtual void Abort(std::string_view reason) = 0;
};

// A side that wants the bytes. Receive is called by one thread at a time.
class BroadcastMember {
 public:
  virtual ~BroadcastMember() = default;

  // Brings every bucket that `assembler` misses and has it verified. Returns OK only if none is
  // missing then; DeadlineExceeded; Aborted after Abort; DataLoss if bytes came that are not the
  // manifest's; NotFound if the root no longer (or not yet) has the version; Unavailable if the
  // root cannot be reached.
  virtual absl::Status Receive(VersionAssembler* assembler, absl::Time deadline) = 0;

  // Ends a Receive in flight and refuses later ones with Aborted. Thread-safe, idempotent.
  virtual void Abort(std::string_view reason) = 0;
};

}  // namespace temper::weights
