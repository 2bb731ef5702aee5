#include "cli/run_session.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "cli/console.h"
#include "cli/progress.h"
#include "cli/supervisor.h"
#include "model/io/loader.h"
#include "model/io/lora_spec.h"
#include "model/noise_context.h"
#include "prompts/gsm8k_files.h"
#include "services/base/files.h"
#include "services/base/signals.h"
#include "services/base/status_macros.h"
#include "services/config/lora_selection.h"
#include "services/config/noise_plan.h"
#include "services/config/run_config.h"
#include "weights/back_end.h"

namespace temper::cli {
namespace {

// Turns the stream of statuses into lines; keeps what the estimate of the time left needs.
class ProgressPrinter {
 public:
  explicit ProgressPrinter(Console* console) : console_(console) {}

  void Show(const v1::GetStatusReply& status) {
    const absl::Time now = absl::Now();
    const int lines = status.metrics_json_size();
    if (!primed_ && lines > 0 && first_step_ == 0) first_step_ = status.step() - lines;
    for (const std::string& metrics : status.metrics_json()) {
      const absl::Duration since_last = (now - last_step_at_) / lines;
      primed_ = true;
      const uint64_t done = status.step() - first_step_;
      const absl::Duration left =
          done == 0 ? absl::InfiniteDuration()
                    : (now - started_) / done * (status.planned_steps() - status.step());
      const auto line = StepLine(metrics, status.planned_steps(), since_last, left);
      console_->Line(line.ok() ? *line : metrics);
    }
    if (lines > 0) last_step_at_ = now;
    if (status.state() == v1::RUN_STATE_TRAINING && status.step() == first_step_ && lines == 0 &&
        !primed_ && last_state_ != status.state()) {
      started_ = last_step_at_ = now;  // the clock of training starts when training does
    }
    if (status.state() != last_state_) last_state_ = status.state();
    console_->Activity(ActivityLine(status));
  }

 private:
  Console* const console_;
  absl::Time started_ = absl::Now();
  absl::Time last_step_at_ = absl::Now();
  uint64_t first_step_ = 0;
  bool primed_ = false;
  v1::RunState last_state_ = v1::RUN_STATE_UNSPECIFIED;
};

void PrintSummary(const std::string& run_dir, Console* console) {
  const absl::StatusOr<std::string> summary = base::ReadFile(run_dir + "/summary.json", 64 << 20);
  if (!summary.ok()) return;
  const absl::StatusOr<std::string> table = SummaryTable(*summary, run_dir);
  console->Line(table.ok() ? *table : std::string(table.status().message()));
}

}  // namespace

std::vector<std::string> Lacking(const v1::RunConfig& config) {
  std::vector<std::string> lines = config::Unbuilt(config);
  const absl::Status broadcaster = weights::CheckBroadcaster(config.weights().broadcaster());
  if (!broadcaster.ok()) lines.emplace_back(broadcaster.message());
  return lines;
}

absl::Status CheckRunnable(const v1::RunConfig& config) {
  const std::vector<std::string> lacking = Lacking(config);
  if (!lacking.empty()) return absl::InvalidArgumentError(absl::StrJoin(lacking, "\n"));
  if (config.dataset().name() == "gsm8k") {
    TEMPER_RETURN_IF_ERROR(prompts::CheckGsm8kFolder(config.dataset().path()));
  }
  if (!base::PathExists(config.model().path())) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.path: there is no ", config.model().path(),
                     "; give a Hugging Face directory or a .gguf file"));
  }
  TEMPER_ASSIGN_OR_RETURN(const model::ModelConfig model,
                          model::LoadModelConfig(config.model().path()));
  TEMPER_ASSIGN_OR_RETURN(const model::LoraSpec lora,
                          model::MakeLoraSpec(model, config::LoraSelectionFromConfig(config)));
  const numerics::ModelShape shape = model::NoiseShape(model, lora);
  TEMPER_ASSIGN_OR_RETURN(const numerics::NoisePolicy policy,
                          config::NoisePolicyFromConfig(config, shape));
  const absl::Status supported = model::CheckPolicySupported(policy);
  if (!supported.ok()) return absl::InvalidArgumentError(supported.message());
  for (const double scale : config.eval().error_scales()) {
    TEMPER_RETURN_IF_ERROR(config::EvaluationPolicyFromConfig(config, shape, scale).status());
  }
  return config::AqnPlanFromConfig(config, shape).status();
}

void SetRunDirectory(const std::string& run_dir, v1::RunConfig* config) {
  const std::string path = std::filesystem::absolute(run_dir).string();
  config->set_run_dir(path);
  if (config->orchestrator().state_dir().empty())
    config->mutable_orchestrator()->set_state_dir(path);
}

absl::Status RunSession(const v1::RunConfig& config, bool resume, bool verbose) {
  base::StopToken stop;
  TEMPER_ASSIGN_OR_RETURN(const auto signals, base::SignalWatcher::Create(&stop));
  Console console;
  console.Line(absl::StrCat("run directory ", config.run_dir()));
  ProgressPrinter progress(&console);
  Supervisor supervisor(
      {.config = config,
       .resume = resume,
       .on_status = [&](const v1::GetStatusReply& status) { progress.Show(status); },
       .on_event =
           [&](const std::string& event) {
             if (verbose || event.find("ended") != std::string::npos) console.Line(event);
           }});
  const absl::Status status = supervisor.Run(&stop);
  console.ClearActivity();
  if (!status.ok()) return status;
  if (supervisor.status().state() == v1::RUN_STATE_STOPPED) {
    console.Line(absl::StrCat("stopped at step ", supervisor.status().step(),
                              "; go on with: ./temper run ", config.run_dir(), " --resume auto"));
    return absl::OkStatus();
  }
  PrintSummary(config.run_dir(), &console);
  return absl::OkStatus();
}

}  // namespace temper::cli
