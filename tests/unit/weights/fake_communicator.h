#pragma once

// A communicator between imagined processes whose every call may take its time, fail, lose a peer
// or hang. What happens is drawn from a seed.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/base/clock.h"
#include "services/base/random_key.h"
#include "weights/epoch_runner.h"
#include "weights/version_assembler.h"

namespace temper::weights {

// A member process: its shadow copy and what it has installed.
struct FakeMember {
  std::unique_ptr<VersionAssembler> shadow;
  std::shared_ptr<const WeightVersion> installed;

  void Begin(const v1::Manifest& manifest) {
    if (shadow != nullptr && shadow->manifest().version() == manifest.version()) return;
    shadow = *VersionAssembler::Create(manifest);
  }
  void Bring(const WeightVersion& version, uint32_t bucket, size_t bytes) {
    const auto& source = *version.buckets()[bucket];
    const auto payload = std::string_view(reinterpret_cast<const char*>(source.data()),
                                          std::min(bytes, source.size()));
    EXPECT_TRUE(shadow->AddChunk(bucket, 0, payload).ok());
  }
  // Takes the version up if it is whole.
  void InstallIfWhole() {
    if (shadow == nullptr || !shadow->Missing().empty()) return;
    installed = *shadow->Finish();
    shadow = nullptr;
  }
  void PullAll(const WeightVersion& version) {
    if (installed != nullptr && installed->manifest().version() >= version.manifest().version()) {
      return;
    }
    Begin(version.manifest());
    for (const uint32_t bucket : shadow->Missing()) Bring(version, bucket, ~size_t{0});
    InstallIfWhole();
  }
};

class FakeCommunicator final : public Communicator {
 public:
  FakeCommunicator(uint64_t seed, base::Clock* clock, std::map<std::string, FakeMember>* members,
                   const std::map<uint64_t, std::shared_ptr<const WeightVersion>>* versions)
      : seed_(seed), clock_(clock), members_(members), versions_(versions) {}

  void BeginForm(uint64_t comm_epoch, const std::vector<std::string>& members) override {
    EXPECT_FALSE(InFlight()) << "one call at a time";
    EXPECT_GT(comm_epoch, epoch_) << "an epoch is never used twice";
    epoch_ = comm_epoch;
    group_ = members;
    Begin();
  }
  void BeginBroadcast(uint64_t comm_epoch, uint64_t version) override {
    EXPECT_FALSE(InFlight()) << "one call at a time";
    EXPECT_EQ(comm_epoch, epoch_);
    version_ = version;
    Begin();
    const bool whole = outcome_ == Outcome::kDone;
    for (const std::string& name : group_) Deliver(name, whole);
  }
  void BeginAbort(uint64_t comm_epoch) override {
    EXPECT_EQ(comm_epoch, epoch_);
    version_.reset();
    Begin();
  }
  void Abandon(uint64_t) override { outcome_ = Outcome::kNone; }

  CommProgress Poll() override {
    if (outcome_ == Outcome::kNone) return {};
    if (outcome_ == Outcome::kHang || clock_->Now() < due_) {
      return {.state = CommProgress::State::kRunning};
    }
    const Outcome outcome = outcome_;
    outcome_ = Outcome::kNone;
    if (outcome == Outcome::kDone) {
      if (version_.has_value()) {
        for (const std::string& name : group_) (*members_)[name].InstallIfWhole();
      }
      version_.reset();
      return {.state = CommProgress::State::kDone};
    }
    version_.reset();
    if (outcome == Outcome::kFail) {
      return {.state = CommProgress::State::kFailed, .error = "a call failed"};
    }
    const std::string lost = group_[Draw(group_.size())];
    lost_.push_back(lost);
    return {.state = CommProgress::State::kRunning, .lost = {lost}};
  }

  const std::vector<std::string>& lost() const { return lost_; }
  // From now on every call succeeds at once.
  void Heal() { healthy_ = true; }

 private:
  enum class Outcome { kNone, kDone, kFail, kLosePeer, kHang };

  uint64_t Draw(uint64_t bound) { return base::UniformBelow(seed_, draws_++, bound); }
  bool InFlight() const { return outcome_ != Outcome::kNone; }
  void Begin() {
    static constexpr Outcome kOutcomes[] = {Outcome::kDone, Outcome::kDone, Outcome::kFail,
                                            Outcome::kLosePeer, Outcome::kHang};
    outcome_ = healthy_ ? Outcome::kDone : kOutcomes[Draw(5)];
    due_ = clock_->Now() + absl::Milliseconds(healthy_ ? 0 : Draw(1500));
  }
  // All of the version, or any part of it, the last bucket cut.
  void Deliver(const std::string& name, bool whole) {
    const WeightVersion& version = *versions_->at(*version_);
    FakeMember& member = (*members_)[name];
    member.Begin(version.manifest());
    const std::vector<uint32_t> missing = member.shadow->Missing();
    const size_t count = whole ? missing.size() : Draw(missing.size() + 1);
    for (size_t i = 0; i < count; ++i) {
      const bool cut = !whole && i + 1 == count;
      member.Bring(version, missing[i], cut ? 16 : ~size_t{0});
    }
  }

  const uint64_t seed_;
  base::Clock* const clock_;
  std::map<std::string, FakeMember>* const members_;
  const std::map<uint64_t, std::shared_ptr<const WeightVersion>>* const versions_;
  uint32_t draws_ = 0;
  bool healthy_ = false;
  uint64_t epoch_ = 0;
  std::vector<std::string> group_;
  std::optional<uint64_t> version_;
  Outcome outcome_ = Outcome::kNone;
  absl::Time due_;
  std::vector<std::string> lost_;
};

}  // namespace temper::weights
