#pragma once

#include "temper/v1/config.pb.h"

namespace temper::config {

// Sets every scalar field that was not given. The only place where a default stands; those that
// depend on other fields (the horizon, the importance weights) are worked out here too.
// Requires: the schedule's horizon has been checked for contradictions (ReconcileHorizon).
void FillDefaults(v1::RunConfig* config);

// Steps per epoch that the data set gives: floor(training problems / groups per step); 0 where the
// data set has no end (the generator).
uint64_t UpdatesPerEpochOfDataset(const v1::RunConfig& config);

}  // namespace temper::config
