#include "rollout_worker/weights_keeper.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/clock.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"
#include "weights/weight_receiver.h"

namespace temper::rollout_worker {
namespace {

// A view is looked at this often even if nothing is heard; also the longest wait before a halt is
// seen by a wait on the membership.
constexpr absl::Duration kLook = absl::Milliseconds(250);
// Between two tries of a version that could not be brought.
constexpr absl::Duration kRetry = absl::Milliseconds(200);
// One version's acknowledgement was refused so often: our norms are not everyone else's.
constexpr int kMaxRefusals = 3;

std::string NameOf(const std::optional<VersionKey>& key) {
  if (!key.has_value()) return "none";
  return absl::StrCat(key->version, " of timeline ", key->timeline);
}

}  // namespace

WeightsKeeper::WeightsKeeper(WeightsKeeperOptions options)
    : options_(std::move(options)),
      pull_({.tls = options_.tls}),
      seat_(options_.back_end == nullptr ? nullptr
                                         : std::make_unique<BroadcastSeat>(BroadcastSeatOptions{
                                               .back_end = options_.back_end,
                                               .membership = options_.membership,
                                               .peers = options_.peers})) {}

WeightsKeeper::~WeightsKeeper() { Stop(); }

void WeightsKeeper::Start() {
  thread_ = std::thread([this] { Run(); });
}

void WeightsKeeper::Stop() {
  pull_.Abort("the worker stops");
  if (seat_ != nullptr) seat_->Abort("the worker stops");
  {
    absl::MutexLock lock(&mutex_);
    halted_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

std::optional<VersionKey> WeightsKeeper::Held() const {
  absl::MutexLock lock(&mutex_);
  return held_;
}

std::optional<VersionKey> WeightsKeeper::AwaitHeld(const std::optional<VersionKey>& seen,
                                                   absl::Time deadline) const {
  absl::MutexLock lock(&mutex_);
  const auto changed = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return halted_ || held_ != seen;
  };
  mutex_.AwaitWithDeadline(absl::Condition(&changed), deadline);
  return held_;
}

absl::StatusOr<model::InstalledWeights> WeightsKeeper::BeginUse(const VersionKey& wanted,
                                                                bool exact, absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  const auto settled = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return halted_ || !installing_;
  };
  if (!mutex_.AwaitWithDeadline(absl::Condition(&settled), deadline)) {
    return absl::DeadlineExceededError("an installation of weights did not end");
  }
  const bool suits = held_.has_value() && held_->timeline == wanted.timeline &&
                     (exact ? held_->version == wanted.version : held_->version >= wanted.version);
  if (!suits) {
    return absl::FailedPreconditionError(
        absl::StrCat("the lease needs version ", NameOf(wanted), ", held is ", NameOf(held_)));
  }
  exact_in_use_ = exact;
  return held_weights_;
}

model::InstalledWeights WeightsKeeper::HeldWeights(uint64_t timeline) const {
  absl::MutexLock lock(&mutex_);
  return held_.has_value() && held_->timeline == timeline ? held_weights_ : nullptr;
}

void WeightsKeeper::LetGo() {
  held_.reset();
  held_weights_.reset();
}

void WeightsKeeper::EndUse() {
  absl::MutexLock lock(&mutex_);
  exact_in_use_ = false;
}

bool WeightsKeeper::NewerThan(uint64_t timeline, uint64_t version) const {
  absl::MutexLock lock(&mutex_);
  return !installing_ && held_.has_value() && held_->timeline == timeline &&
         held_->version > version;
}

absl::Status WeightsKeeper::failure() const {
  absl::MutexLock lock(&mutex_);
  return failure_;
}

bool WeightsKeeper::Fatal(const absl::Status& status) const {
  return absl::IsDataLoss(status) || absl::IsInvalidArgument(status);
}

void WeightsKeeper::Run() {
  std::string last_reason, last_error;
  while (!options_.halt->StopRequested()) {
    const member::MembershipView view = options_.membership->view();
    if (view.rejoins != rejoins_) {
      rejoins_ = view.rejoins;
      AcknowledgeAgain();
    }
    const FetchDecision decision = NextFetch(view.timeline, view.latest_version, Held());
    if (decision.reason != last_reason) {
      last_reason = decision.reason;
      base::LogInfo("weights_decision", {{"reason", decision.reason}, {"timeline", view.timeline}});
    }
    if (!decision.fetch.has_value()) {
      options_.membership->AwaitChange(view.revision, absl::Now() + kLook);
      continue;
    }
    const absl::Status status = Fetch(*decision.fetch);
    if (options_.halt->StopRequested()) return;
    if (status.ok()) {
      last_error.clear();
      continue;
    }
    if (status.ToString() != last_error) {
      last_error = status.ToString();
      base::LogWarning("weights_not_installed", {{"timeline", decision.fetch->timeline},
                                                 {"version", decision.fetch->version},
                                                 {"error", last_error}});
    }
    if (Fatal(status)) {
      {
        absl::MutexLock lock(&mutex_);
        failure_ = status;
        halted_ = true;
      }
      options_.halt->RequestStop();
      return;
    }
    options_.halt->WaitFor(kRetry);
  }
}

absl::Status WeightsKeeper::Fetch(const VersionKey& wanted) {
  TEMPER_ASSIGN_OR_RETURN(const v1::Manifest manifest,
                          options_.peers->GetManifest(wanted.timeline, wanted.version));
  if (manifest.run_id() != options_.setup->run_id || manifest.timeline() != wanted.timeline ||
      manifest.version() != wanted.version) {
    return absl::AbortedError(absl::StrCat("the manifest is of run ", manifest.run_id(),
                                           " timeline ", manifest.timeline(), " version ",
                                           manifest.version()));
  }
  if (manifest.noise_id() != options_.setup->noise_id) {
    return absl::InvalidArgumentError(absl::StrCat(
        "version ", wanted.version, " was published under noise id ", manifest.noise_id(),
        ", this worker's configuration gives ", options_.setup->noise_id));
  }
  if (manifest.model_files_hash() != options_.setup->model_files_hash) {
    return absl::InvalidArgumentError(
        absl::StrCat("version ", wanted.version, " is of a model whose files have hash ",
                     manifest.model_files_hash(), ", this worker was given those of hash ",
                     options_.setup->model_files_hash));
  }
  if (manifest.adapted_base_hash() != options_.setup->base_hash) {
    return absl::InvalidArgumentError(absl::StrCat(
        "version ", wanted.version, " adapts a base of hash ", manifest.adapted_base_hash(),
        " (0: none), this worker holds that of hash ", options_.setup->base_hash));
  }
  TEMPER_ASSIGN_OR_RETURN(const std::shared_ptr<const weights::WeightVersion> version,
                          Bring(wanted, manifest));
  return InstallAndAcknowledge(*version);
}

absl::StatusOr<std::shared_ptr<const weights::WeightVersion>> WeightsKeeper::Bring(
    const VersionKey& wanted, const v1::Manifest& manifest) {
  const absl::Time begun = absl::Now();
  const absl::Duration limit =
      absl::Seconds(options_.setup->config.weights().broadcast_timeout_seconds());
  const auto overtaken = [&] {
    const member::MembershipView view = options_.membership->view();
    return NextFetch(view.timeline, view.latest_version, Held()).fetch != wanted;
  };
  const bool seated = seat_ != nullptr && !seat_->HasLeft(manifest);
  bool by_broadcast = false;
  // A broadcast that fails at its deadline leaves as much time for the pull.
  TEMPER_ASSIGN_OR_RETURN(
      std::shared_ptr<const weights::WeightVersion> version,
      weights::ReceiveVersion(manifest, begun + (seated ? 2 * limit : limit),
                              {.broadcast = seated ? seat_.get() : nullptr,
                               .catch_up = &pull_,
                               .comm_epoch = manifest.comm_epoch(),  // the seat is of any epoch
                               .broadcast_timeout = limit,
                               .by_broadcast = &by_broadcast,
                               .stop = options_.halt,
                               .overtaken = overtaken}));
  options_.metrics->weights_pull_seconds.Observe(absl::ToDoubleSeconds(absl::Now() - begun));
  options_.metrics->CountReceived(by_broadcast ? "broadcast" : "pull");
  return version;
}

absl::Status WeightsKeeper::InstallAndAcknowledge(const weights::WeightVersion& version) {
  {
    absl::MutexLock lock(&mutex_);
    const auto free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return halted_ || !exact_in_use_;
    };
    // An exact lease ends with its generation, which no deadline bounds but the lease's own; look
    // again now and then whether this version is still wanted.
    if (!mutex_.AwaitWithTimeout(absl::Condition(&free), absl::Seconds(30))) {
      return absl::UnavailableError("an exact lease is being generated");
    }
    if (halted_) return absl::CancelledError("the worker stops");
    installing_ = true;
  }
  auto report = options_.sampler->Install(version);
  absl::Status status = report.ok() ? Acknowledge(version, *report) : report.status();
  // AQN that changes no norm never will: it is the configuration's fault, not this version's.
  const bool no_aqn = absl::IsFailedPrecondition(report.status());
  if (no_aqn) status = absl::InvalidArgumentError(report.status().message());
  absl::MutexLock lock(&mutex_);
  installing_ = false;
  if (!status.ok()) {
    // The engine's newest is not the one acknowledged: sample with neither.
    if (report.ok() || no_aqn) LetGo();
    return status;
  }
  held_weights_ = options_.sampler->Installed();
  held_ = VersionKey{version.manifest().timeline(), version.manifest().version()};
  options_.metrics->weights_version.Set(static_cast<double>(held_->version));
  options_.membership->SetAcknowledged(held_->timeline, held_->version);
  return absl::OkStatus();
}

void WeightsKeeper::AcknowledgeAgain() {
  if (!Held().has_value()) return;
  const absl::StatusOr<v1::AcknowledgeWeightsReply> reply =
      options_.peers->AcknowledgeWeights(acknowledged_);
  if (reply.ok() && reply->accepted()) return;
  base::LogInfo("weights_let_go",
                {{"version", acknowledged_.version()},
                 {"reason", reply.ok() ? reply->reason() : reply.status().ToString()}});
  absl::MutexLock lock(&mutex_);
  LetGo();
}

absl::Status WeightsKeeper::Acknowledge(const weights::WeightVersion& version,
                                        const numerics::AqnReport& report) {
  const v1::Manifest& manifest = version.manifest();
  v1::AcknowledgeWeightsRequest request;
  request.set_timeline(manifest.timeline());
  request.set_version(manifest.version());
  request.set_base_weights_hash(manifest.base_weights_hash());  // equals the received bytes' hash
  request.set_aqn_sigma(report.sigma);
  request.set_aqn_norms(static_cast<uint32_t>(report.norms_touched));
  request.set_aqn_checksum(report.checksum);
  TEMPER_ASSIGN_OR_RETURN(const v1::AcknowledgeWeightsReply reply,
                          options_.peers->AcknowledgeWeights(request));
  if (!reply.accepted()) {
    const VersionKey key{manifest.timeline(), manifest.version()};
    refusals_ = refused_ == key ? refusals_ + 1 : 1;
    refused_ = key;
    if (refusals_ >= kMaxRefusals) {
      return absl::DataLossError(absl::StrCat("version ", manifest.version(), " was refused ",
                                              refusals_, " times; last: ", reply.reason()));
    }
    return absl::AbortedError(
        absl::StrCat("version ", manifest.version(), " was not accepted: ", reply.reason()));
  }
  refused_.reset();
  acknowledged_ = request;
  base::LogInfo("weights_installed", {{"timeline", manifest.timeline()},
                                      {"version", manifest.version()},
                                      {"aqn_sigma", report.sigma},
                                      {"aqn_norms", report.norms_touched},
                                      {"aqn_max_abs_change", report.max_abs_change}});
  return absl::OkStatus();
}

}  // namespace temper::rollout_worker
