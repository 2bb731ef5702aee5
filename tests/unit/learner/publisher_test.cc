#include "learner/publisher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "services/base/stop_token.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/learner/fake_orchestrator.h"
#include "tests/unit/weights/version_builder.h"
#include "weights/shared_memory_collective.h"
#include "weights/weight_source.h"

namespace temper::learner {
namespace {

using ::temper::testing::FakeOrchestrator;
using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;

constexpr absl::Duration kPatience = absl::Seconds(20);

class PublisherTest : public ::testing::Test {
 protected:
  // The next group that this runner would form is of epoch 1, once `alive` names somebody.
  PublisherTest()
      : group_({.back_end = std::make_shared<weights::SharedMemoryBackEnd>(),
                .candidates =
                    [this] {
                      absl::MutexLock lock(&mutex_);
                      return alive_;
                    },
                .announce = [](uint64_t, const std::string&, const auto&,
                               absl::Time) { return absl::UnavailableError("nobody meets"); },
                .end = [](uint64_t) {},
                .observe = [](const weights::GroupChange&) {}}),
        publisher_({.run_id = "run", .timeline = 1}, &source_, &orchestrator_, &group_) {}

  void AMemberJoins() {
    {
      absl::MutexLock lock(&mutex_);
      alive_ = {"worker"};
    }
    base::StopToken never;
    const absl::Time end = absl::Now() + kPatience;
    while (group_.CarryingEpoch() == 0 && absl::Now() < end) never.WaitFor(absl::Milliseconds(5));
    ASSERT_EQ(group_.CarryingEpoch(), 1u);
  }

  absl::Mutex mutex_;
  std::set<std::string> alive_ ABSL_GUARDED_BY(mutex_);
  weights::WeightSource source_;
  FakeOrchestrator orchestrator_;
  weights::GroupRunner group_;
  Publisher publisher_;
};

TEST_F(PublisherTest, AVersionThatWasHeldBackNamesTheGroupThatWillCarryIt) {
  orchestrator_.hold_publishing = [this](const v1::Manifest& manifest) {
    if (manifest.comm_epoch() != 0) return absl::OkStatus();
    AMemberJoins();
    return absl::UnavailableError("version 0 is being evaluated");
  };
  EXPECT_THAT(publisher_.Publish(weights::MakeTestVersion({.version = 1})), IsOk());
  const std::vector<v1::Manifest> manifests = orchestrator_.manifests();
  ASSERT_EQ(manifests.size(), 2u);
  EXPECT_EQ(manifests[0].comm_epoch(), 0u);
  EXPECT_EQ(manifests[1].comm_epoch(), 1u);
}

TEST_F(PublisherTest, AnythingElseThatFailsEndsThePublishing) {
  orchestrator_.hold_publishing = [](const v1::Manifest&) {
    return absl::AbortedError("another timeline is open");
  };
  EXPECT_THAT(publisher_.Publish(weights::MakeTestVersion({.version = 1})),
              StatusIs(absl::StatusCode::kAborted));
  EXPECT_EQ(orchestrator_.manifests().size(), 1u);
}

}  // namespace
}  // namespace temper::learner
