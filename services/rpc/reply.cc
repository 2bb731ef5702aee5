#include "services/rpc/reply.h"

#include <atomic>
#include <chrono>
#include <utility>

#include "absl/time/clock.h"
#include "services/rpc/status.h"

namespace temper::rpc {

grpc::ServerUnaryReactor* Reply(grpc::CallbackServerContext* context, RpcMetrics* metrics,
                                std::string_view method,
                                absl::FunctionRef<absl::Status()> handler) {
  const absl::Time start = absl::Now();
  const absl::Status status = handler();
  if (metrics != nullptr) metrics->RecordServer(method, status.code(), absl::Now() - start);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

struct DeferredReply::State {
  RpcMetrics* metrics = nullptr;
  std::string method;
  absl::Time start = absl::Now();
  std::function<void()> on_cancel;
  std::atomic<bool> claimed = false;  // by the one who answers
  Reactor* reactor = nullptr;         // lives at least until the claimer has answered

  // The right to answer; true once.
  bool Claim() { return !claimed.exchange(true); }
  void Answer(const absl::Status& status);
};

class DeferredReply::Reactor final : public grpc::ServerUnaryReactor {
 public:
  explicit Reactor(std::shared_ptr<State> state) : state_(std::move(state)) {}

 private:
  void OnCancel() override {
    if (!state_->Claim()) return;
    if (state_->on_cancel != nullptr) state_->on_cancel();
    state_->Answer(absl::CancelledError("the caller gave up"));
  }
  void OnDone() override { delete this; }

  const std::shared_ptr<State> state_;
};

void DeferredReply::State::Answer(const absl::Status& status) {
  if (metrics != nullptr) metrics->RecordServer(method, status.code(), absl::Now() - start);
  reactor->Finish(ToGrpcStatus(status));
}

std::shared_ptr<DeferredReply> DeferredReply::Create(RpcMetrics* metrics, std::string_view method,
                                                     std::function<void()> on_cancel) {
  auto state = std::make_shared<State>();
  state->metrics = metrics;
  state->method = std::string(method);
  state->on_cancel = std::move(on_cancel);
  state->reactor = new Reactor(state);
  return std::shared_ptr<DeferredReply>(new DeferredReply(std::move(state)));
}

DeferredReply::~DeferredReply() {
  Finish([] { return absl::UnavailableError("the server let go of the request unanswered"); });
}

grpc::ServerUnaryReactor* DeferredReply::reactor() { return state_->reactor; }

bool DeferredReply::Finish(absl::FunctionRef<absl::Status()> fill) {
  if (!state_->Claim()) return false;
  state_->Answer(fill());
  return true;
}

bool DeferredReply::finished() const { return state_->claimed; }

}  // namespace temper::rpc
