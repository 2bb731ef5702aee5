// What AQN costs: on all norms of a model, on four of its layers, and not at all, in one run.
//
// draw: the noise of a version for the 57 norms of Qwen2.5-1.5B's shape (1,536 channels).
// rollout: installing a version and decoding with it; a narrow model of 28 layers, 8 groups of 8.
//
// One thread, CPU time. The arms take turns, so that what else the machine does meets all of them.
// A line per arm: median, least and largest seconds, and the ratio of its median to that of the
// first arm.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "model/decode_engine.h"
#include "model/norm_draw.h"
#include "model/parameters.h"

namespace temper {
namespace {

constexpr int kLayers = 28;
constexpr int kRounds = 15;

numerics::AqnPlan PlanOf(bool four_layers, numerics::AqnDrawScope draw) {
  numerics::AqnPlan plan = {.enabled = true,
                            .schedule = numerics::AqnSchedule::kConstant,
                            .sigma_start = 0.05,
                            .total_steps = 100,
                            .draw = draw};
  if (four_layers) {
    plan.layers = {.enabled = true,
                   .default_multiplier = 0.0,
                   .layer_multipliers = {{14, 1.0}, {15, 1.0}, {16, 1.0}, {17, 1.0}}};
  }
  return plan;
}

struct Arm {
  std::string name;
  std::function<void(uint64_t round)> run;
  std::vector<double> seconds;
};

// Times the arms in turn and prints them; the first is what the others are compared with.
void Compare(const char* what, std::vector<Arm> arms) {
  for (uint64_t round = 0; round <= kRounds; ++round) {
    for (Arm& arm : arms) {
      const std::clock_t begun = std::clock();
      arm.run(round);
      const auto ticks = static_cast<double>(std::clock() - begun);
      if (round > 0) arm.seconds.push_back(ticks / CLOCKS_PER_SEC);
    }
  }
  double reference = 0.0;
  for (Arm& arm : arms) {
    std::sort(arm.seconds.begin(), arm.seconds.end());
    const double median = arm.seconds[arm.seconds.size() / 2];
    if (reference == 0.0) reference = median;
    std::printf("%-8s %-24s %10.6f s (%.6f - %.6f)  ratio %.3f\n", what, arm.name.c_str(), median,
                arm.seconds.front(), arm.seconds.back(), median / reference);
  }
}

void CompareDraws() {
  const std::vector<float> gamma(1536, 1.0f);
  const size_t slots = model::NormSlots(kLayers);
  model::CleanNorms clean(slots);
  for (const numerics::AqnTarget& norm : numerics::AqnNorms({.num_layers = kLayers})) {
    clean[model::NormSlot(norm.op, norm.layer, kLayers)] = gamma;
  }
  const auto draw = [&clean](bool four_layers) {
    return
        [&clean, plan = PlanOf(four_layers, numerics::AqnDrawScope::kPerVersion)](uint64_t round) {
          const numerics::VersionAqn aqn = {
              .plan = &plan, .sigma = 0.05, .step = 1, .run_seed = 1, .policy_version = round};
          numerics::AqnReport report;
          model::DrawNorms(clean, kLayers, aqn, aqn.Key(0, 0), &report);
        };
  };
  Compare("draw", {{"all norms", draw(false), {}}, {"four layers", draw(true), {}}});
}

model::ModelConfig Deep() {
  model::ModelConfig config;
  config.architecture = "Qwen2ForCausalLM";
  config.vocab_size = 512;
  config.hidden_size = 128;
  config.num_layers = kLayers;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 32;
  config.intermediate_size = 256;
  config.tie_word_embeddings = true;
  config.max_position_embeddings = 1024;
  return config;
}

void CompareRollouts() {
  const model::ModelConfig config = Deep();
  const model::Parameters parameters = model::InitializeParameters(config, 1).value();
  auto engine = model::DecodeEngine::Create({.config = config}).value();
  model::GenerateRequest request = {.max_completion_tokens = 24};
  for (uint64_t g = 0; g < 8; ++g) {
    request.groups.push_back({.scope = g, .prompt_ids = std::vector<int32_t>(40, 7), .samples = 8});
  }
  const auto rollout = [&](const numerics::AqnPlan* plan) {
    return [&, plan](uint64_t round) {
      model::GenerateRequest asked = request;
      asked.aqn = plan != nullptr;
      const double sigma = plan == nullptr ? 0.0 : 0.05;
      const bool installed =
          engine->Install(parameters, round, {.plan = plan, .sigma = sigma, .run_seed = 1}).ok();
      if (!installed || !engine->Generate(asked).ok()) std::printf("failed\n");
    };
  };
  const numerics::AqnPlan all = PlanOf(false, numerics::AqnDrawScope::kPerVersion);
  const numerics::AqnPlan four = PlanOf(true, numerics::AqnDrawScope::kPerVersion);
  const numerics::AqnPlan per_group = PlanOf(false, numerics::AqnDrawScope::kPerGroup);
  Compare("rollout", {{"no AQN", rollout(nullptr), {}},
                      {"four layers", rollout(&four), {}},
                      {"all norms", rollout(&all), {}},
                      {"all norms, per group", rollout(&per_group), {}}});
}

}  // namespace
}  // namespace temper

int main() {
  temper::CompareDraws();
  temper::CompareRollouts();
  return 0;
}
