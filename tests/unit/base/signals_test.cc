#include "services/base/signals.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "absl/time/clock.h"

namespace temper::base {
namespace {

// Runs `body` in a child of its own, as signals belong to a whole process; returns waitpid's word.
template <typename Body>
int StatusOfChild(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST(SignalsTest, FirstSignalRequestsAStop) {
  for (int signal : {SIGTERM, SIGINT}) {
    const int status = StatusOfChild([signal] {
      StopToken stop;
      auto watcher = SignalWatcher::Create(&stop);
      kill(getpid(), signal);
      return stop.WaitFor(absl::Seconds(20)) ? 7 : 1;
    });
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 7);
  }
}

TEST(SignalsTest, SecondSignalEndsTheProcess) {
  const int status = StatusOfChild([] {
    StopToken stop;
    auto watcher = SignalWatcher::Create(&stop);
    kill(getpid(), SIGTERM);
    if (!stop.WaitFor(absl::Seconds(20))) return 1;
    kill(getpid(), SIGTERM);
    StopToken never;
    never.WaitFor(absl::Seconds(20));
    return 2;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 128 + SIGTERM);
}

TEST(SignalsTest, WatcherEndsWithoutASignal) {
  const int status = StatusOfChild([] {
    StopToken stop;
    SignalWatcher::Create(&stop).value().reset();
    return stop.StopRequested() ? 1 : 7;
  });
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

// The pipe's write end is held by the grandchild alone, so its end of file is the grandchild's
// death.
TEST(SignalsTest, ChildDiesWithItsParent) {
  int death[2];
  ASSERT_EQ(pipe(death), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    const int parent_pid = getpid();
    if (fork() == 0) {
      DieWithParent(parent_pid);
      (void)!write(death[1], "x", 1);
      for (;;) pause();
    }
    close(death[1]);
    for (;;) pause();
  }
  close(death[1]);
  char byte = 0;
  ASSERT_EQ(read(death[0], &byte, 1), 1);  // the grandchild has armed itself
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  pollfd wait = {death[0], POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 20'000), 1);
  EXPECT_EQ(read(death[0], &byte, 1), 0);
  close(death[0]);
}

}  // namespace
}  // namespace temper::base
