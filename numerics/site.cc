#include "numerics/site.h"

#include <array>
#include <cstddef>

namespace temper::numerics {
namespace {

constexpr std::array<std::string_view, kPhaseCount> kPhaseNames = {"rollout", "old_logprob",
                                                                   "ref_logprob", "train", "eval"};
constexpr std::array<std::string_view, 2> kDirectionNames = {"forward", "backward"};
constexpr std::array<std::string_view, kOperatorCount> kOperatorNames = {"q",
                                                                         "k",
                                                                         "v",
                                                                         "o",
                                                                         "gate",
                                                                         "up",
                                                                         "down",
                                                                         "lm_head",
                                                                         "router",
                                                                         "lora_a",
                                                                         "lora_b",
                                                                         "attention_scores",
                                                                         "attention_values",
                                                                         "softmax",
                                                                         "silu",
                                                                         "rms_norm",
                                                                         "input_norm",
                                                                         "post_attention_norm",
                                                                         "final_norm",
                                                                         "q_norm",
                                                                         "k_norm"};
constexpr std::array<std::string_view, kTensorRoleCount> kRoleNames = {
    "output",         "grad_input",      "grad_weight", "input_operand",
    "weight_operand", "injected_output", "weight_noise"};

template <typename Enum, size_t N>
std::optional<Enum> Find(const std::array<std::string_view, N>& names, std::string_view name) {
  for (size_t i = 0; i < N; ++i) {
    if (names[i] == name) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

}  // namespace

std::string_view PhaseName(Phase phase) { return kPhaseNames.at(static_cast<size_t>(phase)); }
std::string_view DirectionName(Direction direction) {
  return kDirectionNames.at(static_cast<size_t>(direction));
}
std::string_view OperatorName(Operator op) { return kOperatorNames.at(static_cast<size_t>(op)); }
std::string_view TensorRoleName(TensorRole role) {
  return kRoleNames.at(static_cast<size_t>(role));
}

std::optional<Phase> PhaseFromName(std::string_view name) { return Find<Phase>(kPhaseNames, name); }
std::optional<Direction> DirectionFromName(std::string_view name) {
  return Find<Direction>(kDirectionNames, name);
}
std::optional<Operator> OperatorFromName(std::string_view name) {
  return Find<Operator>(kOperatorNames, name);
}
std::optional<TensorRole> TensorRoleFromName(std::string_view name) {
  return Find<TensorRole>(kRoleNames, name);
}

}  // namespace temper::numerics
