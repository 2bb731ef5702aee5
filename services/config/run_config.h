#pragma once

// Reads the configuration of a run: one YAML file checked against proto/temper/v1/config.proto,
// then key.path=value overrides, then defaults. All mistakes are reported at once, each with its
// place. Functions are pure apart from reading the named file; thread-safe.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "temper/v1/config.pb.h"

namespace temper::config {

// Reads `path` (at most 1 MiB), applies `overrides` ("trainer.optimizer.learning_rate=1e-4", values
// in YAML), fills in every default, makes paths absolute (those of model, adapter, dataset, scan
// and TLS files are relative to the file's folder, or to the current folder where they come from an
// override; run_dir to the current folder) and validates. The result is resolved: every scalar
// field is set. Errors: InvalidArgument with one mistake a line, "file:line:column: what (did you
// mean ...)"; NotFound if there is no such file.
absl::StatusOr<v1::RunConfig> LoadRunConfig(const std::string& path,
                                            const std::vector<std::string>& overrides = {});

// Reads a configuration that ToYaml wrote (RUN/resolved.yaml): the same checks, but the numbers of
// the horizon, all of which stand in it, need not agree as those a person writes must.
absl::StatusOr<v1::RunConfig> LoadResolvedConfig(const std::string& path,
                                                 const std::vector<std::string>& overrides = {});

// The configuration as YAML that LoadResolvedConfig reads back to an equal message.
std::string ToYaml(const v1::RunConfig& config);

// Ranges and contradictions of a resolved configuration that can be seen without the model.
// InvalidArgument, one mistake a line.
absl::Status Validate(const v1::RunConfig& config);

// What the configuration asks for that this build does not have, a line each; empty: it can be run.
// `temper check` prints the lines, `temper run` refuses them.
std::vector<std::string> Unbuilt(const v1::RunConfig& config);

// 64-bit fingerprint of everything that decides the results. Left out: run_dir, network, local,
// checkpoint, orchestrator times and directory, threads of the rollout worker, and file paths (the
// hash of the weights stands for the model). Processes compare it when they meet.
uint64_t Fingerprint(const v1::RunConfig& config);

// What differs between the configuration a run began with and the one it is resumed with, apart
// from addresses (network), process counts (local), checkpoint frequency and run_dir, which may;
// "trainer.seed: 1 -> 2", a line each. Empty: the run may be resumed.
std::vector<std::string> ResumeDifferences(const v1::RunConfig& began,
                                           const v1::RunConfig& resumed);

}  // namespace temper::config
