#include "model/injected_weights.h"

#include <initializer_list>
#include <utility>

#include "model/decode_weights.h"
#include "services/base/status_macros.h"

namespace temper::model {
namespace {

using numerics::Direction;
using numerics::Operator;
using numerics::TensorRole;

// Rows first .. first + rows - 1 of a packed matrix, unpacked.
std::vector<float> Unpack(const numerics::PackedMatrix& packed, int64_t first, int64_t rows) {
  constexpr int64_t kPanel = numerics::PackedMatrix::kPanel;
  const int64_t in = packed.in_features();
  std::vector<float> values(static_cast<size_t>(rows * in));
  for (int64_t n = 0; n < rows; ++n) {
    const float* column = packed.panel((first + n) / kPanel) + (first + n) % kPanel;
    for (int64_t k = 0; k < in; ++k) values[static_cast<size_t>(n * in + k)] = column[k * kPanel];
  }
  return values;
}

struct Part {
  Operator op;
  int64_t rows;  // output features
  InjectedLinear* linear;
};

class Injector {
 public:
  Injector(const numerics::InjectionPolicy& policy, numerics::Phase phase, uint64_t key)
      : policy_(policy), phase_(phase), key_(key) {}

  // The operators of one stacked matrix, one below the other.
  absl::Status Inject(const numerics::PackedMatrix& stacked, std::initializer_list<Part> parts,
                      int layer) const {
    bool any = false;
    for (const Part& part : parts) {
      any = any || ErrorOf(TensorRole::kWeightOperand, part.op, layer).acts() ||
            ErrorOf(TensorRole::kInputOperand, part.op, layer).acts();
    }
    int64_t first = 0;
    for (const Part& part : parts) {
      if (any) TEMPER_RETURN_IF_ERROR(InjectPart(stacked, first, part, layer));
      first += part.rows;
    }
    return absl::OkStatus();
  }

 private:
  const numerics::TensorError& ErrorOf(TensorRole role, Operator op, int layer) const {
    return policy_.Error(phase_, Direction::kForward, role, op, layer);
  }

  absl::Status InjectPart(const numerics::PackedMatrix& stacked, int64_t first, const Part& part,
                          int layer) const {
    const int64_t in = stacked.in_features();
    std::vector<float> values = Unpack(stacked, first, part.rows);
    const numerics::TensorError& error = ErrorOf(TensorRole::kWeightOperand, part.op, layer);
    if (error.acts()) {
      std::vector<float> perturbed;
      TEMPER_ASSIGN_OR_RETURN(
          part.linear->perturbation,
          PerturbWeight(error, values.data(), part.rows, in, key_,
                        numerics::Site(layer, part.op, TensorRole::kWeightOperand), &perturbed));
      values = std::move(perturbed);
    }
    part.linear->matrix = numerics::Pack(values.data(), part.rows, in);
    return absl::OkStatus();
  }

  const numerics::InjectionPolicy& policy_;
  const numerics::Phase phase_;
  const uint64_t key_;
};

}  // namespace

const InjectedLinear* InjectedWeights::Find(Operator op, int layer) const {
  const InjectedLinear& linear = op == Operator::kLmHead
                                     ? lm_head
                                     : layers[static_cast<size_t>(layer)][static_cast<size_t>(op)];
  return linear.matrix.out_features() == 0 ? nullptr : &linear;
}

absl::StatusOr<std::shared_ptr<const InjectedWeights>> InjectWeights(
    const DecodeWeights& weights, const numerics::InjectionPolicy& policy,
    const numerics::InjectionDraw& draw) {
  const bool operands = policy.OfRole(TensorRole::kInputOperand).acts() ||
                        policy.OfRole(TensorRole::kWeightOperand).acts();
  if (!operands || !policy.Any(draw.phase, Direction::kForward)) return nullptr;
  auto injected = std::make_shared<InjectedWeights>();
  const uint64_t key = policy.WeightKey(draw, weights.version);
  injected->id = policy.WeightsId(key);
  const Injector injector(policy, draw.phase, key);
  const ModelConfig& config = weights.config;
  const int64_t q_width = config.num_heads * config.head_dim;
  const int64_t kv_width = config.num_kv_heads * config.head_dim;
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  injected->layers.resize(weights.layers.size());
  for (size_t l = 0; l < weights.layers.size(); ++l) {
    const DecodeLayer& layer = weights.layers[l];
    const auto part = [&](Operator op, int64_t rows) {
      return Part{op, rows, &injected->layers[l][static_cast<size_t>(op)]};
    };
    const int number = static_cast<int>(l);
    TEMPER_RETURN_IF_ERROR(injector.Inject(
        layer.qkv,
        {part(Operator::kQ, q_width), part(Operator::kK, kv_width), part(Operator::kV, kv_width)},
        number));
    TEMPER_RETURN_IF_ERROR(injector.Inject(layer.o, {part(Operator::kO, hidden)}, number));
    TEMPER_RETURN_IF_ERROR(injector.Inject(
        layer.gate_up, {part(Operator::kGate, inner), part(Operator::kUp, inner)}, number));
    TEMPER_RETURN_IF_ERROR(injector.Inject(layer.down, {part(Operator::kDown, hidden)}, number));
  }
  TEMPER_RETURN_IF_ERROR(
      injector.Inject(weights.lm_head, {{Operator::kLmHead, config.vocab_size, &injected->lm_head}},
                      numerics::kNoLayer));
  return injected;
}

}  // namespace temper::model
