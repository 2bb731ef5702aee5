#include "services/member/submission_checksum.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <bit>
#include <string>

#include "services/base/hash.h"

namespace temper::member {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Feeds words to the hash as little-endian bytes, whatever the machine's order.
class WordHash final {
 public:
  void Add(uint64_t word) {
    unsigned char bytes[8];
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(word >> (8 * i));
    hash_.Update(bytes, sizeof(bytes));
  }
  void Add(const std::string& text) {
    Add(text.size());
    hash_.Update(text.data(), text.size());
  }
  uint64_t Digest() const { return hash_.Digest64(); }

 private:
  base::StreamHash hash_;
};

void AddMessage(const Message& message, WordHash* hash);

// Value i of a repeated field, or the value of another one (i < 0).
void AddValue(const Message& message, const FieldDescriptor* field, int i, WordHash* hash) {
  const Reflection& read = *message.GetReflection();
  const auto get = [&](auto one, auto of_many) {
    return i < 0 ? (read.*one)(message, field) : (read.*of_many)(message, field, i);
  };
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return hash->Add(
          static_cast<uint64_t>(get(&Reflection::GetInt32, &Reflection::GetRepeatedInt32)));
    case FieldDescriptor::CPPTYPE_INT64:
      return hash->Add(
          static_cast<uint64_t>(get(&Reflection::GetInt64, &Reflection::GetRepeatedInt64)));
    case FieldDescriptor::CPPTYPE_UINT32:
      return hash->Add(get(&Reflection::GetUInt32, &Reflection::GetRepeatedUInt32));
    case FieldDescriptor::CPPTYPE_UINT64:
      return hash->Add(get(&Reflection::GetUInt64, &Reflection::GetRepeatedUInt64));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return hash->Add(
          std::bit_cast<uint32_t>(get(&Reflection::GetFloat, &Reflection::GetRepeatedFloat)));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return hash->Add(
          std::bit_cast<uint64_t>(get(&Reflection::GetDouble, &Reflection::GetRepeatedDouble)));
    case FieldDescriptor::CPPTYPE_BOOL:
      return hash->Add(get(&Reflection::GetBool, &Reflection::GetRepeatedBool) ? 1 : 0);
    case FieldDescriptor::CPPTYPE_ENUM:
      return hash->Add(
          static_cast<uint64_t>(get(&Reflection::GetEnumValue, &Reflection::GetRepeatedEnumValue)));
    case FieldDescriptor::CPPTYPE_STRING:
      return hash->Add(get(&Reflection::GetString, &Reflection::GetRepeatedString));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return AddMessage(
          i < 0 ? read.GetMessage(message, field) : read.GetRepeatedMessage(message, field, i),
          hash);
  }
}

void AddMessage(const Message& message, WordHash* hash) {
  const Reflection& read = *message.GetReflection();
  for (int f = 0; f < message.GetDescriptor()->field_count(); ++f) {
    const FieldDescriptor* field = message.GetDescriptor()->field(f);
    const bool is_checksum = field->containing_type() == v1::SubmitGroupRequest::descriptor() &&
                             field->number() == v1::SubmitGroupRequest::kChecksumFieldNumber;
    if (is_checksum) continue;
    hash->Add(static_cast<uint64_t>(field->number()));
    if (field->is_repeated()) {
      const int count = read.FieldSize(message, field);
      hash->Add(static_cast<uint64_t>(count));
      for (int i = 0; i < count; ++i) AddValue(message, field, i, hash);
      continue;
    }
    // A number that is not set is 0, a message that is not set is none.
    const bool absent = field->has_presence() && !read.HasField(message, field);
    hash->Add(absent ? 0 : 1);
    if (!absent) AddValue(message, field, -1, hash);
  }
}

}  // namespace

uint64_t SubmissionChecksum(const v1::SubmitGroupRequest& group) {
  WordHash hash;
  AddMessage(group, &hash);
  return hash.Digest();
}

}  // namespace temper::member
