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
  // Fills `weights`, which stay where they are.
  Packer(const Parameters& parameters, DecodeWeights* weights)
      : parameters_(parameters), weights_(*weights) {}

  void Pack(uint64_t version, const AqnInstall& aqn) {
    weights_.config = parameters_.config;
    weights_.version = version;
    const ModelConfig& config = weights_.config;
    weights_.layers.resize(static_cast<size_t>(config.num_layers));
    for (int64_t layer = 0; layer < config.num_layers; ++layer) PackLayer(layer);
    PackNorms();
    weights_.adapters = PackAdapters(parameters_);
    if (aqn.plan != nullptr) Draw(aqn);
    const at::Tensor& embedding = parameters_.Get("model.embed_tokens.weight");
    if (config.tie_word_embeddings) {
      weights_.lm_head = PackStacked({&embedding});
    } else {
      weights_.lm_head = PackStacked({&parameters_.Get("lm_head.weight")});
      weights_.embedding = Copy(embedding);
    }
  }

 private:
  void PackLayer(int64_t index) {
    DecodeLayer& layer = weights_.layers[static_cast<size_t>(index)];
    const std::string prefix = absl::StrCat("model.layers.", index, ".");
    const auto get = [&](const char* name) -> const at::Tensor& {
      return parameters_.Get(prefix + name);
    };
    layer.qkv = PackStacked({&get("self_attn.q_proj.weight"), &get("self_attn.k_proj.weight"),
                             &get("self_attn.v_proj.weight")});
    if (weights_.config.qkv_bias) {
      for (const char* name :
           {"self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"}) {
        const std::vector<float> bias = Copy(get(name));
        layer.qkv_bias.insert(layer.qkv_bias.end(), bias.begin(), bias.end());
      }
    }
    layer.o = PackStacked({&get("self_attn.o_proj.weight")});
    layer.gate_up = PackStacked({&get("mlp.gate_proj.weight"), &get("mlp.up_proj.weight")});
    layer.down = PackStacked({&get("mlp.down_proj.weight")});
  }

  void PackNorms() {
    const int layers = static_cast<int>(weights_.config.num_layers);
    weights_.clean_norms.resize(NormSlots(layers));
    for (const numerics::AqnTarget& norm :
         numerics::AqnNorms({.num_layers = layers, .qk_norm = weights_.config.qk_norm})) {
      weights_.clean_norms[NormSlot(norm.op, norm.layer, layers)] =
          Copy(parameters_.Get(numerics::OperatorPath(norm.op, norm.layer) + ".weight"));
    }
  }

  // Where every group has a draw of its own, the one that is reported is that of the version:
  // it shows that this worker draws what others draw.
  void Draw(const AqnInstall& aqn) {
    weights_.aqn_plan = *aqn.plan;
    weights_.aqn = {.plan = &weights_.aqn_plan,
                    .sigma = aqn.sigma,
                    .step = aqn.step,
                    .run_seed = aqn.run_seed,
                    .policy_version = weights_.version};
    weights_.aqn_report.sigma = aqn.sigma;
    if (!weights_.aqn.acts()) return;
    const bool per_group = aqn.plan->draw == numerics::AqnDrawScope::kPerGroup;
    const uint64_t key = per_group ? base::AqnKey(aqn.run_seed, weights_.version)
                                   : weights_.aqn.Key(/*group_index=*/0, aqn.worker);
    NormDraw drawn = weights_.DrawNormsWith(key, &weights_.aqn_report);
    if (!per_group) weights_.shared_norms = std::move(drawn);
  }

  const Parameters& parameters_;
  DecodeWeights& weights_;
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

NormDraw DecodeWeights::DrawNormsWith(uint64_t key, numerics::AqnReport* report) const {
  const CleanNorms clean(clean_norms.begin(), clean_norms.end());
  return DrawNorms(clean, static_cast<int>(config.num_layers), aqn, key, report);
}

absl::StatusOr<std::shared_ptr<const DecodeWeights>> PackForDecoding(
    const Parameters& parameters, uint64_t version, const AqnInstall& aqn,
    const InjectionInstall& injection) {
  return RunTorchFor<std::shared_ptr<const DecodeWeights>>(
      "pack weights", [&]() -> absl::StatusOr<std::shared_ptr<const DecodeWeights>> {
        auto weights = std::make_shared<DecodeWeights>();
        Packer(parameters, weights.get()).Pack(version, aqn);
        if (injection.policy != nullptr) {
          TEMPER_ASSIGN_OR_RETURN(weights->injected, InjectWeights(*weights, *injection.policy,
                                                                   {.seed = injection.run_seed}));
        }
        return weights;
      });
}

}  // namespace temper::model
