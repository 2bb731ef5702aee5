// Makes Debian's Abseil visible to the thread sanitizer; linked into every program of a tsan build.
//
// Debian compiles Abseil without instrumentation, so the sanitizer sees neither absl::Mutex nor
// what it orders, and calls every guarded field a race. The functions below stand in front of
// Abseil's own (a program's symbols come before a shared library's, for gRPC's calls too): they
// call the original and tell the sanitizer what was acquired and released.

#include <dlfcn.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}

namespace {

// The library's own function behind a mangled name.
template <typename Function>
Function* Original(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

#define TEMPER_ABSL "_ZN4absl7debian3"
#define TEMPER_ABSL_CONST "_ZNK4absl7debian3"
#define TEMPER_ORIGINAL(result, name, ...) \
  static result (*const original)(__VA_ARGS__) = Original<result(__VA_ARGS__)>(name)

namespace absl {
ABSL_NAMESPACE_BEGIN

// A lock taken: what its last holder did is visible from here on.
void Mutex::Lock() {
  TEMPER_ORIGINAL(void, TEMPER_ABSL "5Mutex4LockEv", Mutex*);
  original(this);
  __tsan_acquire(this);
}

void Mutex::ReaderLock() {
  TEMPER_ORIGINAL(void, TEMPER_ABSL "5Mutex10ReaderLockEv", Mutex*);
  original(this);
  __tsan_acquire(this);
}

bool Mutex::TryLock() {
  TEMPER_ORIGINAL(bool, TEMPER_ABSL "5Mutex7TryLockEv", Mutex*);
  const bool locked = original(this);
  if (locked) __tsan_acquire(this);
  return locked;
}

bool Mutex::ReaderTryLock() {
  TEMPER_ORIGINAL(bool, TEMPER_ABSL "5Mutex13ReaderTryLockEv", Mutex*);
  const bool locked = original(this);
  if (locked) __tsan_acquire(this);
  return locked;
}

void Mutex::LockWhen(const Condition& condition) {
  TEMPER_ORIGINAL(void, TEMPER_ABSL "5Mutex8LockWhenERKNS0_9ConditionE", Mutex*, const Condition&);
  original(this, condition);
  __tsan_acquire(this);
}

bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  TEMPER_ORIGINAL(bool, TEMPER_ABSL "5Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE",
                  Mutex*, const Condition&, Duration);
  const bool held = original(this, condition, timeout);
  __tsan_acquire(this);
  return held;
}

bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  TEMPER_ORIGINAL(bool, TEMPER_ABSL "5Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE",
                  Mutex*, const Condition&, Time);
  const bool held = original(this, condition, deadline);
  __tsan_acquire(this);
  return held;
}

// A lock let go: what was done under it is visible to whoever takes it next.
void Mutex::Unlock() {
  TEMPER_ORIGINAL(void, TEMPER_ABSL "5Mutex6UnlockEv", Mutex*);
  __tsan_release(this);
  original(this);
}

void Mutex::ReaderUnlock() {
  TEMPER_ORIGINAL(void, TEMPER_ABSL "5Mutex12ReaderUnlockEv", Mutex*);
  __tsan_release(this);
  original(this);
}

// Waits let go and take again.
void Mutex::Await(const Condition& condition) {
  TEMPER_ORIGINAL(void, TEMPER_ABSL "5Mutex5AwaitERKNS0_9ConditionE", Mutex*, const Condition&);
  __tsan_release(this);
  original(this, condition);
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  TEMPER_ORIGINAL(bool, TEMPER_ABSL "5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE",
                  Mutex*, const Condition&, Duration);
  __tsan_release(this);
  const bool held = original(this, condition, timeout);
  __tsan_acquire(this);
  return held;
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  TEMPER_ORIGINAL(bool, TEMPER_ABSL "5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE", Mutex*,
                  const Condition&, Time);
  __tsan_release(this);
  const bool held = original(this, condition, deadline);
  __tsan_acquire(this);
  return held;
}

void CondVar::Wait(Mutex* mutex) {
  TEMPER_ORIGINAL(void, TEMPER_ABSL "7CondVar4WaitEPNS0_5MutexE", CondVar*, Mutex*);
  __tsan_release(mutex);
  original(this, mutex);
  __tsan_acquire(mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  TEMPER_ORIGINAL(bool, TEMPER_ABSL "7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE",
                  CondVar*, Mutex*, Duration);
  __tsan_release(mutex);
  const bool timed_out = original(this, mutex, timeout);
  __tsan_acquire(mutex);
  return timed_out;
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  TEMPER_ORIGINAL(bool, TEMPER_ABSL "7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE", CondVar*,
                  Mutex*, Time);
  __tsan_release(mutex);
  const bool timed_out = original(this, mutex, deadline);
  __tsan_acquire(mutex);
  return timed_out;
}

// Abseil evaluates conditions with the mutex held, but between its own, unseen, locking steps.
bool Condition::Eval() const {
  TEMPER_ORIGINAL(bool, TEMPER_ABSL_CONST "9Condition4EvalEv", const Condition*);
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  const bool holds = original(this);
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  return holds;
}

// A notification is an atomic flag first, its mutex only for those who must wait.
void Notification::Notify() {
  TEMPER_ORIGINAL(void, TEMPER_ABSL "12Notification6NotifyEv", Notification*);
  __tsan_release(this);
  original(this);
}

void Notification::WaitForNotification() const {
  TEMPER_ORIGINAL(void, TEMPER_ABSL_CONST "12Notification19WaitForNotificationEv",
                  const Notification*);
  original(this);
  __tsan_acquire(const_cast<Notification*>(this));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  TEMPER_ORIGINAL(bool,
                  TEMPER_ABSL_CONST "12Notification30WaitForNotificationWithTimeoutENS0_8DurationE",
                  const Notification*, Duration);
  const bool notified = original(this, timeout);
  if (notified) __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

bool Notification::WaitForNotificationWithDeadline(Time deadline) const {
  TEMPER_ORIGINAL(bool,
                  TEMPER_ABSL_CONST "12Notification31WaitForNotificationWithDeadlineENS0_4TimeE",
                  const Notification*, Time);
  const bool notified = original(this, deadline);
  if (notified) __tsan_acquire(const_cast<Notification*>(this));
  return notified;
}

ABSL_NAMESPACE_END
}  // namespace absl
