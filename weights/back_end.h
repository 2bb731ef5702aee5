#pragma once

// From the configuration's name of a broadcaster to the back end of this build.

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "weights/collective.h"

namespace temper::weights {

// Whether this build has weights.broadcaster `name`. Errors: InvalidArgument, saying what it lacks
// or which names there are.
absl::Status CheckBroadcaster(std::string_view name);

// The back end of weights.broadcaster `name`: null for "grpc", where every worker pulls for itself.
// Shared with threads that a call which hangs may keep alive. Errors: those of CheckBroadcaster.
absl::StatusOr<std::shared_ptr<CollectiveBackEnd>> MakeBackEnd(std::string_view name);

// Whether its groups reach beyond the root's host.
bool SpansHosts(std::string_view name);

}  // namespace temper::weights
