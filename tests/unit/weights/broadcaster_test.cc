// One conformance test for every way that weights travel. A back end that moves bytes between a
// root and members passes it or is none. NCCL joins the list where it was compiled, and says so
// where a device for each rank is lacking.

#include "weights/broadcaster.h"

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rpc/client.h"
#include "services/rpc/server.h"
#include "tests/unit/weights/version_builder.h"
#include "weights/in_process_hub.h"
#include "weights/shared_memory_collective.h"
#include "weights/weight_client.h"
#include "weights/weight_service.h"
#include "weights/weight_source.h"
#ifdef TEMPER_HAVE_NCCL
#include <cuda_runtime_api.h>

#include "weights/nccl_broadcaster.h"
#endif

namespace temper::weights {
namespace {

// A root and its members over one back end.
class Group {
 public:
  virtual ~Group() = default;
  virtual BroadcastRoot* root() = 0;
  virtual BroadcastMember* member(int number) = 0;
  virtual std::string source_address() const { return ""; }
};

class InProcessGroup final : public Group {
 public:
  explicit InProcessGroup(int members) : hub_(members), root_(hub_.Root()) {
    for (int i = 0; i < members; ++i) members_.push_back(hub_.Member(i));
  }
  BroadcastRoot* root() override { return root_.get(); }
  BroadcastMember* member(int number) override {
    return members_[static_cast<size_t>(number)].get();
  }

 private:
  InProcessHub hub_;
  std::unique_ptr<BroadcastRoot> root_;
  std::vector<std::unique_ptr<BroadcastMember>> members_;
};

class GrpcGroup final : public Group {
 public:
  explicit GrpcGroup(int members) : service_({.source = &source_, .chunk_bytes = 1000}) {
    server_ = *rpc::RpcServer::Create({.services = {&service_}});
    for (int i = 0; i < members; ++i) members_.push_back(std::make_unique<WeightClient>());
  }
  ~GrpcGroup() override { server_->Shutdown(absl::Seconds(1)); }
  BroadcastRoot* root() override { return &source_; }
  BroadcastMember* member(int number) override {
    return members_[static_cast<size_t>(number)].get();
  }
  std::string source_address() const override { return server_->address(); }

 private:
  WeightSource source_;
  WeightServiceImpl service_;
  std::unique_ptr<rpc::RpcServer> server_;
  std::vector<std::unique_ptr<WeightClient>> members_;
};

// Ranks as threads, met by an id as processes are.
class CollectiveGroup final : public Group {
 public:
  // back_ends: that of each rank, the root's first.
  explicit CollectiveGroup(std::vector<std::unique_ptr<CollectiveBackEnd>> back_ends)
      : back_ends_(std::move(back_ends)) {
    const int ranks = static_cast<int>(back_ends_.size());
    const std::string id = *back_ends_[0]->MakeId();
    for (int rank = 0; rank < ranks; ++rank) {
      ranks_.push_back(*back_ends_[static_cast<size_t>(rank)]->Join(
          {.id = id, .rank = rank, .world_size = ranks}));
    }
    std::vector<std::thread> threads;
    for (const std::unique_ptr<Collective>& rank : ranks_) {
      threads.emplace_back([&rank] {
        const absl::Status formed = rank->Form(absl::Now() + absl::Minutes(1));
        EXPECT_TRUE(formed.ok()) << formed;
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  BroadcastRoot* root() override { return ranks_[0].get(); }
  BroadcastMember* member(int number) override {
    return ranks_[static_cast<size_t>(number) + 1].get();
  }

 private:
  const std::vector<std::unique_ptr<CollectiveBackEnd>> back_ends_;
  std::vector<std::unique_ptr<Collective>> ranks_;
};

std::unique_ptr<Group> MakeSharedMemoryGroup(int members) {
  std::vector<std::unique_ptr<CollectiveBackEnd>> back_ends;
  for (int rank = 0; rank <= members; ++rank) {
    back_ends.push_back(std::make_unique<SharedMemoryBackEnd>());
  }
  return std::make_unique<CollectiveGroup>(std::move(back_ends));
}

#ifdef TEMPER_HAVE_NCCL
// Each rank has a device of its own.
std::unique_ptr<Group> MakeNcclGroup(int members) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices <= members) return nullptr;
  std::vector<std::unique_ptr<CollectiveBackEnd>> back_ends;
  for (int rank = 0; rank <= members; ++rank) {
    back_ends.push_back(std::make_unique<NcclBackEnd>(NcclOptions{.device = rank}));
  }
  return std::make_unique<CollectiveGroup>(std::move(back_ends));
}
#endif

struct BackEnd {
  std::string name;
  std::function<std::unique_ptr<Group>(int members)> make;  // null: the machine lacks something
  std::string needs;                                        // what that is
};

std::vector<BackEnd> CompiledBackEnds() {
  std::vector<BackEnd> all = {
      {.name = "InProcess", .make = [](int n) { return std::make_unique<InProcessGroup>(n); }},
      {.name = "Grpc", .make = [](int n) { return std::make_unique<GrpcGroup>(n); }},
      {.name = "SharedMemory", .make = &MakeSharedMemoryGroup}};
#ifdef TEMPER_HAVE_NCCL
  all.push_back({"Nccl", &MakeNcclGroup, "a CUDA device for each rank"});
#endif
  return all;
}

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

class BroadcasterTest : public ::testing::TestWithParam<BackEnd> {
 protected:
  // Sends `version` and receives it on every member at once; returns the members' assemblers.
  std::vector<std::unique_ptr<VersionAssembler>> Broadcast(
      Group* group, int members, const std::shared_ptr<const WeightVersion>& version) {
    std::vector<std::unique_ptr<VersionAssembler>> assemblers;
    for (int i = 0; i < members; ++i) {
      assemblers.push_back(*VersionAssembler::Create(version->manifest()));
    }
    // Pulled back ends have the bytes ready before the manifest is known; a collective needs both
    // sides at once.
    std::thread sender([&] { EXPECT_TRUE(group->root()->Send(version, Soon()).ok()); });
    if (!group->source_address().empty()) sender.join();
    std::vector<std::thread> receivers;
    for (int i = 0; i < members; ++i) {
      receivers.emplace_back([&, i] {
        const absl::Status status =
            group->member(i)->Receive(assemblers[static_cast<size_t>(i)].get(), Soon());
        EXPECT_TRUE(status.ok()) << status;
      });
    }
    for (std::thread& receiver : receivers) receiver.join();
    if (sender.joinable()) sender.join();
    return assemblers;
  }

  std::shared_ptr<const WeightVersion> Version(Group* group, uint64_t version) {
    return MakeTestVersion({.version = version, .source_address = group->source_address()});
  }
};

TEST_P(BroadcasterTest, BringsEveryByteToEveryMember) {
  const auto group = GetParam().make(3);
  if (group == nullptr) GTEST_SKIP() << GetParam().name << " needs " << GetParam().needs;
  const auto version = Version(group.get(), 4);
  for (auto& assembler : Broadcast(group.get(), 3, version)) {
    const auto received = assembler->Finish();
    ASSERT_TRUE(received.ok()) << received.status();
    for (size_t b = 0; b < version->buckets().size(); ++b) {
      EXPECT_EQ(*(*received)->buckets()[b], *version->buckets()[b]);
    }
  }
}

TEST_P(BroadcasterTest, CarriesOneVersionAfterAnother) {
  const auto group = GetParam().make(2);
  if (group == nullptr) GTEST_SKIP() << GetParam().name << " needs " << GetParam().needs;
  for (uint64_t number = 1; number <= 4; ++number) {
    for (auto& assembler : Broadcast(group.get(), 2, Version(group.get(), number))) {
      EXPECT_EQ((*assembler->Finish())->manifest().version(), number);
    }
  }
}

TEST_P(BroadcasterTest, AVersionThatHasPassedIsNotWaitedFor) {
  const auto group = GetParam().make(1);
  if (group == nullptr) GTEST_SKIP() << GetParam().name << " needs " << GetParam().needs;
  Broadcast(group.get(), 1, Version(group.get(), 2));
  const absl::Time begun = absl::Now();
  auto older = *VersionAssembler::Create(Version(group.get(), 1)->manifest());
  const absl::Status status = group->member(0)->Receive(older.get(), Soon());
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_LT(absl::Now() - begun, absl::Seconds(10)) << "said at once";
}

TEST_P(BroadcasterTest, BringsOnlyWhatIsMissing) {
  const auto group = GetParam().make(1);
  if (group == nullptr) GTEST_SKIP() << GetParam().name << " needs " << GetParam().needs;
  const auto version = Version(group.get(), 1);
  auto assembler = *VersionAssembler::Create(version->manifest());
  const auto& first = *version->buckets()[0];
  ASSERT_TRUE(
      assembler->AddChunk(0, 0, {reinterpret_cast<const char*>(first.data()), first.size()}).ok());
  std::thread sender([&] { EXPECT_TRUE(group->root()->Send(version, Soon()).ok()); });
  if (!group->source_address().empty()) sender.join();
  const absl::Status status = group->member(0)->Receive(assembler.get(), Soon());
  EXPECT_TRUE(status.ok()) << status;
  if (sender.joinable()) sender.join();
  EXPECT_TRUE(assembler->Finish().ok());
}

TEST_P(BroadcasterTest, GivesNothingForAVersionThatWasNotSent) {
  const auto group = GetParam().make(1);
  if (group == nullptr) GTEST_SKIP() << GetParam().name << " needs " << GetParam().needs;
  auto assembler = *VersionAssembler::Create(Version(group.get(), 9)->manifest());
  const absl::Time deadline = absl::Now() + absl::Milliseconds(200);
  const absl::Status status = group->member(0)->Receive(assembler.get(), deadline);
  EXPECT_TRUE(absl::IsNotFound(status) || absl::IsDeadlineExceeded(status)) << status;
  EXPECT_LT(absl::Now(), deadline + absl::Seconds(5)) << "no call waits past its deadline";
  EXPECT_FALSE(assembler->Finish().ok());
}

TEST_P(BroadcasterTest, RefusesBytesThatAreNotTheManifests) {
  const auto group = GetParam().make(1);
  if (group == nullptr) GTEST_SKIP() << GetParam().name << " needs " << GetParam().needs;
  const auto sent = Version(group.get(), 1);
  // Another version's bytes under the number that is asked for.
  v1::Manifest other = Version(group.get(), 2)->manifest();
  other.set_version(1);
  auto assembler = *VersionAssembler::Create(other);
  std::thread sender([&] {
    const absl::Status ignored = group->root()->Send(sent, Soon());
    (void)ignored;  // a collective may see its member fail
  });
  if (!group->source_address().empty()) sender.join();
  EXPECT_TRUE(absl::IsDataLoss(group->member(0)->Receive(assembler.get(), Soon())));
  if (sender.joinable()) sender.join();
  EXPECT_FALSE(assembler->Finish().ok());
}

TEST_P(BroadcasterTest, AbortEndsACallInFlightAndRefusesLaterOnes) {
  const auto group = GetParam().make(1);
  if (group == nullptr) GTEST_SKIP() << GetParam().name << " needs " << GetParam().needs;
  auto assembler = *VersionAssembler::Create(Version(group.get(), 9)->manifest());
  std::thread aborter([&] { group->member(0)->Abort("the test says so"); });
  const absl::Status status = group->member(0)->Receive(assembler.get(), Soon());
  EXPECT_TRUE(absl::IsAborted(status) || absl::IsNotFound(status)) << status;
  aborter.join();
  EXPECT_TRUE(absl::IsAborted(group->member(0)->Receive(assembler.get(), Soon())));
  group->root()->Abort("the test says so");
  EXPECT_TRUE(absl::IsAborted(group->root()->Send(Version(group.get(), 1), Soon())));
}

TEST(WeightServiceTest, ChunksAreAsLargeAsWasLastSaid) {
  WeightSource source;
  WeightServiceImpl service({.source = &source});
  const auto server = *rpc::RpcServer::Create({.services = {&service}});
  const auto version = MakeTestVersion({.version = 1, .source_address = server->address()});
  source.Publish(version);
  const auto stub = v1::WeightService::NewStub(*rpc::MakeChannel(server->address(), {}));
  for (const uint32_t size : {64u, 48u}) {
    service.SetChunkBytes(size);
    v1::PullBucketsRequest request;
    request.set_run_id(version->manifest().run_id());
    request.set_timeline(version->manifest().timeline());
    request.set_version(1);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(Soon()));
    const auto stream = stub->PullBuckets(&context, request);
    v1::BucketChunk chunk;
    ASSERT_TRUE(stream->Read(&chunk));
    EXPECT_EQ(chunk.payload().size(), size);
    while (stream->Read(&chunk)) EXPECT_LE(chunk.payload().size(), size);
    EXPECT_TRUE(stream->Finish().ok());
  }
  server->Shutdown(absl::Seconds(1));
}

INSTANTIATE_TEST_SUITE_P(BackEnds, BroadcasterTest, ::testing::ValuesIn(CompiledBackEnds()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace temper::weights
