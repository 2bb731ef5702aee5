#include "orchestrator/run_directory.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "services/base/files.h"
#include "services/base/hash.h"
#include "services/base/status_macros.h"
#include "services/config/run_config.h"

namespace temper::orchestrator {
namespace {

std::string RecordedPath(const std::string& run_dir) {
  return absl::StrCat(run_dir, "/orchestrator.json");
}

// Unlike every other run's: the time, the process and the directory.
std::string NewRunId(const std::string& run_dir) {
  const absl::Time now = absl::Now();
  const uint64_t hash =
      base::Hash64(absl::StrCat(absl::ToUnixNanos(now), "/", getpid(), "/", run_dir));
  return absl::StrFormat("%s-%08x", absl::FormatTime("%Y%m%d-%H%M%S", now, absl::UTCTimeZone()),
                         hash & 0xffffffffu);
}

}  // namespace

absl::Status WriteRecorded(const std::string& run_dir, const Recorded& recorded) {
  nlohmann::ordered_json json;
  json["address"] = recorded.address;
  json["metrics_address"] = recorded.metrics_address;
  json["pid"] = recorded.pid;
  json["run_id"] = recorded.run_id;
  return base::WriteFileAtomically(RecordedPath(run_dir), json.dump() + "\n");
}

absl::StatusOr<Recorded> ReadRecorded(const std::string& run_dir) {
  TEMPER_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(RecordedPath(run_dir), 1 << 16));
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  Recorded recorded;
  for (auto [key, field] : {std::pair{"address", &recorded.address},
                            std::pair{"metrics_address", &recorded.metrics_address},
                            std::pair{"run_id", &recorded.run_id}}) {
    if (!json.is_object() || !json.contains(key) || !json[key].is_string()) {
      return absl::DataLossError(absl::StrCat(RecordedPath(run_dir), ": no text \"", key, "\""));
    }
    *field = json[key].get<std::string>();
  }
  if (json.contains("pid") && json["pid"].is_number_integer()) {
    recorded.pid = json["pid"].get<int64_t>();
  }
  return recorded;
}

namespace {

// A supervisor's restart begins a run where none was (its first start), but not in place of one
// whose ledger is gone: only a person's resume restores that.
absl::Status CheckNotLost(const std::string& run_dir, const std::string& ledger,
                          const std::string& run_id_in_ledger) {
  const absl::StatusOr<Recorded> recorded = ReadRecorded(run_dir);
  if (!recorded.ok() || recorded->run_id.empty() || !run_id_in_ledger.empty()) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(ledger, ", the ledger of run ", recorded->run_id,
                                          ", is gone; --resume auto restores it from the newest "
                                          "checkpoint"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunDirectory>> RunDirectory::Open(
    const RunDirectoryOptions& options) {
  const v1::RunConfig& config = options.config;
  const std::string state_dir = config.orchestrator().state_dir().empty()
                                    ? options.run_dir
                                    : config.orchestrator().state_dir();
  TEMPER_RETURN_IF_ERROR(base::MakeDirectories(options.run_dir));
  TEMPER_RETURN_IF_ERROR(base::MakeDirectories(state_dir));
  const std::string ledger = absl::StrCat(state_dir, "/ledger.db");
  if (base::PathExists(ledger) && options.start == StartKind::kNew) {
    return absl::InvalidArgumentError(absl::StrCat(
        ledger, " is the ledger of a run: continue it with --resume, or choose another run_dir"));
  }
  const bool restarted = options.start == StartKind::kRestarted;
  if (restarted && !base::PathExists(ledger)) {
    TEMPER_RETURN_IF_ERROR(CheckNotLost(options.run_dir, ledger, ""));
  }
  std::optional<LedgerRestored> restored;
  if (options.start == StartKind::kResumed && !options.ledger_copy.empty()) {
    TEMPER_ASSIGN_OR_RETURN(restored, RestoreLedgerIfLost({.ledger = ledger,
                                                           .copy = options.ledger_copy,
                                                           .run_dir = options.run_dir,
                                                           .now = absl::Now()}));
  }
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<LedgerStore> store, LedgerStore::Open(ledger));
  std::unique_ptr<RunDirectory> directory(
      new RunDirectory(options.run_dir, ledger, std::move(store)));
  directory->restored_ = std::move(restored);
  TEMPER_ASSIGN_OR_RETURN(directory->run_id_, directory->store_->Fact("run_id"));
  if (restarted) {
    TEMPER_RETURN_IF_ERROR(CheckNotLost(options.run_dir, ledger, directory->run_id_));
  }
  TEMPER_RETURN_IF_ERROR(directory->run_id_.empty() ? directory->Begin(config)
                                                    : directory->CompareConfig(config));
  return directory;
}

absl::Status RunDirectory::Begin(const v1::RunConfig& config) {
  run_id_ = NewRunId(run_dir_);
  return store_->Transact(SqlDatabase::Durability::kDurable, [&]() -> absl::Status {
    TEMPER_RETURN_IF_ERROR(store_->PutFact("config", config.SerializeAsString()));
    return store_->PutFact("run_id", run_id_);
  });
}

absl::Status RunDirectory::CompareConfig(const v1::RunConfig& config) {
  TEMPER_ASSIGN_OR_RETURN(const std::string bytes, store_->Fact("config"));
  v1::RunConfig began;
  if (!began.ParseFromString(bytes)) return absl::DataLossError("ledger: the configuration");
  const std::vector<std::string> differences = config::ResumeDifferences(began, config);
  if (differences.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("run ", run_id_, " began with another configuration and cannot be resumed:\n",
                   absl::StrJoin(differences, "\n")));
}

}  // namespace temper::orchestrator
