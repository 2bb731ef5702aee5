#pragma once

#include <cstdint>

#include "services/member/names.h"

namespace temper::orchestrator {

// A process's part in a run; the numbers equal v1::Role and stand in the ledger.
enum class Role : uint8_t {
  kUnspecified = 0,
  kOrchestrator = 1,
  kRewardServer = 2,
  kLearner = 3,
  kRolloutWorker = 4,
  kSupervisor = 5,
};

// "rollout_worker", ...: the label of metrics and http_sd.
inline const char* RoleName(Role role) { return member::RoleName(static_cast<v1::Role>(role)); }

// kUnspecified for a number that names no role.
constexpr Role RoleFromNumber(int64_t number) {
  return number >= 1 && number <= 5 ? static_cast<Role>(number) : Role::kUnspecified;
}

}  // namespace temper::orchestrator
