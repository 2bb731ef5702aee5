#pragma once

// Names of the places where numbers can be perturbed: phase, direction, operator, tensor, and the
// 32-bit `site` that enters the counter of every draw. All functions are pure and thread-safe.

#include <cstdint>
#include <optional>
#include <string_view>

namespace temper::numerics {

// Which pass of the system an operator runs in. Numbers enter keys (base::FreshForwardErrorKey).
enum class Phase : uint8_t {
  kRollout = 0,     // the rollout worker generates
  kOldLogprob = 1,  // the learner's pass before the first optimizer step of a batch
  kRefLogprob = 2,  // the frozen reference policy
  kTrain = 3,       // the learner's training pass
  kEval = 4,        // an evaluation
};
inline constexpr int kPhaseCount = 5;

enum class Direction : uint8_t { kForward = 0, kBackward = 1 };

// The operators of the transformer. Numbers enter sites, and so every draw: never renumbered.
enum class Operator : uint8_t {
  kQ = 0,
  kK = 1,
  kV = 2,
  kO = 3,
  kGate = 4,
  kUp = 5,
  kDown = 6,
  kLmHead = 7,
  kRouter = 8,
  kLoraA = 9,
  kLoraB = 10,
  kAttentionScores = 11,
  kAttentionValues = 12,
  kSoftmax = 13,
  kSilu = 14,
  kRmsNorm = 15,  // all norms, in policy rows; sites and the rows of AQN name one of those below
  kInputNorm = 16,
  kPostAttentionNorm = 17,
  kFinalNorm = 18,
  kQNorm = 19,  // over each head of q, and of k, before the rotary embedding (Qwen3)
  kKNorm = 20,
};
inline constexpr int kOperatorCount = 21;

// Which tensor of an operator an error acts on. Numbers enter sites, in 3 of the 4 bits of their
// tensor number (the fourth: docs/numerics.md, "Other errors").
enum class TensorRole : uint8_t {
  kOutput = 0,
  kGradInput = 1,
  kGradWeight = 2,
  kInputOperand = 3,
  kWeightOperand = 4,
  kInjectedOutput = 5,  // the result, by hw_error_injection (kOutput: by noisy_ops)
  kWeightNoise = 6,     // a weight under AQN; in counters only, draws are keyed by kWeightOperand
};
inline constexpr int kTensorRoleCount = 7;

// The layer of an operator that belongs to no layer (lm_head, the final norm).
inline constexpr int kNoLayer = -1;
// The expert of an operator that belongs to no expert.
inline constexpr int kNoExpert = -1;
// Layers and experts are 0 .. kMaxSiteIndex; 1023 in a site says none.
inline constexpr int kMaxSiteIndex = 1022;

// layer (10 bits, 1023 = none) | expert (10, 1023 = none) | operator (8) | tensor (4), from the
// top. layer, expert: 0 .. kMaxSiteIndex or none; model shapes are checked against that when they
// load.
constexpr uint32_t Site(int layer, Operator op, TensorRole role, int expert = kNoExpert) {
  const uint32_t layer_bits = layer < 0 ? 1023u : static_cast<uint32_t>(layer) & 1023u;
  const uint32_t expert_bits = expert < 0 ? 1023u : static_cast<uint32_t>(expert) & 1023u;
  return (layer_bits << 22) | (expert_bits << 12) | (static_cast<uint32_t>(op) << 4) |
         static_cast<uint32_t>(role);
}

// The site of an adapter's product (lora_a or lora_b) on the linear `adapts` of a layer. All
// adapters of a layer share those two operators, and each must have draws of its own: the operator
// bits hold both, adapts + 1 in the upper four.
constexpr uint32_t AdapterSite(int layer, Operator op, Operator adapts, TensorRole role) {
  const uint32_t both = static_cast<uint32_t>(op) | (static_cast<uint32_t>(adapts) + 1) << 4;
  return Site(layer, static_cast<Operator>(both), role);
}

// True for the matrix products with a weight: q k v o gate up down lm_head router lora_a lora_b.
constexpr bool IsLinear(Operator op) { return op <= Operator::kLoraB; }

// Names as in metrics, records and configuration: "rollout", "forward", "q", "output", ...
std::string_view PhaseName(Phase phase);
std::string_view DirectionName(Direction direction);
std::string_view OperatorName(Operator op);
std::string_view TensorRoleName(TensorRole role);

// The other way round; nullopt for a name that is none of them.
std::optional<Phase> PhaseFromName(std::string_view name);
std::optional<Direction> DirectionFromName(std::string_view name);
std::optional<Operator> OperatorFromName(std::string_view name);
std::optional<TensorRole> TensorRoleFromName(std::string_view name);

}  // namespace temper::numerics
