#pragma once

// Typed look-ups in JSON of unknown origin, without exceptions. Private to model/io.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper::model::json {

using Value = nlohmann::json;

// Parses `text` into an object. `what` names the source in errors. At most 64 levels deep, so that
// a crafted file cannot exhaust the stack.
// Errors: DataLoss if it is not JSON or not UTF-8; InvalidArgument if too deep or not an object.
absl::StatusOr<Value> ParseObject(std::string_view text, std::string_view what);

// The member `key`, or null (a static) if it is missing.
const Value& Member(const Value& object, std::string_view key);

// Typed members. Required ones: InvalidArgument names key and what stands there instead. The
// others return `fallback` when the key is missing or null.
absl::StatusOr<int64_t> Integer(const Value& object, std::string_view key);
absl::StatusOr<int64_t> IntegerOr(const Value& object, std::string_view key, int64_t fallback);
absl::StatusOr<double> NumberOr(const Value& object, std::string_view key, double fallback);
absl::StatusOr<bool> BoolOr(const Value& object, std::string_view key, bool fallback);
absl::StatusOr<std::string> String(const Value& object, std::string_view key);
absl::StatusOr<std::string> StringOr(const Value& object, std::string_view key,
                                     std::string_view fallback);

// Text of a value for messages, cut to 80 bytes.
std::string Excerpt(const Value& value);

}  // namespace temper::model::json
