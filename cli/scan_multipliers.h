#pragma once

#include "absl/status/status.h"
#include "temper/v1/config.pb.h"

namespace temper::cli {

// Where AQN takes its layers from a scan (preset from_scan), writes the multipliers of
// layer_sigma_config.scan_file into its layer_multipliers, so that every process of the run has
// them without the file. resolved: the configuration comes from RUN/resolved.yaml, which has them.
//
// Errors: InvalidArgument if the scan is of another model (both hashes), of another number of
// layers, or layer_multipliers are given beside it; those of scan::ReadScanFile and of
// model/io/loader.h.
absl::Status ResolveScanMultipliers(bool resolved, v1::RunConfig* config);

}  // namespace temper::cli
