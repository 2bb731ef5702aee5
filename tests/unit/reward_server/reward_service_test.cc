#include "reward_server/reward_service.h"

#include <cmath>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rpc/client.h"
#include "services/rpc/server.h"
#include "tests/support/status_matchers.h"

namespace temper::reward_server {
namespace {

using temper::testing::IsOk;
using temper::testing::StatusIs;
using ::testing::HasSubstr;

v1::ScoreRequest Request(const std::string& completion = "#### 18") {
  v1::ScoreRequest request;
  request.set_rule("strict");
  request.set_max_completion_tokens(10);
  request.set_overlong_cache_tokens(4);
  request.set_overlong_factor(0.5);
  request.set_sample_timeout_seconds(60);
  v1::ScoreItem* item = request.add_items();
  item->set_completion(completion);
  item->set_truth("18");
  item->set_token_count(8);
  return request;
}

// A real server on loopback, called through a real channel.
class RewardServiceTest : public ::testing::Test {
 protected:
  RewardServiceTest() {
    scorer_ = BatchScorer::Create({.metrics = &metrics_}).value();
    service_ = std::make_unique<RewardService>(scorer_.get(), &rpc_metrics_);
    server_ = rpc::RpcServer::Create({.services = {service_.get()}}).value();
    stub_ = v1::RewardService::NewStub(rpc::MakeChannel(server_->address()).value());
  }
  ~RewardServiceTest() override {
    server_->Shutdown(absl::Seconds(5));
    scorer_->Close();
  }
  absl::StatusOr<v1::ScoreReply> Score(const v1::ScoreRequest& request) {
    v1::ScoreReply reply;
    const absl::Status status =
        rpc::CallUnary(stub_.get(), &v1::RewardService::Stub::Score, request, &reply,
                       {.method = "Score", .timeout = absl::Seconds(30)});
    if (!status.ok()) return status;
    return reply;
  }

  metrics::MetricsRegistry registry_;
  RewardMetrics metrics_{&registry_};
  rpc::RpcMetrics rpc_metrics_{&registry_};
  std::unique_ptr<BatchScorer> scorer_;
  std::unique_ptr<RewardService> service_;
  std::unique_ptr<rpc::RpcServer> server_;
  std::unique_ptr<v1::RewardService::Stub> stub_;
};

TEST_F(RewardServiceTest, AnswersAllRulesFormAndPenalty) {
  v1::ScoreRequest request = Request();
  *request.add_items() = request.items(0);
  request.mutable_items(1)->set_completion("#### $18");
  request.mutable_items(1)->set_token_count(3);
  const auto reply = Score(request);
  ASSERT_THAT(reply, IsOk());
  ASSERT_EQ(reply->scores_size(), 2);
  const v1::SampleScore& right = reply->scores(0);
  EXPECT_EQ(right.accuracy(), 1);
  EXPECT_EQ(right.overlong_penalty(), -0.25);
  EXPECT_EQ(right.reward(), 0.75);
  EXPECT_EQ(right.extracted(), "18");
  EXPECT_TRUE(right.has_extracted());
  EXPECT_TRUE(right.format_ok());
  EXPECT_FALSE(right.failed());
  const v1::SampleScore& unformed = reply->scores(1);
  EXPECT_EQ(unformed.accuracy(), 0);
  EXPECT_EQ(unformed.flexible(), 1);
  EXPECT_EQ(unformed.numeric(), 1);
  EXPECT_FALSE(unformed.format_ok());
  EXPECT_FALSE(unformed.has_extracted());
}

TEST_F(RewardServiceTest, TheSameBatchTwiceHasTheSameAnswer) {
  EXPECT_EQ(Score(Request())->SerializeAsString(), Score(Request())->SerializeAsString());
}

TEST_F(RewardServiceTest, AnEmptyBatchHasAnEmptyAnswer) {
  v1::ScoreRequest request = Request();
  request.clear_items();
  const auto reply = Score(request);
  ASSERT_THAT(reply, IsOk());
  EXPECT_EQ(reply->scores_size(), 0);
}

TEST_F(RewardServiceTest, BytesThatAreNoUtf8AreScored) {
  const auto reply = Score(Request("\xFF\xFE#### 18"));
  ASSERT_THAT(reply, IsOk());
  EXPECT_EQ(reply->scores(0).accuracy(), 1);
}

TEST_F(RewardServiceTest, RefusesWhatItCannotScoreAndSaysWhich) {
  v1::ScoreRequest request = Request();
  request.set_rule("kind");
  EXPECT_THAT(Score(request), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("flexible")));
  request = Request();
  request.set_sample_timeout_seconds(0);
  EXPECT_THAT(Score(request), StatusIs(absl::StatusCode::kInvalidArgument));
  request = Request();
  request.set_overlong_factor(std::nan(""));
  EXPECT_THAT(Score(request), StatusIs(absl::StatusCode::kInvalidArgument));
  request = Request();
  request.mutable_items(0)->set_truth("");
  EXPECT_THAT(Score(request), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sample 0")));
}

TEST_F(RewardServiceTest, RefusesWhatIsTooLarge) {
  v1::ScoreRequest request = Request();
  while (request.items_size() <= static_cast<int>(kMaxSamples)) {
    *request.add_items() = request.items(0);
  }
  EXPECT_THAT(Score(request), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(Score(Request(std::string(kMaxCompletionBytes + 1, 'x'))),
              StatusIs(absl::StatusCode::kResourceExhausted));
  request = Request();
  request.mutable_items(0)->set_truth(std::string(kMaxTruthBytes + 1, '1'));
  EXPECT_THAT(Score(request), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(RewardServiceTest, IsUnavailableOnceTheScorerIsClosed) {
  scorer_->Close();
  EXPECT_THAT(Score(Request()), StatusIs(absl::StatusCode::kUnavailable));
}

TEST(RewardMessagesTest, AFailedSampleCarriesItsStatusAndNoReward) {
  v1::ScoreReply reply;
  EncodeScoreReply({}, {{.status = absl::DeadlineExceededError("late")}}, &reply);
  ASSERT_EQ(reply.scores_size(), 1);
  EXPECT_TRUE(reply.scores(0).failed());
  EXPECT_THAT(reply.scores(0).failure(), HasSubstr("late"));
  EXPECT_EQ(reply.scores(0).reward(), 0);
}

}  // namespace
}  // namespace temper::reward_server
