#include "weights/in_process_hub.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace temper::weights {

class InProcessHub::RootSide final : public BroadcastRoot {
 public:
  RootSide(std::shared_ptr<State> state, int members, base::Clock* clock)
      : state_(std::move(state)), members_(members), clock_(clock) {}

  absl::Status Send(std::shared_ptr<const WeightVersion> version, absl::Time deadline) override {
    absl::MutexLock lock(&state_->mutex);
    if (!state_->abort_reason.empty()) return absl::AbortedError(state_->abort_reason);
    state_->version = std::move(version);
    state_->taken.clear();
    ++state_->round;
    const auto settled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex) {
      return !state_->abort_reason.empty() || state_->taken.size() == static_cast<size_t>(members_);
    };
    clock_->AwaitUntil(&state_->mutex, absl::Condition(&settled), deadline);
    const size_t taken = state_->taken.size();
    state_->version = nullptr;
    if (taken == static_cast<size_t>(members_)) return absl::OkStatus();
    if (!state_->abort_reason.empty()) return absl::AbortedError(state_->abort_reason);
    return absl::DeadlineExceededError(
        absl::StrCat(taken, " of ", members_, " members took the version in time"));
  }

  void Abort(std::string_view reason) override {
    absl::MutexLock lock(&state_->mutex);
    if (state_->abort_reason.empty())
      state_->abort_reason = absl::StrCat("aborted: ", std::string(reason));
  }

 private:
  const std::shared_ptr<State> state_;
  const int members_;
  base::Clock* const clock_;
};

class InProcessHub::MemberSide final : public BroadcastMember {
 public:
  MemberSide(std::shared_ptr<State> state, int number, base::Clock* clock)
      : state_(std::move(state)), number_(number), clock_(clock) {}

  absl::Status Receive(VersionAssembler* assembler, absl::Time deadline) override {
    const uint64_t wanted = assembler->manifest().version();
    if (carried_.has_value() && wanted <= *carried_) {
      return absl::NotFoundError(
          absl::StrCat("version ", *carried_, " came, ", wanted, " is wanted"));
    }
    std::shared_ptr<const WeightVersion> version;
    uint64_t round = 0;
    {
      absl::MutexLock lock(&state_->mutex);
      const auto settled = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex) {
        return !state_->abort_reason.empty() ||
               (state_->version != nullptr && !state_->taken.contains(number_));
      };
      clock_->AwaitUntil(&state_->mutex, absl::Condition(&settled), deadline);
      if (!state_->abort_reason.empty()) return absl::AbortedError(state_->abort_reason);
      if (state_->version == nullptr || state_->taken.contains(number_)) {
        return absl::DeadlineExceededError(absl::StrCat("version ", wanted, " was not sent"));
      }
      version = state_->version;
      round = state_->round;
    }
    absl::Status status = Copy(*version, assembler);
    absl::MutexLock lock(&state_->mutex);
    // What was broadcast is past for this member even if it is of no use to it.
    carried_ = version->manifest().version();
    if (state_->round == round) state_->taken.insert(number_);
    return status;
  }

  void Abort(std::string_view reason) override {
    absl::MutexLock lock(&state_->mutex);
    if (state_->abort_reason.empty())
      state_->abort_reason = absl::StrCat("aborted: ", std::string(reason));
  }

 private:
  static absl::Status Copy(const WeightVersion& version, VersionAssembler* assembler) {
    if (version.manifest().version() != assembler->manifest().version() ||
        version.buckets().size() != static_cast<size_t>(assembler->manifest().buckets_size())) {
      return absl::NotFoundError(absl::StrCat("version ", version.manifest().version(),
                                              " was sent, not ", assembler->manifest().version()));
    }
    for (const uint32_t bucket : assembler->Missing()) {
      const std::vector<std::byte>& bytes = *version.buckets()[bucket];
      const absl::Status status = assembler->AddChunk(
          bucket, 0, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
      if (!status.ok()) return status;
      if (bucket < assembler->Missing().size() && assembler->Missing().front() == bucket) {
        return absl::DataLossError(absl::StrCat("bucket ", bucket, " is shorter than announced"));
      }
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<State> state_;
  std::optional<uint64_t> carried_;  // the newest version that has come
  const int number_;
  base::Clock* const clock_;
};

InProcessHub::InProcessHub(int members, base::Clock* clock)
    : members_(members), clock_(clock), state_(std::make_shared<State>()) {}

std::unique_ptr<BroadcastRoot> InProcessHub::Root() {
  return std::make_unique<RootSide>(state_, members_, clock_);
}

std::unique_ptr<BroadcastMember> InProcessHub::Member(int number) {
  return std::make_unique<MemberSide>(state_, number, clock_);
}

}  // namespace temper::weights
