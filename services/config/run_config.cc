#include "services/config/run_config.h"

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"
#include "services/config/defaults.h"
#include "services/config/idle_fields.h"
#include "services/config/yaml_reader.h"
#include "services/config/yaml_writer.h"
#include "xxhash.h"

namespace temper::config {
namespace {

constexpr char kCommandLine[] = "command line";
constexpr int64_t kMaxBytes = 1 << 20;

absl::StatusOr<std::string> ReadText(const std::string& path) {
  absl::StatusOr<std::string> text = base::ReadFile(path, kMaxBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::NotFoundError(absl::StrCat("no configuration file ", path));
  }
  if (absl::IsResourceExhausted(text.status())) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": larger than 1 MiB, not a configuration"));
  }
  return text;
}

bool FromCommandLine(const ReadReport& report, const std::string& key) {
  const auto place = report.places.find(key);
  return place != report.places.end() && place->second == kCommandLine;
}

std::string Absolute(const std::string& path, const std::filesystem::path& base) {
  if (path.empty()) return path;
  return std::filesystem::weakly_canonical(base / path).string();
}

// total_updates against epochs x updates_per_epoch: on the command line one replaces the other; in
// one file they must agree.
void ReconcileHorizon(v1::TrainerConfig* trainer, ReadReport* report) {
  const bool total_said = FromCommandLine(*report, "trainer.total_updates");
  const bool epochs_said = FromCommandLine(*report, "trainer.epochs") ||
                           FromCommandLine(*report, "trainer.updates_per_epoch");
  if (total_said && !epochs_said) {
    trainer->clear_epochs();
    trainer->clear_updates_per_epoch();
  } else if (epochs_said && !total_said) {
    trainer->clear_total_updates();
  }
  if (trainer->has_total_updates() && trainer->has_epochs() && trainer->has_updates_per_epoch() &&
      trainer->total_updates() != trainer->epochs() * trainer->updates_per_epoch()) {
    report->mistakes.push_back(
        absl::StrCat(report->places["trainer.total_updates"], ": trainer.total_updates ",
                     trainer->total_updates(), " contradicts trainer.epochs ", trainer->epochs(),
                     " x trainer.updates_per_epoch ", trainer->updates_per_epoch()));
  }
}

// epoch_aware: true is the findings document's word for schedule: epoch_aware.
void ReconcileSchedule(v1::NoiseInjectionConfig* aqn, ReadReport* report) {
  const char key[] = "trainer.noise_injection.schedule";
  if (FromCommandLine(*report, key)) aqn->clear_epoch_aware();
  if (!aqn->has_schedule() || !aqn->has_epoch_aware()) return;
  if (aqn->epoch_aware() != (aqn->schedule() == "epoch_aware")) {
    report->mistakes.push_back(absl::StrCat(report->places[key], ": schedule ", aqn->schedule(),
                                            " contradicts epoch_aware ", aqn->epoch_aware()));
  }
}

// A block that was given settings, but not said to be on: `enabled` is false by default. An
// evaluation reads which operators are named, and the error where the block says `enabled: false`.
void CheckBlocksAreOn(const v1::RunConfig& config, ReadReport* report) {
  const v1::TrainerConfig& trainer = config.trainer();
  const auto check = [&](const std::string& block, const google::protobuf::Message& given,
                         bool says_enabled, bool modules_are_read = true) {
    if (says_enabled) return;
    for (const auto& [field, value] : Flatten(given)) {
      const std::string key = absl::StrCat(block, ".", field);
      const bool modules = field.starts_with("target_") || field.starts_with("exclude_");
      if (modules && modules_are_read) continue;
      report->mistakes.push_back(absl::StrCat(report->places[key], ": ", key,
                                              ": has no effect without ", block,
                                              ".enabled: true (or say false)"));
      return;
    }
  };
  check("trainer.noisy_ops", trainer.noisy_ops(), trainer.noisy_ops().has_enabled());
  check("trainer.hw_error_injection", trainer.hw_error_injection(),
        trainer.hw_error_injection().has_enabled());
  check("trainer.noise_injection", trainer.noise_injection(),
        trainer.noise_injection().has_enabled());
  check("trainer.lora", trainer.lora(), trainer.lora().has_enabled(), /*modules_are_read=*/false);
}

// Adds the place of the key that a line of Validate begins with, where the file gave it.
std::string WithPlace(const std::string& line, const ReadReport& report, const std::string& file) {
  const std::string key = line.substr(0, line.find_first_of(":, "));
  const auto place = report.places.find(key);
  return absl::StrCat(place == report.places.end() ? file : place->second, ": ", line);
}

// What was given and is idle. An override may switch off what the file has settings for (an arm
// without dynamic sampling): those were no mistake when they were written.
void RefuseIdle(const v1::RunConfig& config, v1::RunConfig written, const std::string& file,
                ReadReport* report) {
  FillDefaults(&written);
  std::set<std::string> idle_as_written;
  for (const IdleField& idle : IdleFields(written)) idle_as_written.insert(idle.key);
  for (const IdleField& idle : IdleFields(config)) {
    if (!idle.refused) continue;
    if (!FromCommandLine(*report, idle.key) && idle_as_written.count(idle.key) == 0) continue;
    report->mistakes.push_back(WithPlace(absl::StrCat(idle.key, ": ", idle.why), *report, file));
  }
}

bool StartsWithAny(std::string_view key, std::initializer_list<std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](std::string_view prefix) { return key.starts_with(prefix); });
}

// Keys that may differ when a run is resumed.
bool MayChangeOnResume(std::string_view key) {
  return key == "run_dir" ||
         StartsWithAny(key, {"network.", "local.", "checkpoint.", "orchestrator.state_dir"});
}

// Keys whose value does not decide a result, or differs from host to host.
bool OutsideFingerprint(std::string_view key) {
  return MayChangeOnResume(key) ||
         StartsWithAny(
             key, {"orchestrator.", "weights.", "model.path", "dataset.path",
                   "trainer.lora.adapter", "trainer.noise_injection.layer_sigma_config.scan_file",
                   "reward.sample_timeout_seconds", "rollout.threads", "rollout.groups_per_lease"});
}

std::map<std::string, std::string> LeavesWithout(const v1::RunConfig& config,
                                                 bool (*left_out)(std::string_view)) {
  std::map<std::string, std::string> leaves = Flatten(config);
  std::erase_if(leaves, [&](const auto& leaf) { return left_out(leaf.first); });
  return leaves;
}

}  // namespace

namespace {

// resolved: written by ToYaml, where every number of the horizon stands though one followed from
// the others, so that they need not agree as a person's must.
absl::StatusOr<v1::RunConfig> Load(const std::string& path,
                                   const std::vector<std::string>& overrides, bool resolved) {
  TEMPER_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  v1::RunConfig config;
  ReadReport report;
  ReadYaml(text, path, &config, &report);
  v1::RunConfig written = config;
  for (const std::string& override : overrides) {
    ReadOverride(override, kCommandLine, &config, &report);
  }
  if (!resolved) ReconcileHorizon(config.mutable_trainer(), &report);
  ReconcileSchedule(config.mutable_trainer()->mutable_noise_injection(), &report);

  if (!resolved) CheckBlocksAreOn(config, &report);

  const std::filesystem::path here = std::filesystem::current_path();
  const std::filesystem::path beside = std::filesystem::absolute(path).parent_path();
  const auto base_of = [&](const char* key) {
    return FromCommandLine(report, key) ? here : beside;
  };
  FillDefaults(&config);
  config.mutable_model()->set_path(Absolute(config.model().path(), base_of("model.path")));
  config.mutable_dataset()->set_path(Absolute(config.dataset().path(), base_of("dataset.path")));
  v1::LayerSigmaConfig* layers =
      config.mutable_trainer()->mutable_noise_injection()->mutable_layer_sigma_config();
  layers->set_scan_file(Absolute(layers->scan_file(),
                                 base_of("trainer.noise_injection.layer_sigma_config.scan_file")));
  v1::LoraConfig* lora = config.mutable_trainer()->mutable_lora();
  lora->set_adapter(Absolute(lora->adapter(), base_of("trainer.lora.adapter")));
  v1::NetworkConfig* network = config.mutable_network();
  network->set_tls_certificate(
      Absolute(network->tls_certificate(), base_of("network.tls_certificate")));
  network->set_tls_key(Absolute(network->tls_key(), base_of("network.tls_key")));
  network->set_tls_ca(Absolute(network->tls_ca(), base_of("network.tls_ca")));
  config.set_run_dir(Absolute(config.run_dir(), here));
  config.mutable_orchestrator()->set_state_dir(Absolute(config.orchestrator().state_dir(), here));

  if (const absl::Status valid = Validate(config); !valid.ok()) {
    for (const auto line : absl::StrSplit(valid.message(), '\n')) {
      report.mistakes.push_back(WithPlace(std::string(line), report, path));
    }
  }
  if (!resolved) RefuseIdle(config, std::move(written), path, &report);
  if (!report.mistakes.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(report.mistakes, "\n"));
  }
  return config;
}

}  // namespace

absl::StatusOr<v1::RunConfig> LoadRunConfig(const std::string& path,
                                            const std::vector<std::string>& overrides) {
  return Load(path, overrides, /*resolved=*/false);
}

absl::StatusOr<v1::RunConfig> LoadResolvedConfig(const std::string& path,
                                                 const std::vector<std::string>& overrides) {
  return Load(path, overrides, /*resolved=*/true);
}

std::string ToYaml(const v1::RunConfig& config) { return WriteYaml(config); }

uint64_t Fingerprint(const v1::RunConfig& config) {
  std::string all;
  for (const auto& [key, value] : LeavesWithout(config, OutsideFingerprint))
    absl::StrAppend(&all, key, "=", value, "\n");
  return XXH3_64bits(all.data(), all.size());
}

std::vector<std::string> ResumeDifferences(const v1::RunConfig& began,
                                           const v1::RunConfig& resumed) {
  std::map<std::string, std::string> before = LeavesWithout(began, MayChangeOnResume);
  std::map<std::string, std::string> after = LeavesWithout(resumed, MayChangeOnResume);
  std::vector<std::string> lines;
  for (const auto& [key, value] : before) {
    const auto other = after.find(key);
    const std::string now = other == after.end() ? "(not set)" : other->second;
    if (now != value) lines.push_back(absl::StrCat(key, ": ", value, " -> ", now));
  }
  for (const auto& [key, value] : after) {
    if (before.count(key) == 0) lines.push_back(absl::StrCat(key, ": (not set) -> ", value));
  }
  return lines;
}

}  // namespace temper::config
