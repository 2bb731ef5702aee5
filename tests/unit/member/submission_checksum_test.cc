#include "services/member/submission_checksum.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <memory>
#include <string>

namespace temper::member {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Gives one value of a field (i >= 0: of a repeated one) another: numbers grow by one, texts by a
// letter. Messages are not values.
void Change(Message* message, const FieldDescriptor* field, int i) {
  const Reflection& at = *message->GetReflection();
  const auto change = [&](auto get, auto set, auto get_one_of, auto set_one_of, auto other) {
    if (i < 0) {
      (at.*set)(message, field, other((at.*get)(*message, field)));
    } else {
      (at.*set_one_of)(message, field, i, other((at.*get_one_of)(*message, field, i)));
    }
  };
  const auto next = [](auto value) { return static_cast<decltype(value)>(value + 1); };
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return change(&Reflection::GetInt32, &Reflection::SetInt32, &Reflection::GetRepeatedInt32,
                    &Reflection::SetRepeatedInt32, next);
    case FieldDescriptor::CPPTYPE_INT64:
      return change(&Reflection::GetInt64, &Reflection::SetInt64, &Reflection::GetRepeatedInt64,
                    &Reflection::SetRepeatedInt64, next);
    case FieldDescriptor::CPPTYPE_UINT32:
      return change(&Reflection::GetUInt32, &Reflection::SetUInt32, &Reflection::GetRepeatedUInt32,
                    &Reflection::SetRepeatedUInt32, next);
    case FieldDescriptor::CPPTYPE_UINT64:
      return change(&Reflection::GetUInt64, &Reflection::SetUInt64, &Reflection::GetRepeatedUInt64,
                    &Reflection::SetRepeatedUInt64, next);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return change(&Reflection::GetFloat, &Reflection::SetFloat, &Reflection::GetRepeatedFloat,
                    &Reflection::SetRepeatedFloat, next);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return change(&Reflection::GetDouble, &Reflection::SetDouble, &Reflection::GetRepeatedDouble,
                    &Reflection::SetRepeatedDouble, next);
    case FieldDescriptor::CPPTYPE_BOOL:
      return change(&Reflection::GetBool, &Reflection::SetBool, &Reflection::GetRepeatedBool,
                    &Reflection::SetRepeatedBool, [](bool value) { return !value; });
    case FieldDescriptor::CPPTYPE_ENUM:
      return change(&Reflection::GetEnumValue, &Reflection::SetEnumValue,
                    &Reflection::GetRepeatedEnumValue, &Reflection::SetRepeatedEnumValue, next);
    case FieldDescriptor::CPPTYPE_STRING:
      return change(&Reflection::GetString, &Reflection::SetString, &Reflection::GetRepeatedString,
                    &Reflection::SetRepeatedString,
                    [](const std::string& value) { return value + "x"; });
    case FieldDescriptor::CPPTYPE_MESSAGE:
      FAIL() << field->full_name() << " is a message";
  }
}

bool IsMessage(const FieldDescriptor* field) {
  return field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
}

void AddOne(Message* message, const FieldDescriptor* field) {
  const Reflection& at = *message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return at.AddInt32(message, field, 7);
    case FieldDescriptor::CPPTYPE_INT64:
      return at.AddInt64(message, field, 7);
    case FieldDescriptor::CPPTYPE_UINT32:
      return at.AddUInt32(message, field, 7);
    case FieldDescriptor::CPPTYPE_UINT64:
      return at.AddUInt64(message, field, 7);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return at.AddFloat(message, field, 7);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return at.AddDouble(message, field, 7);
    case FieldDescriptor::CPPTYPE_BOOL:
      return at.AddBool(message, field, true);
    case FieldDescriptor::CPPTYPE_ENUM:
      return at.AddEnumValue(message, field, 1);
    case FieldDescriptor::CPPTYPE_STRING:
      return at.AddString(message, field, "seven");
    case FieldDescriptor::CPPTYPE_MESSAGE:
      at.AddMessage(message, field);
  }
}

// Sets every field, two values in each repeated one.
void Fill(Message* message) {
  const Reflection& at = *message->GetReflection();
  for (int f = 0; f < message->GetDescriptor()->field_count(); ++f) {
    const FieldDescriptor* field = message->GetDescriptor()->field(f);
    for (int i = 0; i < (field->is_repeated() ? 2 : 1); ++i) {
      if (field->is_repeated()) {
        AddOne(message, field);
        if (IsMessage(field)) Fill(at.MutableRepeatedMessage(message, field, i));
      } else if (IsMessage(field)) {
        Fill(at.MutableMessage(message, field));
      } else {
        Change(message, field, -1);
      }
    }
  }
}

// Calls `seen` with the name of the field after each change of one thing in `message`: a value is
// another, a field is empty, a repeated one lacks its last value. Each change is taken back.
void ForEachChange(Message* message, const std::function<void(const std::string&)>& seen) {
  const Reflection& at = *message->GetReflection();
  const auto once = [&](const std::string& what, const std::function<void()>& change) {
    const std::unique_ptr<Message> before(message->New());
    before->CopyFrom(*message);
    change();
    seen(what);
    message->CopyFrom(*before);
  };
  for (int f = 0; f < message->GetDescriptor()->field_count(); ++f) {
    const FieldDescriptor* field = message->GetDescriptor()->field(f);
    const std::string name = field->full_name();
    once(name + " emptied", [&] { at.ClearField(message, field); });
    if (!field->is_repeated()) {
      if (IsMessage(field)) {
        ForEachChange(at.MutableMessage(message, field), seen);
      } else {
        once(name, [&] { Change(message, field, -1); });
      }
      continue;
    }
    once(name + " without its last", [&] { at.RemoveLast(message, field); });
    for (int i = 0; i < at.FieldSize(*message, field); ++i) {
      if (IsMessage(field)) {
        ForEachChange(at.MutableRepeatedMessage(message, field, i), seen);
      } else {
        once(name, [&] { Change(message, field, i); });
      }
    }
  }
}

TEST(SubmissionChecksumTest, EveryChangeOfAFilledRequestChangesIt) {
  v1::SubmitGroupRequest request;
  Fill(&request);
  const uint64_t whole = SubmissionChecksum(request);
  int changes = 0;
  ForEachChange(&request, [&](const std::string& what) {
    ++changes;
    const bool is_checksum = what.starts_with("temper.v1.SubmitGroupRequest.checksum");
    EXPECT_EQ(SubmissionChecksum(request) == whole, is_checksum) << what;
  });
  EXPECT_GT(changes, 150) << "the walk found too few fields";
  EXPECT_EQ(SubmissionChecksum(request), whole);
}

TEST(SubmissionChecksumTest, ValuesThatMoveToTheNeighbouringFieldChangeIt) {
  v1::SubmitGroupRequest prompt, truth;
  prompt.set_prompt("7");
  truth.set_truth("7");
  EXPECT_NE(SubmissionChecksum(prompt), SubmissionChecksum(truth));
  v1::SubmitGroupRequest one, two;
  for (const int32_t id : {1, 2}) one.add_prompt_token_ids(id);
  two.add_prompt_token_ids(1);
  two.add_completions()->add_token_ids(2);
  EXPECT_NE(SubmissionChecksum(one), SubmissionChecksum(two));
}

TEST(SubmissionChecksumTest, TheBitsOfANumberCountAndNotItsValue) {
  v1::SubmitGroupRequest zero, minus_zero;
  zero.add_completions()->add_rollout_logprobs(0.0f);
  minus_zero.add_completions()->add_rollout_logprobs(-0.0f);
  EXPECT_NE(SubmissionChecksum(zero), SubmissionChecksum(minus_zero));
  v1::SubmitGroupRequest nan;
  nan.add_completions()->add_rollout_logprobs(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(SubmissionChecksum(nan), SubmissionChecksum(nan));
}

}  // namespace
}  // namespace temper::member
