// The program temper-reward-server as its launcher sees it.

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rpc/client.h"
#include "services/rpc/reply.h"
#include "services/rpc/server.h"
#include "temper/v1/orchestrator.grpc.pb.h"
#include "temper/v1/reward.grpc.pb.h"
#include "tests/support/status_matchers.h"

namespace temper::reward_server {
namespace {

using temper::testing::IsOk;
using ::testing::HasSubstr;

// A child with its standard output in a pipe. Killed at the end if it still runs.
class Child {
 public:
  explicit Child(std::vector<std::string> arguments) {
    const char* bin = std::getenv("TEMPER_BIN_DIR");
    arguments.insert(arguments.begin(),
                     std::string(bin ? bin : "build/bin") + "/temper-reward-server");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int out[2];
    EXPECT_EQ(pipe(out), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, out[0]);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    out_ = out[0];
  }
  ~Child() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(out_);
  }

  // The next line of standard output; empty at its end.
  std::string ReadLine() {
    std::string line;
    char c;
    while (read(out_, &c, 1) == 1 && c != '\n') line.push_back(c);
    return line;
  }
  // Waits for the end; the exit code, or -1 after a signal.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  void Signal(int number) { kill(pid_, number); }

 private:
  pid_t pid_ = -1;
  int out_ = -1;
};

std::string AddressOf(const std::string& start_line) {
  const std::string field = "\"address\":\"";
  const size_t begin = start_line.find(field) + field.size();
  return start_line.substr(begin, start_line.find('"', begin) - begin);
}

// An orchestrator that says drain once it has been joined.
class DrainingOrchestrator final : public v1::OrchestratorService::CallbackService {
 public:
  grpc::ServerUnaryReactor* Join(grpc::CallbackServerContext* context,
                                 const v1::JoinRequest* request, v1::JoinReply* reply) override {
    return rpc::Reply(context, nullptr, "Join", [&] {
      joined = *request;
      reply->set_run_id("run-a");
      reply->set_heartbeat_seconds(0.1);
      return absl::OkStatus();
    });
  }
  grpc::ServerUnaryReactor* Heartbeat(grpc::CallbackServerContext* context,
                                      const v1::HeartbeatRequest*,
                                      v1::HeartbeatReply* reply) override {
    return rpc::Reply(context, nullptr, "Heartbeat", [&] {
      reply->set_state(v1::RUN_STATE_TRAINING);
      reply->set_drain(true);
      return absl::OkStatus();
    });
  }
  grpc::ServerUnaryReactor* Leave(grpc::CallbackServerContext* context, const v1::LeaveRequest*,
                                  v1::LeaveReply*) override {
    return rpc::Reply(context, nullptr, "Leave", [&] {
      if (!left.HasBeenNotified()) left.Notify();
      return absl::OkStatus();
    });
  }
  v1::JoinRequest joined;  // read after the child has ended
  absl::Notification left;
};

TEST(RewardProcessTest, ServesOnAFreePortAndEndsOnSigterm) {
  Child child({});
  const std::string line = child.ReadLine();
  EXPECT_THAT(line, HasSubstr("{\"role\":\"reward_server\",\"address\":\"127.0.0.1:"));
  const auto stub = v1::RewardService::NewStub(rpc::MakeChannel(AddressOf(line)).value());
  v1::ScoreRequest request;
  request.set_rule("strict");
  request.set_sample_timeout_seconds(30);
  request.add_items()->set_completion("#### 18");
  request.mutable_items(0)->set_truth("18");
  v1::ScoreReply reply;
  EXPECT_THAT(rpc::CallUnary(stub.get(), &v1::RewardService::Stub::Score, request, &reply,
                             {.method = "Score", .timeout = absl::Seconds(30)}),
              IsOk());
  EXPECT_EQ(reply.scores(0).reward(), 1);
  child.Signal(SIGTERM);
  EXPECT_EQ(child.ReadLine(), "");  // nothing else on standard output
  EXPECT_EQ(child.Wait(), 0);
}

TEST(RewardProcessTest, JoinsARunAndLeavesItWhenDrained) {
  DrainingOrchestrator orchestrator;
  const auto server = rpc::RpcServer::Create({.services = {&orchestrator}}).value();
  Child child({"--join", server->address(), "--member-id", "reward-1", "--incarnation", "5"});
  const std::string line = child.ReadLine();
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_TRUE(orchestrator.left.HasBeenNotified());
  server->Shutdown(absl::Seconds(5));
  EXPECT_EQ(orchestrator.joined.role(), v1::ROLE_REWARD_SERVER);
  EXPECT_EQ(orchestrator.joined.member_id(), "reward-1");
  EXPECT_EQ(orchestrator.joined.incarnation(), 5);
  EXPECT_EQ(orchestrator.joined.address(), AddressOf(line));
}

TEST(RewardProcessTest, BadFlagsEndWithTheCodeOfUsage) {
  EXPECT_EQ(Child({"--no-such-flag"}).Wait(), 2);
  EXPECT_EQ(Child({"--listen", "0.0.0.0:0"}).Wait(), 2);
  EXPECT_EQ(Child({"--join", "nowhere"}).Wait(), 2);
}

}  // namespace
}  // namespace temper::reward_server
