#include "cli/restart_policy.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/exit_code.h"

namespace temper::cli {
namespace {

// Empty if another start may help.
std::string WhyHopeless(v1::Role role, const ExitState& exit) {
  if (exit.signal != 0) return "";
  if (exit.code == base::kExitUsage) return "exit code 2: its configuration is wrong";
  const bool reads_the_disk = role == v1::ROLE_ORCHESTRATOR || role == v1::ROLE_LEARNER;
  if (exit.code == base::kExitData && reads_the_disk) {
    return "exit code 4: a file that it reads is corrupt";
  }
  return "";
}

}  // namespace

RestartDecision DecideRestart(v1::Role role, const ExitState& exit, bool run_over,
                              const std::vector<absl::Time>& restarts, absl::Time now,
                              const RestartOptions& options) {
  if (run_over) return {RestartAction::kLeave, absl::ZeroDuration(), "the run is over for it"};
  if (std::string hopeless = WhyHopeless(role, exit); !hopeless.empty()) {
    return {RestartAction::kGiveUp, absl::ZeroDuration(), std::move(hopeless)};
  }
  const auto recent = std::count_if(restarts.begin(), restarts.end(),
                                    [&](absl::Time at) { return now - at < options.window; });
  if (recent >= options.max_restarts) {
    return {RestartAction::kGiveUp, absl::ZeroDuration(),
            absl::StrCat(Describe(exit), " after ", recent, " restarts within ",
                         absl::FormatDuration(options.window))};
  }
  return {RestartAction::kRestart, options.first_wait * std::pow(2.0, recent), Describe(exit)};
}

}  // namespace temper::cli
