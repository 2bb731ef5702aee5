#include "weights/base_client.h"

#include <functional>
#include <optional>
#include <stop_token>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/status_macros.h"
#include "services/rpc/client.h"
#include "temper/v1/weights.grpc.pb.h"
#include "weights/weight_client.h"
#include "weights/weight_receiver.h"

namespace temper::weights {
namespace {

constexpr absl::Duration kManifestTimeout = absl::Seconds(10);

}  // namespace

absl::StatusOr<std::shared_ptr<const WeightVersion>> PullBase(const BasePull& pull) {
  const absl::Time deadline = absl::Now() + pull.timeout;
  TEMPER_ASSIGN_OR_RETURN(const auto channel, rpc::MakeChannel(pull.address, pull.tls));
  const auto stub = v1::WeightService::NewStub(channel);
  v1::GetBaseManifestRequest request;
  request.set_run_id(pull.run_id);
  v1::Manifest manifest;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(stub.get(), &v1::WeightService::Stub::GetBaseManifest,
                                        request, &manifest,
                                        {.method = "GetBaseManifest",
                                         .timeout = kManifestTimeout,
                                         .deadline = deadline,
                                         .stop = pull.stop,
                                         .metrics = pull.metrics}));
  if (manifest.run_id() != pull.run_id || manifest.timeline() != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a base of run ", manifest.run_id(),
                                                   " timeline ", manifest.timeline(),
                                                   " came for run ", pull.run_id));
  }
  manifest.set_source_address(pull.address);
  WeightClient client({.tls = pull.tls});
  std::optional<std::stop_callback<std::function<void()>>> abort;
  if (pull.stop != nullptr) {
    abort.emplace(pull.stop->OnStop(), [&client] { client.Abort("stopped"); });
  }
  // A learner that comes back may be elsewhere: the caller asks again, at its address of then.
  auto base =
      ReceiveVersion(manifest, deadline,
                     {.catch_up = &client, .stop = pull.stop, .overtaken = [] { return true; }});
  if (pull.stop != nullptr && pull.stop->StopRequested()) {
    return absl::CancelledError("stopped while pulling the base");
  }
  if (absl::IsAborted(base.status())) return absl::UnavailableError(base.status().message());
  return base;
}

}  // namespace temper::weights
