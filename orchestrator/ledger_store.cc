#include "orchestrator/ledger_store.h"

#include <algorithm>

namespace temper::orchestrator {
namespace {

constexpr uint64_t kSchema = 2;
constexpr size_t kProbeBytes = 64 << 10;
constexpr char kTables[] = R"sql(
CREATE TABLE IF NOT EXISTS facts(name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS numbers(name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS groups(group_index INTEGER PRIMARY KEY, step INTEGER, round INTEGER,
  state INTEGER, attempts INTEGER, closed_step INTEGER, ready_at INTEGER);
CREATE TABLE IF NOT EXISTS attempts(timeline INTEGER, group_index INTEGER, attempt INTEGER,
  lease_id INTEGER, worker TEXT, incarnation INTEGER, version INTEGER, state INTEGER,
  examination INTEGER, examined_step INTEGER, ending INTEGER, closed_step INTEGER, detail TEXT,
  leased_at INTEGER, PRIMARY KEY(timeline, group_index, attempt)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS open_attempts ON attempts(state) WHERE state < 3;
CREATE INDEX IF NOT EXISTS closed_attempts ON attempts(closed_step);
CREATE INDEX IF NOT EXISTS examined_attempts ON attempts(timeline, examined_step);
CREATE TABLE IF NOT EXISTS commits(timeline INTEGER, step INTEGER, cursor INTEGER, skipped INTEGER,
  update_seconds REAL, metrics_json TEXT, closed_at INTEGER, rewound_by INTEGER,
  PRIMARY KEY(timeline, step)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests(version INTEGER PRIMARY KEY, bytes BLOB);
CREATE TABLE IF NOT EXISTS members(member_id TEXT PRIMARY KEY, role INTEGER, incarnation INTEGER,
  address TEXT, metrics_address TEXT, host TEXT, pid INTEGER, has_version INTEGER,
  acknowledged_timeline INTEGER, acknowledged_version INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS eval_items(item_index INTEGER PRIMARY KEY, version INTEGER,
  error_scale REAL, noise_seed INTEGER, first_question INTEGER, questions INTEGER, state INTEGER,
  attempts INTEGER, worker TEXT, incarnation INTEGER, ready_at INTEGER, elements INTEGER,
  sum_sq_error REAL, sum_sq_value REAL, injected INTEGER, injected_elements INTEGER);
CREATE TABLE IF NOT EXISTS eval_outcomes(item_index INTEGER, question INTEGER, accuracy REAL,
  strict REAL, flexible REAL, numeric REAL, truncated INTEGER, completion_tokens INTEGER,
  extracted TEXT, PRIMARY KEY(item_index, question)) WITHOUT ROWID;
)sql";

constexpr char kAttemptColumns[] =
    "SELECT timeline, group_index, attempt, lease_id, worker, incarnation, version, state, "
    "examination, examined_step, ending, closed_step, detail, leased_at FROM attempts ";
constexpr char kCommitColumns[] =
    "SELECT timeline, step, cursor, skipped, update_seconds, metrics_json, closed_at, rewound_by "
    "FROM commits ";

// Infinite times become the extremes of int64 and come back as such.
int64_t Nanos(absl::Time time) { return absl::ToUnixNanos(time); }
absl::Time FromNanos(int64_t nanos) {
  if (nanos == absl::ToUnixNanos(absl::InfinitePast())) return absl::InfinitePast();
  return absl::FromUnixNanos(nanos);
}

AttemptRow ReadAttempt(const SqlRow& row) {
  AttemptRow attempt;
  attempt.id = {row.Unsigned(0), row.Unsigned(1), static_cast<uint32_t>(row.Int(2))};
  attempt.lease_id = row.Unsigned(3);
  attempt.worker = row.Text(4);
  attempt.incarnation = row.Unsigned(5);
  attempt.version = row.Unsigned(6);
  attempt.state = static_cast<AttemptState>(row.Int(7));
  attempt.examination = static_cast<Examination>(row.Int(8));
  attempt.examined_step = row.Unsigned(9);
  attempt.ending = EndingFromNumber(row.Int(10));
  attempt.closed_step = row.Unsigned(11);
  attempt.detail = row.Text(12);
  attempt.leased_at = FromNanos(row.Int(13));
  return attempt;
}

CommitRow ReadCommit(const SqlRow& row) {
  return {row.Unsigned(0), row.Unsigned(1), row.Unsigned(2),       row.Int(3) != 0,
          row.Real(4),     row.Text(5),     FromNanos(row.Int(6)), row.Unsigned(7)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<LedgerStore>> LedgerStore::Open(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<SqlDatabase> database, SqlDatabase::Open(path));
  std::unique_ptr<LedgerStore> store(new LedgerStore(std::move(database)));
  TEMPER_RETURN_IF_ERROR(store->database_->Script(kTables));
  TEMPER_ASSIGN_OR_RETURN(const uint64_t schema, store->Number("schema"));
  if (schema == 0) {
    TEMPER_RETURN_IF_ERROR(store->PutNumber("schema", kSchema));
  } else if (schema != kSchema) {
    return absl::FailedPreconditionError(
        absl::StrCat("ledger ", path, " has schema ", schema, ", this program writes ", kSchema));
  }
  return store;
}

absl::Status LedgerStore::CheckIntegrity() {
  std::string finding;
  TEMPER_RETURN_IF_ERROR(database_->Query("PRAGMA quick_check(1)", [&](const SqlRow& row) {
    if (finding.empty()) finding = row.Text(0);
  }));
  if (finding == "ok") return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("ledger: ", finding));
}

absl::Status LedgerStore::PutFact(const std::string& name, const std::string& value) {
  return database_->Run("INSERT OR REPLACE INTO facts VALUES(?1, ?2)", name, value);
}

absl::Status LedgerStore::ProbeRoom() {
  TEMPER_RETURN_IF_ERROR(PutFact("room_probe", std::string(kProbeBytes, '\0')));
  return PutFact("room_probe", "");
}

absl::StatusOr<std::string> LedgerStore::Fact(const std::string& name) {
  std::string value;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      "SELECT value FROM facts WHERE name = ?1", [&](const SqlRow& row) { value = row.Text(0); },
      name));
  return value;
}

absl::Status LedgerStore::PutNumber(const std::string& name, uint64_t value) {
  return database_->Run("INSERT OR REPLACE INTO numbers VALUES(?1, ?2)", name, value);
}

absl::StatusOr<uint64_t> LedgerStore::Number(const std::string& name) {
  uint64_t value = 0;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      "SELECT value FROM numbers WHERE name = ?1",
      [&](const SqlRow& row) { value = row.Unsigned(0); }, name));
  return value;
}

absl::Status LedgerStore::PutGroup(const GroupRow& group) {
  return database_->Run("INSERT OR REPLACE INTO groups VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                        group.group_index, group.step, group.round,
                        static_cast<int64_t>(group.state), group.attempts, group.closed_step,
                        Nanos(group.ready_at));
}

absl::Status LedgerStore::DeleteGroup(uint64_t group_index) {
  return database_->Run("DELETE FROM groups WHERE group_index = ?1", group_index);
}

absl::StatusOr<std::vector<GroupRow>> LedgerStore::Groups() {
  std::vector<GroupRow> groups;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      "SELECT group_index, step, round, state, attempts, closed_step, ready_at FROM groups "
      "ORDER BY group_index",
      [&](const SqlRow& row) {
        groups.push_back({row.Unsigned(0), row.Unsigned(1), static_cast<uint32_t>(row.Int(2)),
                          static_cast<GroupState>(row.Int(3)), static_cast<uint32_t>(row.Int(4)),
                          row.Unsigned(5), FromNanos(row.Int(6))});
      }));
  return groups;
}

absl::Status LedgerStore::PutAttempt(const AttemptRow& attempt) {
  return database_->Run(
      "INSERT OR REPLACE INTO attempts "
      "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
      attempt.id.timeline, attempt.id.group_index, attempt.id.attempt, attempt.lease_id,
      attempt.worker, attempt.incarnation, attempt.version, static_cast<int64_t>(attempt.state),
      static_cast<int64_t>(attempt.examination), attempt.examined_step,
      static_cast<int64_t>(attempt.ending), attempt.closed_step, attempt.detail,
      Nanos(attempt.leased_at));
}

absl::StatusOr<std::optional<AttemptRow>> LedgerStore::FindAttempt(const AttemptId& id) {
  static const std::string kSql =
      absl::StrCat(kAttemptColumns, "WHERE timeline = ?1 AND group_index = ?2 AND attempt = ?3");
  std::optional<AttemptRow> found;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      kSql, [&](const SqlRow& row) { found = ReadAttempt(row); }, id.timeline, id.group_index,
      id.attempt));
  return found;
}

absl::StatusOr<std::vector<AttemptRow>> LedgerStore::OpenAttempts() {
  static const std::string kSql = absl::StrCat(kAttemptColumns, "WHERE state < 3");
  std::vector<AttemptRow> attempts;
  TEMPER_RETURN_IF_ERROR(
      database_->Query(kSql, [&](const SqlRow& row) { attempts.push_back(ReadAttempt(row)); }));
  return attempts;
}

absl::Status LedgerStore::RewindAttempts(uint64_t step, const std::string& detail) {
  return database_->Run(
      "UPDATE attempts SET state = 3, ending = 10, detail = ?2 "
      "WHERE ending != 10 AND (state < 3 OR closed_step > ?1)",
      step, detail);
}

absl::StatusOr<uint32_t> LedgerStore::CountExamined(uint64_t timeline, uint64_t step) {
  uint32_t count = 0;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      "SELECT COUNT(*) FROM attempts WHERE timeline = ?1 AND examined_step = ?2 "
      "AND examination IN (1, 2)",
      [&](const SqlRow& row) { count = static_cast<uint32_t>(row.Int(0)); }, timeline, step));
  return count;
}

absl::StatusOr<Accounting> LedgerStore::CountAttempts() {
  Accounting accounting;
  TEMPER_ASSIGN_OR_RETURN(accounting.attempts_leased, Number("attempts_leased"));
  TEMPER_RETURN_IF_ERROR(
      database_->Query("SELECT state, ending, COUNT(*) FROM attempts GROUP BY state, ending",
                       [&](const SqlRow& row) {
                         switch (static_cast<AttemptState>(row.Int(0))) {
                           case AttemptState::kLeased:
                             accounting.leased += row.Unsigned(2);
                             return;
                           case AttemptState::kAdmitted:
                             accounting.admitted += row.Unsigned(2);
                             return;
                           case AttemptState::kEnded:
                             accounting.Ended(EndingFromNumber(row.Int(1))) += row.Unsigned(2);
                         }
                       }));
  return accounting;
}

absl::Status LedgerStore::PutCountsAtCommit(const Accounting& counts) {
  TEMPER_RETURN_IF_ERROR(PutNumber("at_commit_attempts_leased", counts.attempts_leased));
  for (Ending ending : AllEndings()) {
    TEMPER_RETURN_IF_ERROR(
        PutNumber(absl::StrCat("at_commit_", EndingName(ending)), counts.Ended(ending)));
  }
  return absl::OkStatus();
}

absl::StatusOr<Accounting> LedgerStore::CountsAtCommit() {
  Accounting counts;
  TEMPER_ASSIGN_OR_RETURN(counts.attempts_leased, Number("at_commit_attempts_leased"));
  for (Ending ending : AllEndings()) {
    TEMPER_ASSIGN_OR_RETURN(counts.Ended(ending),
                            Number(absl::StrCat("at_commit_", EndingName(ending))));
  }
  return counts;
}

absl::StatusOr<std::vector<uint64_t>> LedgerStore::GroupsTrainedTwice() {
  std::vector<uint64_t> groups;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      "SELECT group_index FROM attempts WHERE ending = 1 GROUP BY group_index HAVING COUNT(*) > 1",
      [&](const SqlRow& row) { groups.push_back(row.Unsigned(0)); }));
  return groups;
}

absl::Status LedgerStore::PutCommit(const CommitRow& commit) {
  return database_->Run("INSERT OR REPLACE INTO commits VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                        commit.timeline, commit.step, commit.cursor, commit.skipped,
                        commit.update_seconds, commit.metrics_json, Nanos(commit.closed_at),
                        commit.rewound_by);
}

absl::Status LedgerStore::RewindCommits(uint64_t step, uint64_t timeline) {
  return database_->Run("UPDATE commits SET rewound_by = ?2 WHERE rewound_by = 0 AND step > ?1",
                        step, timeline);
}

absl::StatusOr<std::vector<CommitRow>> LedgerStore::Commits(uint64_t rewound_by) {
  static const std::string kSql =
      absl::StrCat(kCommitColumns, "WHERE rewound_by = ?1 ORDER BY step");
  std::vector<CommitRow> commits;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      kSql, [&](const SqlRow& row) { commits.push_back(ReadCommit(row)); }, rewound_by));
  return commits;
}

absl::StatusOr<std::optional<CommitRow>> LedgerStore::FindCommit(uint64_t timeline, uint64_t step) {
  static const std::string kSql = absl::StrCat(kCommitColumns, "WHERE timeline = ?1 AND step = ?2");
  std::optional<CommitRow> found;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      kSql, [&](const SqlRow& row) { found = ReadCommit(row); }, timeline, step));
  return found;
}

absl::Status LedgerStore::PutManifest(uint64_t version, const std::string& bytes) {
  return database_->Run("INSERT OR REPLACE INTO manifests VALUES(?1, ?2)", version, bytes);
}

absl::Status LedgerStore::DeleteManifestsBelow(uint64_t version) {
  return database_->Run("DELETE FROM manifests WHERE version < ?1", version);
}

absl::StatusOr<std::vector<std::pair<uint64_t, std::string>>> LedgerStore::Manifests() {
  std::vector<std::pair<uint64_t, std::string>> manifests;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      "SELECT version, bytes FROM manifests ORDER BY version",
      [&](const SqlRow& row) { manifests.emplace_back(row.Unsigned(0), row.Text(1)); }));
  return manifests;
}

absl::Status LedgerStore::PutMember(const Member& member) {
  return database_->Run(
      "INSERT OR REPLACE INTO members VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
      member.member_id, static_cast<int64_t>(member.role), member.incarnation, member.address,
      member.metrics_address, member.host, member.pid, member.has_version,
      member.acknowledged_timeline, member.acknowledged_version);
}

absl::Status LedgerStore::DeleteMember(const std::string& member_id) {
  return database_->Run("DELETE FROM members WHERE member_id = ?1", member_id);
}

absl::StatusOr<Members> LedgerStore::LoadMembers(absl::Time last_heard) {
  Members members;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      "SELECT member_id, role, incarnation, address, metrics_address, host, pid, has_version, "
      "acknowledged_timeline, acknowledged_version FROM members",
      [&](const SqlRow& row) {
        members[row.Text(0)] = {RoleFromNumber(row.Int(1)),
                                row.Text(0),
                                row.Unsigned(2),
                                row.Text(3),
                                row.Text(4),
                                row.Text(5),
                                row.Int(6),
                                last_heard,
                                row.Int(7) != 0,
                                row.Unsigned(8),
                                row.Unsigned(9)};
      }));
  return members;
}

absl::Status LedgerStore::PutEvalItem(const EvalItemRow& item) {
  return database_->Run(
      "INSERT OR REPLACE INTO eval_items "
      "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
      item.item_index, item.spec.version, item.spec.error_scale, item.spec.noise_seed,
      item.spec.first_question, item.spec.questions, static_cast<int64_t>(item.state),
      item.attempts, item.worker, item.incarnation, Nanos(item.ready_at), item.elements,
      item.sum_sq_error, item.sum_sq_value, item.spec.injected ? 1 : 0, item.injected_elements);
}

absl::StatusOr<std::vector<EvalItemRow>> LedgerStore::EvalItems() {
  std::vector<EvalItemRow> items;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      "SELECT item_index, version, error_scale, noise_seed, first_question, questions, state, "
      "attempts, worker, incarnation, ready_at, elements, sum_sq_error, sum_sq_value, injected, "
      "injected_elements "
      "FROM eval_items ORDER BY item_index",
      [&](const SqlRow& row) {
        EvalItemRow item;
        item.item_index = row.Unsigned(0);
        item.spec = {row.Unsigned(1),
                     row.Real(2),
                     row.Unsigned(3),
                     static_cast<uint32_t>(row.Int(4)),
                     static_cast<uint32_t>(row.Int(5)),
                     row.Int(14) != 0};
        item.injected_elements = row.Unsigned(15);
        item.state = static_cast<EvalState>(row.Int(6));
        item.attempts = static_cast<uint32_t>(row.Int(7));
        item.worker = row.Text(8);
        item.incarnation = row.Unsigned(9);
        item.ready_at = FromNanos(row.Int(10));
        item.elements = row.Unsigned(11);
        item.sum_sq_error = row.Real(12);
        item.sum_sq_value = row.Real(13);
        items.push_back(std::move(item));
      }));
  return items;
}

absl::Status LedgerStore::PutOutcomes(uint64_t item_index,
                                      const std::vector<OutcomeRow>& outcomes) {
  for (const OutcomeRow& outcome : outcomes) {
    TEMPER_RETURN_IF_ERROR(database_->Run(
        "INSERT OR REPLACE INTO eval_outcomes VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        item_index, outcome.question, outcome.accuracy, outcome.strict, outcome.flexible,
        outcome.numeric, outcome.truncated, outcome.completion_tokens, outcome.extracted));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<OutcomeRow>> LedgerStore::Outcomes(uint64_t item_index) {
  std::vector<OutcomeRow> outcomes;
  TEMPER_RETURN_IF_ERROR(database_->Query(
      "SELECT question, accuracy, strict, flexible, numeric, truncated, completion_tokens, "
      "extracted FROM eval_outcomes WHERE item_index = ?1 ORDER BY question",
      [&](const SqlRow& row) {
        outcomes.push_back({static_cast<uint32_t>(row.Int(0)), row.Real(1), row.Real(2),
                            row.Real(3), row.Real(4), row.Int(5) != 0,
                            static_cast<uint32_t>(row.Int(6)), row.Text(7)});
      },
      item_index));
  return outcomes;
}

}  // namespace temper::orchestrator
