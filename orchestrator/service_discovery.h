#pragma once

#include <string>
#include <vector>

#include "temper/v1/orchestrator.pb.h"

namespace temper::orchestrator {

// Prometheus' http_sd format: [{"targets": ["host:port"], "labels": {"role": ..., "member": ...}}],
// one entry for each member that has a metrics address. Pure.
std::string ServiceDiscoveryJson(const std::vector<v1::Peer>& live_members);

}  // namespace temper::orchestrator
