#pragma once

// The long polls of AcquireWork: who waits for work, looked at again whenever something changes.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "orchestrator/coordinator.h"
#include "services/base/clock.h"
#include "services/rpc/reply.h"
#include "services/rpc/rpc_metrics.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::orchestrator {

// Thread-safe. At most one waiter per member and incarnation (only members wait: others are refused
// at the first look); a newer call of the same one ends the older as Aborted, without work.
// Coordinator and metrics outlive it. Before it goes, call Close.
class WorkWaiters final {
 public:
  static constexpr absl::Duration kLongestWait = absl::Seconds(10);

  WorkWaiters(Coordinator* coordinator, rpc::RpcMetrics* metrics, base::Clock* clock)
      : coordinator_(coordinator), metrics_(metrics), clock_(clock) {}

  // Handles one call: answers at once if there is work, an error, or no wish to wait, and as soon
  // as the weights it names have been overtaken: it could only get work by asking with newer ones.
  grpc::ServerUnaryReactor* Add(const v1::AcquireWorkRequest* request, v1::AcquireWorkReply* reply);

  // Looks again for everyone, in the order of arrival. Call after every change. Where two threads
  // come at once, the first looks a second time.
  void LookAgain();

  // Answers those whose wait is over, with the reason why there is no work. Returns when the next
  // one's is; InfiniteFuture: nobody waits.
  absl::Time AnswerOverdue(absl::Time now);

  // Answers everyone and, from now on, waits for nobody.
  void Close();

 private:
  struct Waiter {
    const v1::AcquireWorkRequest* request;  // both live until `call` is answered or cancelled
    v1::AcquireWorkReply* reply;
    std::shared_ptr<rpc::DeferredReply> call;  // shared with the RPC, which may be cancelled
    v1::AcquireWorkRequest copy;               // of *request: readable after a cancellation
    absl::Time deadline;
  };
  // Whether it was answered. last: with or without work.
  bool Look(const Waiter& waiter, bool first, bool last);
  void LookAtAll(absl::Time now);
  static bool SameCaller(const Waiter& one, const Waiter& other);
  static void EndReplaced(const Waiter& waiter);

  Coordinator* const coordinator_;
  rpc::RpcMetrics* const metrics_;
  base::Clock* const clock_;
  absl::Mutex mutex_;
  std::vector<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
  bool looking_ ABSL_GUARDED_BY(mutex_) = false;  // some thread is in LookAgain
  bool again_ ABSL_GUARDED_BY(mutex_) = false;    // and has to look once more
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace temper::orchestrator
