// One decode request and one update of a model of the quickstart's size: tokens per second of the
// rollout's engine, with and without error, and seconds of the learner's forward and backward pass.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "bench/machine.h"
#include "model/decode_engine.h"
#include "model/train_forward.h"
#include "numerics/noise_policy.h"

namespace temper {
namespace {

constexpr int64_t kPromptTokens = 50;
constexpr uint32_t kCompletionTokens = 40;
constexpr uint32_t kSamples = 8;

model::ModelConfig QuickstartSize() {
  model::ModelConfig config;
  config.architecture = "Qwen2ForCausalLM";
  config.vocab_size = 512;
  config.hidden_size = 96;
  config.num_layers = 4;
  config.num_heads = 3;
  config.num_kv_heads = 3;
  config.head_dim = 32;
  config.intermediate_size = 256;
  config.tie_word_embeddings = true;
  config.qkv_bias = true;
  config.max_position_embeddings = 1024;
  return config;
}

numerics::NoisePolicy PolicyOf(double scale) {
  numerics::NoiseSpec spec;
  spec.enabled = scale > 0.0;
  spec.error_scale = scale;
  return scale > 0.0 ? numerics::NoisePolicy::Create(spec, {.num_layers = 4}).value()
                     : numerics::NoisePolicy();
}

std::vector<int32_t> Tokens(int64_t count, uint64_t salt) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>((static_cast<uint64_t>(i) * 37 + salt * 101) % 512));
  }
  return ids;
}

// Arguments: groups of 8 completions, error in percent, threads.
void Decode(benchmark::State& state) {
  const model::ModelConfig config = QuickstartSize();
  const numerics::NoisePolicy policy = PolicyOf(static_cast<double>(state.range(1)) / 100.0);
  auto engine =
      model::DecodeEngine::Create({.config = config, .threads = static_cast<int>(state.range(2))})
          .value();
  const model::Parameters parameters = model::InitializeParameters(config, 1).value();
  if (!engine->Install(parameters, 0, {}).ok()) state.SkipWithError("install failed");
  model::GenerateRequest request = {.max_completion_tokens = kCompletionTokens, .policy = &policy};
  for (int64_t g = 0; g < state.range(0); ++g) {
    const auto scope = static_cast<uint64_t>(g);
    request.groups.push_back(
        {.scope = scope, .prompt_ids = Tokens(kPromptTokens, scope), .samples = kSamples});
  }
  int64_t tokens = 0;
  for (auto _ : state) {
    tokens += static_cast<int64_t>(engine->Generate(request).value().generated_tokens);
  }
  state.SetItemsProcessed(tokens);
}
BENCHMARK(Decode)
    ->ArgNames({"groups", "error_percent", "threads"})
    ->Args({32, 0, 1})
    ->Args({32, 10, 1})
    ->Args({32, 10, 2})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// Forward, backward and error of g_W of 256 completions in micro-batches of 4 groups. Arguments:
// error in percent, threads.
void Update(benchmark::State& state) {
  const model::ModelConfig config = QuickstartSize();
  const numerics::NoisePolicy policy = PolicyOf(static_cast<double>(state.range(0)) / 100.0);
  auto trained = model::TrainModel::Create(model::InitializeParameters(config, 1).value(),
                                           {.threads = static_cast<int>(state.range(1))})
                     .value();
  std::vector<model::TrainGroup> groups;
  for (uint64_t g = 0; g < 32; ++g) {
    groups.push_back({.group_index = g, .prompt_ids = Tokens(kPromptTokens, g)});
    for (uint32_t s = 0; s < kSamples; ++s) {
      groups.back().completions.push_back({s, Tokens(kCompletionTokens, g * kSamples + s)});
    }
  }
  const model::TrainNoise noise = {.policy = &policy, .run_seed = 1};
  int64_t tokens = 0;
  for (auto _ : state) {
    numerics::NoiseCounters counters;
    trained->ParametersChanged();
    trained->ZeroGrad();
    for (size_t first = 0; first < groups.size(); first += 4) {
      const model::LogProbs pass =
          trained->Forward(std::span(groups).subspan(first, 4), {.noise = noise}, &counters)
              .value();
      const std::vector<float> weight(static_cast<size_t>(pass.logprobs.numel()), 1e-3f);
      if (!trained->Backward(pass, weight, &counters).ok()) state.SkipWithError("backward failed");
      tokens += pass.logprobs.numel();
    }
    if (!trained->ApplyGradWeightError(noise, &counters).ok()) {
      state.SkipWithError("error of g_W failed");
    }
  }
  state.SetItemsProcessed(tokens);
}
BENCHMARK(Update)
    ->ArgNames({"error_percent", "threads"})
    ->Args({0, 1})
    ->Args({10, 1})
    ->Args({10, 2})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  temper::bench::AddMachineContext(1);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
