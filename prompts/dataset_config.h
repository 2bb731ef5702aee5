#pragma once

#include "prompts/prompt_source.h"
#include "temper/v1/config.pb.h"

namespace temper::prompts {

// The `dataset` block of a resolved configuration (every field set) as options of a source.
DatasetOptions DatasetOptionsFromConfig(const v1::DatasetConfig& dataset);

}  // namespace temper::prompts
