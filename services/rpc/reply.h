#pragma once

// Answers of callback unary handlers: at once, or later (long polls).
//
//   grpc::ServerUnaryReactor* AcquireWork(grpc::CallbackServerContext* context,
//                                         const v1::AcquireWorkRequest* request,
//                                         v1::AcquireWorkResponse* response) override {
//     return rpc::Reply(context, metrics_, "AcquireWork",
//                       [&] { return ledger_->Acquire(*request, response); });
//   }

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "services/rpc/rpc_metrics.h"

namespace temper::rpc {

// Runs `handler` on the calling thread (it must be quick and must not wait), maps its status,
// records the latency in `metrics` (may be null) and answers. Return its result from the handler.
grpc::ServerUnaryReactor* Reply(grpc::CallbackServerContext* context, RpcMetrics* metrics,
                                std::string_view method, absl::FunctionRef<absl::Status()> handler);

// When the caller stops waiting (its deadline); InfiniteFuture if it set none.
absl::Time DeadlineOf(const grpc::CallbackServerContext& context);

// An answer that comes later: the handler makes one, hands the pointer to whoever will know the
// answer, and returns reactor(). Answered exactly once: by the first Finish, or with Cancelled when
// the caller gives up or the server shuts down. The request and response messages live until
// then; touch the response only inside `fill`. Dropping the last pointer unanswered answers
// Unavailable. Thread-safe.
//
//   auto reply = rpc::DeferredReply::Create(metrics_, "AcquireWork");
//   queue_->AddWaiter([reply, response](const Work& work) {
//     reply->Finish([&] { Encode(work, response); return absl::OkStatus(); });
//   });
//   return reply->reactor();
class DeferredReply final {
 public:
  // `on_cancel` (may be empty) runs at most once, on a thread of gRPC, if the caller gave up before
  // an answer; by then Finish does nothing. It must not keep the DeferredReply alive by itself.
  static std::shared_ptr<DeferredReply> Create(RpcMetrics* metrics, std::string_view method,
                                               std::function<void()> on_cancel = nullptr);

  ~DeferredReply();
  DeferredReply(const DeferredReply&) = delete;
  DeferredReply& operator=(const DeferredReply&) = delete;

  // The handler's return value, which it must return: gRPC owns it.
  grpc::ServerUnaryReactor* reactor();

  // Runs `fill` to write the response and answers with the status it returns. Returns false,
  // without running `fill`, if the call has been answered or cancelled already.
  bool Finish(absl::FunctionRef<absl::Status()> fill);

  // Whether the call was answered or cancelled: a hint for dropping waiters early.
  bool finished() const;

 private:
  class Reactor;
  struct State;
  explicit DeferredReply(std::shared_ptr<State> state) : state_(std::move(state)) {}
  const std::shared_ptr<State> state_;  // shared with the reactor, which gRPC ends on its own
};

}  // namespace temper::rpc
