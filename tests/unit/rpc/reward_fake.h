#pragma once

// A server of our own contract whose one method does what a test says.

#include <functional>
#include <memory>
#include <utility>

#include "services/rpc/client.h"
#include "services/rpc/reply.h"
#include "services/rpc/server.h"
#include "temper/v1/reward.grpc.pb.h"

namespace temper::rpc {

using ScoreHandler = std::function<grpc::ServerUnaryReactor*(
    grpc::CallbackServerContext*, const v1::ScoreRequest*, v1::ScoreReply*)>;

class RewardFake final : public v1::RewardService::CallbackService {
 public:
  explicit RewardFake(ScoreHandler handler) : handler_(std::move(handler)) {}
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request, v1::ScoreReply* reply) override {
    return handler_(context, request, reply);
  }

 private:
  const ScoreHandler handler_;
};

// The service on a port of its own, and a stub that calls it.
struct RewardHost {
  explicit RewardHost(ScoreHandler handler, ServerOptions options = {})
      : service(std::move(handler)) {
    options.services = {&service};
    server = RpcServer::Create(options).value();
    channel = MakeChannel(server->address()).value();
    stub = v1::RewardService::NewStub(channel);
  }

  absl::Status Call(CallOptions options) {
    options.method = "Score";
    return CallUnary(stub.get(), &v1::RewardService::StubInterface::Score, request, &reply,
                     options);
  }

  RewardFake service;
  std::unique_ptr<RpcServer> server;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::RewardService::Stub> stub;
  v1::ScoreRequest request;
  v1::ScoreReply reply;
};

}  // namespace temper::rpc
