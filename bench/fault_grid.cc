// Injects every kind of fault in every layer at four sizes and looks whether it is found: what
// docs/scan.md reports. A line of JSON per case is appended to a file, and a call goes on where the
// last one stopped, so that a long grid can be run in pieces.
//
//   temper_fault_grid MODEL OUT.jsonl [prompts [completion_tokens [threads]]]
//
// At the end the table over all lines of the file is printed: cases whose output moved by at least
// 0.05 nats, and in how many of them the faulty layer came first.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/scan_sequences.h"
#include "model/decode_engine.h"
#include "model/io/loader.h"
#include "model/parameters.h"
#include "numerics/statistics.h"
#include "scan/fault.h"
#include "scan/layer_profile.h"
#include "scan/sensitivity.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper {
namespace {

constexpr double kLeastKl = 0.05;
constexpr uint64_t kSeed = 1;
// Two healthy devices compute otherwise than the suspected one: every linear's result is off by so
// much, as one that is rounded to bfloat16 is.
constexpr double kOtherRounding = 0x1p-9;

const std::map<scan::FaultKind, std::vector<double>>& Sizes() {
  static const std::map<scan::FaultKind, std::vector<double>> sizes = {
      {scan::FaultKind::kSaturation, {0.3, 0.5, 0.7, 0.9}},
      {scan::FaultKind::kBias, {0.1, 0.3, 1.0, 3.0}},
      {scan::FaultKind::kNoise, {0.2, 0.4, 0.8, 1.6}},
      {scan::FaultKind::kDeadZone, {0.1, 0.2, 0.3, 0.5}},
      {scan::FaultKind::kSpike, {2.0, 4.0, 8.0, 16.0}},
      {scan::FaultKind::kNonDeterminism, {0.2, 0.4, 0.8, 1.6}}};
  return sizes;
}

struct Grid {
  model::ModelConfig config;
  std::vector<scan::Sequence> sequences;
  std::unique_ptr<model::DecodeEngine> engine;
  std::unique_ptr<scan::SequenceRunner> runner;
  scan::ModelProfile reference;
  std::vector<scan::ModelProfile> other_references;  // of devices that round otherwise
};

absl::StatusOr<scan::ModelProfile> OtherReference(const Grid& grid, uint64_t device) {
  TEMPER_ASSIGN_OR_RETURN(
      const numerics::NoisePolicy base,
      numerics::NoisePolicy::Create({.enabled = true,
                                     .error_scale = kOtherRounding,
                                     .noise_key = numerics::NoiseKey::kFrozen,
                                     .device_seed = device},
                                    {.num_layers = static_cast<int>(grid.config.num_layers)}));
  const numerics::NoisePolicy policy = numerics::EvaluationPolicy(base, kOtherRounding);
  return scan::ProfileDevice(grid.runner.get(), grid.sequences, grid.config, &policy, kSeed);
}

absl::StatusOr<Grid> MakeGrid(const std::string& path, size_t prompts, uint32_t tokens,
                              int threads) {
  Grid grid;
  TEMPER_ASSIGN_OR_RETURN(const model::LoadedModel loaded, model::LoadModel(path));
  grid.config = loaded.config;
  TEMPER_ASSIGN_OR_RETURN(const model::Parameters parameters, model::ParametersFromModel(loaded));
  TEMPER_ASSIGN_OR_RETURN(grid.engine,
                          model::DecodeEngine::Create({.config = grid.config, .threads = threads}));
  TEMPER_RETURN_IF_ERROR(grid.engine->Install(parameters, 0, {}).status());
  TEMPER_ASSIGN_OR_RETURN(grid.sequences, cli::LoadPrompts({.model = path, .count = prompts}));
  TEMPER_RETURN_IF_ERROR(
      scan::Complete(grid.engine.get(), grid.config.eos_token_ids, tokens, kSeed, &grid.sequences));
  grid.runner = std::make_unique<scan::SequenceRunner>(grid.engine->Installed(), threads);
  TEMPER_ASSIGN_OR_RETURN(grid.reference, scan::ProfileDevice(grid.runner.get(), grid.sequences,
                                                              grid.config, nullptr, kSeed));
  for (const uint64_t device : {1, 2}) {
    TEMPER_ASSIGN_OR_RETURN(scan::ModelProfile profile, OtherReference(grid, device));
    grid.other_references.push_back(std::move(profile));
  }
  return grid;
}

// Place of the faulty layer in a ranking, from 1; 0: there is none.
int PlaceOf(const scan::FaultFinding& finding, int layer) {
  for (size_t i = 0; i < finding.ranking.size(); ++i) {
    if (finding.ranking[i].layer == layer) return static_cast<int>(i) + 1;
  }
  return 0;
}

nlohmann::ordered_json ProfileJson(const scan::ModelProfile& profile) {
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (const scan::LayerProfile& layer : profile) {
    nlohmann::ordered_json values = nlohmann::ordered_json::array();
    for (const scan::ProfileField& field : scan::ProfileFields()) {
      values.push_back(layer.*field.value);
    }
    for (const double projection : layer.projections) values.push_back(projection);
    layers.push_back(std::move(values));
  }
  return layers;
}

absl::StatusOr<nlohmann::ordered_json> RunCase(const Grid& grid,
                                               const scan::CleanDistributions& clean,
                                               const scan::Fault& fault) {
  TEMPER_ASSIGN_OR_RETURN(const numerics::NoisePolicy policy,
                          scan::FaultPolicy(fault, static_cast<int>(grid.config.num_layers)));
  // One pass for both: how much the output moves, and what the layers look like.
  std::vector<scan::LayerProfiler> profilers(static_cast<size_t>(grid.runner->workers()),
                                             scan::LayerProfiler(grid.config));
  std::vector<model::PassObserver*> observers;
  for (scan::LayerProfiler& profiler : profilers) observers.push_back(&profiler);
  TEMPER_ASSIGN_OR_RETURN(const double kl,
                          clean.Divergence(grid.runner.get(), &policy, kSeed, observers));
  for (size_t i = 1; i < profilers.size(); ++i) profilers[0].Merge(profilers[i]);
  nlohmann::ordered_json line = {{"case", scan::FaultText(fault)},
                                 {"kind", std::string(scan::FaultKindName(fault.kind))},
                                 {"size", fault.size},
                                 {"layer", fault.layer},
                                 {"kl_nats", kl}};
  if (kl < kLeastKl) return line;
  TEMPER_ASSIGN_OR_RETURN(
      scan::ModelProfile again,
      scan::ProfileDevice(grid.runner.get(), grid.sequences, grid.config, &policy, kSeed + 1));
  const std::vector<scan::ModelProfile> repeats = {profilers[0].Profiles(), std::move(again)};
  TEMPER_ASSIGN_OR_RETURN(
      const scan::FaultFinding with,
      scan::LocaliseFault({.repeats = repeats, .references = {&grid.reference, 1}}));
  TEMPER_ASSIGN_OR_RETURN(
      const scan::FaultFinding other,
      scan::LocaliseFault({.repeats = repeats, .references = grid.other_references}));
  TEMPER_ASSIGN_OR_RETURN(const scan::FaultFinding without,
                          scan::LocaliseFault({.repeats = repeats, .references = {}}));
  line["place"] = PlaceOf(with, fault.layer);
  line["evidence"] = scan::EvidenceName(with.evidence);
  line["symptom"] = with.symptom;
  line["place_other"] = PlaceOf(other, fault.layer);
  line["place_without"] = PlaceOf(without, fault.layer);
  line["profile"] = ProfileJson(repeats[0]);  // so that another rule can be tried on old runs
  line["evidence_without"] = scan::EvidenceName(without.evidence);
  return line;
}

std::vector<nlohmann::json> LinesOf(const std::string& path) {
  std::vector<nlohmann::json> lines;
  std::ifstream file(path);
  for (std::string text; std::getline(file, text);) {
    nlohmann::json line = nlohmann::json::parse(text, nullptr, false);
    if (line.is_object() && line.contains("case")) lines.push_back(std::move(line));
  }
  return lines;
}

void PrintTable(const std::string& path) {
  struct Counts {
    int64_t all = 0, strong = 0, first = 0, other = 0, without = 0;
  };
  std::map<std::string, Counts> counts;
  for (const nlohmann::json& line : LinesOf(path)) {
    for (const std::string& kind : {line["kind"].get<std::string>(), std::string("~ all")}) {
      Counts& of = counts[kind];
      ++of.all;
      if (!line.contains("place")) continue;
      ++of.strong;
      of.first += line["place"] == 1;
      of.other += line["place_other"] == 1;
      of.without += line["place_without"] == 1;
    }
  }
  std::printf(
      "| kind | cases run | KL >= %.2f | first, with a reference | with two that round "
      "otherwise | without |\n",
      kLeastKl);
  std::printf("|---|---|---|---|---|---|\n");
  const auto share = [](int64_t first, int64_t of) {
    if (of == 0) return std::string("-");
    const numerics::Interval wilson = numerics::WilsonInterval(first, of);
    char text[96];
    std::snprintf(text, sizeof(text), "%lld (%.1f %% [%.1f, %.1f])", static_cast<long long>(first),
                  100.0 * static_cast<double>(first) / static_cast<double>(of), 100 * wilson.low,
                  100 * wilson.high);
    return std::string(text);
  };
  for (const auto& [kind, of] : counts) {
    std::printf("| %s | %lld | %lld | %s | %s | %s |\n", kind.c_str(),
                static_cast<long long>(of.all), static_cast<long long>(of.strong),
                share(of.first, of.strong).c_str(), share(of.other, of.strong).c_str(),
                share(of.without, of.strong).c_str());
  }
}

absl::Status Run(int argc, char** argv) {
  const std::string model = argv[1], out = argv[2];
  const auto number = [&](int index, int fallback) {
    return argc > index ? std::atoi(argv[index]) : fallback;
  };
  TEMPER_ASSIGN_OR_RETURN(const Grid grid,
                          MakeGrid(model, static_cast<size_t>(number(3, 4)),
                                   static_cast<uint32_t>(number(4, 24)), number(5, 2)));
  TEMPER_ASSIGN_OR_RETURN(
      const scan::CleanDistributions clean,
      scan::CleanDistributions::Record(grid.runner.get(), grid.sequences, grid.config.vocab_size));
  const nlohmann::ordered_json references = {{"reference", ProfileJson(grid.reference)},
                                             {"other", ProfileJson(grid.other_references[0])},
                                             {"another", ProfileJson(grid.other_references[1])}};
  TEMPER_RETURN_IF_ERROR(base::AppendToFile(out, references.dump() + "\n"));
  std::set<std::string> done;
  for (const nlohmann::json& line : LinesOf(out)) done.insert(line["case"].get<std::string>());
  for (size_t size = 0; size < 4; ++size) {
    for (int layer = 0; layer < static_cast<int>(grid.config.num_layers); ++layer) {
      for (const scan::FaultKind kind : scan::kFaultKinds) {
        const scan::Fault fault = {.kind = kind, .size = Sizes().at(kind)[size], .layer = layer};
        if (done.contains(scan::FaultText(fault))) continue;
        TEMPER_ASSIGN_OR_RETURN(const nlohmann::ordered_json line, RunCase(grid, clean, fault));
        TEMPER_RETURN_IF_ERROR(base::AppendToFile(out, line.dump() + "\n"));
      }
    }
  }
  PrintTable(out);
  return absl::OkStatus();
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr,
                 "temper_fault_grid MODEL OUT.jsonl [prompts [completion_tokens "
                 "[threads]]]\n");
    return 2;
  }
  const absl::Status status = temper::Run(argc, argv);
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
