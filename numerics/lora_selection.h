#pragma once

#include <string>
#include <vector>

namespace temper::numerics {

// Which linears of a model get low-rank adapters, and what adapters: the block `trainer.lora` of a
// configuration, before it has met a model. Patterns as in NoiseSpec (noise_policy.h).
struct LoraSelection {
  bool enabled = false;
  int rank = 0;                              // r
  double alpha = 0.0;                        // the branch is multiplied by alpha / r
  std::vector<std::string> target_modules;   // empty: every linear of every decoder layer
  std::vector<std::string> exclude_modules;  // taken away from the above
};

}  // namespace temper::numerics
