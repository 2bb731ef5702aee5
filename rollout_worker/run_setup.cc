#include "rollout_worker/run_setup.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/io/loader.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"
#include "services/config/noise_plan.h"
#include "services/member/membership_client.h"

namespace temper::rollout_worker {

absl::StatusOr<std::unique_ptr<RunSetup>> MakeRunSetup(std::string run_id, v1::RunConfig config,
                                                       model::ModelConfig model,
                                                       std::unique_ptr<model::Tokenizer> tokenizer,
                                                       model::ChatTemplate chat_template) {
  if (config.rollout().device() != "cpu") {
    return absl::InvalidArgumentError(absl::StrCat("rollout.device: \"", config.rollout().device(),
                                                   "\" is not in this build; cpu is"));
  }
  auto setup = std::make_unique<RunSetup>();
  setup->run_id = std::move(run_id);
  setup->config = std::move(config);
  setup->model = std::move(model);
  setup->tokenizer = std::move(tokenizer);
  setup->chat_template = std::move(chat_template);
  setup->shape = {.num_layers = static_cast<int>(setup->model.num_layers)};
  TEMPER_ASSIGN_OR_RETURN(setup->policy,
                          config::NoisePolicyFromConfig(setup->config, setup->shape));
  TEMPER_ASSIGN_OR_RETURN(setup->aqn,
                          config::AqnPlanFromConfig(setup->config, setup->shape.num_layers));
  setup->noise_id = config::NoiseId(setup->policy, setup->aqn);
  setup->stop_ids = setup->model.eos_token_ids;
  if (setup->stop_ids.empty() && setup->tokenizer->eos_token_id() >= 0) {
    setup->stop_ids.push_back(setup->tokenizer->eos_token_id());
  }
  return setup;
}

absl::StatusOr<std::unique_ptr<RunSetup>> LoadRunSetup(std::string run_id, v1::RunConfig config) {
  const std::string path = config.model().path();
  if (!base::PathExists(path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model.path: ", path, " does not exist on ", member::HostName(),
        "; a worker reads the tokenizer and the architecture there: copy or mount the model"));
  }
  TEMPER_ASSIGN_OR_RETURN(model::ModelConfig model, model::LoadModelConfig(path));
  TEMPER_ASSIGN_OR_RETURN(auto tokenizer, model::LoadTokenizer(path));
  model::ChatTemplate chat_template;  // plain
  if (config.model().chat_template() != "plain") {
    TEMPER_ASSIGN_OR_RETURN(chat_template, model::LoadChatTemplate(path));
  }
  return MakeRunSetup(std::move(run_id), std::move(config), std::move(model), std::move(tokenizer),
                      std::move(chat_template));
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
