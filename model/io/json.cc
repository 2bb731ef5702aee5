#include "model/io/json.h"

#include "services/base/text.h"

namespace temper::model::json {
namespace {

constexpr int kMaxDepth = 64;

absl::Status WrongType(std::string_view key, std::string_view wanted, const Value& found) {
  if (found.is_null()) {
    return absl::InvalidArgumentError(base::Cat("field \"", key, "\" is missing"));
  }
  return absl::InvalidArgumentError(
      base::Cat("field \"", key, "\" must be ", wanted, ", not ", Excerpt(found)));
}

}  // namespace

absl::StatusOr<Value> ParseObject(std::string_view text, std::string_view what) {
  bool too_deep = false;
  const auto guard = [&too_deep](int depth, Value::parse_event_t, Value&) {
    if (depth > kMaxDepth) too_deep = true;
    return !too_deep;
  };
  Value value = Value::parse(text.begin(), text.end(), guard, /*allow_exceptions=*/false);
  if (too_deep) return absl::InvalidArgumentError(base::Cat(what, " is nested too deeply"));
  if (value.is_discarded()) {
    return absl::DataLossError(base::Cat(what, " is not valid JSON (truncated?)"));
  }
  if (!value.is_object()) {
    return absl::InvalidArgumentError(base::Cat(what, " is not a JSON object"));
  }
  return value;
}

const Value& Member(const Value& object, std::string_view key) {
  static const Value* const kNull = new Value(nullptr);
  if (!object.is_object()) return *kNull;
  const auto found = object.find(std::string(key));
  return found == object.end() ? *kNull : *found;
}

absl::StatusOr<int64_t> Integer(const Value& object, std::string_view key) {
  const Value& value = Member(object, key);
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}) {
    return WrongType(key, "a 64-bit integer", value);
  }
  if (!value.is_number_integer()) return WrongType(key, "an integer", value);
  return value.get<int64_t>();
}

absl::StatusOr<int64_t> IntegerOr(const Value& object, std::string_view key, int64_t fallback) {
  if (Member(object, key).is_null()) return fallback;
  return Integer(object, key);
}

absl::StatusOr<double> NumberOr(const Value& object, std::string_view key, double fallback) {
  const Value& value = Member(object, key);
  if (value.is_null()) return fallback;
  if (!value.is_number()) return WrongType(key, "a number", value);
  return value.get<double>();
}

absl::StatusOr<bool> BoolOr(const Value& object, std::string_view key, bool fallback) {
  const Value& value = Member(object, key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) return WrongType(key, "true or false", value);
  return value.get<bool>();
}

absl::StatusOr<std::string> String(const Value& object, std::string_view key) {
  const Value& value = Member(object, key);
  if (!value.is_string()) return WrongType(key, "a string", value);
  return value.get<std::string>();
}

absl::StatusOr<std::string> StringOr(const Value& object, std::string_view key,
                                     std::string_view fallback) {
  if (Member(object, key).is_null()) return std::string(fallback);
  return String(object, key);
}

std::string Excerpt(const Value& value) {
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, Value::error_handler_t::replace);
  if (text.size() > 80) text = base::Cat(text.substr(0, 77), "...");
  return text;
}

}  // namespace temper::model::json
