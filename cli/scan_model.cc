#include "cli/scan_model.h"

#include <atomic>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "model/decode_engine.h"
#include "model/io/loader.h"
#include "model/parameters.h"
#include "scan/activations.h"
#include "scan/fault.h"
#include "scan/scan_json.h"
#include "scan/sensitivity.h"
#include "services/base/files.h"
#include "services/base/hash.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

using scan::ScanResult;

// One scan in progress: what its parts share.
class Scan {
 public:
  Scan(const ScanOptions& options, const ScanProgress& progress)
      : options_(options), progress_(progress) {}

  absl::StatusOr<ScanResult> Run() {
    TEMPER_RETURN_IF_ERROR(Check());
    TEMPER_RETURN_IF_ERROR(Load());
    TEMPER_RETURN_IF_ERROR(CheckReferences());
    TEMPER_RETURN_IF_ERROR(MakeSequences());
    TEMPER_RETURN_IF_ERROR(Static());
    TEMPER_RETURN_IF_ERROR(Sensitivity());
    TEMPER_ASSIGN_OR_RETURN(result_.labels, scan::LabelLayers(result_, options_.labels));
    TEMPER_ASSIGN_OR_RETURN(
        result_.advice,
        scan::AdviseOnFormats(result_, options_.training, options_.labels.quantized_inputs));
    TEMPER_RETURN_IF_ERROR(FindFault());
    return std::move(result_);
  }

 private:
  absl::Status Check();
  absl::Status Load();
  absl::Status CheckReferences();
  absl::Status MakeSequences();
  absl::Status Static();
  absl::Status Sensitivity();
  absl::Status FindFault();

  const ScanOptions& options_;
  const ScanProgress& progress_;
  std::vector<scan::ScanError> errors_;
  std::optional<scan::ScanError> sensitivity_error_;
  std::optional<numerics::NoisePolicy> fault_;
  std::vector<scan::ScanFile> references_;
  model::ModelConfig config_;
  model::Parameters parameters_;
  std::unique_ptr<model::DecodeEngine> engine_;
  std::vector<scan::Sequence> sequences_;
  std::unique_ptr<scan::SequenceRunner> runner_;
  ScanResult result_;
};

absl::Status Scan::Check() {
  for (const std::string& text : options_.errors) {
    TEMPER_ASSIGN_OR_RETURN(scan::ScanError error, scan::ParseScanError(text));
    result_.errors.push_back(error.name);
    errors_.push_back(std::move(error));
  }
  if (errors_.empty()) return absl::InvalidArgumentError("no format and no error to scan for");
  if (!options_.sensitivity_error.empty()) {
    TEMPER_ASSIGN_OR_RETURN(sensitivity_error_, scan::ParseScanError(options_.sensitivity_error));
    result_.sensitivity_error = sensitivity_error_->name;
  }
  if (options_.labels.by == "sensitivity" && !sensitivity_error_.has_value()) {
    return absl::InvalidArgumentError("--label-by sensitivity needs --sensitivity");
  }
  if (options_.labels.quantized_inputs && options_.layer_outputs) {
    return absl::InvalidArgumentError(
        "--quantized-inputs needs the inputs of linears, --site layer_output has none");
  }
  if (!options_.find_fault && !(options_.inject.empty() && options_.references.empty())) {
    return absl::InvalidArgumentError("--inject and --reference belong to --find-fault");
  }
  if (!base::PathExists(options_.prompts.model)) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no model ", options_.prompts.model,
                     "; give a Hugging Face directory or a .gguf file"));
  }
  TEMPER_ASSIGN_OR_RETURN(config_, model::LoadModelConfig(options_.prompts.model));
  result_.num_layers = static_cast<int>(config_.num_layers);
  if (!options_.inject.empty()) {
    TEMPER_ASSIGN_OR_RETURN(const scan::Fault fault, scan::ParseFault(options_.inject));
    TEMPER_ASSIGN_OR_RETURN(fault_, scan::FaultPolicy(fault, result_.num_layers));
  }
  for (const std::string& path : options_.references) {
    TEMPER_ASSIGN_OR_RETURN(references_.emplace_back(), scan::ReadScanFile(path));
  }
  return absl::OkStatus();
}

absl::Status Scan::Load() {
  progress_("reading the model", 0, 0);
  {
    TEMPER_ASSIGN_OR_RETURN(const model::LoadedModel loaded,
                            model::LoadModel(options_.prompts.model));
    TEMPER_ASSIGN_OR_RETURN(parameters_, model::ParametersFromModel(loaded));
  }
  result_.model_path = options_.prompts.model;
  result_.model_hash = base::HexDigest(model::HashParameters(parameters_));
  TEMPER_ASSIGN_OR_RETURN(
      engine_, model::DecodeEngine::Create({.config = config_, .threads = options_.threads}));
  return engine_->Install(parameters_, 0, {}).status();
}

// Before the completions are made, which takes a while, and after.
absl::Status Scan::CheckReferences() {
  for (size_t i = 0; i < references_.size(); ++i) {
    const scan::ScanFile& reference = references_[i];
    const std::string& path = options_.references[i];
    if (reference.model_hash != result_.model_hash) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": a scan file of another model: its weights are ", reference.model_hash,
          ", those of ", result_.model_path, " are ", result_.model_hash));
    }
    if (!sequences_.empty() && reference.sequences_hash != result_.sequences_hash) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": a reference over other tokens: its own are ", reference.sequences_hash,
          ", these ", result_.sequences_hash,
          "; scan the healthy device with the same --data, --prompts, --completion-tokens and "
          "--seed"));
    }
  }
  return absl::OkStatus();
}

absl::Status Scan::MakeSequences() {
  PromptOptions prompts = options_.prompts;
  prompts.max_prompt_tokens = config_.max_position_embeddings - options_.completion_tokens;
  TEMPER_ASSIGN_OR_RETURN(sequences_, LoadPrompts(prompts));
  progress_("generating completions", 0, 0);
  TEMPER_RETURN_IF_ERROR(scan::Complete(engine_.get(), config_.eos_token_ids,
                                        options_.completion_tokens, options_.seed, &sequences_));
  for (const scan::Sequence& sequence : sequences_) {
    result_.prompt_tokens += sequence.prompt_tokens;
    result_.completion_tokens += static_cast<int64_t>(sequence.ids.size()) - sequence.prompt_tokens;
  }
  result_.sequences = static_cast<int64_t>(sequences_.size());
  result_.prompts = options_.prompts.data.empty() ? "gsm-arith" : options_.prompts.data;
  result_.sequences_hash = scan::HashSequences(sequences_);
  runner_ = std::make_unique<scan::SequenceRunner>(engine_->Installed(), options_.threads);
  return CheckReferences();
}

absl::Status Scan::Static() {
  progress_("weights", 0, 0);
  const absl::Time begin = absl::Now();
  result_.static_rows = scan::ScanWeights(config_, model::ViewsOf(parameters_), errors_,
                                          options_.seed, options_.threads);
  const absl::Time between = absl::Now();
  const scan::Role site = options_.layer_outputs ? scan::Role::kLayerOutput : scan::Role::kInput;
  std::atomic<size_t> done{0};
  TEMPER_ASSIGN_OR_RETURN(
      scan::ActivationFindings found,
      scan::ScanActivations(runner_.get(), sequences_, config_, errors_, site, options_.seed,
                            [&] { progress_("sequences", ++done, sequences_.size()); }));
  result_.weight_seconds = absl::ToDoubleSeconds(between - begin);
  result_.activation_seconds = absl::ToDoubleSeconds(absl::Now() - between);
  for (scan::StaticRow& row : found.rows) result_.static_rows.push_back(std::move(row));
  result_.profile = std::move(found.profile);
  return absl::OkStatus();
}

absl::Status Scan::Sensitivity() {
  if (!sensitivity_error_.has_value()) return absl::OkStatus();
  TEMPER_ASSIGN_OR_RETURN(result_.sensitivity,
                          scan::MeasureSensitivity(&parameters_, sequences_,
                                                   {.error = *sensitivity_error_,
                                                    .per_operator = options_.per_operator,
                                                    .noise_seed = options_.seed,
                                                    .threads = options_.threads},
                                                   [&](size_t done, size_t all) {
                                                     progress_("sensitivity", done, all);
                                                   }));
  return absl::OkStatus();
}

absl::Status Scan::FindFault() {
  if (!options_.find_fault) return absl::OkStatus();
  scan::FaultReport report = {.injected = options_.inject,
                              .references = options_.references,
                              .repeats = options_.repeats,
                              .kl_nats = std::nullopt,
                              .finding = {}};
  const numerics::NoisePolicy* policy = fault_.has_value() ? &*fault_ : nullptr;
  std::vector<scan::ModelProfile> repeats;
  for (int r = 0; r < options_.repeats; ++r) {
    progress_("repeats", static_cast<size_t>(r), static_cast<size_t>(options_.repeats));
    TEMPER_ASSIGN_OR_RETURN(scan::ModelProfile profile,
                            scan::ProfileDevice(runner_.get(), sequences_, config_, policy,
                                                options_.seed + static_cast<uint64_t>(r)));
    repeats.push_back(std::move(profile));
  }
  std::vector<scan::ModelProfile> healthy;
  for (const scan::ScanFile& reference : references_) healthy.push_back(reference.profile);
  TEMPER_ASSIGN_OR_RETURN(report.finding,
                          scan::LocaliseFault({.repeats = repeats, .references = healthy}));
  if (policy != nullptr) {
    TEMPER_ASSIGN_OR_RETURN(
        const scan::CleanDistributions clean,
        scan::CleanDistributions::Record(runner_.get(), sequences_, config_.vocab_size));
    TEMPER_ASSIGN_OR_RETURN(report.kl_nats, clean.Divergence(runner_.get(), policy, options_.seed));
  }
  result_.fault = std::move(report);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ScanResult> ScanModel(const ScanOptions& options, const ScanProgress& progress) {
  return Scan(options, progress).Run();
}

}  // namespace temper::cli
