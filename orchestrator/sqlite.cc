#include "orchestrator/sqlite.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "services/base/files.h"

namespace temper::orchestrator {
namespace {

constexpr int kCancelSteps = 1000;  // instructions of SQLite between two looks, well below 1 ms
constexpr int kBusyMilliseconds = 2000;  // a person's sqlite3 shell may hold a read lock

// system_error: errno after the call. SQLite says "full" for ENOSPC of a write alone, not for a
// quota, nor for its shared memory.
absl::StatusCode CodeOf(int sqlite_code, int system_error) {
  switch (sqlite_code & 0xff) {
    case SQLITE_FULL:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_IOERR:
      return absl::IsResourceExhausted(base::StatusFromErrno(system_error, "", ""))
                 ? absl::StatusCode::kResourceExhausted
                 : absl::StatusCode::kUnavailable;
    case SQLITE_INTERRUPT:
      return absl::StatusCode::kCancelled;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    default:
      return absl::StatusCode::kUnavailable;
  }
}

absl::Status ErrorOf(sqlite3* handle, int code, const std::string& path, const std::string& what) {
  const absl::StatusCode status = CodeOf(code, errno);  // sqlite3_system_errno says 0 here
  const bool full = status == absl::StatusCode::kResourceExhausted;
  return absl::Status(status, absl::StrCat("ledger ", path, ": ", what, ": ",
                                           handle ? sqlite3_errmsg(handle) : "no memory",
                                           full ? "; free space there and resume the run" : ""));
}

absl::StatusOr<int> TakeLock(const std::string& path) {
  const std::string lock_path = path + ".lock";
  const int descriptor = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return base::StatusFromErrno(errno, "cannot open", lock_path);
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    close(descriptor);
    if (error == EWOULDBLOCK) {
      return absl::FailedPreconditionError(
          absl::StrCat("another orchestrator is using ", path, " (", lock_path, " is locked)"));
    }
    return base::StatusFromErrno(error, "cannot lock", lock_path);
  }
  return descriptor;
}

}  // namespace

absl::Status CheckLocalFileSystem(const std::string& directory) {
  struct statfs facts;
  if (statfs(directory.c_str(), &facts) != 0) {
    return base::StatusFromErrno(errno, "cannot examine the file system of", directory);
  }
  static constexpr struct {
    uint32_t magic;
    const char* name;
  } kNetwork[] = {{0x6969, "NFS"},        {0x517B, "SMB"},      {0xFF534D42, "CIFS"},
                  {0xFE534D42, "SMB2"},   {0x5346414F, "AFS"},  {0x00C36400, "Ceph"},
                  {0x0BD00BD0, "Lustre"}, {0x47504653, "GPFS"}, {0x19830326, "BeeGFS"},
                  {0x01161970, "GFS2"},   {0x7461636F, "OCFS2"}};
  for (const auto& type : kNetwork) {
    if (static_cast<uint32_t>(facts.f_type) == type.magic) {
      return absl::FailedPreconditionError(
          absl::StrCat(directory, " is on a network file system (", type.name,
                       "), where the ledger would not be safe; set orchestrator.state_dir to a "
                       "folder on a local disk"));
    }
  }
  return absl::OkStatus();
}

int64_t SqlRow::Int(int column) const { return sqlite3_column_int64(statement_, column); }
double SqlRow::Real(int column) const { return sqlite3_column_double(statement_, column); }
std::string SqlRow::Text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), size);
}

SqlDatabase::SqlDatabase(sqlite3* handle, int lock_descriptor, std::string path)
    : handle_(handle), lock_descriptor_(lock_descriptor), path_(std::move(path)) {}

SqlDatabase::~SqlDatabase() {
  for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(handle_);
  close(lock_descriptor_);
}

absl::StatusOr<std::unique_ptr<SqlDatabase>> SqlDatabase::Open(const std::string& path) {
  TEMPER_RETURN_IF_ERROR(
      CheckLocalFileSystem(std::filesystem::absolute(path).parent_path().string()));
  TEMPER_ASSIGN_OR_RETURN(const int lock, TakeLock(path));
  sqlite3* handle = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &handle,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<SqlDatabase> database(new SqlDatabase(handle, lock, path));
  if (code != SQLITE_OK) return database->Error(code, "cannot open");
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, kBusyMilliseconds);
  TEMPER_RETURN_IF_ERROR(database->Script("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"));
  return database;
}

absl::Status SqlDatabase::Error(int code, const std::string& what) const {
  return ErrorOf(handle_, code, path_, what);
}

absl::Status SqlDatabase::Noted(absl::Status status, bool written) {
  if (absl::IsResourceExhausted(status)) full_ = status;
  if (status.ok() && written) full_ = absl::OkStatus();
  return status;
}

absl::Status SqlDatabase::Script(const char* sql) {
  errno = 0;
  const int code = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code, sql);
}

absl::Status CopyDatabase(const std::string& path, const std::string& copy,
                          const std::atomic<bool>* cancel) {
  sqlite3* handle = nullptr;
  errno = 0;
  int code =
      sqlite3_open_v2(path.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  sqlite3_stmt* statement = nullptr;
  if (code == SQLITE_OK) code = sqlite3_busy_timeout(handle, kBusyMilliseconds);
  if (code == SQLITE_OK && cancel != nullptr) {
    const auto cancelled = [](void* flag) {
      return static_cast<const std::atomic<bool>*>(flag)->load() ? 1 : 0;
    };
    sqlite3_progress_handler(handle, kCancelSteps, cancelled,
                             const_cast<std::atomic<bool>*>(cancel));
  }
  if (code == SQLITE_OK) {
    code = sqlite3_prepare_v2(handle, "VACUUM INTO ?1", -1, &statement, nullptr);
  }
  if (code == SQLITE_OK) {
    sqlite3_bind_text(statement, 1, copy.data(), static_cast<int>(copy.size()), SQLITE_TRANSIENT);
    errno = 0;
    code = sqlite3_step(statement);
    if (code == SQLITE_DONE) code = SQLITE_OK;
  }
  absl::Status status = code == SQLITE_OK
                            ? absl::OkStatus()
                            : ErrorOf(handle, code, path, absl::StrCat("cannot copy to ", copy));
  sqlite3_finalize(statement);
  sqlite3_close(handle);
  return status;
}

absl::StatusOr<sqlite3_stmt*> SqlDatabase::Prepare(std::string_view sql) {
  auto known = statements_.find(sql);
  if (known != statements_.end()) return known->second;
  sqlite3_stmt* statement = nullptr;
  const int code =
      sqlite3_prepare_v2(handle_, sql.data(), static_cast<int>(sql.size()), &statement, nullptr);
  if (code != SQLITE_OK) return Error(code, std::string(sql));
  statements_.emplace(sql, statement);
  return statement;
}

absl::Status SqlDatabase::Step(sqlite3_stmt* statement,
                               const std::function<void(const SqlRow&)>& on_row) {
  int code;
  errno = 0;
  while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
    if (on_row) on_row(SqlRow(statement));
  }
  absl::Status status =
      code == SQLITE_DONE ? absl::OkStatus() : Error(code, sqlite3_sql(statement));
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);
  const bool alone = sqlite3_get_autocommit(handle_) != 0 && !sqlite3_stmt_readonly(statement);
  return Noted(std::move(status), /*written=*/alone);
}

void SqlDatabase::Bind(sqlite3_stmt* statement, int index, int64_t value) {
  sqlite3_bind_int64(statement, index, value);
}
void SqlDatabase::Bind(sqlite3_stmt* statement, int index, double value) {
  sqlite3_bind_double(statement, index, value);
}
void SqlDatabase::Bind(sqlite3_stmt* statement, int index, const std::string& value) {
  sqlite3_bind_text(statement, index, value.data(), static_cast<int>(value.size()),
                    SQLITE_TRANSIENT);
}

absl::Status SqlDatabase::Transact(Durability durability,
                                   const std::function<absl::Status()>& body) {
  const bool durable = durability == Durability::kDurable;
  if (durable) TEMPER_RETURN_IF_ERROR(Script("PRAGMA synchronous=FULL"));
  absl::Status status = Script("BEGIN IMMEDIATE");
  if (status.ok()) {
    status = body();
    if (status.ok()) status = Script("COMMIT");
    if (!status.ok()) Script("ROLLBACK").IgnoreError();  // fails where SQLite rolled back itself
  }
  if (durable) Script("PRAGMA synchronous=NORMAL").IgnoreError();
  return Noted(std::move(status), /*written=*/true);
}

}  // namespace temper::orchestrator
