#pragma once

// Communicator epochs: which group of processes a collective broadcast runs in, and what becomes of
// it when a call hangs, fails or loses a peer. A pure state machine: time, events and options come
// in, the next state and what to do go out, each move with its reason. EpochRunner obeys it.
//
//   kNoGroup ----version out, someone joined----> kForming ----formed----> kBroadcasting
//      ^                                             |                        |       ^
//      |                                failed, deadline, peer lost           |sent   |version out,
//      |                                             |      failed, deadline, |       |same members
//      |                                             v      peer lost         v       |
//      '------aborted, or the abort hung------- kAborting <---------------- kReady ---'
//                                                    ^----version out, other members---'
//
// A communicator lives for one epoch and is never repaired: every trouble ends its epoch, and the
// next version forms a new one from the members that are alive. Whoever may have missed a version,
// or joined after it came out, is told to catch up over gRPC; a version is installed only when all
// its buckets verified, so to catch up twice does no harm and to miss a part is impossible.

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace temper::weights {

enum class EpochPhase { kNoGroup, kForming, kReady, kBroadcasting, kAborting };
const char* EpochPhaseName(EpochPhase phase);

struct EpochOptions {
  absl::Duration form_timeout = absl::Seconds(20);
  absl::Duration broadcast_timeout = absl::Seconds(60);
  absl::Duration abort_timeout = absl::Seconds(5);
};

// The root's picture. A value.
struct EpochState {
  EpochPhase phase = EpochPhase::kNoGroup;
  uint64_t comm_epoch = 0;            // of the group in `phase`, or of the last one
  std::set<std::string> group;        // members of that group; empty in kNoGroup
  std::set<std::string> joined;       // all that are alive and want broadcasts
  std::optional<uint64_t> in_flight;  // version being sent, or waiting for its group to form
  std::optional<uint64_t> next;       // newest version that came out meanwhile
  std::optional<uint64_t> newest;     // newest version that came out at all
  absl::Time deadline = absl::InfiniteFuture();  // of kForming, kBroadcasting and kAborting
};

// What happened. `comm_epoch` of the last three is that of the call they answer.
struct EpochEvent {
  enum class Kind {
    kJoined,      // member
    kLeft,        // member: it left, or is lost
    kVersionOut,  // version
    kFormed,      // the group of comm_epoch is ready
    kSent,        // in_flight has reached every member of comm_epoch
    kFailed,      // the call in flight of comm_epoch failed
    kAborted,     // the abort of comm_epoch is through
    kTick,        // time passed
  };
  Kind kind = Kind::kTick;
  std::string member;
  uint64_t version = 0;
  uint64_t comm_epoch = 0;
  std::string error;  // of kFailed
};

// What to do. At most one call to the communicator a move.
struct EpochAction {
  enum class Kind { kNone, kForm, kBroadcast, kAbort, kAbandon };
  Kind call = Kind::kNone;  // kAbandon: stop polling this communicator, its abort hung
  uint64_t comm_epoch = 0;
  std::vector<std::string> members;   // of kForm
  uint64_t version = 0;               // of kBroadcast
  std::vector<std::string> catch_up;  // members that have to pull catch_up_version
  uint64_t catch_up_version = 0;
};

struct EpochMove {
  EpochState state;
  EpochAction action;
  std::string reason;
};

// The next move. Events of another epoch than the state's are late and change nothing. Feed kTick
// at least at state.deadline.
EpochMove Advance(EpochState state, const EpochEvent& event, absl::Time now,
                  const EpochOptions& options);

// The epoch that will carry a version which comes out now, unless something else happens before it
// is sent; 0: there is nobody to send to. For its manifest. A version that another epoch would
// carry after all is carried by none (its members wait elsewhere) and is pulled.
uint64_t CarryingEpoch(const EpochState& state);

}  // namespace temper::weights
