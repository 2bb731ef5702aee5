#include "orchestrator/accounting.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace temper::orchestrator {

absl::Status CheckAccounting(const Accounting& accounting) {
  uint64_t sum = accounting.leased + accounting.admitted;
  for (uint64_t count : accounting.ended) sum += count;
  if (sum == accounting.attempts_leased && accounting.Ended(Ending::kNone) == 0) {
    return absl::OkStatus();
  }
  std::string terms =
      absl::StrCat("leased now ", accounting.leased, ", admitted ", accounting.admitted);
  for (Ending ending : AllEndings()) {
    absl::StrAppend(&terms, ", ", EndingName(ending), " ", accounting.Ended(ending));
  }
  return absl::InternalError(
      absl::StrCat("the ledger does not add up: ", accounting.attempts_leased,
                   " attempts leased, but ", sum, " accounted for (", terms, ")"));
}

}  // namespace temper::orchestrator
