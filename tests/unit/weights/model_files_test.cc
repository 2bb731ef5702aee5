// The model files on their way from the learner: over a real service, and from peers that lie.

#include "weights/model_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "services/base/hash.h"
#include "services/rpc/server.h"
#include "tests/support/status_matchers.h"
#include "weights/model_file_client.h"
#include "weights/weight_service.h"

namespace temper::weights {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

// A tokenizer.json of several chunks, larger than gRPC's default limit of 4 MiB.
ModelFiles FilesForTest() {
  std::string vocabulary;
  for (int i = 0; vocabulary.size() < (5u << 20); ++i) vocabulary += std::to_string(i) + ",";
  return {
      {"config.json", "{}"}, {"tokenizer.json", vocabulary}, {"chat_template.jinja", "{{ x }}"}};
}

TEST(ModelFilesHashTest, TellsContentsAndNamesApart) {
  const ModelFiles files = FilesForTest();
  ModelFiles other = files;
  EXPECT_EQ(ModelFilesHash(files), ModelFilesHash(other));
  other["config.json"] = "{ }";
  EXPECT_NE(ModelFilesHash(files), ModelFilesHash(other));
  other = files;
  other.erase("chat_template.jinja");
  EXPECT_NE(ModelFilesHash(files), ModelFilesHash(other));
}

TEST(CheckModelFilesTest, RefusesForeignNamesMissingAndLargeFiles) {
  ModelFiles files = FilesForTest();
  EXPECT_THAT(CheckModelFiles(files), IsOk());
  files["model.safetensors"] = "";
  EXPECT_THAT(CheckModelFiles(files),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("model.safetensors")));
  files = FilesForTest();
  files.erase("tokenizer.json");
  EXPECT_THAT(CheckModelFiles(files),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tokenizer.json")));
  files = FilesForTest();
  files["config.json"].resize((16u << 20) + 1);
  EXPECT_THAT(CheckModelFiles(files),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("config.json")));
}

class ModelFileServiceTest : public ::testing::Test {
 protected:
  ModelFileServiceTest()
      : service_({.source = &source_, .model_files = &model_files_, .chunk_bytes = 100'000}),
        server_(*rpc::RpcServer::Create({.services = {&service_}})) {}
  ~ModelFileServiceTest() override { server_->Shutdown(absl::Seconds(1)); }

  absl::StatusOr<ModelFiles> Pull(const std::string& run_id = "run") {
    return PullModelFiles({.address = server_->address(), .run_id = run_id});
  }

  WeightSource source_;
  ModelFileSource model_files_;
  WeightServiceImpl service_;
  std::unique_ptr<rpc::RpcServer> server_;
};

TEST_F(ModelFileServiceTest, BringsEveryFileWhole) {
  ASSERT_THAT(model_files_.Serve("run", FilesForTest()), IsOk());
  const auto files = Pull();
  ASSERT_THAT(files, IsOk());
  EXPECT_TRUE(*files == FilesForTest());
}

TEST_F(ModelFileServiceTest, IsUnavailableUntilTheLearnerHasReadItsPolicy) {
  EXPECT_THAT(Pull(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("not read its policy")));
}

TEST_F(ModelFileServiceTest, RefusesAnotherRun) {
  ASSERT_THAT(model_files_.Serve("run", FilesForTest()), IsOk());
  EXPECT_THAT(Pull("other"), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("other")));
}

TEST_F(ModelFileServiceTest, ServesNothingThatMayNotTravel) {
  EXPECT_THAT(model_files_.Serve("run", {{"config.json", "{}"}, {"id_rsa", "secret"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("id_rsa")));
  EXPECT_THAT(Pull(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(ModelFileServiceTest, AStopEndsThePull) {
  base::StopToken stop;
  stop.RequestStop();
  EXPECT_THAT(PullModelFiles({.address = server_->address(), .run_id = "run", .stop = &stop}),
              StatusIs(absl::StatusCode::kCancelled));
}

// A learner that sends what a test says.
class LyingLearner final : public v1::WeightService::Service {
 public:
  explicit LyingLearner(std::vector<v1::FileChunk> chunks) : chunks_(std::move(chunks)) {}
  grpc::Status PullModelFiles(grpc::ServerContext*, const v1::PullModelFilesRequest*,
                              grpc::ServerWriter<v1::FileChunk>* writer) override {
    for (const v1::FileChunk& chunk : chunks_) writer->Write(chunk);
    return grpc::Status::OK;
  }

 private:
  const std::vector<v1::FileChunk> chunks_;
};

v1::FileChunk Chunk(const std::string& name, const std::string& whole) {
  v1::FileChunk chunk;
  chunk.set_name(name);
  chunk.set_size_bytes(whole.size());
  chunk.set_xxh3(base::Hash64(whole));
  chunk.set_payload(whole);
  return chunk;
}

absl::Status PullFrom(std::vector<v1::FileChunk> chunks) {
  LyingLearner learner(std::move(chunks));
  const auto server = *rpc::RpcServer::Create({.services = {&learner}});
  const absl::Status status =
      PullModelFiles({.address = server->address(), .run_id = "run"}).status();
  server->Shutdown(absl::Seconds(1));
  return status;
}

TEST(PullModelFilesTest, TakesNothingFromAStreamThatIsCutOff) {
  v1::FileChunk half = Chunk("tokenizer.json", "0123456789");
  half.set_payload("01234");
  EXPECT_THAT(PullFrom({Chunk("config.json", "{}"), half}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("5 of 10 bytes")));
  EXPECT_THAT(PullFrom({Chunk("config.json", "{}")}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tokenizer.json")));
}

TEST(PullModelFilesTest, RefusesWhatIsTooLargeForeignOrDamaged) {
  v1::FileChunk large = Chunk("config.json", "{}");
  large.set_size_bytes(uint64_t{1} << 40);
  EXPECT_THAT(PullFrom({large}), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(PullFrom({Chunk("../../.profile", "rm")}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(".profile")));
  v1::FileChunk damaged = Chunk("config.json", "{}");
  damaged.set_payload("[]");
  EXPECT_THAT(PullFrom({damaged}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("hash")));
}

}  // namespace
}  // namespace temper::weights
