#include "prompts/dataset_config.h"

namespace temper::prompts {

DatasetOptions DatasetOptionsFromConfig(const v1::DatasetConfig& dataset) {
  return {.name = dataset.name(),
          .path = dataset.path(),
          .prompt_suffix = dataset.prompt_suffix(),
          .train_problems = dataset.train_problems(),
          .seed = dataset.seed(),
          .min_steps = dataset.min_steps(),
          .max_steps = dataset.max_steps(),
          .max_number = dataset.max_number(),
          .wrong_share = dataset.wrong_share()};
}

}  // namespace temper::prompts
