#pragma once

// SQLite with statuses: one connection, prepared statements kept by their text.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"

struct sqlite3;
struct sqlite3_stmt;

namespace temper::orchestrator {

// One row of a result; valid only inside the callback it was given to. Columns count from 0.
class SqlRow final {
 public:
  explicit SqlRow(sqlite3_stmt* statement) : statement_(statement) {}
  int64_t Int(int column) const;
  uint64_t Unsigned(int column) const { return static_cast<uint64_t>(Int(column)); }
  double Real(int column) const;
  std::string Text(int column) const;  // text or blob

 private:
  sqlite3_stmt* const statement_;
};

// Thread-compatible. Errors of every method: ResourceExhausted (disk full), DataLoss (the file is
// corrupt or no database), Unavailable (the rest), with SQLite's message.
class SqlDatabase final {
 public:
  // Opens or creates `path` in WAL mode. Holds an advisory lock on "<path>.lock" as long as it
  // lives, which kill -9 releases.
  // Returns also: FailedPrecondition if another process holds the lock, or the file system is a
  // network one (WAL needs shared memory between the processes that open it).
  static absl::StatusOr<std::unique_ptr<SqlDatabase>> Open(const std::string& path);
  ~SqlDatabase();
  SqlDatabase(const SqlDatabase&) = delete;
  SqlDatabase& operator=(const SqlDatabase&) = delete;

  // Runs one statement with its ?1, ?2, ... bound; `on_row` sees every row.
  template <typename... Args>
  absl::Status Query(std::string_view sql, const std::function<void(const SqlRow&)>& on_row,
                     const Args&... args) {
    TEMPER_ASSIGN_OR_RETURN(sqlite3_stmt * statement, Prepare(sql));
    int index = 0;
    (Bind(statement, ++index, args), ...);
    return Step(statement, on_row);
  }
  template <typename... Args>
  absl::Status Run(std::string_view sql, const Args&... args) {
    return Query(sql, nullptr, args...);
  }
  // Several statements without parameters.
  absl::Status Script(const char* sql);

  // How much a transaction has survived when it returns. Either survives kill -9 of the process;
  // kDurable the loss of power too.
  enum class Durability { kProcess, kDurable };
  // Runs `body` in one transaction; rolled back if it fails.
  absl::Status Transact(Durability durability, const std::function<absl::Status()>& body);

  // The last ResourceExhausted of any call, until something is written again; else OK.
  const absl::Status& full() const { return full_; }

 private:
  SqlDatabase(sqlite3* handle, int lock_descriptor, std::string path);
  absl::StatusOr<sqlite3_stmt*> Prepare(std::string_view sql);
  absl::Status Step(sqlite3_stmt* statement, const std::function<void(const SqlRow&)>& on_row);
  absl::Status Error(int code, const std::string& what) const;
  // Keeps full_ up to date. written: the disk took what was to be written.
  absl::Status Noted(absl::Status status, bool written);
  static void Bind(sqlite3_stmt* statement, int index, int64_t value);
  static void Bind(sqlite3_stmt* statement, int index, uint64_t value) {
    Bind(statement, index, static_cast<int64_t>(value));
  }
  static void Bind(sqlite3_stmt* statement, int index, uint32_t value) {
    Bind(statement, index, static_cast<int64_t>(value));
  }
  static void Bind(sqlite3_stmt* statement, int index, int value) {
    Bind(statement, index, static_cast<int64_t>(value));
  }
  static void Bind(sqlite3_stmt* statement, int index, bool value) {
    Bind(statement, index, static_cast<int64_t>(value));
  }
  static void Bind(sqlite3_stmt* statement, int index, double value);
  static void Bind(sqlite3_stmt* statement, int index, const std::string& value);

  sqlite3* const handle_;
  const int lock_descriptor_;
  const std::string path_;
  absl::Status full_;
  std::map<std::string, sqlite3_stmt*, std::less<>> statements_;
};

// Writes the database at `path` as it is now into the file `copy`, which must not exist: one whole
// file with no log beside it. Reads through a connection of its own, so that it may run on another
// thread than a SqlDatabase of that path, whose writers it does not hold up. Gives up once `cancel`
// is set; null: never.
// Errors: those of SqlDatabase; Cancelled.
absl::Status CopyDatabase(const std::string& path, const std::string& copy,
                          const std::atomic<bool>* cancel = nullptr);

// OK, or FailedPrecondition if statfs says that `directory` is on a network file system.
absl::Status CheckLocalFileSystem(const std::string& directory);

}  // namespace temper::orchestrator
