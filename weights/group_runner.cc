#include "weights/group_runner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/log.h"

namespace temper::weights {
namespace {

// The machine looks at the clock and at who is alive this often even if nothing happens.
constexpr absl::Duration kLook = absl::Milliseconds(100);
// The communicator's own deadline ends a call first, since it knows whom it waited for.
constexpr absl::Duration kMargin = absl::Seconds(1);
// Versions kept for a broadcast: the one being sent, and the newest.
constexpr size_t kKept = 2;

}  // namespace

GroupRunner::GroupRunner(GroupRunnerOptions options) : options_(std::move(options)) {
  communicator_ = std::make_unique<CollectiveCommunicator>(CommunicatorOptions{
      .back_end = options_.back_end,
      .hooks = {.announce =
                    [this](uint64_t comm_epoch, const std::string& id,
                           const std::vector<std::string>& members, absl::Time deadline) {
                      return Announce(comm_epoch, id, members, deadline);
                    },
                .end = options_.end,
                .find = [this](uint64_t version) { return Find(version); },
                .progressed = [this] { Wake(); }},
      .form_timeout = options_.form_timeout,
      .broadcast_timeout = options_.broadcast_timeout});
  runner_ = std::make_unique<EpochRunner>(EpochRunnerOptions{
      .epoch = {.form_timeout = options_.form_timeout + kMargin,
                .broadcast_timeout = options_.broadcast_timeout + kMargin},
      .communicator = communicator_.get(),
      // A member pulls of its own accord whatever its group did not bring.
      .catch_up = [](const std::vector<std::string>&, uint64_t) {},
      .observe = [this](const EpochEvent& event, const EpochMove& move) { Observe(event, move); }});
  thread_ = std::thread([this] { Run(); });
}

GroupRunner::~GroupRunner() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
  communicator_.reset();  // before what its hooks use
}

uint64_t GroupRunner::CarryingEpoch() const {
  absl::MutexLock lock(&mutex_);
  return carrying_epoch_;
}

void GroupRunner::VersionOut(std::shared_ptr<const WeightVersion> version) {
  const v1::Manifest& manifest = version->manifest();
  absl::MutexLock lock(&mutex_);
  if (manifest.comm_epoch() != 0) out_ = manifest.version();
  versions_.push_back(std::move(version));
  while (versions_.size() > kKept) versions_.pop_front();
}

std::shared_ptr<const WeightVersion> GroupRunner::Find(uint64_t version) const {
  absl::MutexLock lock(&mutex_);
  const auto found = std::find_if(versions_.begin(), versions_.end(), [&](const auto& kept) {
    return kept->manifest().version() == version;
  });
  return found == versions_.end() ? nullptr : *found;
}

void GroupRunner::Wake() {
  absl::MutexLock lock(&mutex_);
  woken_ = true;
}

absl::Status GroupRunner::Announce(uint64_t comm_epoch, const std::string& id,
                                   const std::vector<std::string>& members, absl::Time deadline) {
  {
    absl::MutexLock lock(&mutex_);
    const uint64_t named = versions_.empty() ? 0 : versions_.back()->manifest().comm_epoch();
    // Members come for the epoch that a manifest names; for another one they would be waited for in
    // vain, and blamed.
    if (named != comm_epoch) {
      return absl::FailedPreconditionError(absl::StrCat("the newest manifest names epoch ", named));
    }
  }
  return options_.announce(comm_epoch, id, members, deadline);
}

void GroupRunner::Observe(const EpochEvent& event, const EpochMove& move) {
  // A candidate that leaves all the same is one that the communicator waited for.
  if (event.kind == EpochEvent::Kind::kLeft && candidates_.contains(event.member)) {
    left_out_.insert(event.member);
    base::LogWarning("broadcast_member_left_out", {{"member", event.member},
                                                   {"comm_epoch", move.state.comm_epoch},
                                                   {"phase", EpochPhaseName(phase_)}});
  }
  const absl::Time now = absl::Now();
  options_.observe({.from = phase_,
                    .to = move.state.phase,
                    .in_from = now - phase_since_,
                    .event = &event,
                    .move = &move});
  if (phase_ == move.state.phase && move.action.call == EpochAction::Kind::kNone) return;
  phase_ = move.state.phase;
  phase_since_ = now;
}

void GroupRunner::FollowMembers() {
  candidates_ = options_.candidates();
  std::erase_if(left_out_, [this](const std::string& name) { return !candidates_.contains(name); });
  const std::set<std::string> joined = runner_->state().joined;
  for (const std::string& name : joined) {
    if (!candidates_.contains(name)) runner_->Leave(name);
  }
  for (const std::string& name : candidates_) {
    if (!joined.contains(name) && !left_out_.contains(name)) runner_->Join(name);
  }
}

void GroupRunner::Run() {
  absl::Time look = absl::InfinitePast();
  while (true) {
    std::optional<uint64_t> out;
    {
      absl::MutexLock lock(&mutex_);
      const auto due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || woken_ || out_.has_value();
      };
      mutex_.AwaitWithDeadline(absl::Condition(&due), look);
      if (stopping_) return;
      woken_ = false;
      out = std::exchange(out_, std::nullopt);
    }
    if (out.has_value()) runner_->VersionOut(*out);
    runner_->Poll();
    if (absl::Now() >= look) {
      FollowMembers();
      look = absl::Now() + kLook;
    }
    absl::MutexLock lock(&mutex_);
    carrying_epoch_ = weights::CarryingEpoch(runner_->state());
  }
}

}  // namespace temper::weights
