#include "learner/samples_file.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper::learner {
namespace {

using nlohmann::ordered_json;

absl::StatusOr<ordered_json> CompletionJson(const SampledCompletion& completion,
                                            const model::Tokenizer& tokenizer) {
  TEMPER_ASSIGN_OR_RETURN(const std::string text,
                          tokenizer.Decode(completion.token_ids, /*skip_special=*/true));
  const Score& score = completion.score;
  ordered_json line = {{"text", text},
                       {"tokens", completion.token_ids.size()},
                       {"truncated", completion.truncated},
                       {"reward", score.reward},
                       {"accuracy", score.accuracy},
                       {"strict", score.strict},
                       {"flexible", score.flexible},
                       {"numeric", score.numeric},
                       {"format_ok", score.format_ok},
                       {"overlong_penalty", score.overlong_penalty},
                       {"extracted", nullptr}};
  if (score.has_extracted) line["extracted"] = score.extracted;
  return line;
}

absl::StatusOr<ordered_json> GroupJson(const RolloutGroup& group, uint64_t step, const char* ending,
                                       const model::Tokenizer& tokenizer) {
  ordered_json line = {{"step", step},
                       {"group_index", group.group_index},
                       {"attempt", group.attempt},
                       {"ending", ending},
                       {"problem_id", group.problem_id},
                       {"version_oldest", group.oldest_version},
                       {"version_newest", group.newest_version},
                       {"aqn_sigma", group.aqn_sigma},
                       {"prompt", group.prompt},
                       {"prompt_tokens", group.prompt_token_ids.size()},
                       {"truth", group.truth}};
  ordered_json completions = ordered_json::array();
  for (const SampledCompletion& completion : group.completions) {
    TEMPER_ASSIGN_OR_RETURN(ordered_json one, CompletionJson(completion, tokenizer));
    completions.push_back(std::move(one));
  }
  line["completions"] = std::move(completions);
  line["worker"] = group.worker;
  line["generate_seconds"] = group.generate_seconds;
  line["score_seconds"] = group.score_seconds;
  return line;
}

}  // namespace

absl::Status WriteSamples(const std::string& run_dir, uint64_t step, const ClosedBatch& batch,
                          const model::Tokenizer& tokenizer) {
  std::vector<std::pair<const RolloutGroup*, const char*>> groups;
  for (const RolloutGroup& group : batch.train) groups.emplace_back(&group, "trained");
  for (const RolloutGroup& group : batch.zero_variance) {
    groups.emplace_back(&group, "dropped_zero_variance");
  }
  for (const RolloutGroup& group : batch.stale) groups.emplace_back(&group, "dropped_stale");
  std::sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
    return a.first->group_index < b.first->group_index;
  });
  std::string text;
  for (const auto& [group, ending] : groups) {
    TEMPER_ASSIGN_OR_RETURN(const ordered_json line, GroupJson(*group, step, ending, tokenizer));
    // Text from a peer may hold bytes that are not UTF-8: shown as U+FFFD rather than refused.
    text += line.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
    text += '\n';
  }
  const std::string dir = absl::StrCat(run_dir, "/samples");
  TEMPER_RETURN_IF_ERROR(base::MakeDirectories(dir));
  return base::WriteFileAtomically(absl::StrCat(dir, "/step_", step, ".jsonl"), text);
}

}  // namespace temper::learner
