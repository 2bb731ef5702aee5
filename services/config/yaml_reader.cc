#include "services/config/yaml_reader.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/descriptor.h"

namespace temper::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kMaxTextBytes = 1 << 20;
constexpr int kMaxNodes = 10'000;
constexpr int kMaxDepth = 16;

// Edits that turn one word into the other: insert, delete, replace.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string NearestKey(const Descriptor& type, const std::string& key) {
  std::string nearest;
  size_t best = std::numeric_limits<size_t>::max();
  for (int i = 0; i < type.field_count(); ++i) {
    const size_t distance = EditDistance(key, type.field(i)->name());
    if (distance < best) {
      best = distance;
      nearest = type.field(i)->name();
    }
  }
  return nearest;
}

// One pass over one document; holds what the recursion shares.
class Reader {
 public:
  Reader(std::string file, bool with_lines, ReadReport* report)
      : file_(std::move(file)), with_lines_(with_lines), report_(report) {}

  void ReadMessage(const YAML::Node& node, const std::string& path, int depth, Message* message);
  // Reads one value into a field; lists and maps replace what was there.
  void ReadField(const YAML::Node& node, const FieldDescriptor& field, const std::string& path,
                 int depth, Message* message);
  void AddMistake(const YAML::Mark& mark, const std::string& what) {
    report_->mistakes.push_back(absl::StrCat(Place(mark), ": ", what));
  }

 private:
  std::string Place(const YAML::Mark& mark) const {
    if (!with_lines_ || mark.is_null()) return file_;
    return absl::StrCat(file_, ":", mark.line + 1, ":", mark.column + 1);
  }
  bool Countable(const YAML::Node& node, const std::string& path, int depth);
  void ReadMap(const YAML::Node& node, const FieldDescriptor& field, const std::string& path,
               Message* message);
  // Reads a scalar of the field's type; `message`'s list is appended to where the field is
  // repeated.
  void ReadScalar(const YAML::Node& node, const FieldDescriptor& field, const std::string& path,
                  Message* message);

  const std::string file_;
  const bool with_lines_;
  ReadReport* const report_;
  int nodes_ = 0;
};

bool Reader::Countable(const YAML::Node& node, const std::string& path, int depth) {
  if (++nodes_ > kMaxNodes || depth > kMaxDepth) {
    if (nodes_ <= kMaxNodes + 1) {
      AddMistake(node.Mark(), absl::StrCat(path, ": too large or too deeply nested"));
    }
    return false;
  }
  return true;
}

void Reader::ReadMessage(const YAML::Node& node, const std::string& path, int depth,
                         Message* message) {
  if (!Countable(node, path, depth)) return;
  if (node.IsNull()) return;  // an empty block keeps the defaults
  if (!node.IsMap()) {
    AddMistake(node.Mark(),
               absl::StrCat(path.empty() ? "the file" : path, " must be a block of key: value"));
    return;
  }
  const Descriptor& type = *message->GetDescriptor();
  std::map<std::string, YAML::Mark> seen;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) {
      AddMistake(entry.first.Mark(), "a key must be a plain word");
      continue;
    }
    const std::string key = entry.first.Scalar();
    const std::string key_path = path.empty() ? key : absl::StrCat(path, ".", key);
    const auto [first, inserted] = seen.emplace(key, entry.first.Mark());
    if (!inserted) {
      AddMistake(entry.first.Mark(),
                 absl::StrCat("duplicate key ", key_path, ", first given at line ",
                              first->second.line + 1));
      continue;
    }
    const FieldDescriptor* field = type.FindFieldByName(key);
    if (field == nullptr) {
      AddMistake(entry.first.Mark(), absl::StrCat("unknown key ", key_path, " (did you mean ",
                                                  NearestKey(type, key), "?)"));
      continue;
    }
    report_->places[key_path] = Place(entry.first.Mark());
    ReadField(entry.second, *field, key_path, depth + 1, message);
  }
}

void Reader::ReadField(const YAML::Node& node, const FieldDescriptor& field,
                       const std::string& path, int depth, Message* message) {
  if (!Countable(node, path, depth)) return;
  const Reflection& reflection = *message->GetReflection();
  if (field.is_map()) return ReadMap(node, field, path, message);
  if (field.is_repeated()) {
    reflection.ClearField(message, &field);
    if (!node.IsSequence()) {
      AddMistake(node.Mark(), absl::StrCat(path, " must be a list: [a, b]"));
      return;
    }
    for (const YAML::Node& element : node) {
      if (!Countable(element, path, depth)) return;
      ReadScalar(element, field, path, message);
    }
    return;
  }
  if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
    return ReadMessage(node, path, depth, reflection.MutableMessage(message, &field));
  }
  if (node.IsNull()) return;
  ReadScalar(node, field, path, message);
}

void Reader::ReadMap(const YAML::Node& node, const FieldDescriptor& field, const std::string& path,
                     Message* message) {
  const Reflection& reflection = *message->GetReflection();
  reflection.ClearField(message, &field);
  if (!node.IsMap()) {
    AddMistake(node.Mark(), absl::StrCat(path, " must be a map: {14: 1.5, 10: 1.2}"));
    return;
  }
  const FieldDescriptor& key_field = *field.message_type()->map_key();
  const FieldDescriptor& value_field = *field.message_type()->map_value();
  std::map<std::string, YAML::Mark> seen;
  for (const auto& entry : node) {
    if (!Countable(entry.second, path, 0)) return;
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
    const auto [first, inserted] = seen.emplace(key, entry.first.Mark());
    if (!inserted) {
      AddMistake(entry.first.Mark(),
                 absl::StrCat("duplicate key ", path, ".", key, ", first given at line ",
                              first->second.line + 1));
      continue;
    }
    Message* pair = reflection.AddMessage(message, &field);
    ReadScalar(entry.first, key_field, absl::StrCat(path, " (key)"), pair);
    ReadScalar(entry.second, value_field, absl::StrCat(path, ".", key), pair);
  }
}

void Reader::ReadScalar(const YAML::Node& node, const FieldDescriptor& field,
                        const std::string& path, Message* message) {
  const Reflection& reflection = *message->GetReflection();
  if (!node.IsScalar()) {
    AddMistake(node.Mark(), absl::StrCat(path, " must be a single value"));
    return;
  }
  const std::string& text = node.Scalar();
  const auto wrong = [&](const char* wanted) {
    AddMistake(node.Mark(), absl::StrCat(path, ": '", text.substr(0, 60), "' is not ", wanted));
  };
  // Sets or appends, by the field's kind.
#define TEMPER_STORE(kind, value)                                     \
  (field.is_repeated() ? reflection.Add##kind(message, &field, value) \
                       : reflection.Set##kind(message, &field, value))
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      TEMPER_STORE(String, text);
      return;
    case FieldDescriptor::CPPTYPE_BOOL: {
      if (text == "true" || text == "false") {
        TEMPER_STORE(Bool, text == "true");
      } else {
        wrong("true or false");
      }
      return;
    }
    case FieldDescriptor::CPPTYPE_UINT32: {
      uint32_t value = 0;
      if (!absl::SimpleAtoi(text, &value)) return wrong("a whole number from 0 to 4294967295");
      TEMPER_STORE(UInt32, value);
      return;
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      uint64_t value = 0;
      if (!absl::SimpleAtoi(text, &value)) return wrong("a whole number, 0 or more");
      TEMPER_STORE(UInt64, value);
      return;
    }
    case FieldDescriptor::CPPTYPE_INT32: {
      int32_t value = 0;
      if (!absl::SimpleAtoi(text, &value)) return wrong("a whole number");
      TEMPER_STORE(Int32, value);
      return;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value = 0;
      if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) return wrong("a finite number");
      TEMPER_STORE(Double, value);
      return;
    }
    default:
      wrong("of a type the schema supports");
  }
#undef TEMPER_STORE
}

}  // namespace

void ReadYaml(const std::string& text, const std::string& file, Message* message,
              ReadReport* report) {
  if (text.size() > kMaxTextBytes) {
    report->mistakes.push_back(absl::StrCat(file, ": larger than ", kMaxTextBytes, " bytes"));
    return;
  }
  YAML::Node root;
  try {
    root = YAML::Load(text);
  } catch (const YAML::Exception& error) {
    report->mistakes.push_back(absl::StrCat(file, ":", error.mark.line + 1, ":",
                                            error.mark.column + 1, ": not YAML: ", error.msg));
    return;
  }
  Reader(file, /*with_lines=*/true, report).ReadMessage(root, "", 0, message);
}

void ReadOverride(const std::string& assignment, const std::string& place, Message* message,
                  ReadReport* report) {
  const auto add = [&](const std::string& what) {
    report->mistakes.push_back(absl::StrCat(place, ": ", what));
  };
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    return add(absl::StrCat("'", assignment, "' is not key.path=value"));
  }
  const std::string path = assignment.substr(0, equals);
  YAML::Node value;
  try {
    value = YAML::Load(assignment.substr(equals + 1));
  } catch (const YAML::Exception& error) {
    return add(absl::StrCat(path, ": the value is not YAML: ", error.msg));
  }
  std::vector<std::string> keys = absl::StrSplit(path, '.');
  std::string walked;
  for (size_t i = 0; i < keys.size(); ++i) {
    const Descriptor& type = *message->GetDescriptor();
    walked = walked.empty() ? keys[i] : absl::StrCat(walked, ".", keys[i]);
    const FieldDescriptor* field = type.FindFieldByName(keys[i]);
    if (field == nullptr) {
      return add(
          absl::StrCat("unknown key ", walked, " (did you mean ", NearestKey(type, keys[i]), "?)"));
    }
    if (i + 1 == keys.size()) {
      report->places[walked] = place;
      Reader(place, /*with_lines=*/false, report).ReadField(value, *field, path, 0, message);
      return;
    }
    if (field->is_repeated() || field->type() != FieldDescriptor::TYPE_MESSAGE) {
      return add(absl::StrCat(walked, " has no keys below it"));
    }
    message = message->GetReflection()->MutableMessage(message, field);
  }
}

}  // namespace temper::config
