#pragma once

// One process of a run, started by the local supervisor.

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace temper::cli {

// How a process ended.
struct ExitState {
  int code = 0;    // exit code; 0 where it ended by a signal
  int signal = 0;  // 0: it exited by itself
};

// What a process says of itself once it serves: its one line on standard output.
struct Greeting {
  std::string address;          // gRPC host:port; empty for a process that serves none
  std::string metrics_address;  // HTTP host:port
};

// Owns the process: it dies with this object (SIGKILL) and with the thread that started it. Not
// thread-safe; used by the supervisor's thread alone.
class ChildProcess final {
 public:
  // Starts `program` (an absolute path). Standard error goes to the end of `error_file`, where room
  // is reserved for it, so that a full disk can be told of; standard input is empty.
  // Returns: NotFound (no such program), Unavailable (fork, pipes).
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const std::string& program,
                                                             const std::vector<std::string>& args,
                                                             const std::string& error_file);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Waits for the line of JSON that the process prints when it serves. Returns: DeadlineExceeded;
  // Unavailable if it ended first; InvalidArgument if the line is not what it should be.
  absl::StatusOr<Greeting> ReadGreeting(absl::Time deadline);

  // Reaps the process if it has ended; never waits.
  std::optional<ExitState> Poll();

  // Sends SIGTERM / SIGKILL; nothing happens where it has ended.
  void Terminate();
  void Kill();

  pid_t pid() const { return pid_; }

 private:
  ChildProcess(pid_t pid, int output) : pid_(pid), output_(output) {}

  const pid_t pid_;
  const int output_;  // read end of its standard output
  std::optional<ExitState> exit_;
};

// "exit code 4" or "signal 9".
std::string Describe(const ExitState& exit);

// The folder this program lies in, where the other programs of the build lie too.
absl::StatusOr<std::string> ProgramFolder();

}  // namespace temper::cli
