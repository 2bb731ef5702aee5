#pragma once

// The ledger of evaluation items: recorded work that is leased like groups, and its outcomes.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "orchestrator/eval_plan.h"
#include "orchestrator/ledger_store.h"
#include "orchestrator/ledger_types.h"

namespace temper::orchestrator {

// What the operators of one item counted, from inside.
struct EvalInjections {
  uint64_t elements = 0;           // offered to the operators' errors
  uint64_t injected_elements = 0;  // offered to hw_error_injection
  double sum_sq_error = 0;
  double sum_sq_value = 0;
};

// Results of one (version, error scale, noise seed), under hw_error_injection or not.
struct EvalResult {
  uint64_t version = 0;
  double error_scale = 0;
  uint64_t noise_seed = 0;
  bool injected = false;
  uint32_t questions = 0;            // planned
  std::vector<OutcomeRow> outcomes;  // of the items that are done, by question
  EvalInjections injections;
};

// As Ledger: one transaction a change, errors of SqlDatabase, thread-compatible.
class EvalLedger final {
 public:
  // Reads what `store` (which outlives it) holds; leases are re-armed as Ledger's are.
  static absl::StatusOr<std::unique_ptr<EvalLedger>> Open(LedgerStore* store, absl::Time now,
                                                          absl::Duration lease_duration);

  // Adds the items of a version, unless it has some already (they stand: a version is evaluated
  // once), and runs `also` in the same transaction, which records that the version is out: neither
  // is ever there without the other. Nothing has changed if either fails.
  absl::Status AddItems(const std::vector<EvalItemSpec>& items,
                        const std::function<absl::Status()>& also);
  // In the caller's transaction: items of versions after `step` are rewound, leased ones pending.
  // Call Reload afterwards.
  absl::Status Rewind(uint64_t step);
  absl::Status Reload(absl::Time now, absl::Duration lease_duration);

  bool open() const;  // items that are pending or leased: the barrier stands
  bool OpenOfOthers(uint64_t version) const;  // the same, of versions other than this one
  std::optional<uint64_t> ReadyItem(absl::Time now) const;  // lowest pending, back-off over
  uint32_t BackingOff(absl::Time now) const;
  absl::Time NextReady(absl::Time now) const;
  absl::Time NextExpiry() const;

  const EvalItemRow* Find(uint64_t item_index) const;  // null: no such item, or rewound
  // pending -> leased. FailedPrecondition otherwise.
  absl::StatusOr<EvalItemRow> Lease(uint64_t item_index, const std::string& worker,
                                    uint64_t incarnation, absl::Time now, absl::Duration duration);
  // leased -> pending. FailedPrecondition otherwise.
  absl::Status Fail(uint64_t item_index, absl::Time ready_at);
  // -> done, with one outcome per question, from pending too: a report that comes after its lease
  // expired is as good as another attempt's, because outcomes are keyed by question and seed alone.
  // AlreadyExists if it is done.
  absl::Status Finish(uint64_t item_index, const std::vector<OutcomeRow>& outcomes,
                      const EvalInjections& injections);

  std::vector<uint64_t> HeldBy(const std::string& worker, uint64_t incarnation) const;
  std::vector<uint64_t> Expired(absl::Time now) const;
  // As Ledger's.
  bool Renew(uint64_t item_index, const std::string& worker, uint64_t incarnation, absl::Time now,
             absl::Duration duration);
  absl::Time ArmedAt(uint64_t item_index) const;

  // Everything that stands, by version, scale, seed; from the database.
  absl::StatusOr<std::vector<EvalResult>> Results();

 private:
  explicit EvalLedger(LedgerStore* store) : store_(store) {}
  struct LeaseTimes {
    absl::Time armed_at;
    absl::Time expires;
  };
  absl::Status Replace(const EvalItemRow& item);

  LedgerStore* const store_;
  uint64_t next_index_ = 0;
  std::map<uint64_t, EvalItemRow> items_;  // not rewound
  std::map<uint64_t, LeaseTimes> leases_;  // of leased ones
};

}  // namespace temper::orchestrator
