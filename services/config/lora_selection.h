#pragma once

#include "numerics/lora_selection.h"
#include "temper/v1/config.pb.h"

namespace temper::config {

// The block `trainer.lora` of a resolved configuration.
numerics::LoraSelection LoraSelectionFromConfig(const v1::RunConfig& config);

}  // namespace temper::config
