#pragma once

// The tables of ledger.db, row by row. All SQL of the project is in ledger_store.cc. Knows no
// rules: what may change into what is decided in ledger.cc and eval_ledger.cc.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "orchestrator/accounting.h"
#include "orchestrator/ledger_types.h"
#include "orchestrator/membership.h"
#include "orchestrator/sqlite.h"

namespace temper::orchestrator {

// Thread-compatible. Errors: those of SqlDatabase. Put* inserts or replaces the whole row.
class LedgerStore final {
 public:
  // Opens or creates the database and its tables.
  // Returns also: FailedPrecondition if it was written by another version of this schema.
  static absl::StatusOr<std::unique_ptr<LedgerStore>> Open(const std::string& path);

  // Reads every page. DataLoss if SQLite finds one that cannot be right.
  absl::Status CheckIntegrity();

  absl::Status Transact(SqlDatabase::Durability durability,
                        const std::function<absl::Status()>& body) {
    return database_->Transact(durability, body);
  }
  // OK, or why nothing can be written: the disk is full (SqlDatabase::full).
  const absl::Status& full() const { return database_->full(); }
  // Writes as much as an admission may, and takes it back: OK if there is room for it (full() is
  // OK then too), else why not.
  absl::Status ProbeRoom();

  // Single facts by name. "" / 0 where there is none.
  absl::Status PutFact(const std::string& name, const std::string& value);
  absl::StatusOr<std::string> Fact(const std::string& name);
  absl::Status PutNumber(const std::string& name, uint64_t value);
  absl::StatusOr<uint64_t> Number(const std::string& name);

  absl::Status PutGroup(const GroupRow& group);
  absl::Status DeleteGroup(uint64_t group_index);
  absl::StatusOr<std::vector<GroupRow>> Groups();  // of the current timeline, ascending

  absl::Status PutAttempt(const AttemptRow& attempt);
  absl::StatusOr<std::optional<AttemptRow>> FindAttempt(const AttemptId& id);
  absl::StatusOr<std::vector<AttemptRow>> OpenAttempts();  // leased or admitted
  // Ends as rewound every attempt that is open, and every one closed by a commit after `step`.
  absl::Status RewindAttempts(uint64_t step, const std::string& detail);
  // Groups kept or dropped by the filter in this open step.
  absl::StatusOr<uint32_t> CountExamined(uint64_t timeline, uint64_t step);
  // Counted from the rows; attempts_leased is the number the ledger keeps on its own.
  absl::StatusOr<Accounting> CountAttempts();
  // The counts that a step's metrics are counted from (Ledger::SinceCommit); all 0 at first.
  absl::Status PutCountsAtCommit(const Accounting& counts);
  absl::StatusOr<Accounting> CountsAtCommit();
  // Group indices that are trained more than once in what stands; the law says there are none.
  absl::StatusOr<std::vector<uint64_t>> GroupsTrainedTwice();

  absl::Status PutCommit(const CommitRow& commit);
  absl::Status RewindCommits(uint64_t step, uint64_t timeline);  // marks those after `step`
  // Those that stand, or those cut off by `rewound_by`; by step.
  absl::StatusOr<std::vector<CommitRow>> Commits(uint64_t rewound_by = 0);
  absl::StatusOr<std::optional<CommitRow>> FindCommit(uint64_t timeline, uint64_t step);

  absl::Status PutManifest(uint64_t version, const std::string& bytes);  // current timeline
  absl::Status DeleteManifestsBelow(uint64_t version);
  absl::StatusOr<std::vector<std::pair<uint64_t, std::string>>> Manifests();  // ascending

  absl::Status PutMember(const Member& member);
  absl::Status DeleteMember(const std::string& member_id);
  absl::StatusOr<Members> LoadMembers(absl::Time last_heard);

  absl::Status PutEvalItem(const EvalItemRow& item);
  absl::StatusOr<std::vector<EvalItemRow>> EvalItems();  // all, ascending
  absl::Status PutOutcomes(uint64_t item_index, const std::vector<OutcomeRow>& outcomes);
  absl::StatusOr<std::vector<OutcomeRow>> Outcomes(uint64_t item_index);

 private:
  explicit LedgerStore(std::unique_ptr<SqlDatabase> database) : database_(std::move(database)) {}
  std::unique_ptr<SqlDatabase> database_;
};

}  // namespace temper::orchestrator
