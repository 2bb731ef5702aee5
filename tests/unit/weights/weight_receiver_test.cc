#include "weights/weight_receiver.h"

#include <deque>
#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/unit/weights/version_builder.h"

namespace temper::weights {
namespace {

// Does as its script says, once per Receive; afterwards it delivers.
class ScriptedMember final : public BroadcastMember {
 public:
  using Step = std::function<absl::Status(VersionAssembler*)>;
  explicit ScriptedMember(std::shared_ptr<const WeightVersion> version)
      : version_(std::move(version)) {}

  void Then(Step step) { script_.push_back(std::move(step)); }
  absl::Status Receive(VersionAssembler* assembler, absl::Time) override {
    ++calls;
    asked.push_back(assembler->Missing().size());
    if (script_.empty()) return Deliver(assembler, false);
    const Step step = script_.front();
    script_.pop_front();
    return step(assembler);
  }
  void Abort(std::string_view) override {}

  // Every missing bucket; `damage_last` flips a bit of the last one.
  absl::Status Deliver(VersionAssembler* assembler, bool damage_last) {
    const std::vector<uint32_t> missing = assembler->Missing();
    for (const uint32_t bucket : missing) {
      const auto& bytes = *version_->buckets()[bucket];
      std::string payload(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      if (damage_last && bucket == missing.back()) payload[0] ^= 1;
      const absl::Status status = assembler->AddChunk(bucket, 0, payload);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  int calls = 0;
  std::vector<size_t> asked;  // missing buckets at each call

 private:
  const std::shared_ptr<const WeightVersion> version_;
  std::deque<Step> script_;
};

class WeightReceiverTest : public ::testing::Test {
 protected:
  WeightReceiverTest()
      : version_(MakeTestVersion({.version = 3, .comm_epoch = 6})), pull_(version_) {}
  absl::Time Deadline() { return clock_.Now() + absl::Seconds(10); }
  ReceiverOptions Options() {
    return {.catch_up = &pull_, .backoff = absl::ZeroDuration(), .clock = &clock_};
  }

  testing::FakeClock clock_;
  std::shared_ptr<const WeightVersion> version_;
  ScriptedMember pull_;
};

TEST_F(WeightReceiverTest, PullsAgainOnlyTheBucketWhoseHashFailed) {
  pull_.Then([this](VersionAssembler* a) { return pull_.Deliver(a, true); });
  const auto received = ReceiveVersion(version_->manifest(), Deadline(), Options());
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_THAT(pull_.asked, ::testing::ElementsAre(version_->buckets().size(), 1u));
}

TEST_F(WeightReceiverTest, GivesUpWithDataLossAfterThreeBadTries) {
  for (int i = 0; i < 5; ++i) {
    pull_.Then([this](VersionAssembler* a) { return pull_.Deliver(a, true); });
  }
  const auto received = ReceiveVersion(version_->manifest(), Deadline(), Options());
  EXPECT_TRUE(absl::IsDataLoss(received.status())) << received.status();
  EXPECT_EQ(pull_.calls, 3);
}

TEST_F(WeightReceiverTest, TriesAnUnreachableSourceUntilTheDeadline) {
  int left = 4;
  pull_.Then([&](VersionAssembler*) { return absl::UnavailableError("down"); });
  pull_.Then([&](VersionAssembler*) { return absl::UnavailableError("down"); });
  EXPECT_TRUE(ReceiveVersion(version_->manifest(), Deadline(), Options()).ok());
  const std::function<absl::Status(VersionAssembler*)> down = [&](VersionAssembler*) {
    clock_.Advance(absl::Seconds(4));
    return --left > 0 ? absl::UnavailableError("down") : absl::InternalError("too late");
  };
  for (int i = 0; i < 4; ++i) pull_.Then(down);
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      ReceiveVersion(version_->manifest(), Deadline(), Options()).status()));
}

TEST_F(WeightReceiverTest, ReturnsAtOnceWhatNoRetryCanCure) {
  pull_.Then([](VersionAssembler*) { return absl::NotFoundError("too old"); });
  EXPECT_TRUE(
      absl::IsNotFound(ReceiveVersion(version_->manifest(), Deadline(), Options()).status()));
  pull_.Then([](VersionAssembler*) { return absl::AbortedError("another timeline"); });
  EXPECT_TRUE(
      absl::IsAborted(ReceiveVersion(version_->manifest(), Deadline(), Options()).status()));
}

TEST_F(WeightReceiverTest, TakesTheCollectiveOfTheManifestsEpochAndPullsWhatItMissed) {
  ScriptedMember collective(version_);
  ReceiverOptions options = Options();
  options.broadcast = &collective;
  options.comm_epoch = 6;
  bool by_broadcast = false;
  options.by_broadcast = &by_broadcast;
  EXPECT_TRUE(ReceiveVersion(version_->manifest(), Deadline(), options).ok());
  EXPECT_EQ(pull_.calls, 0);
  EXPECT_TRUE(by_broadcast);

  collective.Then([&](VersionAssembler* a) {
    EXPECT_TRUE(absl::IsDataLoss(collective.Deliver(a, true)));
    return absl::UnavailableError("a peer is lost");
  });
  EXPECT_TRUE(ReceiveVersion(version_->manifest(), Deadline(), options).ok());
  EXPECT_THAT(pull_.asked, ::testing::ElementsAre(1u));
  EXPECT_FALSE(by_broadcast);

  options.comm_epoch = 7;  // the manifest travels in another epoch than ours
  EXPECT_TRUE(ReceiveVersion(version_->manifest(), Deadline(), options).ok());
  EXPECT_EQ(collective.calls, 2);
}

TEST_F(WeightReceiverTest, RefusesAManifestThatCannotBeTrue) {
  v1::Manifest manifest = version_->manifest();
  manifest.set_base_weights_hash(1);
  EXPECT_TRUE(absl::IsDataLoss(ReceiveVersion(manifest, Deadline(), Options()).status()));
  EXPECT_EQ(pull_.calls, 0);
}

TEST_F(WeightReceiverTest, LetsGoOfAVersionThatIsNotWantedAnyMore) {
  ReceiverOptions options = Options();
  bool wanted = true;
  options.overtaken = [&] { return !wanted; };
  pull_.Then([](VersionAssembler*) { return absl::UnavailableError("the learner restarts"); });
  EXPECT_TRUE(ReceiveVersion(version_->manifest(), Deadline(), options).ok());
  EXPECT_EQ(pull_.calls, 2);

  wanted = false;
  pull_.Then([](VersionAssembler*) { return absl::UnavailableError("the learner is gone"); });
  EXPECT_TRUE(absl::IsAborted(ReceiveVersion(version_->manifest(), Deadline(), options).status()));
  EXPECT_EQ(pull_.calls, 3);
}

TEST_F(WeightReceiverTest, EndsWhenStopped) {
  base::StopToken stop;
  stop.RequestStop();
  ReceiverOptions options = Options();
  options.stop = &stop;
  pull_.Then([](VersionAssembler*) { return absl::UnavailableError("down"); });
  EXPECT_TRUE(
      absl::IsCancelled(ReceiveVersion(version_->manifest(), Deadline(), options).status()));
}

}  // namespace
}  // namespace temper::weights
