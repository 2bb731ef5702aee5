#include "model/decode_request.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/random_key.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

// Rows that go through all layers together: their activations stay in the second-level cache.
constexpr int64_t kRowsPerPass = 64;

absl::Status CheckGroup(const PromptGroup& group, const GenerateRequest& request,
                        const ModelConfig& config) {
  const std::string name = absl::StrCat("group ", group.scope, ": ");
  if (group.prompt_ids.empty()) return absl::InvalidArgumentError(name + "its prompt is empty");
  if (group.samples == 0) return absl::InvalidArgumentError(name + "0 samples");
  for (int32_t id : group.prompt_ids) {
    if (id < 0 || id >= config.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, "prompt token ", id, " is outside the vocabulary of ", config.vocab_size));
    }
  }
  const int64_t longest =
      static_cast<int64_t>(group.prompt_ids.size()) + request.max_completion_tokens;
  if (config.max_position_embeddings > 0 && longest > config.max_position_embeddings) {
    return absl::InvalidArgumentError(absl::StrCat(name, "prompt and completion may take ", longest,
                                                   " positions, the model has ",
                                                   config.max_position_embeddings));
  }
  return absl::OkStatus();
}

const numerics::InjectionPolicy* InjectionOf(const GenerateRequest& request) {
  const bool acts = request.policy != nullptr &&
                    request.policy->injection().Any(request.phase, numerics::Direction::kForward);
  return acts ? &request.policy->injection() : nullptr;
}

}  // namespace

absl::Status CheckGenerateRequest(const GenerateRequest& request, const ModelConfig& config) {
  if (request.max_completion_tokens == 0) {
    return absl::InvalidArgumentError("max_completion_tokens is 0");
  }
  if (!(request.temperature >= 0.0) || !std::isfinite(request.temperature)) {
    return absl::InvalidArgumentError(
        absl::StrCat("temperature ", request.temperature, " is not a finite number >= 0"));
  }
  if (request.phase != numerics::Phase::kRollout && request.phase != numerics::Phase::kEval) {
    return absl::InvalidArgumentError(
        base::Cat("phase ", numerics::PhaseName(request.phase), " is neither rollout nor eval"));
  }
  std::set<uint64_t> scopes;
  for (const PromptGroup& group : request.groups) {
    TEMPER_RETURN_IF_ERROR(CheckGroup(group, request, config));
    if (!scopes.insert(group.scope).second) {
      return absl::InvalidArgumentError(absl::StrCat("group ", group.scope, " is asked twice"));
    }
  }
  return request.policy == nullptr ? absl::OkStatus() : CheckPolicySupported(*request.policy);
}

DecodeRequest::DecodeRequest(const GenerateRequest& request, const ModelConfig& config,
                             DecodeMemory* memory)
    : request_(request),
      config_(config),
      injection_(InjectionOf(request)),
      memory_(*memory),
      inv_temperature_(request.temperature == 0.0 ? 1.0f
                                                  : static_cast<float>(1.0 / request.temperature)),
      groups_(request.groups.size()) {
  const bool eval = request.phase == numerics::Phase::kEval;
  result_.groups.resize(request.groups.size());
  for (size_t g = 0; g < groups_.size(); ++g) {
    const PromptGroup& prompt = request.groups[g];
    longest_prompt_ = std::max(longest_prompt_, static_cast<int64_t>(prompt.prompt_ids.size()));
    groups_[g].error_key = eval ? base::EvaluationErrorKey(request.seed, prompt.scope)
                                : base::ForwardErrorKey(request.seed, prompt.scope);
    if (injection_ != nullptr) {
      groups_[g].injection_key =
          injection_->RowKey({.phase = request.phase, .seed = request.seed}, prompt.scope);
    }
    groups_[g].sampling_key = eval ? base::EvaluationSamplingKey(request.seed, prompt.scope)
                                   : base::SamplingKey(request.seed, prompt.scope);
    result_.groups[g].completions.resize(prompt.samples);
  }
  const GroupCounts none(request.phase, static_cast<int>(config.num_layers));
  counts_.assign(static_cast<size_t>(memory_.threads.threads()),
                 std::vector<GroupCounts>(groups_.size(), none));
  memory_.rope.Extend(longest_prompt_ + request.max_completion_tokens);
}

DecodeRequest::~DecodeRequest() {
  for (const Group& group : groups_) memory_.pages.Return(group.prompt_pages);
  for (const ActiveRow& row : active_) memory_.pages.Return(row.pages);
}

numerics::RowKey DecodeRequest::InjectionKeyOf(int64_t group, uint32_t position,
                                               uint32_t lane) const {
  return {
      .key = groups_[static_cast<size_t>(group)].injection_key, .position = position, .lane = lane};
}

numerics::RowKey DecodeRequest::KeyOf(int64_t group, uint32_t position, uint32_t lane) const {
  if (request_.policy != nullptr && request_.policy->noise_key() == numerics::NoiseKey::kFrozen) {
    return {.key = base::FrozenErrorKey(request_.policy->device_seed())};
  }
  return {.key = groups_[static_cast<size_t>(group)].error_key, .position = position, .lane = lane};
}

DecodePass DecodeRequest::NewPass() const {
  return {.weights = weights_.get(),
          .injected = injected_.get(),
          .pages = &memory_.pages,
          .rope = &memory_.rope,
          .kernels = &BestKernels(),
          .noise = {.policy = request_.policy, .phase = request_.phase}};
}

void DecodeRequest::ReserveForWorkers(int64_t rows, int64_t logit_rows) {
  for (DecodeScratch& scratch : memory_.scratch) {
    ReserveScratch(config_, rows, longest_prompt_ + request_.max_completion_tokens, logit_rows + 1,
                   injection_ != nullptr, &scratch);
    ReserveAdapterScratch(weights_->adapters, config_, std::max(rows, kRowsPerPass), &scratch);
  }
}

absl::Status DecodeRequest::FirstError(const std::vector<absl::Status>& statuses) const {
  for (const absl::Status& status : statuses) TEMPER_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::Status DecodeRequest::Prefill() {
  for (size_t g = 0; g < groups_.size(); ++g) {
    const auto length = static_cast<int64_t>(request_.groups[g].prompt_ids.size());
    for (int64_t p = 0; p < length; p += kernels::kPagePositions) {
      groups_[g].prompt_pages.push_back(memory_.pages.Take());
    }
  }
  ReserveForWorkers(longest_prompt_, 1);
  std::vector<absl::Status> statuses(groups_.size());
  memory_.threads.Run(static_cast<int64_t>(groups_.size()), [&](int64_t group, int worker) {
    statuses[static_cast<size_t>(group)] = PrefillGroup(group, worker);
  });
  TEMPER_RETURN_IF_ERROR(FirstError(statuses));
  StartRows();
  return absl::OkStatus();
}

absl::Status DecodeRequest::PrefillGroup(int64_t index, int worker) {
  const Group& group = groups_[static_cast<size_t>(index)];
  const std::vector<int32_t>& ids = request_.groups[static_cast<size_t>(index)].prompt_ids;
  DecodeScratch& scratch = memory_.scratch[static_cast<size_t>(worker)];
  const auto length = static_cast<int64_t>(ids.size());
  std::vector<DecodeRow> rows(ids.size());
  std::vector<numerics::RowKey> keys(ids.size()), injection_keys(ids.size());
  for (int64_t i = 0; i < length; ++i) {
    const auto position = static_cast<uint32_t>(i);
    rows[static_cast<size_t>(i)] = {
        .token = ids[static_cast<size_t>(i)],
        .position = position,
        .page = group.prompt_pages[static_cast<size_t>(i / kernels::kPagePositions)],
        .segments = {{.pages = group.prompt_pages.data(), .count = i + 1}, {}}};
    keys[static_cast<size_t>(i)] = KeyOf(index, position, 0);
    injection_keys[static_cast<size_t>(i)] = InjectionKeyOf(index, position, 0);
  }
  const RowSegment segment = {
      .begin = 0,
      .end = length,
      .counts = &counts_[static_cast<size_t>(worker)][static_cast<size_t>(index)]};
  const NormDraw* norms = NormsOf(index);
  DecodePass pass = NewPass();
  pass.rows = rows;
  pass.norms = {&norms, 1};
  pass.noise.keys = keys;
  pass.noise.injection_keys = injection_keys;
  pass.noise.segments = {&segment, 1};
  RunDecodePass(pass, &scratch);
  ComputeLogits(pass, length - 1, 1, &scratch);
  for (uint32_t s = 0; s < request_.groups[static_cast<size_t>(index)].samples; ++s) {
    TEMPER_RETURN_IF_ERROR(
        Draw(index, s, scratch.logits.data(), scratch.logits.data() + config_.vocab_size));
  }
  return absl::OkStatus();
}

absl::Status DecodeRequest::Draw(int64_t group, uint32_t sample, const float* logits,
                                 float* weights) {
  Completion& completion =
      result_.groups[static_cast<size_t>(group)].completions[static_cast<size_t>(sample)];
  const auto position = static_cast<uint32_t>(
      request_.groups[static_cast<size_t>(group)].prompt_ids.size() + completion.token_ids.size());
  const RowSoftmax softmax =
      ComputeSoftmax(BestKernels(), logits, config_.vocab_size, inv_temperature_, weights);
  if (!softmax.finite) {
    return absl::DataLossError(absl::StrCat(
        "a logit is not finite: group ", request_.groups[static_cast<size_t>(group)].scope,
        ", sample ", sample, ", position ", position, ", weights of version ", weights_->version));
  }
  int32_t token = 0;
  if (request_.temperature == 0.0) {
    token = ArgMax(logits, config_.vocab_size);
  } else {
    const double uniform = base::SamplingUniform(groups_[static_cast<size_t>(group)].sampling_key,
                                                 sample + 1, position);
    token = ChooseToken(weights, config_.vocab_size, softmax.total, uniform);
  }
  completion.token_ids.push_back(token);
  completion.logprobs.push_back(softmax.LogProb(logits[token], inv_temperature_));
  if (completion.versions.empty() || completion.versions.back().version != weights_->version) {
    completion.versions.push_back({.version = weights_->version, .tokens = 0});
  }
  ++completion.versions.back().tokens;
  return absl::OkStatus();
}

bool DecodeRequest::Finished(const Completion& completion) {
  const int32_t last = completion.token_ids.back();
  return std::find(request_.stop_ids.begin(), request_.stop_ids.end(), last) !=
             request_.stop_ids.end() ||
         completion.token_ids.size() >= request_.max_completion_tokens;
}

void DecodeRequest::StartRows() {
  for (size_t g = 0; g < groups_.size(); ++g) {
    const std::vector<Completion>& completions = result_.groups[g].completions;
    for (size_t s = 0; s < completions.size(); ++s) {
      if (Finished(completions[s])) continue;
      active_.push_back(
          {.group = static_cast<int32_t>(g), .sample = static_cast<uint32_t>(s), .pages = {}});
    }
  }
  ReserveForWorkers(kRowsPerPass, kRowsPerPass);
  rows_.resize(active_.size());
  keys_.resize(active_.size());
  injection_keys_.resize(active_.size());
}

void DecodeRequest::DropFinished() {
  size_t kept = 0;
  for (size_t i = 0; i < active_.size(); ++i) {
    const ActiveRow& row = active_[i];
    if (Finished(result_.groups[static_cast<size_t>(row.group)].completions[row.sample])) {
      memory_.pages.Return(row.pages);
      continue;
    }
    if (kept != i) active_[kept] = std::move(active_[i]);
    ++kept;
  }
  active_.resize(kept);
}

absl::Status DecodeRequest::Step() {
  const auto count = static_cast<int64_t>(active_.size());
  for (int64_t i = 0; i < count; ++i) {
    ActiveRow& row = active_[static_cast<size_t>(i)];
    const Group& group = groups_[static_cast<size_t>(row.group)];
    const auto prompt =
        static_cast<int64_t>(request_.groups[static_cast<size_t>(row.group)].prompt_ids.size());
    const std::vector<int32_t>& ids =
        result_.groups[static_cast<size_t>(row.group)].completions[row.sample].token_ids;
    const auto own = static_cast<int64_t>(ids.size());
    if ((own - 1) % kernels::kPagePositions == 0) row.pages.push_back(memory_.pages.Take());
    const auto position = static_cast<uint32_t>(prompt + own - 1);
    rows_[static_cast<size_t>(i)] = {
        .token = ids.back(),
        .position = position,
        .page = row.pages.back(),
        .segments = {{.pages = group.prompt_pages.data(), .count = prompt},
                     {.pages = row.pages.data(), .count = own}}};
    keys_[static_cast<size_t>(i)] = KeyOf(row.group, position, row.sample + 1);
    injection_keys_[static_cast<size_t>(i)] = InjectionKeyOf(row.group, position, row.sample + 1);
  }
  const int64_t grain =
      std::min(kRowsPerPass, (count + memory_.threads.threads() - 1) / memory_.threads.threads());
  std::vector<absl::Status> statuses(static_cast<size_t>((count + grain - 1) / grain));
  memory_.threads.Split(count, grain, [&](int64_t begin, int64_t end, int worker) {
    statuses[static_cast<size_t>(begin / grain)] = StepRows(begin, end, worker);
  });
  TEMPER_RETURN_IF_ERROR(FirstError(statuses));
  ++result_.decode_steps;
  DropFinished();
  return absl::OkStatus();
}

absl::Status DecodeRequest::StepRows(int64_t begin, int64_t end, int worker) {
  DecodeScratch& scratch = memory_.scratch[static_cast<size_t>(worker)];
  const auto count = static_cast<size_t>(end - begin);
  std::vector<RowSegment> segments;
  std::vector<const NormDraw*> norms;
  for (int64_t i = begin; i < end; ++i) {
    GroupCounts* counts = &counts_[static_cast<size_t>(worker)]
                                  [static_cast<size_t>(active_[static_cast<size_t>(i)].group)];
    if (segments.empty() || segments.back().counts != counts) {
      segments.push_back({.begin = i - begin, .end = i - begin, .counts = counts});
      norms.push_back(NormsOf(active_[static_cast<size_t>(i)].group));
    }
    ++segments.back().end;
  }
  DecodePass pass = NewPass();
  pass.rows = std::span(rows_).subspan(static_cast<size_t>(begin), count);
  pass.noise.keys = std::span(keys_).subspan(static_cast<size_t>(begin), count);
  pass.noise.injection_keys = std::span(injection_keys_).subspan(static_cast<size_t>(begin), count);
  pass.noise.segments = segments;
  pass.norms = norms;
  RunDecodePass(pass, &scratch);
  ComputeLogits(pass, 0, end - begin, &scratch);
  float* weights = scratch.logits.data() + kRowsPerPass * config_.vocab_size;
  for (int64_t i = begin; i < end; ++i) {
    const ActiveRow& row = active_[static_cast<size_t>(i)];
    TEMPER_RETURN_IF_ERROR(Draw(row.group, row.sample,
                                scratch.logits.data() + (i - begin) * config_.vocab_size, weights));
  }
  return absl::OkStatus();
}

absl::Status DecodeRequest::Use(std::shared_ptr<const DecodeWeights> weights) {
  weights_ = std::move(weights);
  for (DecodeScratch& scratch : memory_.scratch) {
    ReserveAdapterScratch(weights_->adapters, config_, kRowsPerPass, &scratch);
  }
  TakeUpAqn();
  return UseInjected();
}

absl::Status DecodeRequest::UseInjected() {
  if (request_.phase == numerics::Phase::kRollout) memory_.injected = nullptr;
  if (injection_ == nullptr) return absl::OkStatus();
  const numerics::InjectionDraw draw = {.phase = request_.phase, .seed = request_.seed};
  const uint64_t id = injection_->WeightsId(injection_->WeightKey(draw, weights_->version));
  injected_ = weights_->injected;
  if (injected_ != nullptr && injected_->id == id) return absl::OkStatus();
  injected_ = memory_.injected;
  if (injected_ != nullptr && injected_->id == id && memory_.injected_of.lock() == weights_) {
    return absl::OkStatus();
  }
  TEMPER_ASSIGN_OR_RETURN(injected_, InjectWeights(*weights_, *injection_, draw));
  if (request_.phase == numerics::Phase::kEval) {
    memory_.injected = injected_;
    memory_.injected_of = weights_;
  }
  return absl::OkStatus();
}

absl::Status DecodeRequest::Swap(std::shared_ptr<const DecodeWeights> newest) {
  if (newest == nullptr || newest == weights_) return absl::OkStatus();
  ++result_.swaps;
  return Use(std::move(newest));
}

void DecodeRequest::TakeUpAqn() {
  sigmas_[weights_->version] = request_.aqn ? weights_->aqn.sigma : 0.0;
  const bool own_draws = request_.aqn && weights_->aqn.acts() && !weights_->shared_norms;
  for (size_t g = 0; g < groups_.size(); ++g) {
    groups_[g].norms.reset();
    if (!own_draws) continue;
    const uint64_t key = weights_->aqn.Key(request_.groups[g].scope, /*worker=*/0);
    groups_[g].norms = weights_->DrawNormsWith(key, nullptr);
  }
}

const NormDraw* DecodeRequest::NormsOf(int64_t group) const {
  if (!request_.aqn) return nullptr;
  const std::optional<NormDraw>& own = groups_[static_cast<size_t>(group)].norms;
  if (own) return &*own;
  return weights_->shared_norms ? &*weights_->shared_norms : nullptr;
}

double DecodeRequest::SigmaOf(const GeneratedGroup& group) const {
  uint64_t newest = 0;
  for (const Completion& completion : group.completions) {
    newest = std::max(newest, completion.versions.back().version);
  }
  const auto found = sigmas_.find(newest);
  return found == sigmas_.end() ? 0.0 : found->second;
}

StepState DecodeRequest::state() const {
  return {.decode_steps = result_.decode_steps,
          .active_rows = active_rows(),
          .version = weights_->version};
}

GenerateResult DecodeRequest::TakeResult() {
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (size_t worker = 1; worker < counts_.size(); ++worker) {
      counts_[0][g].Merge(counts_[worker][g]);
    }
    counts_[0][g].AddTo(&result_.groups[g].counters);
    result_.groups[g].aqn_sigma = SigmaOf(result_.groups[g]);
    for (Completion& completion : result_.groups[g].completions) {
      result_.generated_tokens += completion.token_ids.size();
      const int32_t last = completion.token_ids.back();
      completion.truncated = std::find(request_.stop_ids.begin(), request_.stop_ids.end(), last) ==
                             request_.stop_ids.end();
    }
  }
  return std::move(result_);
}

}  // namespace temper::model
