#include "model/train_forward.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/torch_status.h"
#include "model/train_context.h"
#include "services/base/random_key.h"
#include "services/base/status_macros.h"

namespace temper::model {
namespace {

using numerics::Operator;

// Indices into Parameters::named; -1: the model has no such tensor.
struct LayerIndex {
  int64_t input_norm, q, q_bias, k, k_bias, v, v_bias, q_norm, k_norm, o, post_norm, gate, up, down;
};

struct NamedLinear {
  LinearSite site;
  bool tied_embedding = false;
};

// W [out, in] packed for g W.
numerics::PackedMatrix PackTransposed(const float* values, int64_t out, int64_t in) {
  std::vector<float> transposed(static_cast<size_t>(out * in));
  for (int64_t n = 0; n < out; ++n) {
    for (int64_t k = 0; k < in; ++k) {
      transposed[static_cast<size_t>(k * out + n)] = values[n * in + k];
    }
  }
  return numerics::Pack(transposed.data(), in, out);
}

}  // namespace

struct TrainModel::Impl {
  Impl(Parameters master, const TrainOptions& train_options)
      : parameters(std::move(master)), context(parameters.config, train_options) {
    for (int64_t layer = 0; layer < parameters.config.num_layers; ++layer) IndexLayer(layer);
    embedding = Index("model.embed_tokens.weight");
    final_norm = Index("model.norm.weight");
    const bool tied = parameters.config.tie_word_embeddings;
    head = tied ? embedding : Index("lm_head.weight");
    linears.push_back({{Operator::kLmHead, numerics::kNoLayer, head}, tied});
    context.linears.resize(parameters.named.size());
    IndexAdapters();
    for (auto& [name, tensor] : parameters.trained()) tensor.set_requires_grad(true);
  }

  void IndexAdapters() {
    adapter_of.resize(layers.size());
    for (auto& of_layer : adapter_of) of_layer.fill(-1);
    for (const LoraModule& module : parameters.lora.modules) {
      adapter_of[static_cast<size_t>(module.layer)][static_cast<size_t>(module.op)] =
          static_cast<int64_t>(context.adapters.size());
      PackedAdapter& adapter = context.adapters.emplace_back();
      adapter.module = module;
      adapter.scale = parameters.lora.scale();
    }
  }

  const at::Tensor& AdapterA(int64_t index) const {
    return parameters.adapter[static_cast<size_t>(2 * index)].second;
  }
  const at::Tensor& AdapterB(int64_t index) const {
    return parameters.adapter[static_cast<size_t>(2 * index + 1)].second;
  }

  int64_t Index(const std::string& name) const {
    const auto it = std::find_if(parameters.named.begin(), parameters.named.end(),
                                 [&](const auto& entry) { return entry.first == name; });
    return it == parameters.named.end() ? -1 : it - parameters.named.begin();
  }

  void IndexLayer(int64_t number) {
    const std::string prefix = absl::StrCat("model.layers.", number, ".");
    const auto at = [&](const char* name) { return Index(prefix + name); };
    const LayerIndex layer = {.input_norm = at("input_layernorm.weight"),
                              .q = at("self_attn.q_proj.weight"),
                              .q_bias = at("self_attn.q_proj.bias"),
                              .k = at("self_attn.k_proj.weight"),
                              .k_bias = at("self_attn.k_proj.bias"),
                              .v = at("self_attn.v_proj.weight"),
                              .v_bias = at("self_attn.v_proj.bias"),
                              .q_norm = at("self_attn.q_norm.weight"),
                              .k_norm = at("self_attn.k_norm.weight"),
                              .o = at("self_attn.o_proj.weight"),
                              .post_norm = at("post_attention_layernorm.weight"),
                              .gate = at("mlp.gate_proj.weight"),
                              .up = at("mlp.up_proj.weight"),
                              .down = at("mlp.down_proj.weight")};
    const int index = static_cast<int>(number);
    for (const LinearSite& site :
         {LinearSite{Operator::kQ, index, layer.q}, LinearSite{Operator::kK, index, layer.k},
          LinearSite{Operator::kV, index, layer.v}, LinearSite{Operator::kO, index, layer.o},
          LinearSite{Operator::kGate, index, layer.gate},
          LinearSite{Operator::kUp, index, layer.up},
          LinearSite{Operator::kDown, index, layer.down}}) {
      linears.push_back({site, false});
    }
    layers.push_back(layer);
  }

  at::Tensor Tensor(int64_t index) const {
    return index < 0 ? at::Tensor() : parameters.named[static_cast<size_t>(index)].second;
  }

  // Packs what `pass` multiplies with and is not packed. with_transposed: what its backward pass
  // needs as well.
  absl::Status PackFor(TrainPass* pass, bool with_transposed) {
    PackAdaptersIfChanged();
    if (pass->injection != nullptr) {
      const uint64_t id = pass->injection->WeightsId(pass->weight_key);
      if (context.injected == nullptr || context.injected_id != id) {
        context.injected = std::make_shared<std::vector<PackedLinear>>(parameters.named.size());
        context.injected_id = id;
      }
      pass->injected = context.injected;
    }
    std::vector<absl::Status> statuses(linears.size());
    context.threads.Run(static_cast<int64_t>(linears.size()), [&](int64_t task, int) {
      statuses[static_cast<size_t>(task)] =
          PackLinear(linears[static_cast<size_t>(task)].site, *pass, with_transposed);
    });
    for (const absl::Status& status : statuses) TEMPER_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }

  absl::Status PackLinear(const LinearSite& site, const TrainPass& pass, bool with_transposed) {
    const auto index = static_cast<size_t>(site.parameter);
    const numerics::TensorError& error =
        pass.Injected(numerics::TensorRole::kWeightOperand, site.op, site.layer);
    PackedLinear& linear = (error.acts() ? *pass.injected : context.linears)[index];
    const bool pack_forward = linear.forward.out_features() == 0;
    const bool pack_transposed = with_transposed && linear.transposed.out_features() == 0;
    if (!pack_forward && !pack_transposed) return absl::OkStatus();
    const at::Tensor& weight = parameters.named[index].second;
    const int64_t out = weight.size(0), in = weight.size(1);
    const float* values = weight.data_ptr<float>();
    std::vector<float> perturbed;
    if (error.acts()) {
      const uint32_t role =
          numerics::Site(site.layer, site.op, numerics::TensorRole::kWeightOperand);
      TEMPER_ASSIGN_OR_RETURN(
          linear.perturbation,
          PerturbWeight(error, values, out, in, pass.weight_key, role, &perturbed));
      values = perturbed.data();
    }
    if (pack_forward) linear.forward = numerics::Pack(values, out, in);
    if (pack_transposed) linear.transposed = PackTransposed(values, out, in);
    return absl::OkStatus();
  }

  static void PackBothWays(const at::Tensor& weight, PackedLinear* linear) {
    const int64_t out = weight.size(0), in = weight.size(1);
    linear->forward = numerics::Pack(weight.data_ptr<float>(), out, in);
    linear->transposed = PackTransposed(weight.data_ptr<float>(), out, in);
  }

  void PackAdaptersIfChanged() {
    if (adapters_packed) return;
    for (size_t i = 0; i < context.adapters.size(); ++i) {
      const auto index = static_cast<int64_t>(i);
      PackBothWays(AdapterA(index), &context.adapters[i].a);
      PackBothWays(AdapterB(index), &context.adapters[i].b);
    }
    adapters_packed = true;
  }

  // Optimizers write to what is trained alone: a frozen base stays packed.
  void Changed() {
    adapters_packed = false;
    if (parameters.lora.enabled()) return;
    for (PackedLinear& linear : context.linears) linear = {};
    context.injected = nullptr;
  }

  // The clean norms by NormSlot.
  CleanNorms Norms() const {
    const int num_layers = static_cast<int>(parameters.config.num_layers);
    CleanNorms norms(NormSlots(num_layers));
    for (const numerics::AqnTarget& norm :
         numerics::AqnNorms({.num_layers = num_layers, .qk_norm = parameters.config.qk_norm})) {
      const at::Tensor& gamma =
          parameters.Get(numerics::OperatorPath(norm.op, norm.layer) + ".weight");
      norms[NormSlot(norm.op, norm.layer, num_layers)] = {gamma.const_data_ptr<float>(),
                                                          static_cast<size_t>(gamma.numel())};
    }
    return norms;
  }

  // Draws the norms of every group; neighbouring groups under one key share theirs.
  void DrawAqn(std::span<const TrainGroup> groups, const numerics::VersionAqn& aqn,
               TrainPass* pass) const {
    if (!aqn.acts()) return;
    const CleanNorms clean = Norms();
    uint64_t last_key = 0;
    for (size_t g = 0; g < groups.size(); ++g) {
      const uint64_t key = aqn.Key(groups[g].group_index, groups[g].worker);
      if (g == 0 || key != last_key) {
        pass->aqn_runs.push_back(
            {.draw = DrawNorms(clean, static_cast<int>(layers.size()), aqn, key, nullptr)});
      }
      last_key = key;
      pass->aqn_runs.back().end =
          g + 1 < groups.size() ? pass->groups[g + 1].prompt.first : pass->rows();
    }
  }

  at::Tensor Linear(const at::Tensor& x, Operator op, int64_t layer, int64_t weight, int64_t bias,
                    const PassHandle& pass) const {
    const at::Tensor y =
        LinearRows(x, Tensor(weight), Tensor(bias),
                   {.op = op, .layer = static_cast<int>(layer), .parameter = weight}, pass);
    const int64_t adapter = adapter_of[static_cast<size_t>(layer)][static_cast<size_t>(op)];
    return adapter < 0 ? y : AdaptRows(y, x, AdapterA(adapter), AdapterB(adapter), adapter, pass);
  }

  // RMSNorm over each head (Qwen3); x itself where the model has none.
  at::Tensor HeadNorm(const at::Tensor& x, int64_t norm, const NormSite& site,
                      const PassHandle& pass) const {
    if (norm < 0) return x;
    const at::Tensor heads = x.view({-1, parameters.config.head_dim});
    return NormRows(heads, Tensor(norm), site, pass).view(x.sizes());
  }

  LogProbs Run(const PassHandle& pass) const {
    at::Tensor x = EmbedRows(Tensor(embedding), pass);  // [rows, hidden]
    // Every linear's backward pass runs, and errs, whatever lies below the lowest adapter.
    if (parameters.lora.enabled() && at::GradMode::is_enabled()) x.set_requires_grad(true);
    for (int64_t l = 0; l < parameters.config.num_layers; ++l) {
      const LayerIndex& layer = layers[static_cast<size_t>(l)];
      const auto norm = [l](Operator op) { return NormSite{op, static_cast<int>(l)}; };
      at::Tensor normed = NormRows(x, Tensor(layer.input_norm), norm(Operator::kInputNorm), pass);
      const at::Tensor q = HeadNorm(Linear(normed, Operator::kQ, l, layer.q, layer.q_bias, pass),
                                    layer.q_norm, norm(Operator::kQNorm), pass);
      const at::Tensor k = HeadNorm(Linear(normed, Operator::kK, l, layer.k, layer.k_bias, pass),
                                    layer.k_norm, norm(Operator::kKNorm), pass);
      const at::Tensor v = Linear(normed, Operator::kV, l, layer.v, layer.v_bias, pass);
      const at::Tensor attended = AttendRows(q, k, v, pass);
      x = AddRows(x, Linear(attended, Operator::kO, l, layer.o, -1, pass), pass);
      normed = NormRows(x, Tensor(layer.post_norm), norm(Operator::kPostAttentionNorm), pass);
      const at::Tensor gate = Linear(normed, Operator::kGate, l, layer.gate, -1, pass);
      const at::Tensor up = Linear(normed, Operator::kUp, l, layer.up, -1, pass);
      x = AddRows(x, Linear(SwiGluRows(gate, up, pass), Operator::kDown, l, layer.down, -1, pass),
                  pass);
    }
    x = NormRows(x, Tensor(final_norm), {Operator::kFinalNorm, numerics::kNoLayer}, pass);
    return HeadLogProbs(x, Tensor(head), head, parameters.config.tie_word_embeddings, pass);
  }

  Parameters parameters;
  TrainContext context;
  std::vector<LayerIndex> layers;
  int64_t embedding = -1, final_norm = -1, head = -1;
  std::vector<NamedLinear> linears;
  std::vector<std::array<int64_t, 8>> adapter_of;  // [layer][operator]: its index, -1: none
  bool adapters_packed = false;
};

TrainModel::TrainModel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TrainModel::~TrainModel() = default;
Parameters& TrainModel::parameters() { return impl_->parameters; }
const Parameters& TrainModel::parameters() const { return impl_->parameters; }
void TrainModel::ParametersChanged() { impl_->Changed(); }

absl::StatusOr<std::unique_ptr<TrainModel>> TrainModel::Create(const Parameters& parameters,
                                                               TrainOptions options) {
  if (options.threads < 1 || options.threads > 1024 || options.head_rows < 1) {
    return absl::InvalidArgumentError(absl::StrCat("threads ", options.threads, " or head_rows ",
                                                   options.head_rows, " is out of range"));
  }
  return RunTorchFor<std::unique_ptr<TrainModel>>(
      "make a model for training", [&]() -> absl::StatusOr<std::unique_ptr<TrainModel>> {
        // What LibTorch computes itself is a few sums of gradients; a second set of threads would
        // only get into the way of ours.
        at::set_num_threads(1);
        return std::unique_ptr<TrainModel>(
            new TrainModel(std::make_unique<Impl>(CloneParameters(parameters), options)));
      });
}

absl::StatusOr<LogProbs> TrainModel::Forward(std::span<const TrainGroup> groups,
                                             const LogProbOptions& options,
                                             numerics::NoiseCounters* counters) {
  return RunTorchFor<LogProbs>("forward pass", [&]() -> absl::StatusOr<LogProbs> {
    TEMPER_ASSIGN_OR_RETURN(PassHandle pass, LayOutPass(groups, options, &impl_->context));
    impl_->DrawAqn(groups, options.aqn, pass.get());
    const numerics::NoisePolicy* policy = options.noise.policy;
    at::Tensor& apart = impl_->context.tied_head_gradient;
    if (options.gradients && impl_->parameters.config.tie_word_embeddings &&
        !impl_->parameters.lora.enabled() && policy != nullptr &&
        policy->Scale(numerics::Phase::kTrain, numerics::Direction::kBackward, Operator::kLmHead,
                      numerics::kNoLayer) > 0.0 &&
        !apart.defined()) {
      apart = at::zeros(impl_->Tensor(impl_->embedding).sizes(), at::kFloat);
    }
    TEMPER_RETURN_IF_ERROR(impl_->PackFor(pass.get(), options.gradients));
    if (pass->head_rows.empty()) {
      return LogProbs{.logprobs = at::empty({0}, at::kFloat),
                      .entropy = at::empty({0}, at::kFloat)};
    }
    at::AutoGradMode mode(options.gradients);
    LogProbs result = impl_->Run(pass);
    if (counters != nullptr) {
      for (const GroupCounts& counts : pass->forward_counts) counts.AddTo(counters);
    }
    return result;
  });
}

absl::Status TrainModel::Backward(const LogProbs& pass, std::span<const float> weight,
                                  numerics::NoiseCounters* counters) {
  if (static_cast<int64_t>(weight.size()) != pass.logprobs.numel()) {
    return absl::InvalidArgumentError(
        absl::StrCat(weight.size(), " weights for ", pass.logprobs.numel(), " log-probs"));
  }
  if (weight.empty()) return absl::OkStatus();
  if (!pass.logprobs.requires_grad()) {
    return absl::InvalidArgumentError("the pass kept no graph");
  }
  TEMPER_RETURN_IF_ERROR(RunTorch("backward pass", [&]() -> absl::Status {
    at::Tensor gradient = at::empty({pass.logprobs.numel()}, at::kFloat);
    std::copy(weight.begin(), weight.end(), gradient.mutable_data_ptr<float>());
    torch::autograd::backward({pass.logprobs}, {gradient});
    return absl::OkStatus();
  }));
  if (counters != nullptr) counters->Merge(TakeBackwardCounters());
  return absl::OkStatus();
}

numerics::NoiseCounters TrainModel::TakeBackwardCounters() {
  numerics::NoiseCounters counters;
  const GroupCounts none(numerics::Phase::kTrain,
                         static_cast<int>(impl_->parameters.config.num_layers));
  for (GroupCounts& counts : impl_->context.backward_counts) {
    counts.AddTo(&counters);
    counts = none;
  }
  return counters;
}

void TrainModel::ZeroGrad() {
  const auto clear = [](const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    std::memset(tensor.data_ptr<float>(), 0, static_cast<size_t>(tensor.numel()) * sizeof(float));
  };
  for (auto& [name, tensor] : impl_->parameters.trained()) clear(tensor.grad());
  impl_->context.tied_head_gradient = at::Tensor();
}

absl::Status TrainModel::ApplyGradWeightError(const TrainNoise& noise,
                                              numerics::NoiseCounters* counters) {
  if (noise.policy == nullptr) return absl::OkStatus();
  const numerics::NoisePolicy& policy = *noise.policy;
  const bool frozen = policy.noise_key() == numerics::NoiseKey::kFrozen;
  const uint64_t key = frozen ? base::FrozenErrorKey(policy.device_seed())
                              : base::GradWeightErrorKey(noise.run_seed, noise.optimizer_step);
  for (size_t i = 0; i < impl_->context.adapters.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    ApplyAdapterGradError(impl_->context.adapters[i], impl_->AdapterA(index),
                          impl_->AdapterB(index), policy, key, counters);
  }
  for (const NamedLinear& linear : impl_->linears) {
    const numerics::OperatorError error = policy.Error(
        numerics::Phase::kTrain, numerics::Direction::kBackward, linear.site.op, linear.site.layer);
    const at::Tensor& weight =
        impl_->parameters.named[static_cast<size_t>(linear.site.parameter)].second;
    if (!weight.grad().defined()) continue;
    at::Tensor gradient = linear.tied_embedding ? impl_->context.tied_head_gradient : weight.grad();
    numerics::ErrorStats stats;
    if (error.acts() && gradient.defined()) {
      numerics::ApplyErrorToWeight(
          error, gradient.data_ptr<float>(), gradient.size(0), gradient.size(1), key,
          numerics::Site(linear.site.layer, linear.site.op, numerics::TensorRole::kGradWeight),
          &stats);
      if (linear.tied_embedding) {
        impl_->context.kernels.add(weight.grad().data_ptr<float>(), gradient.data_ptr<float>(),
                                   gradient.numel());
        impl_->context.tied_head_gradient = at::Tensor();
      }
    }
    if (counters != nullptr) {
      counters->Count({.phase = numerics::Phase::kTrain,
                       .direction = numerics::Direction::kBackward,
                       .layer = linear.site.layer,
                       .op = linear.site.op,
                       .role = numerics::TensorRole::kGradWeight},
                      stats);
    }
  }
  return absl::OkStatus();
}

}  // namespace temper::model
