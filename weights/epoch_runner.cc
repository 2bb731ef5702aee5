#include "weights/epoch_runner.h"

#include <utility>

namespace temper::weights {

void EpochRunner::Join(const std::string& member) {
  Feed({.kind = EpochEvent::Kind::kJoined, .member = member});
}

void EpochRunner::Leave(const std::string& member) {
  Feed({.kind = EpochEvent::Kind::kLeft, .member = member});
}

void EpochRunner::VersionOut(uint64_t version) {
  Feed({.kind = EpochEvent::Kind::kVersionOut, .version = version});
}

void EpochRunner::Poll() {
  const bool awaits = state_.phase == EpochPhase::kForming ||
                      state_.phase == EpochPhase::kBroadcasting ||
                      state_.phase == EpochPhase::kAborting;
  if (awaits) {
    const uint64_t epoch = state_.comm_epoch;
    const CommProgress progress = options_.communicator->Poll();
    for (const std::string& member : progress.lost) Leave(member);
    if (progress.state == CommProgress::State::kFailed) {
      Feed({.kind = EpochEvent::Kind::kFailed, .comm_epoch = epoch, .error = progress.error});
    } else if (progress.state == CommProgress::State::kDone && progress.lost.empty()) {
      const EpochEvent::Kind done = state_.phase == EpochPhase::kForming ? EpochEvent::Kind::kFormed
                                    : state_.phase == EpochPhase::kBroadcasting
                                        ? EpochEvent::Kind::kSent
                                        : EpochEvent::Kind::kAborted;
      Feed({.kind = done, .comm_epoch = epoch});
    }
  }
  Feed({.kind = EpochEvent::Kind::kTick});
}

void EpochRunner::Feed(const EpochEvent& event) {
  const EpochPhase before = state_.phase;
  EpochMove move = Advance(state_, event, options_.clock->Now(), options_.epoch);
  state_ = move.state;
  const bool idle = event.kind == EpochEvent::Kind::kTick && before == state_.phase;
  if (options_.observe && !idle) options_.observe(event, move);
  switch (move.action.call) {
    case EpochAction::Kind::kNone:
      break;
    case EpochAction::Kind::kForm:
      options_.communicator->BeginForm(move.action.comm_epoch, move.action.members);
      break;
    case EpochAction::Kind::kBroadcast:
      options_.communicator->BeginBroadcast(move.action.comm_epoch, move.action.version);
      break;
    case EpochAction::Kind::kAbort:
      options_.communicator->BeginAbort(move.action.comm_epoch);
      break;
    case EpochAction::Kind::kAbandon:
      options_.communicator->Abandon(move.action.comm_epoch);
      break;
  }
  if (!move.action.catch_up.empty()) {
    options_.catch_up(move.action.catch_up, move.action.catch_up_version);
  }
}

}  // namespace temper::weights
