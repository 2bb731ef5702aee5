#pragma once

// What the programs of all roles share: their flags, the start of the process, and the line that
// tells the launcher where they listen.

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/rpc/tls.h"

namespace CLI {
class App;
}

namespace temper::member {

struct ProcessFlags {
  std::string config_file;                     // --config
  std::string join;                            // --join: the orchestrator's host:port
  std::string listen = "127.0.0.1:0";          // --listen; port 0: any free port
  std::string metrics_listen = "127.0.0.1:0";  // --metrics-listen
  std::string member_id;                       // --member-id; empty: role, host and pid
  uint64_t incarnation = 0;                    // --incarnation; 0: unix nanoseconds
  std::string log_file;                        // --log-file; empty: standard error
  bool die_with_parent = false;                // --die-with-parent
  bool insecure_network = false;               // --insecure-network: binds off loopback without TLS
  rpc::TlsOptions tls;                         // --tls-certificate, --tls-key, --tls-ca
  std::string help;                            // not empty: --help was given; see PrintHelp
};

// Reads the command line. `add_flags` may add the role's own. `description`: a sentence for --help.
// Returns: InvalidArgument with the parser's message.
absl::StatusOr<ProcessFlags> ParseProcessFlags(
    int argc, const char* const* argv, const std::string& description,
    absl::FunctionRef<void(CLI::App*)> add_flags = [](CLI::App*) {});

// Opens the log of the role ("learner") and, if asked, ties this process's life to its launcher's.
// Call first in main, before any thread starts. Returns: what base::StartLogging returns.
absl::Status StartProcess(const ProcessFlags& flags, std::string_view role);

// Prints to standard output, in one line, and flushes:
//   {"role":"learner","address":"127.0.0.1:41233","metrics_address":"127.0.0.1:40001","pid":123}
// An address that is empty is printed as "".
void PrintStartLine(std::string_view role, std::string_view address,
                    std::string_view metrics_address);

// Prints the help text to standard output; returns the exit code.
int PrintHelp(const ProcessFlags& flags);

// "learner: INVALID_ARGUMENT: ..." to standard error unless OK; returns the exit code of `status`.
int ExitWith(std::string_view role, const absl::Status& status);

}  // namespace temper::member
