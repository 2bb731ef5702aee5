#pragma once

// A fixed set of threads that share out the tasks of one loop. Which thread runs a task is not
// fixed, so tasks must not depend on each other, and results must not depend on the worker.

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace temper::model {

// Thread-compatible: one caller of Run at a time. The destructor joins; it must not run during Run.
class ThreadPool final {
 public:
  // body(task, worker): worker is 0 (the caller) .. threads() - 1, for scratch memory.
  using Body = absl::FunctionRef<void(int64_t task, int worker)>;

  // threads >= 1, the caller of Run included: one thread starts none.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs tasks 0 .. tasks - 1, each once, and returns when all have ended. body must not throw and
  // must not call Run. The wait is bounded by the tasks, which wait for nothing.
  void Run(int64_t tasks, Body body);

  // Cuts `count` items into parts of `grain` (the last one shorter) and runs body(begin, end,
  // worker) for each.
  void Split(int64_t count, int64_t grain,
             absl::FunctionRef<void(int64_t begin, int64_t end, int worker)> body);

 private:
  void WorkerLoop(int worker);
  void DrainTasks(const Body& body, int64_t tasks, int worker);

  absl::Mutex mutex_;
  uint64_t round_ ABSL_GUARDED_BY(mutex_) = 0;  // counts calls of Run
  int busy_ ABSL_GUARDED_BY(mutex_) = 0;        // workers that have not ended this round
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  const Body* body_ ABSL_GUARDED_BY(mutex_) = nullptr;
  int64_t tasks_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<int64_t> next_task_{0};
  std::vector<std::thread> workers_;
};

}  // namespace temper::model
