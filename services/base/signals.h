#pragma once

// SIGTERM and SIGINT as an event that somebody waits on, and children that die with their parent.

#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/base/stop_token.h"

namespace temper::base {

// Blocks SIGTERM and SIGINT in the calling thread and all threads started after it, and turns the
// first of either into stop->RequestStop(). The second ends the process at once (exit code 128 +
// signal), for a person whose drain hangs. Make it first in main, before any thread starts; one per
// process. SIGPIPE is ignored: a closed peer shows as an error of the write.
class SignalWatcher final {
 public:
  // `stop` outlives the watcher. Returns: Internal if the system refuses (no descriptors left).
  static absl::StatusOr<std::unique_ptr<SignalWatcher>> Create(StopToken* stop);
  // Stops watching and joins its thread; the signals stay blocked.
  ~SignalWatcher();
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

 private:
  SignalWatcher(StopToken* stop, int signal_descriptor, int wake_descriptor);
  void Watch();

  StopToken* const stop_;
  const int signal_descriptor_;  // signalfd
  const int wake_descriptor_;    // eventfd, written by the destructor
  std::thread thread_;
};

// Unblocks what SignalWatcher blocked: for a child between fork and exec, as masks are inherited.
// Async-signal-safe.
void RestoreSignalMask();

// Asks the kernel to kill this process (SIGKILL) when the thread that forked it ends. Call in the
// child between fork and exec with the launcher's pid (getpid() before the fork); if the launcher
// has died already the process exits with 1. Async-signal-safe.
void DieWithParent(int parent_pid);

}  // namespace temper::base
