#include "cli/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/files.h"
#include "services/base/signals.h"

namespace temper::cli {
namespace {

constexpr size_t kMaxGreetingBytes = 4096;
// What a program says when it fails is longer in no case that matters.
constexpr off_t kLastWordsBytes = 16 << 10;

// A program that fails for want of room must still be able to say so: room behind the end of its
// error file is taken while there is some. File systems that cannot do that go without.
void ReserveForLastWords(int error_file) {
  const off_t end = lseek(error_file, 0, SEEK_END);
  if (end >= 0) (void)!fallocate(error_file, FALLOC_FL_KEEP_SIZE, end, kLastWordsBytes);
}

// Runs in the child between fork and exec: only async-signal-safe calls.
[[noreturn]] void BecomeProgram(char* const* argv, int output, int error, int parent_pid) {
  base::DieWithParent(parent_pid);
  base::RestoreSignalMask();
  const int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (input < 0 || dup2(input, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
      dup2(error, STDERR_FILENO) < 0) {
    _exit(126);
  }
  // A process group of its own: Ctrl-C reaches the supervisor, which drains the others in order.
  setpgid(0, 0);
  execv(argv[0], argv);
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    const std::string& program, const std::vector<std::string>& args,
    const std::string& error_file) {
  if (access(program.c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("no program ", program, "; build it with ./temper"));
  }
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return base::StatusFromErrno(errno, "pipe", program);
  const int error = open(error_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (error < 0) {
    const absl::Status status = base::StatusFromErrno(errno, "open", error_file);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return status;
  }
  ReserveForLastWords(error);
  std::vector<std::string> words = {program};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  const int parent_pid = getpid();
  const pid_t pid = fork();
  if (pid == 0) BecomeProgram(argv.data(), pipe_ends[1], error, parent_pid);
  const int fork_errno = errno;
  close(pipe_ends[1]);
  close(error);
  if (pid < 0) {
    close(pipe_ends[0]);
    return base::StatusFromErrno(fork_errno, "fork for", program);
  }
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid, pipe_ends[0]));
}

ChildProcess::~ChildProcess() {
  if (!Poll().has_value()) {
    Kill();
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
  }
  close(output_);
}

absl::StatusOr<Greeting> ChildProcess::ReadGreeting(absl::Time deadline) {
  std::string line;
  while (line.find('\n') == std::string::npos) {
    const int64_t left_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left_ms <= 0)
      return absl::DeadlineExceededError(
          absl::StrCat("process ", pid_, " did not start serving in time"));
    pollfd wait{.fd = output_, .events = POLLIN, .revents = 0};
    const int ready = poll(&wait, 1, static_cast<int>(std::min<int64_t>(left_ms, 1000)));
    if (ready < 0 && errno != EINTR) return base::StatusFromErrno(errno, "poll", "greeting");
    if (ready <= 0) continue;
    char buffer[512];
    const ssize_t got = read(output_, buffer, sizeof(buffer));
    if (got == 0)
      return absl::UnavailableError(absl::StrCat("process ", pid_, " ended before it served"));
    if (got > 0) line.append(buffer, static_cast<size_t>(got));
    if (line.size() > kMaxGreetingBytes) break;
  }
  const auto json =
      nlohmann::json::parse(line.substr(0, line.find('\n')), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("process ", pid_, " greeted with '", line.substr(0, 80), "'"));
  }
  return Greeting{.address = json.value("address", ""),
                  .metrics_address = json.value("metrics_address", "")};
}

std::optional<ExitState> ChildProcess::Poll() {
  if (exit_.has_value()) return exit_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  exit_ = WIFSIGNALED(status) ? ExitState{.code = 0, .signal = WTERMSIG(status)}
                              : ExitState{.code = WEXITSTATUS(status), .signal = 0};
  return exit_;
}

void ChildProcess::Terminate() {
  if (!Poll().has_value()) kill(pid_, SIGTERM);
}

void ChildProcess::Kill() {
  if (!Poll().has_value()) kill(pid_, SIGKILL);
}

std::string Describe(const ExitState& exit) {
  return exit.signal != 0 ? absl::StrCat("signal ", exit.signal)
                          : absl::StrCat("exit code ", exit.code);
}

absl::StatusOr<std::string> ProgramFolder() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return absl::UnavailableError("cannot read /proc/self/exe");
  return self.parent_path().string();
}

}  // namespace temper::cli
