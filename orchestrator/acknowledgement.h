#pragma once

// Whether a worker's acknowledgement of a weight version is believed. Pure.

#include <cstdint>
#include <optional>
#include <string>

namespace temper::orchestrator {

// What was applied, as the worker computed it from the received bytes and inside the norms.
struct Acknowledgement {
  uint64_t base_weights_hash = 0;
  double aqn_sigma = 0;
  uint32_t aqn_norms = 0;
  uint64_t aqn_checksum = 0;
  std::string member;  // who says it
};

// What the manifest of the version says.
struct VersionFacts {
  uint64_t base_weights_hash = 0;
  double aqn_sigma = 0;
  bool same_draw_everywhere = true;  // what workers draw for a version is not their own
};

struct AcknowledgementDecision {
  bool accepted = false;
  std::string reason;  // "accepted", or what differs with both values
};

// A sigma above 0 must have touched a norm: an AQN that acted nowhere is refused, whoever says it.
// first: the first acknowledgement of this version that was accepted; the AQN of all must be equal,
// and where every worker has draws of its own, that of two workers must not be.
AcknowledgementDecision DecideAcknowledgement(const VersionFacts& facts,
                                              const std::optional<Acknowledgement>& first,
                                              const Acknowledgement& now);

}  // namespace temper::orchestrator
