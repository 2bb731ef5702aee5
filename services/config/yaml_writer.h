#pragma once

#include <map>
#include <string>

#include "google/protobuf/message.h"

namespace temper::config {

// Every field that is set, in the schema's order, as YAML that ReadYaml reads back to an equal
// message. Doubles are written with as many digits as reading them back exactly needs.
std::string WriteYaml(const google::protobuf::Message& message);

// The same leaves as "key.path" -> value text, for comparing two configurations.
std::map<std::string, std::string> Flatten(const google::protobuf::Message& message);

}  // namespace temper::config
