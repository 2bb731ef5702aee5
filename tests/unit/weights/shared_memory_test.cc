// What shared memory adds to the conformance of broadcaster_test.cc: ids of others, ranks that
// never come, processes that end without a word.

#include "weights/shared_memory_collective.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/weights/version_builder.h"

namespace temper::weights {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }
absl::Time VerySoon() { return absl::Now() + absl::Milliseconds(100); }

// A group of one process: rank 0 and as many members as are asked for.
class SharedMemoryTest : public ::testing::Test {
 protected:
  void Join(int world_size) {
    const std::string id = *back_end_.MakeId();
    for (int rank = 0; rank < world_size; ++rank) {
      ranks_.push_back(*back_end_.Join({.id = id, .rank = rank, .world_size = world_size}));
    }
  }
  void Form(int world_size) {
    Join(world_size);
    std::vector<std::thread> threads;
    for (const auto& rank : ranks_) {
      threads.emplace_back([&rank] { EXPECT_THAT(rank->Form(Soon()), IsOk()); });
    }
    for (std::thread& thread : threads) thread.join();
  }

  SharedMemoryBackEnd back_end_;
  std::vector<std::unique_ptr<Collective>> ranks_;
};

TEST_F(SharedMemoryTest, RefusesAnIdThatNamesAnotherGroup) {
  std::string id = *back_end_.MakeId();
  id.back() = static_cast<char>(id.back() ^ 1);  // of the nonce
  EXPECT_THAT(back_end_.Join({.id = id, .rank = 1, .world_size = 2}).status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("another group's")));
}

TEST_F(SharedMemoryTest, RefusesAnIdWhoseDescriptorIsAnotherFile) {
  const std::string id = *back_end_.MakeId();
  std::string other = id;
  const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  other.replace(12, sizeof(fd), reinterpret_cast<const char*>(&fd), sizeof(fd));
  EXPECT_THAT(back_end_.Join({.id = other, .rank = 1, .world_size = 2}).status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("another file")));
  close(fd);
}

TEST_F(SharedMemoryTest, RefusesBytesThatAreNoIdAndRanksThatCannotBe) {
  using absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(back_end_.Join({.id = "", .rank = 1, .world_size = 2}).status(),
              StatusIs(kInvalidArgument));
  EXPECT_THAT(back_end_.Join({.id = std::string(24, 'x'), .rank = 1, .world_size = 2}).status(),
              StatusIs(kInvalidArgument));
  const std::string id = *back_end_.MakeId();
  EXPECT_THAT(back_end_.Join({.id = id, .rank = 2, .world_size = 2}).status(),
              StatusIs(kInvalidArgument));
  EXPECT_THAT(back_end_.Join({.id = id, .rank = 1, .world_size = 5000}).status(),
              StatusIs(kInvalidArgument));
}

TEST_F(SharedMemoryTest, NamesTheRankThatNeverCame) {
  Join(3);
  std::thread first(
      [this] { EXPECT_THAT(ranks_[1]->Form(Soon()), StatusIs(absl::StatusCode::kAborted)); });
  EXPECT_THAT(ranks_[0]->Form(VerySoon()),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("waited for rank")));
  first.join();
  EXPECT_THAT(ranks_[0]->Lost(), ::testing::Contains(2));
}

TEST_F(SharedMemoryTest, ARankIsTakenOnce) {
  Form(2);
  EXPECT_THAT(ranks_[1]->Form(VerySoon()), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(SharedMemoryTest, AMemberThatGivesItsRankUpEndsTheSendAndIsNamed) {
  Form(3);
  const auto version = MakeTestVersion({.version = 1});
  auto assembler = *VersionAssembler::Create(version->manifest());
  std::thread receiver([&] { EXPECT_THAT(ranks_[1]->Receive(assembler.get(), Soon()), IsOk()); });
  ranks_[2]->Abort("it pulls");
  EXPECT_THAT(ranks_[0]->Send(version, Soon()), StatusIs(absl::StatusCode::kUnavailable));
  receiver.join();
  EXPECT_THAT(ranks_[0]->Lost(), ::testing::Contains(2));
  EXPECT_THAT(ranks_[1]->Receive(assembler.get(), Soon()),
              ::testing::AnyOf(StatusIs(absl::StatusCode::kAborted),
                               StatusIs(absl::StatusCode::kNotFound)));
}

TEST_F(SharedMemoryTest, ASendThatMissesItsDeadlineNamesWhoWasLate) {
  Form(2);
  EXPECT_THAT(ranks_[0]->Send(MakeTestVersion({.version = 1}), VerySoon()),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(ranks_[0]->Lost(), ElementsAre(1));
}

TEST_F(SharedMemoryTest, AnAbortEndsASendInFlightAndBlamesNobody) {
  Form(2);
  std::thread aborter([this] { ranks_[0]->Abort("the test says so"); });
  EXPECT_THAT(ranks_[0]->Send(MakeTestVersion({.version = 1}), Soon()),
              StatusIs(absl::StatusCode::kAborted));
  aborter.join();
  EXPECT_THAT(ranks_[0]->Lost(), IsEmpty());
}

TEST_F(SharedMemoryTest, AMemberThatFellBehindPassesOverAndHoldsNobodyUp) {
  Form(2);
  const auto second = MakeTestVersion({.version = 2});
  auto assembler = *VersionAssembler::Create(second->manifest());
  std::thread receiver([&] { EXPECT_THAT(ranks_[1]->Receive(assembler.get(), Soon()), IsOk()); });
  EXPECT_THAT(ranks_[0]->Send(MakeTestVersion({.version = 1}), Soon()), IsOk());
  EXPECT_THAT(ranks_[0]->Send(second, Soon()), IsOk());
  receiver.join();
  EXPECT_THAT(assembler->Finish(), IsOk());
}

TEST_F(SharedMemoryTest, AVersionThatIsOvertakenIsNotFoundAndTheGroupGoesOn) {
  Form(2);
  const auto first = MakeTestVersion({.version = 1});
  const auto second = MakeTestVersion({.version = 2});
  std::thread sender([&] { EXPECT_THAT(ranks_[0]->Send(second, Soon()), IsOk()); });
  auto late = *VersionAssembler::Create(first->manifest());
  EXPECT_THAT(ranks_[1]->Receive(late.get(), Soon()), StatusIs(absl::StatusCode::kNotFound));
  auto assembler = *VersionAssembler::Create(second->manifest());
  EXPECT_THAT(ranks_[1]->Receive(assembler.get(), Soon()), IsOk());
  sender.join();
  EXPECT_THAT(ranks_[1]->Receive(late.get(), Soon()), StatusIs(absl::StatusCode::kNotFound))
      << "carried already";
}

TEST_F(SharedMemoryTest, GrowsWithTheVersionsItCarries) {
  Form(2);
  uint64_t number = 0;
  for (const int64_t rows : {int64_t{10}, int64_t{3000}, int64_t{20}}) {
    const auto version =
        MakeTestVersion({.version = ++number}, 4096, {{"a", {rows, 7}}, {"b", {5}}});
    auto assembler = *VersionAssembler::Create(version->manifest());
    std::thread sender([&] { EXPECT_THAT(ranks_[0]->Send(version, Soon()), IsOk()); });
    EXPECT_THAT(ranks_[1]->Receive(assembler.get(), Soon()), IsOk());
    sender.join();
    EXPECT_THAT(assembler->Finish(), IsOk());
  }
}

TEST_F(SharedMemoryTest, AManifestLargerThanTheSegmentReadsNothing) {
  Form(2);
  auto large = *VersionAssembler::Create(
      MakeTestVersion({.version = 1}, 1 << 20, {{"a", {1000, 1000}}})->manifest());
  std::thread sender(
      [&] { EXPECT_FALSE(ranks_[0]->Send(MakeTestVersion({.version = 1}), VerySoon()).ok()); });
  EXPECT_THAT(ranks_[1]->Receive(large.get(), Soon()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("the manifest needs")));
  sender.join();
}

// A process that makes a group of two, says its id, forms, and then waits to be killed.
class OtherProcess {
 public:
  OtherProcess() {
    int pipe_ends[2];
    EXPECT_EQ(pipe(pipe_ends), 0);
    pid_ = fork();
    if (pid_ == 0) {
      SharedMemoryBackEnd back_end;
      const std::string id = *back_end.MakeId();
      auto root = *back_end.Join({.id = id, .rank = 0, .world_size = 2});
      if (write(pipe_ends[1], id.data(), id.size()) < 0) _exit(1);
      if (!root->Form(Soon()).ok()) _exit(1);
      pause();
      _exit(0);
    }
    id_.resize(24);
    EXPECT_EQ(read(pipe_ends[0], id_.data(), id_.size()), 24);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
  }
  ~OtherProcess() {
    Kill();
    waitpid(pid_, nullptr, 0);
  }
  void Kill() { kill(pid_, SIGKILL); }
  const std::string& id() const { return id_; }

 private:
  pid_t pid_;
  std::string id_;
};

TEST_F(SharedMemoryTest, AMemberSeesThatTheRootsProcessEndedWithoutAWord) {
  OtherProcess other;
  const auto member = *back_end_.Join({.id = other.id(), .rank = 1, .world_size = 2});
  ASSERT_THAT(member->Form(Soon()), IsOk());
  auto assembler = *VersionAssembler::Create(MakeTestVersion({.version = 1})->manifest());
  std::thread killer([&] { other.Kill(); });
  EXPECT_THAT(member->Receive(assembler.get(), Soon()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("process has ended")));
  killer.join();
}

TEST_F(SharedMemoryTest, TheRootSeesThatAMembersProcessEndedWithoutAWord) {
  const std::string id = *back_end_.MakeId();
  const pid_t pid = fork();
  if (pid == 0) {
    SharedMemoryBackEnd back_end;
    auto member = *back_end.Join({.id = id, .rank = 1, .world_size = 2});
    if (!member->Form(Soon()).ok()) _exit(1);
    _exit(0);  // no destructor runs
  }
  auto root = *back_end_.Join({.id = id, .rank = 0, .world_size = 2});
  ASSERT_THAT(root->Form(Soon()), IsOk());
  EXPECT_THAT(root->Send(MakeTestVersion({.version = 1}), Soon()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("lost: rank 1")));
  EXPECT_THAT(root->Lost(), ElementsAre(1));
  waitpid(pid, nullptr, 0);
}

TEST_F(SharedMemoryTest, AnIdOutlivesNoProcess) {
  std::string id;
  {
    OtherProcess other;
    id = other.id();
  }
  EXPECT_THAT(back_end_.Join({.id = id, .rank = 1, .world_size = 2}).status(),
              StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace temper::weights
