// What is said about broadcast groups: announced by the learner, asked for by workers.

#include "absl/strings/str_cat.h"
#include "orchestrator/coordinator.h"
#include "services/base/status_macros.h"

namespace temper::orchestrator {

absl::Status Coordinator::FormBroadcastGroup(const v1::FormBroadcastGroupRequest& request,
                                             v1::FormBroadcastGroupReply*) {
  absl::MutexLock lock(&mutex_);
  TEMPER_RETURN_IF_ERROR(CheckRun(request.run_id()));
  TEMPER_RETURN_IF_ERROR(CheckTimeline("a broadcast group", request.timeline()));
  TEMPER_RETURN_IF_ERROR(CheckLearner(request.learner_incarnation()));
  const uint64_t before = groups_.current_epoch();
  TEMPER_ASSIGN_OR_RETURN(
      groups_,
      AfterForm(groups_, {.comm_epoch = request.comm_epoch(),
                          .id = request.id(),
                          .members = {request.members().begin(), request.members().end()}}));
  if (groups_.current_epoch() == before) return absl::OkStatus();
  options_.files->Event("broadcast_group_announced", {{"comm_epoch", request.comm_epoch()},
                                                      {"timeline", request.timeline()},
                                                      {"members", request.members_size()}});
  return absl::OkStatus();
}

absl::Status Coordinator::EndBroadcastGroup(const v1::EndBroadcastGroupRequest& request,
                                            v1::EndBroadcastGroupReply*) {
  absl::MutexLock lock(&mutex_);
  TEMPER_RETURN_IF_ERROR(CheckRun(request.run_id()));
  TEMPER_RETURN_IF_ERROR(CheckTimeline("a broadcast group", request.timeline()));
  TEMPER_RETURN_IF_ERROR(CheckLearner(request.learner_incarnation()));
  const uint64_t before = groups_.ended;
  groups_ = AfterEnd(std::move(groups_), request.comm_epoch());
  if (groups_.ended == before) return absl::OkStatus();
  options_.files->Event("broadcast_group_ended",
                        {{"comm_epoch", request.comm_epoch()}, {"timeline", request.timeline()}});
  return absl::OkStatus();
}

absl::Status Coordinator::GetBroadcastGroup(const v1::GetBroadcastGroupRequest& request,
                                            v1::GetBroadcastGroupReply* reply) {
  absl::MutexLock lock(&mutex_);
  TEMPER_RETURN_IF_ERROR(CheckRun(request.run_id()));
  TEMPER_RETURN_IF_ERROR(CheckTimeline("a broadcast group", request.timeline()));
  TEMPER_ASSIGN_OR_RETURN(
      *reply, FindSeat(groups_, request.comm_epoch(), request.member_id(), request.incarnation()));
  return absl::OkStatus();
}

}  // namespace temper::orchestrator
