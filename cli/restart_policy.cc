#include "cli/restart_policy.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "services/base/exit_code.h"

namespace temper::cli {

RestartDecision DecideRestart(const ExitState& exit, bool run_over,
                              const std::vector<absl::Time>& restarts, absl::Time now,
                              const RestartOptions& options) {
  if (run_over) return {RestartAction::kLeave, absl::ZeroDuration(), "the run is over for it"};
  if (exit.signal == 0 && exit.code == base::kExitUsage) {
    return {RestartAction::kGiveUp, absl::ZeroDuration(),
            "exit code 2: its configuration is wrong"};
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
