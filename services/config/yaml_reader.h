#pragma once

// YAML -> protobuf message by reflection, keeping the place of every value so that all mistakes can
// be reported at once with file:line:column.

#include <map>
#include <string>
#include <vector>

#include "google/protobuf/message.h"

namespace temper::config {

// Collects mistakes, and where each field that was given stands ("trainer.seed" -> "run.yaml:3:5").
struct ReadReport {
  std::vector<std::string> mistakes;
  std::map<std::string, std::string> places;
};

// Fills `message` from `text`. file: name used in the places. Unknown keys (with the nearest known
// one), duplicate keys (both lines), wrong types, numbers out of range and malformed YAML are added
// to report->mistakes. Limits: 1 MiB of text, 10,000 nodes, depth 16; an alias counts at each use.
void ReadYaml(const std::string& text, const std::string& file, google::protobuf::Message* message,
              ReadReport* report);

// Applies one "key.path=value"; `place` names it in mistakes. Lists and maps are replaced whole.
void ReadOverride(const std::string& assignment, const std::string& place,
                  google::protobuf::Message* message, ReadReport* report);

}  // namespace temper::config
