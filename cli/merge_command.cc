#include <cstdio>
#include <memory>
#include <string>

#include "cli/adapter_model.h"
#include "cli/commands.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

struct MergeArguments {
  std::string adapter;
  std::string out;
  std::string base;
};

absl::Status Merge(const MergeArguments& arguments) {
  TEMPER_ASSIGN_OR_RETURN(const AdapterModel adapter,
                          OpenAdapter(arguments.adapter, arguments.base));
  TEMPER_RETURN_IF_ERROR(MergeAdapter(adapter, arguments.out));
  const model::LoraSpec& spec = adapter.adapter.spec;
  std::fprintf(stderr, "%s: %s with %zu linears merged (rank %d, alpha %g)\n",
               arguments.out.c_str(), adapter.base.c_str(), spec.modules.size(),
               static_cast<int>(spec.rank), spec.alpha);
  return absl::OkStatus();
}

}  // namespace

CommandBody AddMergeCommand(CLI::App* app) {
  CLI::App* command = app->add_subcommand(
      "merge", "Write a plain model: the base with an adapter's W + (alpha / r) B A, in its types");
  auto arguments = std::make_shared<MergeArguments>();
  command
      ->add_option("adapter", arguments->adapter,
                   "PEFT directory, or a checkpoint of a run that trains adapters")
      ->required();
  command->add_option("out", arguments->out, "Hugging Face directory to write; must not exist")
      ->required();
  command->add_option("--base", arguments->base,
                      "the model it acts on (default: the one that the adapter names)");
  return [arguments] { return Merge(*arguments); };
}

}  // namespace temper::cli
