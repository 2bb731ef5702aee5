// The frozen base of a run that trains adapters, on its way from the learner, and the versions
// beside it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "services/rpc/server.h"
#include "tests/support/status_matchers.h"
#include "weights/base_client.h"
#include "weights/weight_service.h"

namespace temper::weights {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

std::shared_ptr<const WeightVersion> Build(const VersionHeader& header, float first) {
  std::vector<float> values(5000, 0.5f);
  values[0] = first;
  std::vector<PublishedTensor> tensors;
  for (const char* name : {"w", "another", "third"}) {
    tensors.push_back(
        {.spec = {.name = name, .shape = {static_cast<int64_t>(values.size())}, .dtype = "float32"},
         .bytes = std::as_bytes(std::span(values))});
  }
  return *BuildVersion(header, tensors, 1 << 12);
}

class BaseServiceTest : public ::testing::Test {
 protected:
  BaseServiceTest()
      : service_({.source = &source_, .model_files = &model_files_, .chunk_bytes = 1000}),
        server_(*rpc::RpcServer::Create({.services = {&service_}})) {}
  ~BaseServiceTest() override { server_->Shutdown(absl::Seconds(1)); }

  void ServeModelFiles() {
    ASSERT_THAT(model_files_.Serve("run", {{"config.json", "{}"}, {"tokenizer.json", "{}"}}),
                IsOk());
  }
  auto Pull(const std::string& run_id = "run", base::StopToken* stop = nullptr) {
    return PullBase({.address = server_->address(),
                     .run_id = run_id,
                     .timeout = absl::Seconds(20),
                     .stop = stop});
  }

  WeightSource source_;
  ModelFileSource model_files_;
  WeightServiceImpl service_;
  std::unique_ptr<rpc::RpcServer> server_;
};

TEST_F(BaseServiceTest, TheBaseComesWholeWhateverVersionsAreOnTheShelf) {
  const auto base = Build({.run_id = "run"}, 1.0f);
  source_.SetBase(base);
  for (uint64_t version = 0; version < 5; ++version) {
    source_.Publish(Build({.run_id = "run",
                           .timeline = 1,
                           .version = version,
                           .adapted_base_hash = base->manifest().base_weights_hash()},
                          static_cast<float>(version)));
  }
  source_.Publish(Build({.run_id = "run", .timeline = 2}, 9.0f));  // a learner's restart
  ServeModelFiles();
  const auto pulled = Pull();
  ASSERT_THAT(pulled, IsOk());
  EXPECT_EQ((*pulled)->manifest().base_weights_hash(), base->manifest().base_weights_hash());
  EXPECT_EQ((*pulled)->manifest().timeline(), 0u);
  EXPECT_GT((*pulled)->buckets().size(), 1u);
  const auto theirs = (*pulled)->Tensor("w"), ours = base->Tensor("w");
  EXPECT_TRUE(std::equal(theirs->begin(), theirs->end(), ours->begin(), ours->end()));
  // The shelf itself is as ever.
  EXPECT_EQ((*source_.Find("run", 2, 0))->manifest().timeline(), 2u);
  EXPECT_THAT(source_.Find("run", 1, 4).status(), StatusIs(absl::StatusCode::kAborted));
}

TEST_F(BaseServiceTest, SaysWhyThereIsNone) {
  EXPECT_THAT(Pull().status(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("not read")));
  ServeModelFiles();
  EXPECT_THAT(Pull().status(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("whole model")));
  EXPECT_THAT(Pull("other").status(), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(BaseServiceTest, AStopEndsThePull) {
  source_.SetBase(Build({.run_id = "run"}, 1.0f));
  ServeModelFiles();
  base::StopToken stop;
  stop.RequestStop();
  EXPECT_THAT(Pull("run", &stop).status(), StatusIs(absl::StatusCode::kCancelled));
}

// A learner whose manifest is of a version, not of a base, or whose bytes are not the manifest's.
class LyingLearner final : public v1::WeightService::Service {
 public:
  explicit LyingLearner(v1::Manifest manifest) : manifest_(std::move(manifest)) {}
  grpc::Status GetBaseManifest(grpc::ServerContext*, const v1::GetBaseManifestRequest*,
                               v1::Manifest* reply) override {
    *reply = manifest_;
    return grpc::Status::OK;
  }
  grpc::Status PullBuckets(grpc::ServerContext*, const v1::PullBucketsRequest* request,
                           grpc::ServerWriter<v1::BucketChunk>* writer) override {
    ++pulls;
    for (const uint32_t bucket : request->buckets()) {
      v1::BucketChunk chunk;
      chunk.set_bucket(bucket);
      chunk.set_payload(std::string(manifest_.buckets(static_cast<int>(bucket)).size_bytes(), 'x'));
      writer->Write(chunk);
    }
    return grpc::Status::OK;
  }
  int pulls = 0;

 private:
  const v1::Manifest manifest_;
};

TEST(PullBaseTest, BelievesHashesAlone) {
  LyingLearner learner(Build({.run_id = "run"}, 1.0f)->manifest());
  const auto server = *rpc::RpcServer::Create({.services = {&learner}});
  EXPECT_THAT(PullBase({.address = server->address(), .run_id = "run"}).status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("hash")));
  EXPECT_EQ(learner.pulls, 3);
  server->Shutdown(absl::Seconds(1));
}

TEST(PullBaseTest, RefusesAManifestOfAVersion) {
  LyingLearner learner(Build({.run_id = "run", .timeline = 3}, 1.0f)->manifest());
  const auto server = *rpc::RpcServer::Create({.services = {&learner}});
  EXPECT_THAT(PullBase({.address = server->address(), .run_id = "run"}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("timeline 3")));
  EXPECT_EQ(learner.pulls, 0);
  server->Shutdown(absl::Seconds(1));
}

}  // namespace
}  // namespace temper::weights
