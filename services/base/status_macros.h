#pragma once

// Status plumbing that Abseil 20220623 lacks. Prefixed, because LibTorch defines bare names.

#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/base/text.h"

namespace temper::base {

// `status` with "WHERE: " before its message; OK stays OK.
inline absl::Status Annotate(const absl::Status& status, std::string_view where) {
  if (status.ok()) return status;
  return absl::Status(status.code(), Cat(where, ": ", status.message()));
}

}  // namespace temper::base

// Returns the status of `expr` from the enclosing function unless it is OK.
#define TEMPER_RETURN_IF_ERROR(expr)                 \
  do {                                               \
    ::absl::Status temper_status_ = (expr);          \
    if (!temper_status_.ok()) return temper_status_; \
  } while (false)

#define TEMPER_CONCAT_INNER_(a, b) a##b
#define TEMPER_CONCAT_(a, b) TEMPER_CONCAT_INNER_(a, b)

// TEMPER_ASSIGN_OR_RETURN(auto x, F()): x = the value of StatusOr F(), or returns its status.
#define TEMPER_ASSIGN_OR_RETURN(lhs, expr) \
  TEMPER_ASSIGN_OR_RETURN_(TEMPER_CONCAT_(temper_statusor_, __LINE__), lhs, expr)
#define TEMPER_ASSIGN_OR_RETURN_(statusor, lhs, expr) \
  auto statusor = (expr);                             \
  if (!statusor.ok()) return statusor.status();       \
  lhs = std::move(statusor).value()
