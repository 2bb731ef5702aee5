#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "cli/commands.h"
#include "cli/scan_model.h"
#include "scan/scan_json.h"
#include "scan/scan_page.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

struct ScanArguments {
  ScanOptions options;
  std::vector<std::string> formats;
  std::vector<std::string> errors;
  std::string site = "linears";
  bool sensitivity = false;
  std::string perturb = "relative_gaussian:0.05";
  std::string per = "layer";
  std::string label_by;
  std::vector<double> multipliers;
  std::string training = "full";
  std::string out;
};

// One transient line on a terminal, nothing elsewhere.
class ProgressLine {
 public:
  void Show(const std::string& what, size_t done, size_t all) {
    if (!terminal_) return;
    absl::MutexLock lock(&mutex_);
    std::fprintf(stderr, "\r\x1b[K%s", what.c_str());
    if (all > 0) std::fprintf(stderr, " %zu of %zu", done, all);
    std::fflush(stderr);
  }
  ~ProgressLine() {
    if (terminal_) std::fprintf(stderr, "\r\x1b[K");
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  absl::Mutex mutex_;  // threads of a pass report too
};

absl::Status Resolve(ScanArguments* arguments) {
  ScanOptions& options = arguments->options;
  options.errors = arguments->formats;
  options.errors.insert(options.errors.end(), arguments->errors.begin(), arguments->errors.end());
  if (options.errors.empty()) options.errors = {"mxfp4", "nvfp4", "fp8"};
  options.layer_outputs = arguments->site == "layer_output";
  if (arguments->sensitivity) options.sensitivity_error = arguments->perturb;
  options.per_operator = arguments->per == "operator";
  options.labels.by = !arguments->label_by.empty() ? arguments->label_by
                      : arguments->sensitivity     ? "sensitivity"
                                                   : "sqnr";
  options.training =
      arguments->training == "lora" ? numerics::TrainingMode::kLora : numerics::TrainingMode::kFull;
  if (arguments->multipliers.empty()) return absl::OkStatus();
  if (arguments->multipliers.size() != 3) {
    return absl::InvalidArgumentError("--multipliers takes three: high,medium,low");
  }
  options.labels.multipliers = {.high = arguments->multipliers[0],
                                .medium = arguments->multipliers[1],
                                .low = arguments->multipliers[2]};
  return absl::OkStatus();
}

std::string FaultSentence(const scan::FaultFinding& finding) {
  if (finding.ranking.empty()) return "nothing departs from the reference or between repeats";
  const scan::Suspicion& first = finding.ranking[0];
  if (finding.evidence == scan::Evidence::kOutlier) {
    return absl::StrCat("repeats agree and there is no reference: layer ", first.layer,
                        " is the least like the others (", first.field,
                        "), which a layer of a healthy machine is too; give --reference");
  }
  return absl::StrCat("layer ", first.layer, " (", scan::EvidenceName(finding.evidence), ", ",
                      first.field, ")");
}

// What a person reads on the terminal; programs read standard output.
void PrintSummary(const scan::ScanResult& result, const std::string& out) {
  for (const scan::FormatAdvice& row : result.advice) {
    std::fprintf(stderr, "%s: AQN %s (%s)\n", row.format.c_str(),
                 std::string(numerics::AqnPriorityName(row.advice.priority)).c_str(),
                 row.advice.reason.c_str());
  }
  if (result.fault.has_value()) {
    std::fprintf(stderr, "fault: %s\n", FaultSentence(result.fault->finding).c_str());
  }
  if (!out.empty()) {
    std::fprintf(stderr, "%s/scan.json, %s/scan.html\n", out.c_str(), out.c_str());
  }
}

absl::Status RunScan(ScanArguments* arguments) {
  TEMPER_RETURN_IF_ERROR(Resolve(arguments));
  if (!arguments->out.empty()) TEMPER_RETURN_IF_ERROR(base::MakeDirectories(arguments->out));
  absl::StatusOr<scan::ScanResult> result;
  {
    ProgressLine line;
    result = ScanModel(arguments->options, [&](const std::string& what, size_t done, size_t all) {
      line.Show(what, done, all);
    });
  }
  if (!result.ok()) return result.status();
  for (const std::string& text : scan::ToJsonLines(*result)) std::printf("%s\n", text.c_str());
  if (!arguments->out.empty()) {
    TEMPER_RETURN_IF_ERROR(
        base::WriteFileAtomically(arguments->out + "/scan.json", scan::ToJson(*result)));
    TEMPER_RETURN_IF_ERROR(
        base::WriteFileAtomically(arguments->out + "/scan.html", scan::ToHtml(*result)));
  }
  PrintSummary(*result, arguments->out);
  return absl::OkStatus();
}

void DeclareStatic(CLI::App* command, ScanArguments* arguments) {
  ScanOptions& options = arguments->options;
  command->add_option("model", options.prompts.model, "Hugging Face directory or .gguf file")
      ->required();
  command
      ->add_option("--format", arguments->formats,
                   "mxfp4, nvfp4, fp8, several with commas (default: all three)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"mxfp4", "nvfp4", "fp8"}));
  command
      ->add_option("--error", arguments->errors,
                   "an error type in the static scan, as relative_gaussian:0.05, repeatable")
      ->allow_extra_args(false);
  command
      ->add_option("--site", arguments->site,
                   "what is scanned besides weights: inputs of linears, or layer_output")
      ->check(CLI::IsMember({"linears", "layer_output"}))
      ->capture_default_str();
  command->add_option("--data", options.prompts.data,
                      "JSON lines with prompt or question (and completion), or a GSM8K folder "
                      "(default: generated problems)");
  command->add_option("--prompts", options.prompts.count, "how many, from the first")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command
      ->add_option("--completion-tokens", options.completion_tokens,
                   "generated after each prompt, at most")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--seed", options.seed, "of sampling and of errors")->capture_default_str();
  command->add_option("--threads", options.threads, "threads")->check(CLI::Range(1, 1024));
  command->add_option("--out", arguments->out, "folder for scan.json and scan.html");
}

void DeclareLabels(CLI::App* command, ScanArguments* arguments) {
  command
      ->add_option("--label-by", arguments->label_by,
                   "sensitivity, sqnr or dead_zone (default: sensitivity where it is measured, "
                   "else sqnr of the first format)")
      ->check(CLI::IsMember({"sensitivity", "sqnr", "dead_zone"}));
  command
      ->add_option("--multipliers", arguments->multipliers,
                   "of AQN for the labels high,medium,low (default 1.5,1.2,1)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(0.0, 1e3));
  command->add_option("--training", arguments->training, "full or lora, for the advice")
      ->check(CLI::IsMember({"full", "lora"}))
      ->capture_default_str();
  command->add_flag("--quantized-inputs", arguments->options.labels.quantized_inputs,
                    "inputs are quantized too (W4A4): labels and advice take the worse of the two");
}

void DeclareRuns(CLI::App* command, ScanArguments* arguments) {
  ScanOptions& options = arguments->options;
  command->add_flag("--sensitivity", arguments->sensitivity,
                    "KL of the output where one layer alone errs");
  command->add_option("--perturb", arguments->perturb, "the error of --sensitivity, or a format")
      ->capture_default_str();
  command->add_option("--per", arguments->per, "layer or operator, of --sensitivity")
      ->check(CLI::IsMember({"layer", "operator"}))
      ->capture_default_str();
  command->add_flag("--find-fault", options.find_fault,
                    "which layer of this machine errs, seen from the outputs of layers");
  command->add_option("--inject", options.inject, "a fault to be found, KIND:SIZE@LAYER");
  command
      ->add_option(
          "--reference", options.references,
          "scan.json of a healthy machine over the same tokens, repeatable: how far others "
          "depart from the first is what is allowed")
      ->allow_extra_args(false);
  command->add_option("--repeats", options.repeats, "runs that are compared with each other")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
}

}  // namespace

CommandBody AddScanCommand(CLI::App* app) {
  CLI::App* command = app->add_subcommand(
      "scan",
      "What number formats and errors do to each layer of a model, which layers suffer, and where "
      "a device errs; JSON lines, and a page to read");
  auto arguments = std::make_shared<ScanArguments>();
  arguments->options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  DeclareStatic(command, arguments.get());
  DeclareLabels(command, arguments.get());
  DeclareRuns(command, arguments.get());
  return [arguments] { return RunScan(arguments.get()); };
}

}  // namespace temper::cli
