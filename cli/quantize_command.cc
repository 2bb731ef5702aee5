#include <cinttypes>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/quantize_model.h"
#include "numerics/formats/aqn_advisor.h"
#include "numerics/statistics.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

struct QuantizeArguments {
  QuantizeOptions options;
  std::string format;
  std::string fp8_scale;
};

void PrintLine(const QuantizedTensor& tensor, const std::string& format) {
  const nlohmann::ordered_json line = {
      {"name", tensor.name},
      {"format", format},
      {"sqnr_db", tensor.sqnr_db},
      {"dead_zone", tensor.dead_zone},
      {"relative_error", tensor.relative_error},
      {"saturation", tensor.saturation},
      {"sqnr_db_without_largest", tensor.sqnr_db_without_largest},
      {"block_row_sqnr_db", tensor.block_row_sqnr_db},
      {"elements", tensor.elements},
      {"non_finite", tensor.non_finite},
      {"storage", std::string(model::StorageTypeName(tensor.storage))},
      {"rounded_by_storage", tensor.rounded}};
  std::printf("%s\n", line.dump().c_str());
}

// The summary a person reads.
absl::Status PrintSummary(const QuantizeOptions& options, const std::string& format,
                          const std::vector<QuantizedTensor>& tensors) {
  std::vector<double> sqnr_db, dead_zone;
  int64_t elements = 0, rounded = 0, non_finite = 0;
  const QuantizedTensor* worst = &tensors.front();
  for (const QuantizedTensor& tensor : tensors) {
    sqnr_db.push_back(tensor.sqnr_db);
    dead_zone.push_back(tensor.dead_zone);
    elements += tensor.elements;
    rounded += tensor.rounded;
    non_finite += tensor.non_finite;
    if (tensor.sqnr_db < worst->sqnr_db) worst = &tensor;
  }
  std::fprintf(stderr,
               "%s: %zu weights of %" PRId64
               " values in %s; SQNR median %.2f dB, least %.2f dB (%s); dead zone median %.1f %%\n",
               options.out.c_str(), tensors.size(), elements + non_finite, format.c_str(),
               numerics::Median(sqnr_db), worst->sqnr_db, worst->name.c_str(),
               100 * numerics::Median(dead_zone));
  if (rounded > 0) {
    std::fprintf(stderr,
                 "rounding to the storage type moved %.1f %% of the values off the format's grid; "
                 "the numbers above are of what was written\n",
                 100 * static_cast<double>(rounded) / static_cast<double>(elements));
  }
  if (non_finite > 0) {
    std::fprintf(stderr, "%" PRId64 " values are not finite, before or after\n", non_finite);
  }
  TEMPER_ASSIGN_OR_RETURN(
      const numerics::AqnAdvice advice,
      numerics::AdviseAqn({.format = options.format.format, .weights = {sqnr_db, dead_zone}}));
  std::fprintf(stderr, "AQN in full training on these weights: %s",
               std::string(numerics::AqnPriorityName(advice.priority)).c_str());
  if (advice.sigma_start > 0) {
    std::fprintf(stderr, ", sigma %g to %g", advice.sigma_start, advice.sigma_end);
  }
  std::fprintf(stderr, " (%s)\n", advice.reason.c_str());
  return absl::OkStatus();
}

absl::Status Quantize(QuantizeArguments& arguments) {
  QuantizeOptions& options = arguments.options;
  options.format.format = *numerics::NumberFormatFromName(arguments.format);
  if (!arguments.fp8_scale.empty()) {
    if (options.format.format != numerics::NumberFormat::kFp8) {
      return absl::InvalidArgumentError("--fp8-scale is for --format fp8");
    }
    options.format.scale_span = numerics::ScaleSpanFromName(arguments.fp8_scale);
  }
  std::vector<QuantizedTensor> tensors;
  TEMPER_RETURN_IF_ERROR(QuantizeModel(options, [&](const QuantizedTensor& tensor) {
    PrintLine(tensor, arguments.format);
    tensors.push_back(tensor);
  }));
  return PrintSummary(options, arguments.format, tensors);
}

}  // namespace

CommandBody AddQuantizeCommand(CLI::App* app) {
  CLI::App* command = app->add_subcommand(
      "quantize",
      "Write a model whose linears are rounded to a number format and back, for other tools; "
      "prints what that did to each weight as JSON lines");
  auto arguments = std::make_shared<QuantizeArguments>();
  QuantizeOptions& options = arguments->options;
  command->add_option("model", options.model, "Hugging Face directory or .gguf file")->required();
  command->add_option("out", options.out, "Hugging Face directory to make; must not exist")
      ->required();
  command->add_option("--format", arguments->format, "mxfp4, nvfp4 or fp8")
      ->required()
      ->check(CLI::IsMember({"mxfp4", "nvfp4", "fp8"}));
  // One pattern a flag, so that a positional argument after it is not taken for one.
  command
      ->add_option("--target", options.targets,
                   "path pattern of what is quantized, repeatable (default: every decoder linear)")
      ->allow_extra_args(false);
  command
      ->add_option("--exclude", options.excludes, "path pattern taken away from that, repeatable")
      ->allow_extra_args(false);
  command->add_flag("--block-2d", options.format.block_2d,
                    "mxfp4: one scale per 32 x 32 tile instead of 1 x 32");
  command
      ->add_option("--fp8-scale", arguments->fp8_scale,
                   "fp8: one scale per tensor (default), row, or block of 1 x 128")
      ->check(CLI::IsMember({"tensor", "row", "block"}));
  return [arguments] { return Quantize(*arguments); };
}

}  // namespace temper::cli
