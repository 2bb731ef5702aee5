#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/train_context.h"
#include "services/base/random_key.h"
#include "services/base/status_macros.h"

namespace temper::model {
namespace {

using numerics::Direction;
using numerics::Phase;

uint64_t ForwardKey(const TrainNoise& noise, uint64_t group_index) {
  if (noise.phase == Phase::kEval) return base::EvaluationErrorKey(noise.run_seed, group_index);
  if (noise.draw == numerics::LearnerNoise::kFresh) {
    return base::FreshForwardErrorKey(noise.run_seed, group_index, noise.optimizer_step,
                                      static_cast<uint32_t>(noise.phase));
  }
  return base::ForwardErrorKey(noise.run_seed, group_index);
}

numerics::InjectionDraw DrawOf(const TrainNoise& noise) {
  return {.phase = noise.phase,
          .seed = noise.run_seed,
          .fresh = noise.draw == numerics::LearnerNoise::kFresh,
          .optimizer_step = noise.optimizer_step};
}

class Layout {
 public:
  Layout(const LogProbOptions& options, const ModelConfig& config, TrainPass* pass)
      : noise_(options.noise), config_(config), pass_(*pass) {}

  absl::Status AddGroup(const TrainGroup& group) {
    if (group.prompt_ids.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("group ", group.group_index, " has an empty prompt"));
    }
    const bool frozen =
        noise_.policy != nullptr && noise_.policy->noise_key() == numerics::NoiseKey::kFrozen;
    frozen_ = frozen;
    forward_key_ = frozen ? base::FrozenErrorKey(noise_.policy->device_seed())
                          : ForwardKey(noise_, group.group_index);
    gradient_key_ =
        frozen ? forward_key_
               : base::GradInputErrorKey(noise_.run_seed, group.group_index, noise_.optimizer_step);
    if (pass_.injection != nullptr) {
      injection_key_ = pass_.injection->RowKey(DrawOf(noise_), group.group_index);
    }
    GroupRows rows;
    const auto prompt = static_cast<int64_t>(group.prompt_ids.size());
    rows.prompt = {.first = pass_.rows(), .count = prompt};
    TEMPER_RETURN_IF_ERROR(AddTokens(group, group.prompt_ids, prompt, 0, 0));
    for (const TrainCompletion& completion : group.completions) {
      const auto count = static_cast<int64_t>(completion.token_ids.size());
      if (count == 0) continue;
      const RowRun run = {.first = pass_.rows(), .count = count - 1};
      TEMPER_RETURN_IF_ERROR(
          AddTokens(group, completion.token_ids, count - 1, prompt, completion.sample + 1));
      for (int64_t i = 0; i < count; ++i) {
        const int32_t target = completion.token_ids[static_cast<size_t>(i)];
        TEMPER_RETURN_IF_ERROR(CheckToken(group, target));
        pass_.head_rows.push_back(
            {.row = i == 0 ? rows.prompt.first + prompt - 1 : run.first + i - 1, .target = target});
      }
      rows.completions.push_back(run);
    }
    pass_.groups.push_back(std::move(rows));
    return absl::OkStatus();
  }

 private:
  absl::Status CheckToken(const TrainGroup& group, int32_t token) const {
    if (token >= 0 && token < config_.vocab_size) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("group ", group.group_index, ": token ", token,
                                                   " is outside the vocabulary of ",
                                                   config_.vocab_size));
  }

  absl::Status AddTokens(const TrainGroup& group, const std::vector<int32_t>& ids, int64_t count,
                         int64_t first_position, uint32_t lane) {
    for (int64_t i = 0; i < count; ++i) {
      TEMPER_RETURN_IF_ERROR(CheckToken(group, ids[static_cast<size_t>(i)]));
      const auto position = static_cast<uint32_t>(first_position + i);
      pass_.tokens.push_back(ids[static_cast<size_t>(i)]);
      pass_.positions.push_back(position);
      const uint32_t key_position = frozen_ ? 0 : position;
      const uint32_t key_lane = frozen_ ? 0 : lane;
      pass_.forward_keys.push_back(
          {.key = forward_key_, .position = key_position, .lane = key_lane});
      pass_.gradient_keys.push_back(
          {.key = gradient_key_, .position = key_position, .lane = key_lane});
      if (pass_.injection == nullptr) continue;
      pass_.injection_keys.push_back({.key = injection_key_, .position = position, .lane = lane});
    }
    return absl::OkStatus();
  }

  const TrainNoise& noise_;
  const ModelConfig& config_;
  TrainPass& pass_;
  bool frozen_ = false;
  uint64_t forward_key_ = 0;
  uint64_t gradient_key_ = 0;
  uint64_t injection_key_ = 0;
};

// Floats that one group's attention needs in a worker's scratch memory.
int64_t AttentionFloats(const GroupRows& group, int64_t head_dim) {
  const auto pages_of = [](int64_t count) {
    return (count + kernels::kPagePositions - 1) / kernels::kPagePositions;
  };
  int64_t pages = pages_of(group.prompt.count);
  int64_t longest = 0;
  for (const RowRun& run : group.completions) {
    pages += pages_of(run.count);
    longest = std::max(longest, run.count);
  }
  return pages * kernels::BackwardPageFloats(head_dim) +
         kernels::AttendBackwardScratchFloats(group.prompt.count + longest, head_dim);
}

void ReserveScratch(const TrainPass& pass, TrainContext* context) {
  int64_t attention = 0;
  uint32_t last_position = 0;
  for (const GroupRows& group : pass.groups) {
    attention = std::max(attention, AttentionFloats(group, context->config.head_dim));
  }
  for (uint32_t position : pass.positions) last_position = std::max(last_position, position);
  context->rope.Extend(static_cast<int64_t>(last_position) + 1);
  for (std::vector<float>& scratch : context->attention) {
    if (static_cast<int64_t>(scratch.size()) < attention) {
      scratch.resize(static_cast<size_t>(attention));
    }
  }
}

}  // namespace

TrainContext::TrainContext(const ModelConfig& model_config, const TrainOptions& train_options)
    : config(model_config),
      options(train_options),
      threads(train_options.threads),
      kernels(BestKernels()),
      rope(model_config.rope_theta, model_config.head_dim) {
  const auto workers = static_cast<size_t>(options.threads);
  backward_counts.assign(workers, GroupCounts(Phase::kTrain, static_cast<int>(config.num_layers)));
  attention.resize(workers);
  vocabulary.assign(workers, std::vector<float>(static_cast<size_t>(config.vocab_size)));
  head_inputs.resize(static_cast<size_t>(options.head_rows * config.hidden_size));
  head_logits.resize(static_cast<size_t>(options.head_rows * config.vocab_size));
}

numerics::OperatorError TrainPass::GradientFactor(numerics::Operator op, int layer) const {
  if (forward_policy == nullptr ||
      forward_policy->error_gradient() != numerics::ErrorGradient::kPathwise) {
    return {};
  }
  const numerics::OperatorError error =
      forward_policy->Error(phase, Direction::kForward, op, layer);
  return error.linear() ? error : numerics::OperatorError();
}

numerics::OperatorError TrainPass::InputGradientError(numerics::Operator op, int layer) const {
  return backward_policy == nullptr
             ? numerics::OperatorError()
             : backward_policy->Error(Phase::kTrain, Direction::kBackward, op, layer);
}

const numerics::TensorError& TrainPass::Injected(numerics::TensorRole role, numerics::Operator op,
                                                 int layer) const {
  return injection == nullptr ? no_error
                              : injection->Error(phase, Direction::kForward, role, op, layer);
}

const PackedLinear& TrainPass::Weights(const LinearSite& site) const {
  const bool errs = Injected(numerics::TensorRole::kWeightOperand, site.op, site.layer).acts();
  return (errs ? *injected : context->linears)[static_cast<size_t>(site.parameter)];
}

void TrainPass::MultiplyByWeightFactor(const LinearSite& site, float* gw, int64_t out,
                                       int64_t in) const {
  const numerics::TensorRole role = numerics::TensorRole::kWeightOperand;
  const numerics::OperatorError factor = Injected(role, site.op, site.layer).GradientFactor();
  if (!factor.acts()) return;
  numerics::ApplyErrorToWeight(factor, gw, out, in, weight_key,
                               numerics::Site(site.layer, site.op, role), nullptr);
}

const float* TrainPass::Operand(const float* x, int64_t first, int64_t rows, int64_t cols,
                                const PassKeys& keys, const LinearSite& site, Direction direction,
                                int worker, float* buffer) {
  if (injection == nullptr) return x;
  GroupCounts& counts = direction == Direction::kForward
                            ? forward_counts[static_cast<size_t>(worker)]
                            : context->backward_counts[static_cast<size_t>(worker)];
  const RowSegment segment = {.begin = 0, .end = first + rows, .counts = &counts};
  const RowNoise noise = {.policy = forward_policy,
                          .phase = phase,
                          .segments = {&segment, 1},
                          .injection_keys = keys.injection};
  const ProductRows product = {.noise = noise,
                               .direction = direction,
                               .op = site.op,
                               .layer = site.layer,
                               .first_row = first,
                               .rows = rows};
  CountWeight(product, Weights(site).perturbation);
  return InputOperand(x, cols, product, buffer);
}

void TrainPass::ForwardError(float* y, int64_t first, int64_t rows, int64_t cols,
                             const PassKeys& keys, numerics::Operator op, int layer, int worker) {
  const RowSegment segment = {.begin = 0,
                              .end = static_cast<int64_t>(keys.forward.size()),
                              .counts = &forward_counts[static_cast<size_t>(worker)]};
  const RowNoise noise = {.policy = forward_policy,
                          .phase = phase,
                          .keys = keys.forward,
                          .segments = {&segment, 1},
                          .injection_keys = keys.injection};
  ApplyRowError(y, first, rows, cols, cols, noise, keys.forward, Direction::kForward, op, layer);
  if (!Injected(numerics::TensorRole::kInjectedOutput, op, layer).acts()) return;
  std::vector<float> scratch(static_cast<size_t>(cols));
  InjectOutput(y, cols, cols,
               {.noise = noise, .op = op, .layer = layer, .first_row = first, .rows = rows},
               scratch.data());
}

void TrainPass::GradientError(float* gx, int64_t first, int64_t rows, int64_t cols,
                              std::span<const numerics::RowKey> keys, numerics::Operator op,
                              int layer, int worker) {
  const RowSegment segment = {.begin = 0,
                              .end = static_cast<int64_t>(keys.size()),
                              .counts = &context->backward_counts[static_cast<size_t>(worker)]};
  const RowNoise noise = {
      .policy = backward_policy, .phase = Phase::kTrain, .keys = keys, .segments = {&segment, 1}};
  ApplyRowError(gx, first, rows, cols, cols, noise, keys, Direction::kBackward, op, layer);
}

absl::StatusOr<PassHandle> LayOutPass(std::span<const TrainGroup> groups,
                                      const LogProbOptions& options, TrainContext* context) {
  if (!(options.temperature > 0.0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("temperature ", options.temperature, " is not positive"));
  }
  if (options.noise.policy != nullptr) {
    TEMPER_RETURN_IF_ERROR(CheckPolicySupported(*options.noise.policy));
  }
  auto pass = c10::make_intrusive<TrainPass>();
  pass->context = context;
  pass->inv_temperature = static_cast<float>(1.0 / options.temperature);
  pass->phase = options.noise.phase;
  pass->backward_policy = options.noise.policy;
  pass->forward_policy =
      options.noise.draw == numerics::LearnerNoise::kNone ? nullptr : options.noise.policy;
  if (pass->forward_policy != nullptr &&
      pass->forward_policy->injection().Any(pass->phase, Direction::kForward)) {
    pass->injection = &pass->forward_policy->injection();
    pass->weight_key =
        pass->injection->WeightKey(DrawOf(options.noise), options.noise.policy_version);
  }
  pass->forward_counts.assign(
      static_cast<size_t>(context->options.threads),
      GroupCounts(pass->phase, static_cast<int>(context->config.num_layers)));
  Layout layout(options, context->config, pass.get());
  for (const TrainGroup& group : groups) TEMPER_RETURN_IF_ERROR(layout.AddGroup(group));
  ReserveScratch(*pass, context);
  return pass;
}

}  // namespace temper::model
