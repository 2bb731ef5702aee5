#pragma once

// Settings that nothing would look at because of what the others say.

#include <string>
#include <vector>

#include "temper/v1/config.pb.h"

namespace temper::config {

// One setting without effect.
struct IdleField {
  std::string key;  // "trainer.dapo.max_rounds"
  std::string why;  // "has no effect ..."
  // False: an arm's definition may well carry it (the clip ratios of a run that makes one optimizer
  // step per step, where the ratio is 1), so it is said and not refused.
  bool refused = true;
};

// What is idle in a resolved configuration, of the settings that are not what they would be had
// they not been given: `temper check` prints every default and reads its own output.
// Two kinds are no mistakes: settings of a block that says `enabled: false`, and those of the loss
// that is not trained (sft, or dapo with all that samples for it), since one recipe serves both.
// Pure.
std::vector<IdleField> IdleFields(const v1::RunConfig& config);

}  // namespace temper::config
