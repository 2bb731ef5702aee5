#include "services/rpc/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "absl/synchronization/notification.h"
#include "grpcpp/generic/generic_stub.h"
#include "services/base/exit_code.h"
#include "services/base/text.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/rpc/reward_fake.h"

namespace temper::rpc {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

const CallOptions kHealth = {.method = "Check"};

grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, const v1::ScoreRequest*,
                                 v1::ScoreReply*) {
  return Reply(context, nullptr, "Score", [] { return absl::OkStatus(); });
}

// Whether the server knows the method at all: calling it wrongly is another error than its absence.
bool HasReflection(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::GenericStub stub(channel);
  const grpc::Slice empty;
  const grpc::ByteBuffer request(&empty, 1);
  const absl::Status status =
      CallWithRetries({.method = "Reflection"}, [&](grpc::ClientContext* context) {
        grpc::ByteBuffer response;
        grpc::Status result;
        absl::Notification done;
        stub.UnaryCall(context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                       grpc::StubOptions(), &request, &response, [&](grpc::Status ended) {
                         result = std::move(ended);
                         done.Notify();
                       });
        done.WaitForNotification();
        return result;
      });
  return !absl::IsUnimplemented(status) || status.message().find("Missing") != std::string::npos;
}

// NAME.pem, its own authority, and NAME.key; false if there is no openssl command.
bool MakeCertificate(const testing::TempDir& dir, const std::string& name) {
  const std::string make = base::Cat(
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=",
      name, " -addext subjectAltName=IP:127.0.0.1 -keyout ", dir.File(name + ".key"), " -out ",
      dir.File(name + ".pem"), " 2>/dev/null");
  return std::system(make.c_str()) == 0;
}

TEST(RpcServerTest, BindsAPortOfItsOwnAndSaysWhich) {
  RewardHost host(Answer);
  EXPECT_GT(host.server->port(), 0);
  EXPECT_EQ(host.server->address(), base::Cat("127.0.0.1:", host.server->port()));
  EXPECT_THAT(host.Call({}), IsOk());
}

TEST(RpcServerTest, PortInUseIsAClearError) {
  RewardHost host(Answer);
  const auto second =
      RpcServer::Create({.listen_address = host.server->address(), .services = {&host.service}});
  EXPECT_THAT(second, StatusIs(absl::StatusCode::kUnavailable, HasSubstr(host.server->address())));
}

TEST(RpcServerTest, OffLoopbackNeedsTlsOrASayingSo) {
  const auto refused = RpcServer::Create({.listen_address = "0.0.0.0:0"});
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--insecure-network")));
  EXPECT_EQ(base::ExitCode(refused.status()), base::kExitUsage);

  RewardHost allowed(Answer, {.listen_address = "0.0.0.0:0", .insecure_network = true});
  EXPECT_EQ(allowed.server->address().find("0.0.0.0"), std::string::npos);
}

TEST(RpcServerTest, RefusesWhatIsNoAddress) {
  EXPECT_THAT(RpcServer::Create({.listen_address = "127.0.0.1"}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(RpcServerTest, HealthFollowsServing) {
  RewardHost host(Answer);
  EXPECT_THAT(CheckHealth(host.channel, kHealth), IsOk());
  host.server->SetServing(false);
  EXPECT_THAT(CheckHealth(host.channel, kHealth),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("not serving")));
  host.server->SetServing(true);
  EXPECT_THAT(CheckHealth(host.channel, kHealth), IsOk());
}

TEST(RpcServerTest, ReflectionIsOnLoopbackOnly) {
  RewardHost host(Answer);
  EXPECT_TRUE(HasReflection(host.channel));
  RewardHost open(Answer, {.listen_address = "0.0.0.0:0", .insecure_network = true});
  EXPECT_FALSE(HasReflection(MakeChannel(base::Cat("127.0.0.1:", open.server->port())).value()));
}

TEST(RpcServerTest, ShutdownLetsARunningCallFinish) {
  std::shared_ptr<DeferredReply> pending;
  absl::Notification arrived;
  RewardHost host([&](auto*, auto*, auto*) {
    pending = DeferredReply::Create(nullptr, "Score");
    arrived.Notify();
    return pending->reactor();
  });
  absl::Status status;
  std::thread caller([&] { status = host.Call({.timeout = absl::Seconds(60)}); });
  arrived.WaitForNotification();
  std::thread stopper([&] { host.server->Shutdown(absl::Seconds(60)); });
  pending->Finish([] { return absl::OkStatus(); });
  caller.join();
  stopper.join();
  EXPECT_THAT(status, IsOk());
}

TEST(RpcServerTest, ShutdownCancelsWhatOutlastsTheDrain) {
  std::shared_ptr<DeferredReply> pending;
  absl::Notification arrived;
  RewardHost host([&](auto*, auto*, auto*) {
    pending = DeferredReply::Create(nullptr, "Score");
    arrived.Notify();
    return pending->reactor();
  });
  absl::Status status;
  std::thread caller([&] { status = host.Call({.timeout = absl::Seconds(60)}); });
  arrived.WaitForNotification();
  host.server->Shutdown(absl::Milliseconds(20));
  caller.join();
  EXPECT_FALSE(status.ok());
  EXPECT_TRUE(pending->finished());
}

TEST(RpcServerTest, MessageAboveTheLimitIsResourceExhausted) {
  RewardHost host(Answer, {.max_message_bytes = 1000});
  host.request.set_rule(std::string(2000, 'x'));
  EXPECT_THAT(host.Call({}), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(RpcServerTest, ProxyOfTheEnvironmentIsNotAsked) {
  setenv("http_proxy", "http://127.0.0.1:1", /*overwrite=*/1);
  RewardHost host(Answer);
  EXPECT_THAT(host.Call({}), IsOk());
  unsetenv("http_proxy");
}

TEST(TlsTest, ServesOnlyThoseWhoTrustItsCertificate) {
  testing::TempDir dir;
  if (!MakeCertificate(dir, "ours")) GTEST_SKIP() << "needs the openssl command";
  RewardHost host(Answer, {.tls = {.certificate_file = dir.File("ours.pem"),
                                   .private_key_file = dir.File("ours.key")}});
  const absl::Status plain = host.Call({.timeout = absl::Seconds(20)});  // speaks without TLS
  EXPECT_FALSE(plain.ok());
  EXPECT_THAT(TlsTrouble(plain, {}).value_or(plain.ToString()), HasSubstr("speaks TLS"));

  auto trusting = MakeChannel(host.server->address(), {.ca_file = dir.File("ours.pem")}).value();
  host.stub = v1::RewardService::NewStub(trusting);
  EXPECT_THAT(host.Call({.timeout = absl::Seconds(20)}), IsOk());
}

TEST(TlsTest, WhoDoesNotTrustTheServerIsToldWhatToLookAt) {
  testing::TempDir dir;
  if (!MakeCertificate(dir, "ours") || !MakeCertificate(dir, "other")) {
    GTEST_SKIP() << "needs the openssl command";
  }
  RewardHost host(Answer, {.tls = {.certificate_file = dir.File("ours.pem"),
                                   .private_key_file = dir.File("ours.key")}});
  const TlsOptions other = {.ca_file = dir.File("other.pem")};
  host.stub = v1::RewardService::NewStub(MakeChannel(host.server->address(), other).value());
  const absl::Status status = host.Call({.timeout = absl::Seconds(20)});
  EXPECT_THAT(TlsTrouble(status, other).value_or(status.ToString()),
              HasSubstr(dir.File("other.pem")));
}

TEST(TlsTest, AServerThatIsNotThereIsNoTroubleOfTls) {
  const absl::Status refused = absl::UnavailableError("Connection refused");
  EXPECT_EQ(TlsTrouble(refused, {}), std::nullopt);
  EXPECT_EQ(TlsTrouble(refused, {.ca_file = "ca.pem"}), std::nullopt);
  EXPECT_EQ(TlsTrouble(absl::InternalError("Handshake"), {.ca_file = "ca.pem"}), std::nullopt);
}

TEST(TlsTest, FilesThatCannotBeUsedAreNamed) {
  EXPECT_THAT(RpcServer::Create({.tls = {.certificate_file = "/nonexistent/cert.pem",
                                         .private_key_file = "/nonexistent/key.pem"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("/nonexistent/cert.pem")));
  EXPECT_THAT(MakeChannel("127.0.0.1:1", {.certificate_file = "/nonexistent/cert.pem"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("CA")));
}

}  // namespace
}  // namespace temper::rpc
