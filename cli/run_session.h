#pragma once

// One run on this machine from first process to last line of the table; `run` and `eval` share it.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "temper/v1/config.pb.h"

namespace temper::cli {

// What the configuration asks for and this build does not have, a line each: config::Unbuilt, and a
// broadcaster that was not compiled.
std::vector<std::string> Lacking(const v1::RunConfig& config);

// Refuses what this build cannot run and noise that would do nothing on this model. InvalidArgument
// with a line each; what loading the model's configuration returns.
absl::Status CheckRunnable(const v1::RunConfig& config);

// Sets run_dir, made absolute, and what follows from it.
void SetRunDirectory(const std::string& run_dir, v1::RunConfig* config);

// Starts the processes, shows progress, and prints the table at the end. The run directory is
// prepared. Ctrl-C or SIGTERM stops the run so that it can be resumed. verbose: also a line for
// each process that starts or ends.
absl::Status RunSession(const v1::RunConfig& config, bool resume, bool verbose);

}  // namespace temper::cli
