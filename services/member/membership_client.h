#pragma once

// A process's membership in a run: joins the orchestrator, says "I live", and knows what the
// orchestrator answered. Used alike by reward server, learner and rollout worker.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/base/clock.h"
#include "services/base/stop_token.h"
#include "services/member/membership_policy.h"
#include "services/rpc/client.h"
#include "temper/v1/orchestrator.grpc.pb.h"

namespace temper::member {

struct MembershipOptions {
  std::string orchestrator_address;  // host:port
  v1::Role role = v1::ROLE_UNSPECIFIED;
  std::string member_id;            // empty: DefaultMemberId
  uint64_t incarnation = 0;         // 0: unix nanoseconds; larger at each start of a member_id
  std::string address;              // gRPC address others reach us by; empty where we serve none
  std::string metrics_address;      // HTTP
  std::string run_id;               // empty: whatever run the orchestrator leads
  uint64_t config_fingerprint = 0;  // 0: take the orchestrator's configuration
  absl::Duration join_timeout = absl::Seconds(60);   // until the first Join is answered
  absl::Duration silence_limit = absl::Minutes(10);  // an orchestrator silent for longer is lost
  base::StopToken* stop = nullptr;                   // raised: Create gives up. Outlives Create
  base::StopToken* leave_signal = nullptr;  // we raise it once view().leave is true. Outlives us
  rpc::TlsOptions tls;
  rpc::RpcMetrics* metrics = nullptr;
  base::Clock* clock = base::SystemClock();
};

// What the orchestrator said last. A value: take it whole, look at it at leisure.
struct MembershipView {
  uint64_t revision = 0;                           // grows with every change of a field below
  v1::RunState state = v1::RUN_STATE_UNSPECIFIED;  // unspecified until the first heartbeat
  std::string state_reason;
  uint64_t timeline = 0;                    // 0: no learner yet
  std::optional<uint64_t> latest_version;   // newest version that is out
  uint64_t comm_epoch = 0;                  // 0: none
  uint64_t ended_comm_epoch = 0;            // this one and all before it are over
  std::vector<v1::Peer> peers;              // reward servers and the learner
  std::map<std::string, uint32_t> desired;  // to the supervisor: role name -> count
  uint64_t rejoins = 0;                     // times the orchestrator had forgotten us
  bool connected = true;                    // whether the last heartbeat was answered
  bool leave = false;                       // finish or hand back what is held, leave, exit
  std::string leave_reason;
  absl::Status end;  // with leave: OK for an ordinary end (exit 0), else why we were cut off
};

// gRPC addresses of the peers of a role: the healthy ones, in order of member_id.
std::vector<std::string> PeerAddresses(const MembershipView& view, v1::Role role);

// The name of this host, as JoinRequest says it.
std::string HostName();

// "rollout_worker-<host>-<pid>"
std::string DefaultMemberId(v1::Role role);

// Owns the channel to the orchestrator and one thread, which sends a heartbeat every
// JoinReply.heartbeat_seconds and at once on BeatNow. A failed heartbeat (deadline: one to five
// seconds) is tried again at the next beat; an orchestrator that restarted and does not know us is
// joined again under the same (member_id, incarnation); see membership_policy.h for the rest. When
// it says leave, heartbeats go on, so that what is held stays leased until Leave.
// Thread-safe. Ends by Leave, or by destruction (silently: the orchestrator notices by time-out).
class MembershipClient final {
 public:
  // Joins, trying again while the orchestrator cannot be reached, at most join_timeout.
  // Returns: InvalidArgument (bad address or TLS files), Unavailable (not reached in time),
  // FailedPrecondition (another run or configuration, an outdated incarnation, the run has ended),
  // DeadlineExceeded (reached, but silent), Unauthenticated (the two sides' TLS does not fit),
  // Cancelled (stop was raised), DataLoss (the answer lacks a run id or a heartbeat interval).
  static absl::StatusOr<std::unique_ptr<MembershipClient>> Create(MembershipOptions options);
  ~MembershipClient();
  MembershipClient(const MembershipClient&) = delete;
  MembershipClient& operator=(const MembershipClient&) = delete;

  // The answer to the first Join: configuration, run id, fingerprint. (Timeline and peers change:
  // they are in the view.)
  const v1::JoinReply& join_reply() const { return join_reply_; }
  const std::string& run_id() const { return join_reply_.run_id(); }
  const std::string& member_id() const { return options_.member_id; }
  uint64_t incarnation() const { return options_.incarnation; }
  // For the other calls to the orchestrator.
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  MembershipView view() const;
  // Waits until the view's revision differs from `seen_revision`, or `deadline`; returns the view.
  MembershipView AwaitChange(uint64_t seen_revision, absl::Time deadline) const;

  // Attempts this process works on: heartbeats renew their leases.
  void SetHolding(std::vector<v1::GroupRef> holding);
  // The weights it has verified and installed.
  void SetAcknowledged(uint64_t timeline, uint64_t version);
  // Sends a heartbeat now instead of at its time.
  void BeatNow();

  // Stops heartbeats and tells the orchestrator that we are gone, waiting at most `timeout`. Call
  // after everything held was handed back. A second call does nothing.
  // Returns: OK; what the call returned if it failed (the orchestrator will notice by time-out).
  absl::Status Leave(absl::Duration timeout);

 private:
  MembershipClient(MembershipOptions options, std::shared_ptr<grpc::Channel> channel,
                   v1::JoinReply join_reply);
  void BeatUntilStopped();
  void Beat() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Rejoin() ABSL_LOCKS_EXCLUDED(mutex_);
  v1::HeartbeatRequest NextRequest() ABSL_LOCKS_EXCLUDED(mutex_);
  void RecordReply(const v1::HeartbeatReply& reply) ABSL_LOCKS_EXCLUDED(mutex_);
  void RecordFailure(const absl::Status& status, bool joining) ABSL_LOCKS_EXCLUDED(mutex_);
  void Obey(const HeartbeatDecision& decision, MembershipView* changed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Publish(MembershipView changed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RaiseLeaveSignal() ABSL_LOCKS_EXCLUDED(mutex_);
  void StopBeating();
  rpc::CallOptions Call(std::string_view method, absl::Duration timeout, base::StopToken* stop);

  const MembershipOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::OrchestratorService::Stub> stub_;
  const v1::JoinReply join_reply_;
  const absl::Duration heartbeat_interval_;
  base::StopToken stop_;  // raised by StopBeating; cancels a heartbeat in flight

  mutable absl::Mutex mutex_;
  MembershipView view_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_heard_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::GroupRef> holding_ ABSL_GUARDED_BY(mutex_);
  uint64_t acknowledged_timeline_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t acknowledged_version_ ABSL_GUARDED_BY(mutex_) = 0;
  bool beat_now_ ABSL_GUARDED_BY(mutex_) = true;  // the first one at once
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool left_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // runs BeatUntilStopped; joined by StopBeating
};

// For a process that only serves: joins, waits until `options.stop` is raised (by a signal, or as
// leave_signal by the membership itself), leaves. options.stop is needed.
// Returns: OK after an ordinary end, also where stop was raised before the first Join was answered;
// what Create returns; the view's `end` where we were cut off.
absl::Status BelongUntilStopped(const MembershipOptions& options);

}  // namespace temper::member
