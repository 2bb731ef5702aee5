// What the static scan costs beside plain passes over the same sequences: CPU seconds of this
// process, so that other programs do not count, median of alternating rounds.
//
//   temper_bench_scan MODEL [prompts [completion_tokens [format]]]

#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "bench/machine.h"
#include "cli/scan_sequences.h"
#include "model/decode_engine.h"
#include "model/io/loader.h"
#include "model/parameters.h"
#include "numerics/statistics.h"
#include "scan/activations.h"
#include "services/base/status_macros.h"

namespace temper {
namespace {

constexpr int kRounds = 5;

double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

absl::Status Run(const std::string& path, size_t prompts, uint32_t tokens,
                 const std::string& format) {
  TEMPER_ASSIGN_OR_RETURN(const scan::ScanError error, scan::ParseScanError(format));
  TEMPER_ASSIGN_OR_RETURN(const model::LoadedModel loaded, model::LoadModel(path));
  TEMPER_ASSIGN_OR_RETURN(const model::Parameters parameters, model::ParametersFromModel(loaded));
  TEMPER_ASSIGN_OR_RETURN(const auto engine,
                          model::DecodeEngine::Create({.config = loaded.config, .threads = 1}));
  TEMPER_RETURN_IF_ERROR(engine->Install(parameters, 0, {}).status());
  TEMPER_ASSIGN_OR_RETURN(std::vector<scan::Sequence> sequences,
                          cli::LoadPrompts({.model = path, .count = prompts}));
  TEMPER_RETURN_IF_ERROR(
      scan::Complete(engine.get(), loaded.config.eos_token_ids, tokens, 1, &sequences));
  scan::SequenceRunner runner(engine->Installed(), 1);
  std::vector<double> plain, weights, activations;
  for (int round = 0; round < kRounds; ++round) {
    const double begin = CpuSeconds();
    TEMPER_RETURN_IF_ERROR(
        runner.Run(sequences.size(), [&](model::SequencePass* pass, size_t i, int) {
          return pass->Run({.ids = sequences[i].ids, .prompt_tokens = sequences[i].prompt_tokens},
                           [](int64_t, std::span<const float>) {});
        }));
    const double after_plain = CpuSeconds();
    (void)scan::ScanWeights(loaded.config, model::ViewsOf(parameters), {&error, 1}, 1, 1);
    const double after_weights = CpuSeconds();
    TEMPER_RETURN_IF_ERROR(scan::ScanActivations(&runner, sequences, loaded.config, {&error, 1},
                                                 scan::Role::kInput, 1, [] {})
                               .status());
    plain.push_back(after_plain - begin);
    weights.push_back(after_weights - after_plain);
    activations.push_back(CpuSeconds() - after_weights);
  }
  const double p = numerics::Median(plain), w = numerics::Median(weights),
               a = numerics::Median(activations);
  std::printf(
      "%s, %zu sequences, %s: plain passes %.2f s; scan %.2f s = weights %.2f + "
      "activations %.2f; ratio %.2f\n",
      bench::CpuModel().c_str(), sequences.size(), format.c_str(), p, w + a, w, a, (w + a) / p);
  return absl::OkStatus();
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "temper_bench_scan MODEL [prompts [completion_tokens [format]]]\n");
    return 2;
  }
  const absl::Status status = temper::Run(
      argv[1], argc > 2 ? static_cast<size_t>(std::atoi(argv[2])) : 8,
      argc > 3 ? static_cast<uint32_t>(std::atoi(argv[3])) : 64, argc > 4 ? argv[4] : "mxfp4");
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
