#include "services/config/yaml_writer.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/descriptor.h"

namespace temper::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// The shortest text that reads back to the same double.
std::string DoubleText(double value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return error == std::errc() ? std::string(buffer, end) : absl::StrCat(value);
}

// A scalar field (index < 0) or an element of a list, as YAML would write it.
std::string ScalarText(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool one = index < 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return (one ? r.GetBool(message, &field) : r.GetRepeatedBool(message, &field, index))
                 ? "true"
                 : "false";
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(one ? r.GetUInt32(message, &field)
                              : r.GetRepeatedUInt32(message, &field, index));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(one ? r.GetUInt64(message, &field)
                              : r.GetRepeatedUInt64(message, &field, index));
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(one ? r.GetInt32(message, &field)
                              : r.GetRepeatedInt32(message, &field, index));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return DoubleText(one ? r.GetDouble(message, &field)
                            : r.GetRepeatedDouble(message, &field, index));
    default:
      return one ? r.GetString(message, &field) : r.GetRepeatedString(message, &field, index);
  }
}

void EmitScalar(const Message& message, const FieldDescriptor& field, int index,
                YAML::Emitter* out) {
  const std::string text = ScalarText(message, field, index);
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    *out << YAML::DoubleQuoted << text;
  } else {
    *out << text;
  }
}

// One field's value: list, map, block or scalar.
void EmitField(const Message& message, const FieldDescriptor& field, YAML::Emitter* out);

void EmitMessage(const Message& message, YAML::Emitter* out) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  *out << YAML::BeginMap;
  for (const FieldDescriptor* field : fields) {
    *out << YAML::Key << field->name() << YAML::Value;
    EmitField(message, *field, out);
  }
  *out << YAML::EndMap;
}

void EmitField(const Message& message, const FieldDescriptor& field, YAML::Emitter* out) {
  const Reflection& reflection = *message.GetReflection();
  if (!field.is_repeated()) {
    if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
      EmitMessage(reflection.GetMessage(message, &field), out);
    } else {
      EmitScalar(message, field, -1, out);
    }
    return;
  }
  const int size = reflection.FieldSize(message, &field);
  if (field.is_map()) {
    *out << YAML::Flow << YAML::BeginMap;
    for (int i = 0; i < size; ++i) {
      const Message& pair = reflection.GetRepeatedMessage(message, &field, i);
      *out << YAML::Key;
      EmitScalar(pair, *field.message_type()->map_key(), -1, out);
      *out << YAML::Value;
      EmitScalar(pair, *field.message_type()->map_value(), -1, out);
    }
    *out << YAML::EndMap;
    return;
  }
  *out << YAML::Flow << YAML::BeginSeq;
  for (int i = 0; i < size; ++i) EmitScalar(message, field, i, out);
  *out << YAML::EndSeq;
}

void FlattenInto(const Message& message, const std::string& prefix,
                 std::map<std::string, std::string>* leaves) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string path =
        prefix.empty() ? field->name() : absl::StrCat(prefix, ".", field->name());
    if (!field->is_repeated() && field->type() == FieldDescriptor::TYPE_MESSAGE) {
      FlattenInto(message.GetReflection()->GetMessage(message, field), path, leaves);
      continue;
    }
    if (!field->is_repeated()) {
      (*leaves)[path] = ScalarText(message, *field, -1);
      continue;
    }
    const int size = message.GetReflection()->FieldSize(message, field);
    std::map<std::string, std::string> pairs;
    std::vector<std::string> elements;
    for (int i = 0; i < size; ++i) {
      if (field->is_map()) {
        const Message& pair = message.GetReflection()->GetRepeatedMessage(message, field, i);
        pairs[ScalarText(pair, *field->message_type()->map_key(), -1)] =
            ScalarText(pair, *field->message_type()->map_value(), -1);
      } else {
        elements.push_back(ScalarText(message, *field, i));
      }
    }
    for (const auto& [key, value] : pairs) elements.push_back(absl::StrCat(key, ": ", value));
    (*leaves)[path] = absl::StrCat("[", absl::StrJoin(elements, ", "), "]");
  }
}

}  // namespace

std::string WriteYaml(const Message& message) {
  YAML::Emitter out;
  EmitMessage(message, &out);
  return absl::StrCat(out.c_str(), "\n");
}

std::map<std::string, std::string> Flatten(const Message& message) {
  std::map<std::string, std::string> leaves;
  FlattenInto(message, "", &leaves);
  return leaves;
}

}  // namespace temper::config
