#include "cli/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "learner/checkpoint.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"
#include "services/config/run_config.h"

namespace temper::cli {
namespace {

constexpr int64_t kMaxRecordBytes = 1 << 20;

std::string In(const std::string& run_dir, const char* name) {
  return absl::StrCat(run_dir, "/", name);
}

// The configuration the run began with must give the same results as the one it is resumed with.
absl::Status CheckResumable(const v1::RunConfig& config) {
  const std::string began_path = In(config.run_dir(), "resolved.yaml");
  if (!base::PathExists(began_path)) {
    return absl::NotFoundError(absl::StrCat("no run to resume in ", config.run_dir()));
  }
  TEMPER_ASSIGN_OR_RETURN(const v1::RunConfig began, config::LoadResolvedConfig(began_path));
  const std::vector<std::string> differences = config::ResumeDifferences(began, config);
  if (!differences.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a run is resumed with the configuration it began with; here it differs:\n  ",
                     absl::StrJoin(differences, "\n  ")));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunLock>> RunLock::Take(const std::string& run_dir) {
  TEMPER_RETURN_IF_ERROR(base::MakeDirectories(run_dir));
  const std::string path = In(run_dir, "temper.lock");
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return base::StatusFromErrno(errno, "cannot open", path);
  std::unique_ptr<RunLock> lock(new RunLock(descriptor));
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return base::StatusFromErrno(errno, "cannot lock", path);
    const absl::StatusOr<std::string> leader = base::ReadFile(path, kMaxRecordBytes);
    return absl::FailedPreconditionError(
        absl::StrCat("another temper (process ", leader.ok() ? *leader : "unknown",
                     ") leads the run in ", run_dir, "; end it first, or give another run_dir"));
  }
  // Its number is for that message alone: without room for it the lock holds all the same.
  const std::string pid = absl::StrCat(getpid());
  if (ftruncate(descriptor, 0) == 0) (void)!write(descriptor, pid.data(), pid.size());
  return lock;
}

RunLock::~RunLock() { close(descriptor_); }

absl::StatusOr<std::unique_ptr<RunLock>> PrepareRunDirectory(
    const v1::RunConfig& config, const std::string& recipe,
    const std::vector<std::string>& overrides, bool resume) {
  const std::string& run_dir = config.run_dir();
  // A mistyped folder is not made.
  if (resume && !base::PathExists(run_dir)) return CheckResumable(config);
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<RunLock> lock, RunLock::Take(run_dir));
  if (resume) {
    TEMPER_RETURN_IF_ERROR(CheckResumable(config));
  } else if (base::PathExists(In(run_dir, "resolved.yaml")) ||
             base::PathExists(In(run_dir, "ledger.db"))) {
    return absl::InvalidArgumentError(absl::StrCat(
        run_dir, " holds a run already; give --resume auto to go on with it, or another run_dir"));
  }
  TEMPER_RETURN_IF_ERROR(base::MakeDirectories(In(run_dir, "logs")));
  TEMPER_ASSIGN_OR_RETURN(std::string text, base::ReadFile(recipe, kMaxRecordBytes));
  if (!overrides.empty()) {
    text = absl::StrCat("# Overrides on the command line:\n#   ",
                        absl::StrJoin(overrides, "\n#   "), "\n", text);
  }
  if (!resume) TEMPER_RETURN_IF_ERROR(base::WriteFileAtomically(In(run_dir, "config.yaml"), text));
  TEMPER_RETURN_IF_ERROR(
      base::WriteFileAtomically(In(run_dir, "resolved.yaml"), config::ToYaml(config)));
  return lock;
}

absl::StatusOr<std::string> LedgerCopyToResume(const v1::RunConfig& config) {
  TEMPER_ASSIGN_OR_RETURN(const auto checkpoint, learner::FindLatestCheckpoint(config.run_dir()));
  if (!checkpoint.has_value()) return std::string();
  const std::string copy = learner::LedgerOf(*checkpoint);
  const std::string& state_dir = config.orchestrator().state_dir();
  const std::string ledger = In(state_dir.empty() ? config.run_dir() : state_dir, "ledger.db");
  if (copy.empty() && !base::PathExists(ledger)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "there is no ", ledger, ", and ", *checkpoint,
        " holds no copy of it (the orchestrator could not give one then); move that checkpoint "
        "away to resume from the one before"));
  }
  return copy;
}

std::string FreshRunDirectory(const std::string& recipe) {
  const std::string stem = std::filesystem::path(recipe).stem().string();
  const std::string time = absl::FormatTime("%Y%m%d-%H%M%S", absl::Now(), absl::UTCTimeZone());
  std::string name = absl::StrCat("runs/", stem, "-", time);
  for (int i = 2; base::PathExists(name); ++i)
    name = absl::StrCat("runs/", stem, "-", time, "-", i);
  return name;
}

absl::Status WritePrometheusConfig(const std::string& run_dir, const std::string& metrics_address) {
  const std::string text = absl::StrCat(
      "# Scrapes every live process of this run; the orchestrator lists them.\n"
      "#   prometheus --config.file=",
      run_dir,
      "/prometheus.yml\n"
      "global: {scrape_interval: 5s}\n"
      "scrape_configs:\n"
      "  - job_name: temper\n"
      "    http_sd_configs:\n"
      "      - url: http://",
      metrics_address,
      "/sd\n"
      "        refresh_interval: 5s\n");
  return base::WriteFileAtomically(In(run_dir, "prometheus.yml"), text);
}

absl::StatusOr<OrchestratorRecord> ReadOrchestratorRecord(const std::string& run_dir) {
  const std::string path = In(run_dir, "orchestrator.json");
  TEMPER_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMaxRecordBytes));
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("address") || !json["address"].is_string()) {
    return absl::DataLossError(absl::StrCat(path, " is not the record of an orchestrator"));
  }
  TEMPER_ASSIGN_OR_RETURN(const v1::RunConfig config,
                          config::LoadResolvedConfig(In(run_dir, "resolved.yaml")));
  return OrchestratorRecord{.address = json["address"].get<std::string>(),
                            .metrics_address = json.value("metrics_address", ""),
                            .run_id = json.value("run_id", ""),
                            .tls = TlsOf(config.network())};
}

rpc::TlsOptions TlsOf(const v1::NetworkConfig& network) {
  return {.certificate_file = network.tls_certificate(),
          .private_key_file = network.tls_key(),
          .ca_file = network.tls_ca()};
}

}  // namespace temper::cli
