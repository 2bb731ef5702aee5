#pragma once

// Obeys the state machine of communicator epochs on a communicator.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "services/base/clock.h"
#include "weights/comm_epoch.h"

namespace temper::weights {

// What a call in flight came to.
struct CommProgress {
  enum class State { kIdle, kRunning, kDone, kFailed };
  State state = State::kIdle;
  std::string error;              // of kFailed
  std::vector<std::string> lost;  // peers that this communicator knows to be gone
};

// A group of processes that broadcasts, as NCCL with non-blocking communicators offers it. Every
// Begin returns at once; the call in flight may finish, fail, lose a peer or hang for ever, and
// Poll says which, without blocking. One call is in flight at a time, but an abort replaces any
// other.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual void BeginForm(uint64_t comm_epoch, const std::vector<std::string>& members) = 0;
  virtual void BeginBroadcast(uint64_t comm_epoch, uint64_t version) = 0;
  virtual void BeginAbort(uint64_t comm_epoch) = 0;
  // Gives up on an abort that hangs: what it holds is leaked, on purpose, until the process ends.
  virtual void Abandon(uint64_t comm_epoch) = 0;
  virtual CommProgress Poll() = 0;
};

struct EpochRunnerOptions {
  EpochOptions epoch;
  Communicator* communicator = nullptr;
  // Tells members to pull a version over gRPC. Called on the thread of Poll; must not block.
  std::function<void(const std::vector<std::string>& members, uint64_t version)> catch_up;
  // Hears every move but the idle ones, for the log and tests. May be empty.
  std::function<void(const EpochEvent& event, const EpochMove& move)> observe;
  base::Clock* clock = base::SystemClock();
};

// One thread: that of a loop which calls Poll every few milliseconds and hands events in. Never
// blocks. The communicator outlives it.
class EpochRunner final {
 public:
  explicit EpochRunner(EpochRunnerOptions options) : options_(std::move(options)) {}

  void Join(const std::string& member);
  void Leave(const std::string& member);
  void VersionOut(uint64_t version);
  // Asks the communicator what became of the call in flight, and looks at the clock.
  void Poll();

  const EpochState& state() const { return state_; }

 private:
  void Feed(const EpochEvent& event);

  const EpochRunnerOptions options_;
  EpochState state_;
};

}  // namespace temper::weights
