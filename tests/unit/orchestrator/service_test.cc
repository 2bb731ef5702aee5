// The service over a real connection on loopback: long polls, and the list of live roles.

#include "orchestrator/orchestrator_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "orchestrator/service_discovery.h"
#include "services/base/file_parts.h"
#include "services/rpc/client.h"
#include "services/rpc/server.h"
#include "tests/unit/orchestrator/test_run.h"

namespace temper::orchestrator {
namespace {

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest()
      : waiters_(run_.operator->(), nullptr, &run_.clock()),
        snapshots_(run_.Path("ledger.db")),
        service_(run_.operator->(), &waiters_, &snapshots_, nullptr, [] {}) {
    rpc::ServerOptions options;
    options.services = {&service_};
    auto server = rpc::RpcServer::Create(options);
    EXPECT_THAT(server, IsOk());
    server_ = *std::move(server);
    auto channel = rpc::MakeChannel(server_->address());
    EXPECT_THAT(channel, IsOk());
    stub_ = v1::OrchestratorService::NewStub(*channel);
  }
  ~ServiceTest() override {
    waiters_.Close();
    snapshots_.Close();
    server_->Shutdown(absl::Seconds(1));
  }

  // Blocks until the poll is answered.
  v1::AcquireWorkReply Poll(double wait_seconds) {
    v1::AcquireWorkRequest request;
    request.set_run_id("run");
    request.set_member_id("w1");
    request.set_incarnation(1);
    request.set_acknowledged_timeline(1);
    request.set_has_version(true);
    request.set_wait_seconds(wait_seconds);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
    v1::AcquireWorkReply reply;
    const grpc::Status status = stub_->AcquireWork(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply;
  }

  TestRun run_;
  WorkWaiters waiters_;
  LedgerSnapshots snapshots_;
  OrchestratorService service_;
  std::unique_ptr<rpc::RpcServer> server_;
  std::unique_ptr<v1::OrchestratorService::Stub> stub_;
};

TEST_F(ServiceTest, APollWithoutAWaitIsAnsweredAtOnceWithTheReason) {
  EXPECT_EQ(Poll(0).reason(), "no_timeline");
}

TEST_F(ServiceTest, ALongPollIsAnsweredWhenThereIsWork) {
  v1::AcquireWorkReply reply;
  std::thread worker([&] { reply = Poll(10); });
  EXPECT_THAT(run_.BeginTimeline(0), IsOk());
  EXPECT_THAT(run_.Publish(0), IsOk());
  EXPECT_TRUE(run_.Acknowledge("w1", 0));
  waiters_.LookAgain();  // whether the poll has arrived or not: it is answered
  worker.join();
  EXPECT_TRUE(reply.lease().has_eval());
}

TEST_F(ServiceTest, ALongPollEndsAtItsLimitWithTheReason) {
  v1::AcquireWorkReply reply;
  std::thread worker([&] { reply = Poll(5); });
  while (waiters_.AnswerOverdue(run_.clock().Now()) == absl::InfiniteFuture()) {
    std::this_thread::yield();  // until the poll has arrived
  }
  run_.clock().Advance(absl::Seconds(5));
  EXPECT_EQ(waiters_.AnswerOverdue(run_.clock().Now()), absl::InfiniteFuture());
  worker.join();
  EXPECT_EQ(reply.reason(), "no_timeline");
  EXPECT_FALSE(reply.has_lease());
}

TEST_F(ServiceTest, ALongPollIsAnsweredOnceItsWeightsAreOvertaken) {
  EXPECT_THAT(run_.BeginTimeline(0), IsOk());
  v1::AcquireWorkReply reply;
  std::thread worker([&] { reply = Poll(10); });  // names version 0 of timeline 1
  EXPECT_THAT(run_.BeginTimeline(0), IsOk());     // timeline 2
  EXPECT_THAT(run_.Publish(0), IsOk());
  waiters_.LookAgain();  // no clock is moved: the limit of the poll is not what answers it
  worker.join();
  EXPECT_EQ(reply.reason(), "stale_weights");
  EXPECT_EQ(reply.timeline(), 2u);
  EXPECT_TRUE(reply.has_version());
}

TEST_F(ServiceTest, TheLearnerGetsAWholeCopyOfTheLedgerAndNobodyElse) {
  EXPECT_THAT(run_.BeginTimeline(0), IsOk());
  const auto copy = [&](uint64_t timeline, uint64_t incarnation, std::string* bytes) {
    v1::SnapshotLedgerRequest request;
    request.set_run_id("run");
    request.set_timeline(timeline);
    request.set_learner_incarnation(incarnation);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
    const auto stream = stub_->SnapshotLedger(&context, request);
    v1::FileChunk chunk;
    base::FilePartsCheck check({{"ledger.db", 1 << 20}});
    while (stream->Read(&chunk)) {
      EXPECT_THAT(check.Add({.name = chunk.name(),
                             .offset_bytes = chunk.offset_bytes(),
                             .size_bytes = chunk.size_bytes(),
                             .xxh3 = chunk.xxh3(),
                             .payload = chunk.payload()}),
                  IsOk());
      bytes->append(chunk.payload());
    }
    EXPECT_THAT(check.Finish(), IsOk());
    return stream->Finish().error_code();
  };
  std::string bytes;
  EXPECT_EQ(copy(2, run_.learner_, &bytes), grpc::StatusCode::ABORTED);
  EXPECT_EQ(copy(1, run_.learner_ + 1, &bytes), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(bytes, "");
  EXPECT_EQ(copy(1, run_.learner_, &bytes), grpc::StatusCode::OK);
  ASSERT_THAT(base::WriteFileAtomically(run_.Path("copy.db"), bytes), IsOk());
  const auto store = LedgerStore::Open(run_.Path("copy.db"));
  ASSERT_THAT(store, IsOk());
  EXPECT_THAT((*store)->CheckIntegrity(), IsOk());
  EXPECT_EQ(*(*store)->Number("timeline"), 1u);
  EXPECT_FALSE(base::PathExists(run_.Path("ledger.db.copy")))
      << "nothing is left beside the ledger";
}

TEST_F(ServiceTest, AWorkerThatAsksAgainHasOneWaiterNotTwo) {
  std::atomic<int> answered = 0;
  std::vector<grpc::StatusCode> codes(2);
  auto poll = [&](size_t call) {
    v1::AcquireWorkRequest request;
    request.set_run_id("run");
    request.set_member_id("w1");
    request.set_incarnation(1);
    request.set_wait_seconds(10);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
    v1::AcquireWorkReply reply;
    codes[call] = stub_->AcquireWork(&context, request, &reply).error_code();
    ++answered;
  };
  std::thread first([&] { poll(0); });
  std::thread second([&] { poll(1); });
  while (answered == 0) std::this_thread::yield();  // whichever came first is replaced
  waiters_.Close();
  first.join();
  second.join();
  EXPECT_THAT(codes,
              ::testing::UnorderedElementsAre(grpc::StatusCode::ABORTED, grpc::StatusCode::OK));
}

TEST_F(ServiceTest, TheEndAnswersEverybodyWhoWaits) {
  v1::AcquireWorkReply reply;
  std::thread worker([&] { reply = Poll(10); });
  waiters_.Close();
  worker.join();
  EXPECT_EQ(reply.reason(), "no_timeline");
}

TEST(ServiceDiscovery, ListsWhoHasAMetricsAddress) {
  v1::Peer worker;
  worker.set_role(v1::ROLE_ROLLOUT_WORKER);
  worker.set_member_id("w1");
  worker.set_metrics_address("127.0.0.1:9");
  v1::Peer silent;
  silent.set_role(v1::ROLE_SUPERVISOR);
  EXPECT_EQ(ServiceDiscoveryJson({worker, silent}),
            R"([{"targets":["127.0.0.1:9"],"labels":{"role":"rollout_worker","member":"w1"}}])");
  EXPECT_EQ(ServiceDiscoveryJson({}), "[]");
}

}  // namespace
}  // namespace temper::orchestrator
