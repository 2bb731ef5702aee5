#pragma once

// A queue with a bound, an end, and deadlines.

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/base/clock.h"

namespace temper::base {

// First in, first out, between any number of producers and consumers. Thread-safe. Close it before
// destroying it and join those who wait. T is movable.
template <typename T>
class BoundedQueue final {
 public:
  // capacity >= 1, in elements.
  explicit BoundedQueue(size_t capacity, Clock* clock = SystemClock())
      : capacity_(capacity), clock_(clock) {}
  BoundedQueue(const BoundedQueue&) = delete;
  BoundedQueue& operator=(const BoundedQueue&) = delete;

  // Waits for room until `deadline` (InfinitePast: does not wait). `value` is consumed only if OK.
  // Returns: ResourceExhausted if there was no room in time; Cancelled once closed.
  absl::Status Push(T&& value, absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    clock_->AwaitUntil(&mutex_, absl::Condition(this, &BoundedQueue::CanPush), deadline);
    if (closed_) return absl::CancelledError("the queue is closed");
    if (elements_.size() >= capacity_) return absl::ResourceExhaustedError("the queue is full");
    elements_.push_back(std::move(value));
    return absl::OkStatus();
  }

  // Waits for an element until `deadline`. After Close the elements left are still handed out.
  // Returns: DeadlineExceeded if none came in time; Cancelled once closed and empty.
  absl::StatusOr<T> Pop(absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    clock_->AwaitUntil(&mutex_, absl::Condition(this, &BoundedQueue::CanPop), deadline);
    if (elements_.empty()) {
      if (closed_) return absl::CancelledError("the queue is closed");
      return absl::DeadlineExceededError("nothing arrived in the queue");
    }
    T value = std::move(elements_.front());
    elements_.pop_front();
    return value;
  }

  // Refuses further pushes and wakes everyone who waits. Later calls do nothing.
  void Close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }

  // For the metric every queue has.
  size_t size() const {
    absl::MutexLock lock(&mutex_);
    return elements_.size();
  }
  size_t capacity() const { return capacity_; }

 private:
  bool CanPush() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || elements_.size() < capacity_;
  }
  bool CanPop() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || !elements_.empty();
  }

  const size_t capacity_;
  Clock* const clock_;
  mutable absl::Mutex mutex_;
  std::deque<T> elements_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace temper::base
