#include "learner/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "model/io/safetensors.h"
#include "nlohmann/json.hpp"
#include "services/base/files.h"
#include "services/base/hash.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"

namespace temper::learner {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kFormat = 1;
constexpr int64_t kMaxJsonBytes = 1 << 20;
constexpr int64_t kMaxCommitBytes = 64 << 20;
constexpr char kLedger[] = "/state/ledger.db";
constexpr char kAdapter[] = "/adapter";
constexpr char kTemporarySuffix[] = ".partial";
constexpr char kReplacedSuffix[] = ".replaced";

std::string CheckpointsDir(const std::string& run_dir) {
  return absl::StrCat(run_dir, "/checkpoints");
}

absl::Status DamagedError(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("checkpoint file ", path, " ", what));
}

// N of a name "<prefix>N<suffix>"; nullopt for other names.
std::optional<uint64_t> NumberIn(absl::string_view name, absl::string_view prefix,
                                 absl::string_view suffix) {
  uint64_t number = 0;
  if (!absl::ConsumePrefix(&name, prefix) || !absl::ConsumeSuffix(&name, suffix)) {
    return std::nullopt;
  }
  if (name.empty() || !absl::SimpleAtoi(name, &number)) return std::nullopt;
  return number;
}

// Names in `dir`; empty if it does not exist.
absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code error;
  if (!fs::exists(dir, error)) return names;
  fs::directory_iterator entry(dir, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) return base::StatusFromErrno(error.value(), "cannot list", dir);
  std::sort(names.begin(), names.end());
  return names;
}

// Paths of all files under `dir`, relative to it, sorted.
absl::StatusOr<std::vector<std::string>> FilesUnder(const std::string& dir) {
  std::vector<std::string> files;
  std::error_code error;
  fs::recursive_directory_iterator entry(dir, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (entry->is_regular_file(error)) {
      files.push_back(entry->path().lexically_relative(dir).generic_string());
    }
  }
  if (error) return base::StatusFromErrno(error.value(), "cannot list", dir);
  std::sort(files.begin(), files.end());
  return files;
}

json StateToJson(const TrainerState& state) {
  return {{"step", state.step},
          {"optimizer_steps", state.optimizer_steps},
          {"optimizer_updates", state.optimizer_updates},
          {"skipped_steps", state.skipped_steps}};
}

absl::StatusOr<TrainerState> StateFromJson(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMaxJsonBytes));
  const json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return DamagedError(path, "is not a JSON object");
  for (const char* key : {"step", "optimizer_steps", "optimizer_updates", "skipped_steps"}) {
    if (!value.contains(key) || !value[key].is_number_unsigned()) {
      return DamagedError(path, absl::StrCat("lacks the number ", key));
    }
  }
  return TrainerState{.step = value["step"].get<uint64_t>(),
                      .optimizer_steps = value["optimizer_steps"].get<uint64_t>(),
                      .optimizer_updates = value["optimizer_updates"].get<int64_t>(),
                      .skipped_steps = value["skipped_steps"].get<uint64_t>()};
}

absl::Status WriteMoments(const std::string& path, const std::vector<AdamWMoments>& moments) {
  model::TensorViewMap views;
  for (const AdamWMoments& moment : moments) {
    const int64_t size = static_cast<int64_t>(moment.first.size());
    views["first." + moment.name] = {.shape = {size}, .values = moment.first};
    views["second." + moment.name] = {.shape = {size}, .values = moment.second};
  }
  return model::WriteSafetensors(path, views);
}

absl::StatusOr<std::vector<AdamWMoments>> ReadMoments(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(auto file, model::SafetensorsFile::Open(path));
  std::vector<AdamWMoments> moments;
  for (const auto& [name, entry] : file->entries()) {
    absl::string_view parameter = name;
    if (!absl::ConsumePrefix(&parameter, "first.")) continue;
    TEMPER_ASSIGN_OR_RETURN(model::TensorData first, file->Read(name));
    TEMPER_ASSIGN_OR_RETURN(model::TensorData second,
                            file->Read(absl::StrCat("second.", parameter)));
    if (first.values.size() != second.values.size()) {
      return DamagedError(path, absl::StrCat("has moments of two sizes for ", parameter));
    }
    moments.push_back({std::string(parameter), std::move(first.values), std::move(second.values)});
  }
  return moments;
}

absl::Status WriteManifest(const std::string& dir, const CheckpointContents& contents) {
  json files = json::array();
  TEMPER_ASSIGN_OR_RETURN(const std::vector<std::string> paths, FilesUnder(dir));
  for (const std::string& path : paths) {
    const std::string full = absl::StrCat(dir, "/", path);
    TEMPER_ASSIGN_OR_RETURN(const base::Digest128 digest, base::HashFile128(full));
    std::error_code error;
    const uint64_t bytes = fs::file_size(full, error);
    if (error) return base::StatusFromErrno(error.value(), "cannot measure", full);
    files.push_back({{"path", path}, {"bytes", bytes}, {"xxh3_128", base::HexDigest(digest)}});
  }
  json manifest = {{"format", kFormat},
                   {"step", contents.state.step},
                   {"config_fingerprint", base::HexDigest(contents.config_fingerprint)},
                   {"files", files}};
  if (contents.adapter) manifest["frozen_base"] = base::HexDigest(contents.adapter->base_hash);
  return base::WriteFileAtomically(dir + "/MANIFEST.json", manifest.dump(1) + "\n");
}

absl::Status WriteParts(const std::string& dir, const CheckpointContents& contents) {
  TEMPER_RETURN_IF_ERROR(base::MakeDirectories(dir + "/state"));
  TEMPER_RETURN_IF_ERROR(contents.adapter
                             ? model::WritePeftAdapter(dir + kAdapter, contents.adapter->views,
                                                       contents.adapter->num_layers)
                             : model::SaveHuggingFace(dir + "/hf", contents.model));
  TEMPER_RETURN_IF_ERROR(WriteMoments(dir + "/state/optimizer.safetensors", *contents.moments));
  TEMPER_RETURN_IF_ERROR(base::WriteFileAtomically(dir + "/state/trainer.json",
                                                   StateToJson(contents.state).dump(1) + "\n"));
  TEMPER_RETURN_IF_ERROR(
      base::WriteFileAtomically(dir + "/state/commit.binpb", contents.commit.SerializeAsString()));
  if (!contents.quantization_json.empty()) {
    TEMPER_RETURN_IF_ERROR(
        base::WriteFileAtomically(dir + "/state/quantization.json", contents.quantization_json));
  }
  if (!contents.ledger_file.empty()) {
    TEMPER_RETURN_IF_ERROR(base::RenameDurably(contents.ledger_file, dir + kLedger));
  }
  TEMPER_RETURN_IF_ERROR(WriteManifest(dir, contents));
  return base::SyncDirectory(dir);
}

// Checks one entry of a manifest against the file it names.
absl::Status CheckFile(const std::string& dir, const json& entry) {
  if (!entry.is_object() || !entry.contains("path") || !entry["path"].is_string() ||
      !entry.contains("bytes") || !entry["bytes"].is_number_unsigned() ||
      !entry.contains("xxh3_128") || !entry["xxh3_128"].is_string()) {
    return DamagedError(dir + "/MANIFEST.json", "has an entry without path, bytes or xxh3_128");
  }
  const std::string path = absl::StrCat(dir, "/", entry["path"].get<std::string>());
  std::error_code error;
  const uint64_t bytes = fs::file_size(path, error);
  if (error) return DamagedError(path, "is missing");
  if (bytes != entry["bytes"].get<uint64_t>()) {
    return DamagedError(path, absl::StrCat("has ", bytes, " bytes, its manifest says ",
                                           entry["bytes"].get<uint64_t>()));
  }
  TEMPER_ASSIGN_OR_RETURN(const base::Digest128 digest, base::HashFile128(path));
  if (base::HexDigest(digest) != entry["xxh3_128"].get<std::string>()) {
    return DamagedError(path,
                        absl::StrCat("has hash ", base::HexDigest(digest), ", its manifest says ",
                                     entry["xxh3_128"].get<std::string>()));
  }
  return absl::OkStatus();
}

struct ManifestFacts {
  uint64_t config_fingerprint = 0;
  bool adapter = false;    // adapter/ in place of hf/
  uint64_t base_hash = 0;  // of its base
};

absl::StatusOr<uint64_t> HexIn(const json& manifest, const char* key, const std::string& path) {
  uint64_t value = 0;
  if (!absl::SimpleHexAtoi(manifest.value(key, ""), &value)) {
    return DamagedError(path, absl::StrCat("has a ", key, " that is not hexadecimal"));
  }
  return value;
}

// Checks all files and returns what else the manifest says.
absl::StatusOr<ManifestFacts> CheckManifest(const std::string& dir) {
  const std::string path = dir + "/MANIFEST.json";
  if (!base::PathExists(dir)) return absl::NotFoundError(absl::StrCat("no checkpoint at ", dir));
  if (!base::PathExists(path)) return DamagedError(path, "is missing");
  TEMPER_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMaxJsonBytes));
  const json manifest = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object() || manifest.value("format", 0) != kFormat ||
      !manifest.contains("files") || !manifest["files"].is_array() ||
      !manifest.contains("config_fingerprint") || !manifest["config_fingerprint"].is_string()) {
    return DamagedError(path, absl::StrCat("is not a manifest of format ", kFormat));
  }
  std::map<std::string, bool> listed;
  for (const json& entry : manifest["files"]) {
    TEMPER_RETURN_IF_ERROR(CheckFile(dir, entry));
    listed[entry["path"].get<std::string>()] = true;
  }
  ManifestFacts facts{.adapter = manifest.contains("frozen_base")};
  std::vector<const char*> needed = {"state/trainer.json", "state/commit.binpb",
                                     "state/optimizer.safetensors"};
  if (facts.adapter) {
    needed.insert(needed.end(),
                  {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"});
    TEMPER_ASSIGN_OR_RETURN(facts.base_hash, HexIn(manifest, "frozen_base", path));
  } else {
    needed.insert(needed.end(), {"hf/config.json", "hf/model.safetensors"});
  }
  for (const char* file : needed) {
    if (!listed.contains(file)) return DamagedError(path, absl::StrCat("does not list ", file));
  }
  TEMPER_ASSIGN_OR_RETURN(facts.config_fingerprint, HexIn(manifest, "config_fingerprint", path));
  return facts;
}

// Numbers of the checkpoints, the newest first.
absl::StatusOr<std::vector<uint64_t>> StepsDescending(const std::string& run_dir) {
  TEMPER_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(CheckpointsDir(run_dir)));
  std::vector<uint64_t> steps;
  for (const std::string& name : names) {
    const std::optional<uint64_t> step = NumberIn(name, "step_", "");
    if (step.has_value()) steps.push_back(*step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

// A writer that died between its two renames left the old checkpoint under the name it gives to
// those that are replaced: that is the whole one.
absl::Status AdoptReplaced(const std::string& run_dir) {
  const std::string dir = CheckpointsDir(run_dir);
  TEMPER_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(dir));
  for (const std::string& name : names) {
    const std::optional<uint64_t> step = NumberIn(name, "step_", kReplacedSuffix);
    if (!step.has_value() || base::PathExists(CheckpointPath(run_dir, *step))) continue;
    TEMPER_RETURN_IF_ERROR(
        base::RenameDurably(absl::StrCat(dir, "/", name), CheckpointPath(run_dir, *step)));
  }
  return absl::OkStatus();
}

absl::Status MoveAside(const std::string& from, const std::string& to_dir,
                       const std::string& name) {
  TEMPER_RETURN_IF_ERROR(base::MakeDirectories(to_dir));
  const std::string to = absl::StrCat(to_dir, "/", name);
  TEMPER_RETURN_IF_ERROR(base::RemoveAll(to));
  return base::RenameDurably(absl::StrCat(from, "/", name), to);
}

}  // namespace

std::string CheckpointPath(const std::string& run_dir, uint64_t step) {
  return absl::StrCat(CheckpointsDir(run_dir), "/step_", step);
}

std::string LedgerCopyPath(const std::string& run_dir, uint64_t step) {
  return absl::StrCat(CheckpointsDir(run_dir), "/ledger.partial-", step);
}

std::string LedgerOf(const std::string& dir) {
  return base::PathExists(dir + kLedger) ? dir + kLedger : std::string();
}

absl::Status WriteCheckpoint(const std::string& run_dir, const CheckpointContents& contents) {
  const std::string path = CheckpointPath(run_dir, contents.state.step);
  const std::string temporary = path + kTemporarySuffix;
  const std::string replaced = path + kReplacedSuffix;
  TEMPER_RETURN_IF_ERROR(base::RemoveAll(temporary));
  absl::Status status = WriteParts(temporary, contents);
  if (status.ok() && base::PathExists(path)) status = base::RenameDurably(path, replaced);
  if (status.ok()) status = base::RenameDurably(temporary, path);
  if (!status.ok()) {
    base::RemoveAll(temporary).IgnoreError();
    if (!contents.ledger_file.empty()) base::RemoveAll(contents.ledger_file).IgnoreError();
    const char* remedy =
        absl::IsResourceExhausted(status) ? "; free space there and resume the run" : "";
    return absl::Status(status.code(), absl::StrCat("cannot write checkpoint ", path, ": ",
                                                    status.message(), remedy));
  }
  return base::RemoveAll(replaced);
}

absl::StatusOr<LoadedCheckpoint> ReadCheckpoint(const std::string& dir,
                                                uint64_t expected_fingerprint) {
  LoadedCheckpoint loaded;
  TEMPER_ASSIGN_OR_RETURN(const ManifestFacts facts, CheckManifest(dir));
  loaded.config_fingerprint = facts.config_fingerprint;
  if (expected_fingerprint != 0 && loaded.config_fingerprint != expected_fingerprint) {
    return absl::FailedPreconditionError(
        absl::StrCat("checkpoint ", dir, " was written under configuration ",
                     base::HexDigest(loaded.config_fingerprint), ", the run has ",
                     base::HexDigest(expected_fingerprint)));
  }
  TEMPER_ASSIGN_OR_RETURN(loaded.state, StateFromJson(dir + "/state/trainer.json"));
  const std::string commit_path = dir + "/state/commit.binpb";
  TEMPER_ASSIGN_OR_RETURN(const std::string commit, base::ReadFile(commit_path, kMaxCommitBytes));
  if (!loaded.commit.ParseFromString(commit)) return DamagedError(commit_path, "does not parse");
  loaded.has_commit = loaded.commit.step() > 0;
  TEMPER_ASSIGN_OR_RETURN(loaded.moments, ReadMoments(dir + "/state/optimizer.safetensors"));
  if (facts.adapter) {
    loaded.adapter_dir = dir + kAdapter;
    loaded.base_hash = facts.base_hash;
  } else {
    TEMPER_ASSIGN_OR_RETURN(loaded.model, model::LoadModel(dir + "/hf"));
  }
  return loaded;
}

absl::StatusOr<std::optional<std::string>> FindLatestCheckpoint(const std::string& run_dir) {
  TEMPER_RETURN_IF_ERROR(AdoptReplaced(run_dir));
  TEMPER_ASSIGN_OR_RETURN(const std::vector<uint64_t> steps, StepsDescending(run_dir));
  absl::Status damage;  // of the newest
  for (size_t i = 0; i < steps.size(); ++i) {
    const std::string path = CheckpointPath(run_dir, steps[i]);
    const absl::Status whole = CheckManifest(path).status();
    if (whole.ok()) {
      for (size_t newer = 0; newer < i; ++newer) {
        TEMPER_RETURN_IF_ERROR(MoveAside(CheckpointsDir(run_dir), run_dir + "/rewound/damaged",
                                         absl::StrCat("step_", steps[newer])));
      }
      return std::optional<std::string>(path);
    }
    if (!absl::IsDataLoss(whole)) return whole;
    base::LogWarning("checkpoint_damaged", {{"path", path}, {"error", whole.message()}});
    if (damage.ok()) damage = whole;
  }
  TEMPER_RETURN_IF_ERROR(damage);
  return std::optional<std::string>();
}

absl::Status PruneCheckpoints(const std::string& run_dir, uint32_t keep) {
  const std::string dir = CheckpointsDir(run_dir);
  TEMPER_RETURN_IF_ERROR(AdoptReplaced(run_dir));
  TEMPER_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(dir));
  for (const std::string& name : names) {
    if (NumberIn(name, "step_", kTemporarySuffix) || NumberIn(name, "step_", kReplacedSuffix)) {
      TEMPER_RETURN_IF_ERROR(base::RemoveAll(absl::StrCat(dir, "/", name)));
    }
  }
  TEMPER_ASSIGN_OR_RETURN(const std::vector<uint64_t> steps, StepsDescending(run_dir));
  for (size_t i = keep; keep > 0 && i < steps.size(); ++i) {
    TEMPER_RETURN_IF_ERROR(base::RemoveAll(CheckpointPath(run_dir, steps[i])));
  }
  return absl::OkStatus();
}

absl::Status MoveLaterFilesAside(const std::string& run_dir, uint64_t resume_step,
                                 uint64_t timeline) {
  const std::string aside = absl::StrCat(run_dir, "/rewound/timeline_", timeline);
  for (const auto& [folder, suffix] : {std::pair{"checkpoints", ""}, {"samples", ".jsonl"}}) {
    const std::string from = absl::StrCat(run_dir, "/", folder);
    TEMPER_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(from));
    for (const std::string& name : names) {
      if (name.find(".partial-") != std::string::npos) {  // a write that a kill interrupted
        std::error_code ignored;                          // what cannot be removed does no harm
        fs::remove(absl::StrCat(from, "/", name), ignored);
        continue;
      }
      const std::optional<uint64_t> step = NumberIn(name, "step_", suffix);
      if (!step.has_value() || *step <= resume_step) continue;
      TEMPER_RETURN_IF_ERROR(MoveAside(from, absl::StrCat(aside, "/", folder), name));
    }
  }
  return absl::OkStatus();
}

}  // namespace temper::learner
