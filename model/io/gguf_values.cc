#include "model/io/gguf_values.h"

#include <utility>
#include <vector>

namespace temper::model {
namespace {

constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;

// Type numbers of metadata values.
enum ValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

template <typename Stored, typename Value>
absl::StatusOr<GgufFile::Value> ReadScalar(GgufCursor& cursor, std::string_view what) {
  TEMPER_ASSIGN_OR_RETURN(const Stored stored, cursor.Read<Stored>(what));
  return GgufFile::Value(static_cast<Value>(stored));
}

template <typename Stored, typename Value>
absl::StatusOr<GgufFile::Value> ReadArrayOf(GgufCursor& cursor, uint64_t count,
                                            std::string_view what) {
  if (count > cursor.left() / sizeof(Stored)) {
    return cursor.Lies(base::Cat(what, " claims ", count, " elements, more than the file holds"));
  }
  std::vector<Value> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    TEMPER_ASSIGN_OR_RETURN(const Stored stored, cursor.Read<Stored>(what));
    values.push_back(static_cast<Value>(stored));
  }
  return GgufFile::Value(std::move(values));
}

absl::StatusOr<GgufFile::Value> ReadStrings(GgufCursor& cursor, uint64_t count,
                                            std::string_view what) {
  if (count > cursor.left() / sizeof(uint64_t)) {
    return cursor.Lies(base::Cat(what, " claims ", count, " strings, more than the file holds"));
  }
  std::vector<std::string> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    TEMPER_ASSIGN_OR_RETURN(std::string text, cursor.ReadString(what));
    values.push_back(std::move(text));
  }
  return GgufFile::Value(std::move(values));
}

absl::StatusOr<GgufFile::Value> ReadArray(GgufCursor& cursor, std::string_view what) {
  TEMPER_ASSIGN_OR_RETURN(const uint32_t type, cursor.Read<uint32_t>(what));
  TEMPER_ASSIGN_OR_RETURN(const uint64_t count, cursor.Read<uint64_t>(what));
  if (count > kMaxArrayElements) {
    return cursor.Lies(
        base::Cat(what, " claims ", count, " elements, ", kMaxArrayElements, " are allowed"));
  }
  switch (type) {
    case kUint8:
    case kBool:
      return ReadArrayOf<uint8_t, int64_t>(cursor, count, what);
    case kInt8:
      return ReadArrayOf<int8_t, int64_t>(cursor, count, what);
    case kUint16:
      return ReadArrayOf<uint16_t, int64_t>(cursor, count, what);
    case kInt16:
      return ReadArrayOf<int16_t, int64_t>(cursor, count, what);
    case kUint32:
      return ReadArrayOf<uint32_t, int64_t>(cursor, count, what);
    case kInt32:
      return ReadArrayOf<int32_t, int64_t>(cursor, count, what);
    case kUint64:
    case kInt64:
      return ReadArrayOf<int64_t, int64_t>(cursor, count, what);
    case kFloat32:
      return ReadArrayOf<float, double>(cursor, count, what);
    case kFloat64:
      return ReadArrayOf<double, double>(cursor, count, what);
    case kString:
      return ReadStrings(cursor, count, what);
    default:
      return cursor.Lies(base::Cat(what, " is an array of unknown type ", type));
  }
}

}  // namespace

absl::StatusOr<GgufFile::Value> ReadGgufValue(GgufCursor& cursor, std::string_view what) {
  TEMPER_ASSIGN_OR_RETURN(const uint32_t type, cursor.Read<uint32_t>(what));
  switch (type) {
    case kUint8:
      return ReadScalar<uint8_t, uint64_t>(cursor, what);
    case kInt8:
      return ReadScalar<int8_t, int64_t>(cursor, what);
    case kUint16:
      return ReadScalar<uint16_t, uint64_t>(cursor, what);
    case kInt16:
      return ReadScalar<int16_t, int64_t>(cursor, what);
    case kUint32:
      return ReadScalar<uint32_t, uint64_t>(cursor, what);
    case kInt32:
      return ReadScalar<int32_t, int64_t>(cursor, what);
    case kFloat32:
      return ReadScalar<float, double>(cursor, what);
    case kBool: {
      TEMPER_ASSIGN_OR_RETURN(const uint8_t stored, cursor.Read<uint8_t>(what));
      return GgufFile::Value(stored != 0);
    }
    case kString: {
      TEMPER_ASSIGN_OR_RETURN(std::string text, cursor.ReadString(what));
      return GgufFile::Value(std::move(text));
    }
    case kArray:
      return ReadArray(cursor, what);
    case kUint64:
      return ReadScalar<uint64_t, uint64_t>(cursor, what);
    case kInt64:
      return ReadScalar<int64_t, int64_t>(cursor, what);
    case kFloat64:
      return ReadScalar<double, double>(cursor, what);
    default:
      return cursor.Lies(base::Cat(what, " has unknown type ", type));
  }
}

}  // namespace temper::model
