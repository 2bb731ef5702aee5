#include "rollout_worker/run_setup.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/config/lora_selection.h"
#include "services/config/noise_plan.h"
#include "weights/model_files.h"

namespace temper::rollout_worker {

absl::StatusOr<std::unique_ptr<RunSetup>> MakeRunSetup(std::string run_id, v1::RunConfig config,
                                                       const model::ModelFiles& files) {
  if (config.rollout().device() != "cpu") {
    return absl::InvalidArgumentError(absl::StrCat("rollout.device: \"", config.rollout().device(),
                                                   "\" is not in this build; cpu is"));
  }
  TEMPER_ASSIGN_OR_RETURN(model::ModelParts parts, model::ParseModelFiles(files));
  auto setup = std::make_unique<RunSetup>();
  setup->run_id = std::move(run_id);
  setup->config = std::move(config);
  setup->model = std::move(parts.config);
  setup->tokenizer = std::move(parts.tokenizer);
  setup->chat_template = std::move(parts.chat_template);
  setup->model_files_hash = weights::ModelFilesHash(files);
  TEMPER_ASSIGN_OR_RETURN(
      setup->lora,
      model::MakeLoraSpec(setup->model, config::LoraSelectionFromConfig(setup->config)));
  setup->shape = model::NoiseShape(setup->model, setup->lora);
  TEMPER_ASSIGN_OR_RETURN(setup->policy,
                          config::NoisePolicyFromConfig(setup->config, setup->shape));
  TEMPER_ASSIGN_OR_RETURN(setup->aqn, config::AqnPlanFromConfig(setup->config, setup->shape));
  setup->noise_id = config::NoiseId(setup->policy, setup->aqn);
  setup->stop_ids = setup->model.eos_token_ids;
  return setup;
}

absl::StatusOr<std::vector<int32_t>> EncodePrompt(const RunSetup& setup,
                                                  const std::string& message) {
  TEMPER_ASSIGN_OR_RETURN(const std::string text,
                          model::RenderPrompt(setup.chat_template, message));
  const bool parse_special = setup.chat_template.kind != model::ChatTemplate::Kind::kPlain;
  TEMPER_ASSIGN_OR_RETURN(std::vector<int32_t> ids, setup.tokenizer->Encode(text, parse_special));
  if (ids.empty()) return absl::InvalidArgumentError("the prompt has no tokens");
  const uint64_t limit = setup.config.rollout().max_prompt_tokens();
  if (limit != 0 && ids.size() > limit) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the prompt has ", ids.size(), " tokens, rollout.max_prompt_tokens is ", limit));
  }
  return ids;
}

}  // namespace temper::rollout_worker
