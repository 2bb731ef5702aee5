#pragma once

// The subcommands of `temper`, one short file each. Each registers its flags with CLI11 and, where
// it is the one that was typed, is run by main. Inspection commands print JSON lines on standard
// output and nothing else there.

#include <functional>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"

namespace temper::cli {

// Adds a subcommand to `app` and returns what runs it. The state a command parses its flags into
// lives in the returned function.
using CommandBody = std::function<absl::Status()>;

CommandBody AddRunCommand(CLI::App* app);       // train, from a recipe
CommandBody AddEvalCommand(CLI::App* app);      // evaluate any model under error
CommandBody AddSftCommand(CLI::App* app);       // supervised warm start
CommandBody AddCheckCommand(CLI::App* app);     // print the resolved configuration
CommandBody AddScheduleCommand(CLI::App* app);  // sigma of every planned update
CommandBody AddScoreCommand(CLI::App* app);     // score completions by a rule
CommandBody AddTokenizeCommand(CLI::App* app);  // ids of standard input
CommandBody AddLogprobsCommand(CLI::App* app);  // log-probs of given ids
CommandBody AddQuantizeCommand(CLI::App* app);  // a model with quantized linears, for other tools
CommandBody AddScanCommand(CLI::App* app);      // what errors do to a model, layer by layer
CommandBody AddMergeCommand(CLI::App* app);     // a plain model from a base and an adapter
CommandBody AddProblemsCommand(CLI::App* app);  // problems of a data set
CommandBody AddSamplesCommand(CLI::App* app);   // completions of a run, readable
CommandBody AddStatusCommand(CLI::App* app);    // what a run is doing
CommandBody AddScaleCommand(CLI::App* app);     // more or fewer workers of a running run

}  // namespace temper::cli
