#include "services/member/process.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "services/base/exit_code.h"
#include "services/base/log.h"
#include "services/base/signals.h"
#include "services/base/text.h"

namespace temper::member {
namespace {

void AddCommonFlags(CLI::App& app, ProcessFlags& flags) {
  app.add_option("--config", flags.config_file, "Resolved configuration of the run (YAML)");
  app.add_option("--join", flags.join, "host:port of the orchestrator");
  app.add_option("--listen", flags.listen, "host:port to serve on; port 0: any free port")
      ->capture_default_str();
  app.add_option("--metrics-listen", flags.metrics_listen, "host:port of /metrics")
      ->capture_default_str();
  app.add_option("--member-id", flags.member_id, "Unique name in the run");
  app.add_option("--incarnation", flags.incarnation, "Larger at each start of a member id");
  app.add_option("--log-file", flags.log_file, "Append log lines here instead of standard error");
  app.add_flag("--die-with-parent", flags.die_with_parent, "End when the launcher ends");
  app.add_flag("--insecure-network", flags.insecure_network,
               "Allow serving off loopback without TLS");
  app.add_option("--tls-certificate", flags.tls.certificate_file, "PEM file");
  app.add_option("--tls-key", flags.tls.private_key_file, "PEM file");
  app.add_option("--tls-ca", flags.tls.ca_file, "PEM file");
}

}  // namespace

absl::StatusOr<ProcessFlags> ParseProcessFlags(int argc, const char* const* argv,
                                               const std::string& description,
                                               absl::FunctionRef<void(CLI::App*)> add_flags) {
  CLI::App app(description);
  ProcessFlags flags;
  AddCommonFlags(app, flags);
  add_flags(&app);
  try {  // the parser reports through exceptions; none leaves this function
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    flags.help = app.help();
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  return flags;
}

absl::Status StartProcess(const ProcessFlags& flags, std::string_view role) {
  if (flags.die_with_parent) base::DieWithParent(getppid());
  return base::StartLogging(
      {.role = std::string(role), .file = flags.log_file, .to_stderr = flags.log_file.empty()});
}

void PrintStartLine(std::string_view role, std::string_view address,
                    std::string_view metrics_address) {
  const std::string line =
      base::Cat("{\"role\":\"", role, "\",\"address\":\"", address, "\",\"metrics_address\":\"",
                metrics_address, "\",\"pid\":", getpid(), "}\n");
  std::fputs(line.c_str(), stdout);
  std::fflush(stdout);
}

int PrintHelp(const ProcessFlags& flags) {
  return std::fputs(flags.help.c_str(), stdout) < 0 ? base::kExitRuntime : base::kExitOk;
}

int ExitWith(std::string_view role, const absl::Status& status) {
  if (!status.ok()) {
    std::fputs(base::Cat(role, ": ", status.ToString(), "\n").c_str(), stderr);
  }
  return base::ExitCode(status);
}

}  // namespace temper::member
