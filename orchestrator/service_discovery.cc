#include "orchestrator/service_discovery.h"

#include <nlohmann/json.hpp>

#include "orchestrator/role.h"

namespace temper::orchestrator {

std::string ServiceDiscoveryJson(const std::vector<v1::Peer>& live_members) {
  nlohmann::ordered_json targets = nlohmann::ordered_json::array();
  for (const v1::Peer& peer : live_members) {
    if (peer.metrics_address().empty()) continue;
    nlohmann::ordered_json entry;
    entry["targets"] = {peer.metrics_address()};
    entry["labels"] = {{"role", RoleName(RoleFromNumber(peer.role()))},
                       {"member", peer.member_id()}};
    targets.push_back(std::move(entry));
  }
  return targets.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace temper::orchestrator
