#include "cli/child_process.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "absl/time/clock.h"
#include "tests/support/temp_dir.h"

namespace temper::cli {
namespace {

absl::StatusOr<std::unique_ptr<ChildProcess>> Shell(const std::string& script,
                                                    const testing::TempDir& dir) {
  return ChildProcess::Start("/bin/sh", {"-c", script}, dir.path() + "/stderr");
}

// Waits for the process itself: its standard output closes when it ends.
ExitState WaitForEnd(ChildProcess* child) {
  (void)child->ReadGreeting(absl::Now() + absl::Seconds(20));
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!child->Poll().has_value() && absl::Now() < deadline) {
  }
  return child->Poll().value_or(ExitState{.code = -1});
}

TEST(ChildProcessTest, ReadsTheGreetingThatAProcessPrintsWhenItServes) {
  testing::TempDir dir;
  auto child =
      Shell(R"(echo '{"address": "127.0.0.1:5", "metrics_address": "127.0.0.1:6"}'; cat)", dir);
  ASSERT_TRUE(child.ok()) << child.status();
  const auto greeting = (*child)->ReadGreeting(absl::Now() + absl::Seconds(20));
  ASSERT_TRUE(greeting.ok()) << greeting.status();
  EXPECT_EQ(greeting->address, "127.0.0.1:5");
  EXPECT_EQ(greeting->metrics_address, "127.0.0.1:6");
}

TEST(ChildProcessTest, AProcessThatEndsBeforeItServesIsUnavailable) {
  testing::TempDir dir;
  auto child = Shell("exit 2", dir);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ((*child)->ReadGreeting(absl::Now() + absl::Seconds(20)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(WaitForEnd(child->get()).code, 2);
}

TEST(ChildProcessTest, ASilentProcessMeetsTheDeadline) {
  testing::TempDir dir;
  auto child = Shell("exec sleep 100", dir);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ((*child)->ReadGreeting(absl::Now() + absl::Milliseconds(50)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(ChildProcessTest, TellsASignalFromAnExit) {
  testing::TempDir dir;
  auto child = Shell("kill -9 $$", dir);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(WaitForEnd(child->get()).signal, SIGKILL);
}

TEST(ChildProcessTest, TheProcessDiesWithItsOwner) {
  testing::TempDir dir;
  auto child = Shell("exec sleep 100", dir);
  ASSERT_TRUE(child.ok());
  const pid_t pid = (*child)->pid();
  child->reset();
  EXPECT_EQ(kill(pid, 0), -1);
}

TEST(ChildProcessTest, AMissingProgramIsNamed) {
  EXPECT_EQ(ChildProcess::Start("/no/such/program", {}, "/dev/null").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace temper::cli
