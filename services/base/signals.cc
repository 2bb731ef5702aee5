#include "services/base/signals.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "services/base/files.h"
#include "services/base/log.h"

namespace temper::base {
namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SignalWatcher>> SignalWatcher::Create(StopToken* stop) {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  const int signal_descriptor = signalfd(-1, &signals, SFD_CLOEXEC);
  const int wake_descriptor = eventfd(0, EFD_CLOEXEC);
  if (signal_descriptor < 0 || wake_descriptor < 0) {
    const absl::Status status = StatusFromErrno(errno, "cannot watch", "signals");
    if (signal_descriptor >= 0) close(signal_descriptor);
    if (wake_descriptor >= 0) close(wake_descriptor);
    return absl::InternalError(status.message());
  }
  return std::unique_ptr<SignalWatcher>(
      new SignalWatcher(stop, signal_descriptor, wake_descriptor));
}

SignalWatcher::SignalWatcher(StopToken* stop, int signal_descriptor, int wake_descriptor)
    : stop_(stop),
      signal_descriptor_(signal_descriptor),
      wake_descriptor_(wake_descriptor),
      thread_([this] { Watch(); }) {}

SignalWatcher::~SignalWatcher() {
  eventfd_write(wake_descriptor_, 1);
  thread_.join();
  close(signal_descriptor_);
  close(wake_descriptor_);
}

void SignalWatcher::Watch() {
  for (bool seen = false;;) {
    pollfd waits[] = {{signal_descriptor_, POLLIN, 0}, {wake_descriptor_, POLLIN, 0}};
    if (poll(waits, 2, /*timeout=*/-1) < 0) continue;  // the destructor ends this wait
    if (waits[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signal_descriptor_, &info, sizeof info) != sizeof info) continue;
    const int signal = static_cast<int>(info.ssi_signo);
    if (seen) _exit(128 + signal);
    seen = true;
    LogInfo("stop_requested", {{"signal", signal}});
    stop_->RequestStop();
  }
}

void RestoreSignalMask() {
  const sigset_t signals = StopSignals();
  sigprocmask(SIG_UNBLOCK, &signals, nullptr);
}

void DieWithParent(int parent_pid) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before prctl: then nobody will ever send the signal.
  if (getppid() != parent_pid) _exit(1);
}

}  // namespace temper::base
