#include "cli/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "absl/time/clock.h"

namespace temper::cli {
namespace {

constexpr absl::Duration kPlainInterval = absl::Seconds(10);

size_t TerminalColumns() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

}  // namespace

Console::Console() : terminal_(isatty(STDOUT_FILENO) == 1) {}

Console::~Console() { ClearActivity(); }

void Console::Line(const std::string& text) {
  const std::string activity = activity_;
  ClearActivity();
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
  if (terminal_ && !activity.empty()) Activity(activity);
}

void Console::Activity(const std::string& text) {
  if (text == activity_) return;
  if (!terminal_) {
    const absl::Time now = absl::Now();
    if (now - last_activity_ < kPlainInterval) return;
    last_activity_ = now;
    activity_ = text;
    std::printf("%s\n", text.c_str());
    std::fflush(stdout);
    return;
  }
  activity_ = text;
  std::printf("\r\x1b[2K%s", text.substr(0, TerminalColumns() - 1).c_str());
  std::fflush(stdout);
}

void Console::ClearActivity() {
  if (terminal_ && !activity_.empty()) {
    std::printf("\r\x1b[2K");
    std::fflush(stdout);
    activity_.clear();
  }
}

}  // namespace temper::cli
