#include "scan/sequence_runner.h"

#include <utility>

#include "services/base/hash.h"
#include "services/base/status_macros.h"

namespace temper::scan {

std::string HashSequences(std::span<const Sequence> sequences) {
  base::StreamHash hash;
  for (const Sequence& sequence : sequences) {
    const int64_t head[] = {sequence.prompt_tokens, static_cast<int64_t>(sequence.ids.size())};
    hash.Update(head, sizeof(head));
    hash.Update(sequence.ids.data(), sequence.ids.size() * sizeof(int32_t));
  }
  return base::HexDigest(hash.Digest64());
}

absl::Status Complete(model::DecodeEngine* engine, const std::vector<int32_t>& stop_ids,
                      uint32_t tokens, uint64_t seed, std::vector<Sequence>* sequences) {
  model::GenerateRequest request = {.max_completion_tokens = tokens,
                                    .stop_ids = stop_ids,
                                    .phase = numerics::Phase::kEval,
                                    .seed = seed};
  for (size_t i = 0; i < sequences->size(); ++i) {
    const Sequence& sequence = (*sequences)[i];
    if (sequence.ids.size() > static_cast<size_t>(sequence.prompt_tokens)) continue;
    request.groups.push_back({.scope = i, .prompt_ids = sequence.ids});
  }
  if (request.groups.empty()) return absl::OkStatus();
  TEMPER_ASSIGN_OR_RETURN(const model::GenerateResult result, engine->Generate(request));
  for (size_t g = 0; g < result.groups.size(); ++g) {
    std::vector<int32_t>& ids = (*sequences)[request.groups[g].scope].ids;
    const std::vector<int32_t>& more = result.groups[g].completions[0].token_ids;
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return absl::OkStatus();
}

SequenceRunner::SequenceRunner(model::InstalledWeights weights, int threads) : threads_(threads) {
  for (int i = 0; i < threads; ++i) {
    passes_.push_back(std::make_unique<model::SequencePass>(weights));
  }
}

absl::Status SequenceRunner::Run(size_t sequences, Body body) {
  std::vector<absl::Status> statuses(sequences);
  const auto step = static_cast<size_t>(workers());
  threads_.Run(workers(), [&](int64_t task, int) {
    for (auto i = static_cast<size_t>(task); i < sequences; i += step) {
      statuses[i] = body(passes_[static_cast<size_t>(task)].get(), i, static_cast<int>(task));
    }
  });
  for (const absl::Status& status : statuses) TEMPER_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

}  // namespace temper::scan
