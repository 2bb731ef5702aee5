#include "model/decode_weights.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/torch_status.h"
#include "services/base/random_key.h"
#include "services/base/status_macros.h"

namespace temper::model {
namespace {

std::vector<float> Copy(const at::Tensor& tensor) {
  const float* values = tensor.data_ptr<float>();
  return {values, values + tensor.numel()};
}

numerics::PackedMatrix PackStacked(std::initializer_list<const at::Tensor*> matrices) {
  const int64_t in_features = (*matrices.begin())->size(1);
  std::vector<float> stacked;
  for (const at::Tensor* matrix : matrices) {
    const float* values = matrix->data_ptr<float>();
    stacked.insert(stacked.end(), values, values + matrix->numel());
  }
  return numerics::Pack(stacked.data(), static_cast<int64_t>(stacked.size()) / in_features,
                        in_features);
}

class Packer {
 public:
  Packer(const Parameters& parameters, uint64_t version, const AqnInstall& aqn)
      : parameters_(parameters),
        aqn_(aqn),
        draw_{.key = base::AqnKey(aqn.run_seed, version),
              .sigma = aqn.plan == nullptr ? 0.0 : aqn.sigma,
              .mode = aqn.plan == nullptr ? numerics::SigmaMode::kAbsolute : aqn.plan->sigma_mode} {
    weights_.config = parameters.config;
    weights_.version = version;
    weights_.aqn.sigma = draw_.sigma;
  }

  DecodeWeights Pack() {
    const ModelConfig& config = weights_.config;
    weights_.layers.resize(static_cast<size_t>(config.num_layers));
    for (int64_t layer = 0; layer < config.num_layers; ++layer) PackLayer(layer);
    weights_.adapters = PackAdapters(parameters_);
    Norm(parameters_.Get("model.norm.weight"),
         {.layer = numerics::kNoLayer, .kind = numerics::NormKind::kFinalNorm},
         weights_.final_norm);
    const at::Tensor& embedding = parameters_.Get("model.embed_tokens.weight");
    if (config.tie_word_embeddings) {
      weights_.lm_head = PackStacked({&embedding});
    } else {
      weights_.lm_head = PackStacked({&parameters_.Get("lm_head.weight")});
      weights_.embedding = Copy(embedding);
    }
    return std::move(weights_);
  }

 private:
  void PackLayer(int64_t index) {
    DecodeLayer& layer = weights_.layers[static_cast<size_t>(index)];
    const std::string prefix = absl::StrCat("model.layers.", index, ".");
    const auto get = [&](const char* name) -> const at::Tensor& {
      return parameters_.Get(prefix + name);
    };
    const int number = static_cast<int>(index);
    Norm(get("input_layernorm.weight"), {number, numerics::NormKind::kInputNorm}, layer.input_norm);
    Norm(get("post_attention_layernorm.weight"), {number, numerics::NormKind::kPostAttentionNorm},
         layer.post_attention_norm);
    layer.qkv = PackStacked({&get("self_attn.q_proj.weight"), &get("self_attn.k_proj.weight"),
                             &get("self_attn.v_proj.weight")});
    if (weights_.config.qkv_bias) {
      for (const char* name :
           {"self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"}) {
        const std::vector<float> bias = Copy(get(name));
        layer.qkv_bias.insert(layer.qkv_bias.end(), bias.begin(), bias.end());
      }
    }
    if (weights_.config.qk_norm) {
      layer.q_norm = Copy(get("self_attn.q_norm.weight"));
      layer.k_norm = Copy(get("self_attn.k_norm.weight"));
    }
    layer.o = PackStacked({&get("self_attn.o_proj.weight")});
    layer.gate_up = PackStacked({&get("mlp.gate_proj.weight"), &get("mlp.up_proj.weight")});
    layer.down = PackStacked({&get("mlp.down_proj.weight")});
  }

  void Norm(const at::Tensor& weight, const numerics::NormId& norm, DecodeNorm& packed) {
    auto& gamma = packed.gamma;
    gamma[0] = Copy(weight);
    gamma[1] = gamma[0];
    if (draw_.sigma == 0.0) return;
    const double multiplier = numerics::LayerMultiplier(
        *aqn_.plan, norm.layer, static_cast<int>(weights_.config.num_layers), aqn_.step);
    numerics::ApplyAqn(gamma[0], gamma[1], norm, draw_, multiplier, &weights_.aqn);
    if (multiplier > 0.0) packed.perturbation = ComparePerturbed(gamma[0], gamma[1]);
  }

  const Parameters& parameters_;
  const AqnInstall& aqn_;
  numerics::AqnDraw draw_;
  DecodeWeights weights_;
};

}  // namespace

void DecodeWeights::Embed(int32_t token, float* x) const {
  const int64_t hidden = config.hidden_size;
  if (!embedding.empty()) {
    std::copy_n(&embedding[static_cast<size_t>(token * hidden)], hidden, x);
    return;
  }
  const float* panel = lm_head.panel(token / numerics::PackedMatrix::kPanel) +
                       token % numerics::PackedMatrix::kPanel;
  for (int64_t k = 0; k < hidden; ++k) x[k] = panel[k * numerics::PackedMatrix::kPanel];
}

absl::StatusOr<std::shared_ptr<const DecodeWeights>> PackForDecoding(
    const Parameters& parameters, uint64_t version, const AqnInstall& aqn,
    const InjectionInstall& injection) {
  if (aqn.plan != nullptr && aqn.plan->enabled &&
      aqn.plan->draw != numerics::AqnDrawScope::kPerVersion) {
    return absl::UnimplementedError("AQN draws per group and per worker are not built");
  }
  return RunTorchFor<std::shared_ptr<const DecodeWeights>>(
      "pack weights", [&]() -> absl::StatusOr<std::shared_ptr<const DecodeWeights>> {
        auto weights = std::make_shared<DecodeWeights>(Packer(parameters, version, aqn).Pack());
        if (injection.policy != nullptr) {
          TEMPER_ASSIGN_OR_RETURN(weights->injected, InjectWeights(*weights, *injection.policy,
                                                                   {.seed = injection.run_seed}));
        }
        return weights;
      });
}

}  // namespace temper::model
