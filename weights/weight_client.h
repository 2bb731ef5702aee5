#pragma once

// The pulling side of the gRPC back end.

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/base/stop_token.h"
#include "services/rpc/tls.h"
#include "weights/broadcaster.h"

namespace temper::weights {

struct WeightClientOptions {
  rpc::TlsOptions tls;
};

// Pulls from the manifest's source_address; the channel is kept while the address stays the same.
class WeightClient final : public BroadcastMember {
 public:
  explicit WeightClient(WeightClientOptions options = {});
  ~WeightClient() override;

  // One stream. What arrived before it broke stays in the assembler where it was verified.
  absl::Status Receive(VersionAssembler* assembler, absl::Time deadline) override;
  void Abort(std::string_view reason) override;

 private:
  struct Connection;
  const WeightClientOptions options_;
  std::unique_ptr<Connection> connection_;  // used by the receiving thread alone
  base::StopToken aborted_;
  mutable absl::Mutex mutex_;
  std::string abort_reason_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace temper::weights
