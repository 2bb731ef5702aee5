#include "services/config/lora_selection.h"

namespace temper::config {

numerics::LoraSelection LoraSelectionFromConfig(const v1::RunConfig& config) {
  const v1::LoraConfig& lora = config.trainer().lora();
  return {.enabled = lora.enabled(),
          .rank = static_cast<int>(lora.rank()),
          .alpha = lora.alpha(),
          .target_modules = {lora.target_modules().begin(), lora.target_modules().end()},
          .exclude_modules = {lora.exclude_modules().begin(), lora.exclude_modules().end()}};
}

}  // namespace temper::config
