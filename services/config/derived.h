#pragma once

#include <string>
#include <utility>
#include <vector>

#include "temper/v1/config.pb.h"

namespace temper::config {

// Numbers that follow from a resolved configuration, in reading order, as `temper check` prints
// them: steps, groups, samples, tokens at most, evaluation questions. Name -> value with unit.
std::vector<std::pair<std::string, std::string>> DerivedNumbers(const v1::RunConfig& config);

}  // namespace temper::config
