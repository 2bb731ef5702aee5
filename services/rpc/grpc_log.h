#pragma once

namespace temper::rpc {

// Sends gRPC's own log messages (errors only, its default) through base::Log, once per process.
// Thread-safe.
void RouteGrpcLog();

}  // namespace temper::rpc
