#include "services/member/membership_client.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "google/protobuf/util/message_differencer.h"
#include "services/base/hash.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"
#include "services/member/names.h"
#include "services/rpc/status.h"

namespace temper::member {
namespace {

constexpr absl::Duration kShortestInterval = absl::Milliseconds(50);
constexpr absl::Duration kLongestInterval = absl::Minutes(1);
// An orchestrator that dies in a handshake and comes back is there again within this.
constexpr absl::Duration kTlsPatience = absl::Seconds(5);

v1::JoinRequest MakeJoinRequest(const MembershipOptions& options) {
  v1::JoinRequest request;
  request.set_role(options.role);
  request.set_member_id(options.member_id);
  request.set_incarnation(options.incarnation);
  request.set_address(options.address);
  request.set_metrics_address(options.metrics_address);
  request.set_run_id(options.run_id);
  request.set_config_fingerprint(options.config_fingerprint);
  request.set_host(HostName());
  request.set_pid(getpid());
  return request;
}

absl::Status CheckJoinReply(const v1::JoinReply& reply) {
  if (reply.run_id().empty()) return absl::DataLossError("the answer to Join names no run");
  if (!(reply.heartbeat_seconds() > 0)) {
    return absl::DataLossError(base::Cat("the answer to Join asks for a heartbeat every ",
                                         reply.heartbeat_seconds(), " seconds"));
  }
  return absl::OkStatus();
}

absl::Duration HeartbeatInterval(const v1::JoinReply& reply) {
  return std::clamp(absl::Seconds(reply.heartbeat_seconds()), kShortestInterval, kLongestInterval);
}

bool SamePeers(const std::vector<v1::Peer>& a, const std::vector<v1::Peer>& b) {
  return std::ranges::equal(a, b, google::protobuf::util::MessageDifferencer::Equals);
}

// Whether two views say the same; the revision does not count.
bool SameView(const MembershipView& a, const MembershipView& b) {
  return a.state == b.state && a.state_reason == b.state_reason && a.timeline == b.timeline &&
         a.latest_version == b.latest_version && a.comm_epoch == b.comm_epoch &&
         a.ended_comm_epoch == b.ended_comm_epoch && SamePeers(a.peers, b.peers) &&
         a.desired == b.desired && a.rejoins == b.rejoins && a.connected == b.connected &&
         a.leave == b.leave && a.leave_reason == b.leave_reason && a.end == b.end;
}

// Tells a peer that speaks another TLS from one that is not there: the first stays so. After
// kTlsPatience of nothing else an attempt is Unauthenticated, which is not tried again.
class TlsWatch {
 public:
  explicit TlsWatch(const MembershipOptions& options) : options_(options) {}
  grpc::Status Judge(const grpc::Status& attempt) {
    const auto trouble = rpc::TlsTrouble(rpc::FromGrpcStatus(attempt), options_.tls);
    if (!trouble.has_value()) since_ = absl::InfiniteFuture();
    if (!trouble.has_value()) return attempt;
    since_ = std::min(since_, options_.clock->Now());
    if (options_.clock->Now() - since_ < kTlsPatience) return attempt;
    return grpc::Status(grpc::StatusCode::UNAUTHENTICATED,
                        base::Cat("cannot join ", options_.orchestrator_address, ": ", *trouble,
                                  " (", attempt.error_message(), ")"));
  }

 private:
  const MembershipOptions& options_;
  absl::Time since_ = absl::InfiniteFuture();  // the trouble was seen and nothing else
};

// Tries Join until it is answered, refused, or the time is up.
absl::StatusOr<v1::JoinReply> JoinFirst(const MembershipOptions& options,
                                        v1::OrchestratorService::Stub* stub) {
  const v1::JoinRequest request = MakeJoinRequest(options);
  TlsWatch watch(options);
  v1::JoinReply reply;
  const rpc::CallOptions call{
      .method = "Join",
      .timeout = options.join_timeout,
      .deadline = options.clock->Now() + options.join_timeout,
      .retry = {.max_attempts = 1'000'000},  // the deadline ends them
      .jitter_key = base::Hash64(options.member_id),
      .stop = options.stop,
      .clock = options.clock,
      .metrics = options.metrics,
  };
  TEMPER_RETURN_IF_ERROR(rpc::CallWithRetries(call, [&](grpc::ClientContext* context) {
    reply.Clear();
    return watch.Judge(stub->Join(context, request, &reply));
  }));
  TEMPER_RETURN_IF_ERROR(CheckJoinReply(reply));
  return reply;
}

}  // namespace

std::vector<std::string> PeerAddresses(const MembershipView& view, v1::Role role) {
  std::map<std::string, std::string> by_member;
  for (const v1::Peer& peer : view.peers) {
    if (peer.role() == role && peer.healthy() && !peer.address().empty()) {
      by_member[peer.member_id()] = peer.address();
    }
  }
  std::vector<std::string> addresses;
  for (auto& [member_id, address] : by_member) addresses.push_back(std::move(address));
  return addresses;
}

std::string HostName() {
  char name[256] = {};
  if (gethostname(name, sizeof(name) - 1) != 0) return "unknown-host";
  return name;
}

std::string DefaultMemberId(v1::Role role) {
  return base::Cat(RoleName(role), "-", HostName(), "-", getpid());
}

absl::StatusOr<std::unique_ptr<MembershipClient>> MembershipClient::Create(
    MembershipOptions options) {
  if (options.member_id.empty()) options.member_id = DefaultMemberId(options.role);
  if (options.incarnation == 0) {
    options.incarnation = static_cast<uint64_t>(absl::ToUnixNanos(options.clock->Now()));
  }
  TEMPER_ASSIGN_OR_RETURN(auto channel,
                          rpc::MakeChannel(options.orchestrator_address, options.tls));
  const auto stub = v1::OrchestratorService::NewStub(channel);
  TEMPER_ASSIGN_OR_RETURN(v1::JoinReply reply, JoinFirst(options, stub.get()));
  base::LogInfo("joined", {{"run", reply.run_id()},
                           {"member", options.member_id},
                           {"incarnation", options.incarnation},
                           {"timeline", reply.timeline()}});
  return std::unique_ptr<MembershipClient>(
      new MembershipClient(std::move(options), std::move(channel), std::move(reply)));
}

MembershipClient::MembershipClient(MembershipOptions options,
                                   std::shared_ptr<grpc::Channel> channel, v1::JoinReply join_reply)
    : options_(std::move(options)),
      channel_(std::move(channel)),
      stub_(v1::OrchestratorService::NewStub(channel_)),
      join_reply_(std::move(join_reply)),
      heartbeat_interval_(HeartbeatInterval(join_reply_)),
      last_heard_(options_.clock->Now()) {
  view_.timeline = join_reply_.timeline();
  view_.peers.assign(join_reply_.peers().begin(), join_reply_.peers().end());
  thread_ = std::thread([this] { BeatUntilStopped(); });
}

MembershipClient::~MembershipClient() { StopBeating(); }

MembershipView MembershipClient::view() const {
  absl::MutexLock lock(&mutex_);
  return view_;
}

MembershipView MembershipClient::AwaitChange(uint64_t seen_revision, absl::Time deadline) const {
  absl::MutexLock lock(&mutex_);
  const auto changed = [this, seen_revision]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return view_.revision != seen_revision;
  };
  options_.clock->AwaitUntil(&mutex_, absl::Condition(&changed), deadline);
  return view_;
}

void MembershipClient::SetHolding(std::vector<v1::GroupRef> holding) {
  absl::MutexLock lock(&mutex_);
  holding_ = std::move(holding);
}

void MembershipClient::SetAcknowledged(uint64_t timeline, uint64_t version) {
  absl::MutexLock lock(&mutex_);
  acknowledged_timeline_ = timeline;
  acknowledged_version_ = version;
}

void MembershipClient::BeatNow() {
  absl::MutexLock lock(&mutex_);
  beat_now_ = true;
}

absl::Status MembershipClient::Leave(absl::Duration timeout) {
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(left_, true)) return absl::OkStatus();
  }
  StopBeating();
  v1::LeaveRequest request;
  request.set_run_id(run_id());
  request.set_member_id(options_.member_id);
  request.set_incarnation(options_.incarnation);
  v1::LeaveReply reply;
  return rpc::CallUnary(stub_.get(), &v1::OrchestratorService::Stub::Leave, request, &reply,
                        Call("Leave", timeout, /*stop=*/nullptr));
}

void MembershipClient::BeatUntilStopped() {
  const auto due = [this]()
                       ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || beat_now_; };
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      options_.clock->AwaitUntil(&mutex_, absl::Condition(&due),
                                 options_.clock->Now() + heartbeat_interval_);
      if (stopping_) return;
      beat_now_ = false;
    }
    Beat();
    RaiseLeaveSignal();
  }
}

void MembershipClient::Beat() {
  const absl::Duration timeout =
      std::clamp(2 * heartbeat_interval_, absl::Seconds(1), absl::Seconds(5));
  v1::HeartbeatReply reply;
  rpc::CallOptions call = Call("Heartbeat", timeout, &stop_);
  call.wait_for_ready = !view().connected;  // back as soon as the orchestrator is
  absl::Status status = rpc::CallUnary(stub_.get(), &v1::OrchestratorService::Stub::Heartbeat,
                                       NextRequest(), &reply, call);
  if (status.ok()) return RecordReply(reply);
  if (stop_.StopRequested()) return;
  const bool joining = absl::IsNotFound(status);
  if (joining) {
    status = Rejoin();
    if (status.ok()) return;
  }
  RecordFailure(status, joining);
}

absl::Status MembershipClient::Rejoin() {
  v1::JoinRequest request = MakeJoinRequest(options_);
  request.set_run_id(run_id());  // no other run than the one we are in
  request.set_config_fingerprint(join_reply_.config_fingerprint());
  v1::JoinReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(stub_.get(), &v1::OrchestratorService::Stub::Join, request,
                                        &reply, Call("Join", absl::Seconds(5), &stop_)));
  if (reply.run_id() != run_id()) {
    return absl::FailedPreconditionError(
        base::Cat("the orchestrator leads run ", reply.run_id(), " now, ours was ", run_id()));
  }
  base::LogWarning("rejoined", {{"run", reply.run_id()}, {"timeline", reply.timeline()}});
  absl::MutexLock lock(&mutex_);
  last_heard_ = options_.clock->Now();
  beat_now_ = true;  // tells it at once what we hold and have
  MembershipView changed = view_;
  ++changed.rejoins;
  changed.connected = true;
  changed.timeline = reply.timeline();
  changed.peers.assign(reply.peers().begin(), reply.peers().end());
  Publish(std::move(changed));
  return absl::OkStatus();
}

v1::HeartbeatRequest MembershipClient::NextRequest() {
  absl::MutexLock lock(&mutex_);
  v1::HeartbeatRequest request;
  request.set_run_id(run_id());
  request.set_member_id(options_.member_id);
  request.set_incarnation(options_.incarnation);
  request.set_acknowledged_timeline(acknowledged_timeline_);
  request.set_acknowledged_version(acknowledged_version_);
  *request.mutable_holding() = {holding_.begin(), holding_.end()};
  return request;
}

void MembershipClient::RecordReply(const v1::HeartbeatReply& reply) {
  absl::MutexLock lock(&mutex_);
  last_heard_ = options_.clock->Now();
  MembershipView changed = view_;
  changed.connected = true;
  changed.state = reply.state();
  changed.state_reason = reply.state_reason();
  changed.timeline = reply.timeline();
  changed.latest_version.reset();
  if (reply.has_version()) changed.latest_version = reply.latest_version();
  changed.comm_epoch = reply.comm_epoch();
  changed.ended_comm_epoch = reply.ended_comm_epoch();
  changed.peers.assign(reply.peers().begin(), reply.peers().end());
  changed.desired = {reply.desired().begin(), reply.desired().end()};
  Obey(DecideAfterReply(reply), &changed);
  Publish(std::move(changed));
}

void MembershipClient::RecordFailure(const absl::Status& status, bool joining) {
  absl::MutexLock lock(&mutex_);
  const absl::Duration silence = options_.clock->Now() - last_heard_;
  const HeartbeatDecision decision =
      DecideAfterFailure(status, joining, silence, options_.silence_limit);
  MembershipView changed = view_;
  changed.connected = false;
  if (view_.connected) {
    base::LogWarning("heartbeat_failed",
                     {{"status", status.ToString()}, {"decision", decision.reason}});
  }
  Obey(decision, &changed);
  Publish(std::move(changed));
}

void MembershipClient::Obey(const HeartbeatDecision& decision, MembershipView* changed) {
  if (decision.action != AfterHeartbeat::kLeave || changed->leave) return;
  changed->leave = true;
  changed->leave_reason = decision.reason;
  changed->end = decision.end;
  base::LogInfo("leaving", {{"reason", decision.reason}, {"end", decision.end.ToString()}});
}

void MembershipClient::Publish(MembershipView changed) {
  if (SameView(view_, changed)) return;
  changed.revision = view_.revision + 1;
  view_ = std::move(changed);
}

void MembershipClient::RaiseLeaveSignal() {
  if (options_.leave_signal != nullptr && view().leave) options_.leave_signal->RequestStop();
}

void MembershipClient::StopBeating() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  stop_.RequestStop();
  if (thread_.joinable()) thread_.join();
}

rpc::CallOptions MembershipClient::Call(std::string_view method, absl::Duration timeout,
                                        base::StopToken* stop) {
  return {.method = method,
          .timeout = timeout,
          .jitter_key = base::Hash64(options_.member_id),
          .stop = stop,
          .clock = options_.clock,
          .metrics = options_.metrics};
}

absl::Status BelongUntilStopped(const MembershipOptions& options) {
  auto membership = MembershipClient::Create(options);
  if (absl::IsCancelled(membership.status())) return absl::OkStatus();
  TEMPER_RETURN_IF_ERROR(membership.status());
  options.stop->WaitUntil(absl::InfiniteFuture(), options.clock);
  const absl::Status left = (*membership)->Leave(absl::Seconds(2));
  if (!left.ok()) base::LogWarning("leave_failed", {{"status", left.ToString()}});
  return (*membership)->view().end;
}

}  // namespace temper::member
