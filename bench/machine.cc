#include "bench/machine.h"

#include <benchmark/benchmark.h>

#include <fstream>
#include <string>

#include "numerics/simd_path.h"

namespace temper::bench {

std::string CpuModel() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  while (std::getline(cpuinfo, line)) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown CPU";
}

void AddMachineContext(int threads) {
  benchmark::AddCustomContext("cpu_model", CpuModel());
  benchmark::AddCustomContext("threads", std::to_string(threads));
  benchmark::AddCustomContext("simd_path",
                              std::string(numerics::SimdPathName(numerics::BestSimdPath())));
}

}  // namespace temper::bench
