#pragma once

// Supervised warm start: cross-entropy on the solutions of the warm-start split, without any other
// process. Step u reads problems u * B .. u * B + B - 1, so a run that continues from a checkpoint
// equals an uninterrupted one.

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "services/base/stop_token.h"
#include "temper/v1/config.pb.h"

namespace temper::learner {

struct SftOptions {
  v1::RunConfig config;     // resolved; trainer.total_updates steps
  std::string resume_from;  // checkpoint directory; empty: from model.path
  uint64_t log_every = 10;  // steps between lines; the last step always has one
  base::StopToken* stop = nullptr;
  // Gets one JSON object per logged step, without a line end.
  std::function<void(const std::string&)> log_line;
};

// Trains and writes RUN/checkpoints/step_N as trainer.checkpoint says, the last step always.
// Weights: those of model.path; if that is a directory with config.json and tokenizer.json and no
// weights, fresh ones drawn with the run's seed.
// Loss of a step: - sum of log p / number of completion tokens of its problems (solution and
// end-of-sequence). trainer.noisy_ops acts here as in any training pass, group_index being the
// problem's index.
// Errors: InvalidArgument (configuration; a model without end-of-sequence; a problem of the split
// that is also an evaluation question), what reading and writing models returns. OK after a stop,
// with a checkpoint of the last finished step.
absl::Status RunStandaloneSft(const SftOptions& options);

}  // namespace temper::learner
