#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "services/base/exit_code.h"
#include "services/base/log.h"

int main(int argc, char** argv) {
  using namespace temper;  // NOLINT: main only
  CLI::App app{
      "Temper trains language models to keep their accuracy on hardware that computes with "
      "errors."};
  app.require_subcommand(1);
  app.set_version_flag("--version", "temper 0.1.0");

  using Adder = cli::CommandBody (*)(CLI::App*);
  std::vector<std::pair<CLI::App*, cli::CommandBody>> commands;
  for (const Adder add :
       {Adder{cli::AddRunCommand}, Adder{cli::AddEvalCommand}, Adder{cli::AddSftCommand},
        Adder{cli::AddCheckCommand}, Adder{cli::AddScheduleCommand}, Adder{cli::AddScoreCommand},
        Adder{cli::AddTokenizeCommand}, Adder{cli::AddLogprobsCommand},
        Adder{cli::AddQuantizeCommand}, Adder{cli::AddScanCommand}, Adder{cli::AddMergeCommand},
        Adder{cli::AddProblemsCommand}, Adder{cli::AddSamplesCommand}, Adder{cli::AddStatusCommand},
        Adder{cli::AddScaleCommand}}) {
    cli::CommandBody body = add(&app);
    commands.emplace_back(app.get_subcommands({}).back(), std::move(body));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? base::kExitOk : base::kExitUsage;
  }
  (void)base::StartLogging({.role = "temper", .level = base::LogLevel::kWarning});
  for (const auto& [command, body] : commands) {
    if (!command->parsed()) continue;
    const absl::Status status = body();
    if (!status.ok()) std::fprintf(stderr, "temper: %s\n", std::string(status.message()).c_str());
    return base::ExitCode(status);
  }
  return base::kExitUsage;
}
