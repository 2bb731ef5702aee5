#include "weights/comm_epoch.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace temper::weights {
namespace {

std::vector<std::string> List(const std::set<std::string>& members) {
  return {members.begin(), members.end()};
}

// Begins a group of all that are alive, to carry `version`; without anyone there is nothing to do.
EpochMove Form(EpochState state, uint64_t version, absl::Time now, const EpochOptions& options,
               std::string reason) {
  if (state.joined.empty()) {
    state.phase = EpochPhase::kNoGroup;
    state.group.clear();
    state.in_flight.reset();
    state.next.reset();
    state.deadline = absl::InfiniteFuture();
    return {.state = std::move(state), .reason = absl::StrCat(reason, "; nobody to send to")};
  }
  state.phase = EpochPhase::kForming;
  ++state.comm_epoch;
  state.group = state.joined;
  state.in_flight = version;
  state.next.reset();
  state.deadline = now + options.form_timeout;
  EpochAction action{.call = EpochAction::Kind::kForm,
                     .comm_epoch = state.comm_epoch,
                     .members = List(state.group)};
  return {.state = std::move(state), .action = std::move(action), .reason = std::move(reason)};
}

EpochMove Broadcast(EpochState state, uint64_t version, absl::Time now, const EpochOptions& options,
                    std::string reason) {
  state.phase = EpochPhase::kBroadcasting;
  state.in_flight = version;
  state.next.reset();
  state.deadline = now + options.broadcast_timeout;
  EpochAction action{.call = EpochAction::Kind::kBroadcast,
                     .comm_epoch = state.comm_epoch,
                     .version = version,
                     .catch_up_version = version};
  // Who joined while the group formed is not in it.
  for (const std::string& member : state.joined) {
    if (!state.group.contains(member)) action.catch_up.push_back(member);
  }
  return {.state = std::move(state), .action = std::move(action), .reason = std::move(reason)};
}

// Ends the epoch. What was in flight is caught up on by those of the group that are alive.
EpochMove Abort(EpochState state, absl::Time now, const EpochOptions& options, std::string reason) {
  EpochAction action{.call = EpochAction::Kind::kAbort, .comm_epoch = state.comm_epoch};
  if (state.in_flight.has_value()) {
    for (const std::string& member : state.group) {
      if (state.joined.contains(member)) action.catch_up.push_back(member);
    }
    action.catch_up_version = *state.in_flight;
  }
  state.phase = EpochPhase::kAborting;
  state.in_flight.reset();
  state.deadline = now + options.abort_timeout;
  return {.state = std::move(state), .action = std::move(action), .reason = std::move(reason)};
}

// After an epoch's end: the next version, if one waits, forms a new group.
EpochMove AfterAbort(EpochState state, EpochAction::Kind call, absl::Time now,
                     const EpochOptions& options, std::string reason) {
  state.phase = EpochPhase::kNoGroup;
  state.group.clear();
  state.deadline = absl::InfiniteFuture();
  if (call == EpochAction::Kind::kAbandon || !state.next.has_value()) {
    EpochAction action{.call = call, .comm_epoch = state.comm_epoch};
    return {.state = std::move(state), .action = std::move(action), .reason = std::move(reason)};
  }
  const uint64_t version = *state.next;
  return Form(std::move(state), version, now, options, std::move(reason));
}

EpochMove Stay(EpochState state, std::string reason) {
  return {.state = std::move(state), .reason = std::move(reason)};
}

EpochMove OnJoined(EpochState state, const std::string& member) {
  state.joined.insert(member);
  EpochAction action;
  if (state.newest.has_value()) {
    action.catch_up.push_back(member);
    action.catch_up_version = *state.newest;
  }
  return {.state = std::move(state),
          .action = std::move(action),
          .reason = "member joined: it is taken in with the next group"};
}

EpochMove OnVersion(EpochState state, uint64_t version, absl::Time now,
                    const EpochOptions& options) {
  state.newest = version;
  switch (state.phase) {
    case EpochPhase::kNoGroup:
      return Form(std::move(state), version, now, options, "version out without a group");
    case EpochPhase::kReady:
      if (state.group == state.joined) {
        return Broadcast(std::move(state), version, now, options, "version out");
      }
      state.next = version;
      return Abort(std::move(state), now, options, "version out and the members have changed");
    case EpochPhase::kForming:
    case EpochPhase::kBroadcasting:
    case EpochPhase::kAborting:
      state.next = version;
      return Stay(std::move(state), "version out while a call is in flight: it waits");
  }
  return Stay(std::move(state), "unknown phase");
}

EpochMove OnLeft(EpochState state, const std::string& member, absl::Time now,
                 const EpochOptions& options) {
  state.joined.erase(member);
  const bool needed = state.group.contains(member) && (state.phase == EpochPhase::kForming ||
                                                       state.phase == EpochPhase::kBroadcasting);
  if (!needed) return Stay(std::move(state), "member left");
  return Abort(std::move(state), now, options, absl::StrCat("member lost: ", member));
}

EpochMove OnSent(EpochState state, absl::Time now, const EpochOptions& options) {
  state.phase = EpochPhase::kReady;
  state.in_flight.reset();
  state.deadline = absl::InfiniteFuture();
  if (!state.next.has_value()) return Stay(std::move(state), "sent");
  const uint64_t version = *state.next;
  state.next.reset();
  EpochMove move = OnVersion(std::move(state), version, now, options);
  move.reason = absl::StrCat("sent; ", move.reason);
  return move;
}

EpochMove OnTick(EpochState state, absl::Time now, const EpochOptions& options) {
  if (now < state.deadline) {
    // A version that came out during an abort which then hung.
    if (state.phase == EpochPhase::kNoGroup && state.next.has_value()) {
      const uint64_t version = *state.next;
      return Form(std::move(state), version, now, options, "a version waited for a group");
    }
    return Stay(std::move(state), "in time");
  }
  switch (state.phase) {
    case EpochPhase::kForming:
      return Abort(std::move(state), now, options, "the group did not form in time");
    case EpochPhase::kBroadcasting:
      return Abort(std::move(state), now, options, "the broadcast missed its deadline");
    case EpochPhase::kAborting:
      return AfterAbort(std::move(state), EpochAction::Kind::kAbandon, now, options,
                        "the abort hung: the communicator is abandoned");
    case EpochPhase::kNoGroup:
    case EpochPhase::kReady:
      return Stay(std::move(state), "nothing is awaited");
  }
  return Stay(std::move(state), "unknown phase");
}

}  // namespace

const char* EpochPhaseName(EpochPhase phase) {
  switch (phase) {
    case EpochPhase::kNoGroup:
      return "no_group";
    case EpochPhase::kForming:
      return "forming";
    case EpochPhase::kReady:
      return "ready";
    case EpochPhase::kBroadcasting:
      return "broadcasting";
    case EpochPhase::kAborting:
      return "aborting";
  }
  return "unknown";
}

EpochMove Advance(EpochState state, const EpochEvent& event, absl::Time now,
                  const EpochOptions& options) {
  using Kind = EpochEvent::Kind;
  const bool answers_a_call = event.kind == Kind::kFormed || event.kind == Kind::kSent ||
                              event.kind == Kind::kFailed || event.kind == Kind::kAborted;
  if (answers_a_call && event.comm_epoch != state.comm_epoch) {
    return Stay(std::move(state), absl::StrCat("late: of epoch ", event.comm_epoch));
  }
  switch (event.kind) {
    case Kind::kJoined:
      return OnJoined(std::move(state), event.member);
    case Kind::kLeft:
      return OnLeft(std::move(state), event.member, now, options);
    case Kind::kVersionOut:
      return OnVersion(std::move(state), event.version, now, options);
    case Kind::kFormed:
      if (state.phase != EpochPhase::kForming) return Stay(std::move(state), "late: formed");
      if (const uint64_t version = *state.in_flight; !state.next.has_value()) {
        return Broadcast(std::move(state), version, now, options, "the group has formed");
      }
      // Nobody needs the older version any more.
      return Broadcast(state, *state.next, now, options, "the group has formed; newest version");
    case Kind::kSent:
      if (state.phase != EpochPhase::kBroadcasting) return Stay(std::move(state), "late: sent");
      return OnSent(std::move(state), now, options);
    case Kind::kFailed:
      if (state.phase == EpochPhase::kAborting) {
        return AfterAbort(std::move(state), EpochAction::Kind::kAbandon, now, options,
                          absl::StrCat("the abort failed: ", event.error));
      }
      if (state.phase != EpochPhase::kForming && state.phase != EpochPhase::kBroadcasting) {
        return Stay(std::move(state), "late: failed");
      }
      return Abort(std::move(state), now, options, absl::StrCat("failed: ", event.error));
    case Kind::kAborted:
      if (state.phase != EpochPhase::kAborting) return Stay(std::move(state), "late: aborted");
      return AfterAbort(std::move(state), EpochAction::Kind::kNone, now, options, "aborted");
    case Kind::kTick:
      return OnTick(std::move(state), now, options);
  }
  return Stay(std::move(state), "unknown event");
}

uint64_t CarryingEpoch(const EpochState& state) {
  if (state.joined.empty()) return 0;
  switch (state.phase) {
    case EpochPhase::kForming:  // the newest version is what it sends first
      return state.comm_epoch;
    case EpochPhase::kReady:
    case EpochPhase::kBroadcasting:
      return state.group == state.joined ? state.comm_epoch : state.comm_epoch + 1;
    case EpochPhase::kNoGroup:
    case EpochPhase::kAborting:
      return state.comm_epoch + 1;
  }
  return 0;
}

}  // namespace temper::weights
