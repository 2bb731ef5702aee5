#pragma once

// What a benchmark must say about where it ran.

#include <string>

namespace temper::bench {

// The CPU's model as the system names it, "unknown CPU" where it does not.
std::string CpuModel();

// Adds cpu_model, threads and simd_path to the benchmark's printed context.
void AddMachineContext(int threads);

}  // namespace temper::bench
