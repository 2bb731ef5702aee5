#pragma once

// Answers of server-streaming handlers, one message in flight at a time.
//
//   grpc::ServerWriteReactor<v1::BucketChunk>* PullBuckets(...) override {
//     auto* reply = new rpc::StreamReply<v1::BucketChunk>({.metrics = metrics_,
//                                                          .method = "PullBuckets"});
//     reply->Begin([...](v1::BucketChunk* chunk) -> absl::StatusOr<bool> { ... });
//     return reply;
//   }

#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/support/server_callback.h"
#include "services/rpc/rpc_metrics.h"
#include "services/rpc/status.h"

namespace temper::rpc {

struct StreamOptions {
  RpcMetrics* metrics = nullptr;               // may be null
  std::string method;                          // its name, for metrics
  absl::Duration longest = absl::Minutes(10);  // a reader that stalls is dropped then
};

// The handler's return value; owns itself and goes when gRPC is done with it. Begin must be called
// once, by the handler or later by another thread: until then the caller waits.
template <typename Message>
class StreamReply final : public grpc::ServerWriteReactor<Message> {
 public:
  // Fills the next message and returns true; false at the end. An error ends the stream with its
  // status. Called when gRPC has taken the message before, on a thread of gRPC (the first time on
  // that of Begin), never twice at once; must be quick.
  using Next = std::function<absl::StatusOr<bool>(Message*)>;

  explicit StreamReply(StreamOptions options) : options_(std::move(options)) {}

  void Begin(Next next) {
    next_ = std::move(next);
    WriteNext();
  }
  // A stream that ends with `status` before its first message.
  void Refuse(const absl::Status& status) { End(status); }

 private:
  void OnWriteDone(bool ok) override {
    if (!ok) return End(absl::UnavailableError("the reader is gone"));
    WriteNext();
  }
  void OnCancel() override { cancelled_.store(true); }
  void OnDone() override {
    if (options_.metrics != nullptr) {
      options_.metrics->RecordServer(options_.method, result_.code(), absl::Now() - begun_);
    }
    delete this;
  }

  void End(const absl::Status& status) {
    result_ = status;
    this->Finish(ToGrpcStatus(status));
  }

  void WriteNext() {
    if (cancelled_.load()) return End(absl::CancelledError("the reader gave up"));
    if (absl::Now() - begun_ > options_.longest) {
      return End(absl::DeadlineExceededError("the reader was too slow"));
    }
    message_.Clear();
    const absl::StatusOr<bool> more = next_(&message_);
    if (!more.ok() || !*more) return End(more.status());
    this->StartWrite(&message_);
  }

  const StreamOptions options_;
  const absl::Time begun_ = absl::Now();
  Next next_;
  Message message_;
  absl::Status result_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace temper::rpc
