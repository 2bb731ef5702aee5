// Throughput of the scoring rules: a typical completion, one as long as the limit, and one that
// makes every scanner work. Google Benchmark prints CPU and cores; one thread.

#include <string>

#include "benchmark/benchmark.h"
#include "reward_server/scoring.h"

namespace temper::reward_server {
namespace {

void ScoreAllRules(benchmark::State& state, const std::string& completion) {
  for (auto _ : state) benchmark::DoNotOptimize(ScoreAll(completion, "18"));
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(completion.size()));
}

void TypicalCompletion(benchmark::State& state) {
  ScoreAllRules(state, "Tom has 3 + 5 = 8 apples. 8 * 2 = 16. 16 + 2 = 18.\n#### 18");
}
BENCHMARK(TypicalCompletion);

void OneMebibyteOfText(benchmark::State& state) {
  ScoreAllRules(state, std::string(1 << 20, 'x') + " #### 18");
}
BENCHMARK(OneMebibyteOfText);

void NothingButHashesAndMinus(benchmark::State& state) {
  std::string completion;
  while (completion.size() < 2000) completion += "#### -";
  ScoreAllRules(state, completion);
}
BENCHMARK(NothingButHashesAndMinus);

}  // namespace
}  // namespace temper::reward_server

BENCHMARK_MAIN();
