#include "model/thread_pool.h"

#include <algorithm>

namespace temper::model {

ThreadPool::ThreadPool(int threads) {
  for (int worker = 1; worker < threads; ++worker) {
    workers_.emplace_back([this, worker] { WorkerLoop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::DrainTasks(const Body& body, int64_t tasks, int worker) {
  for (;;) {
    const int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= tasks) return;
    body(task, worker);
  }
}

void ThreadPool::Run(int64_t tasks, Body body) {
  if (workers_.empty() || tasks <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task, 0);
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    body_ = &body;
    tasks_ = tasks;
    busy_ = static_cast<int>(workers_.size());
    next_task_.store(0, std::memory_order_relaxed);
    ++round_;
  }
  DrainTasks(body, tasks, 0);
  absl::MutexLock lock(&mutex_);
  const auto all_ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return busy_ == 0; };
  mutex_.Await(absl::Condition(&all_ended));
  body_ = nullptr;
}

void ThreadPool::Split(int64_t count, int64_t grain,
                       absl::FunctionRef<void(int64_t, int64_t, int)> body) {
  Run((count + grain - 1) / grain, [&](int64_t task, int worker) {
    body(task * grain, std::min(count, (task + 1) * grain), worker);
  });
}

void ThreadPool::WorkerLoop(int worker) {
  uint64_t seen = 0;
  for (;;) {
    const Body* body = nullptr;
    int64_t tasks = 0;
    {
      absl::MutexLock lock(&mutex_);
      const auto called = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || round_ != seen;
      };
      mutex_.Await(absl::Condition(&called));
      if (stopping_) return;
      seen = round_;
      body = body_;
      tasks = tasks_;
    }
    DrainTasks(*body, tasks, worker);
    absl::MutexLock lock(&mutex_);
    --busy_;
  }
}

}  // namespace temper::model
