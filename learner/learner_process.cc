#include "learner/learner_process.h"

#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "learner/broadcast_lead.h"
#include "learner/checkpoint.h"
#include "learner/learner_metrics.h"
#include "learner/learner_options.h"
#include "learner/learner_service.h"
#include "learner/orchestrator_client.h"
#include "learner/policy_files.h"
#include "learner/publisher.h"
#include "learner/sft.h"
#include "learner/step_loop.h"
#include "learner/submission_desk.h"
#include "services/base/address.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"
#include "services/config/run_config.h"
#include "services/member/membership_client.h"
#include "services/metrics/http_endpoint.h"
#include "services/rpc/server.h"
#include "weights/model_files.h"
#include "weights/weight_service.h"
#include "weights/weight_source.h"

namespace temper::learner {
namespace {

constexpr absl::Duration kBeginPatience = absl::Minutes(5);
constexpr absl::Duration kDrain = absl::Seconds(3);

// Members in the order in which they start; destroyed in the reverse one.
class LearnerProcess {
 public:
  LearnerProcess(const LearnerFlags& flags, base::StopToken* stop) : flags_(flags), stop_(stop) {}
  ~LearnerProcess() { Shutdown(); }

  absl::Status Run();

 private:
  absl::Status StartServers();
  absl::Status Join();
  absl::Status PreparePolicy();
  absl::StatusOr<std::string> CheckpointToResume() const;
  absl::Status ServePolicy();
  absl::Status OpenTimeline();
  absl::Status Train();
  void Shutdown();

  const LearnerFlags& flags_;
  base::StopToken* const stop_;
  metrics::MetricsRegistry registry_;
  LearnerMetrics metrics_{&registry_};
  rpc::RpcMetrics rpc_metrics_{&registry_};
  weights::WeightSource source_;
  weights::ModelFileSource model_files_;
  weights::WeightServiceImpl weight_service_{
      {.source = &source_, .model_files = &model_files_, .metrics = &rpc_metrics_}};
  LearnerServiceImpl learner_service_{&rpc_metrics_};
  std::unique_ptr<metrics::HttpEndpoint> endpoint_;
  std::unique_ptr<member::MembershipClient> membership_;
  std::unique_ptr<OrchestratorClient> orchestrator_;
  PolicyFiles files_;
  LearnerOptions options_;
  PublisherOptions publisher_options_;
  std::optional<v1::CommitStepRequest> last_commit_;
  std::unique_ptr<PolicyTrainer> trainer_;
  uint64_t timeline_ = 0;
  std::unique_ptr<GroupStore> store_;
  std::unique_ptr<SubmissionDesk> desk_;
  std::unique_ptr<rpc::RpcServer> server_;  // last: it stops before what its handlers use
};

absl::Status LearnerProcess::StartServers() {
  TEMPER_ASSIGN_OR_RETURN(const base::HostPort metrics_at,
                          base::ParseHostPort(flags_.process.metrics_listen));
  TEMPER_ASSIGN_OR_RETURN(
      endpoint_, metrics::HttpEndpoint::Create({.host = metrics_at.host,
                                                .port = metrics_at.port,
                                                .insecure_network = flags_.process.insecure_network,
                                                .registry = &registry_}));
  TEMPER_ASSIGN_OR_RETURN(
      server_, rpc::RpcServer::Create({.listen_address = flags_.process.listen,
                                       .services = {&learner_service_, &weight_service_},
                                       .tls = flags_.process.tls,
                                       .insecure_network = flags_.process.insecure_network,
                                       .advertise_towards = flags_.process.join}));
  member::PrintStartLine("learner", server_->address(), endpoint_->address());
  return absl::OkStatus();
}

absl::Status LearnerProcess::Join() {
  member::MembershipOptions options;
  options.orchestrator_address = flags_.process.join;
  options.role = v1::ROLE_LEARNER;
  options.member_id = flags_.process.member_id;
  options.incarnation = flags_.process.incarnation;
  options.address = server_->address();
  options.metrics_address = endpoint_->address();
  if (!flags_.process.config_file.empty()) {
    TEMPER_ASSIGN_OR_RETURN(const v1::RunConfig config,
                            config::LoadResolvedConfig(flags_.process.config_file));
    options.config_fingerprint = config::Fingerprint(config);
  }
  options.stop = stop_;
  options.leave_signal = stop_;
  options.tls = flags_.process.tls;
  options.metrics = &rpc_metrics_;
  TEMPER_ASSIGN_OR_RETURN(membership_, member::MembershipClient::Create(std::move(options)));
  TEMPER_ASSIGN_OR_RETURN(orchestrator_,
                          OrchestratorClient::Create({.address = flags_.process.join,
                                                      .tls = flags_.process.tls,
                                                      .jitter_key = membership_->incarnation(),
                                                      .stop = stop_,
                                                      .metrics = &rpc_metrics_}));
  return absl::OkStatus();
}

absl::StatusOr<std::string> LearnerProcess::CheckpointToResume() const {
  if (!flags_.resume_from.empty()) return flags_.resume_from;
  if (membership_->join_reply().timeline() == 0) return std::string();
  TEMPER_ASSIGN_OR_RETURN(const std::optional<std::string> latest,
                          FindLatestCheckpoint(options_.run_dir));
  return latest.value_or("");
}

absl::Status LearnerProcess::PreparePolicy() {
  const v1::RunConfig& config = membership_->join_reply().config();
  if (config.trainer().loss() != "dapo") {
    return absl::InvalidArgumentError(absl::StrCat("trainer.loss: ", config.trainer().loss(),
                                                   " runs alone; start it with `temper sft`"));
  }
  TEMPER_ASSIGN_OR_RETURN(files_, ReadPolicyFiles(config.model()));
  TEMPER_ASSIGN_OR_RETURN(options_, LearnerOptionsFromConfig(config, files_.parts.config));
  options_.admission.run_id = membership_->run_id();
  weight_service_.SetChunkBytes(options_.chunk_bytes);
  TEMPER_ASSIGN_OR_RETURN(const std::string checkpoint, CheckpointToResume());
  TEMPER_ASSIGN_OR_RETURN(trainer_, MakeTrainer(options_, config.model().path(), checkpoint,
                                                /*fresh_weights_allowed=*/false, &last_commit_));
  return ServePolicy();
}

// What workers pull before their first version: the frozen base of adapters, then the model files.
absl::Status LearnerProcess::ServePolicy() {
  const model::Parameters& parameters = trainer_->parameters();
  publisher_options_ = {.run_id = membership_->run_id(),
                        .incarnation = membership_->incarnation(),
                        .source_address = server_->address(),
                        .noise_id = options_.noise_id,
                        .aqn = options_.aqn,
                        .model_files_hash = weights::ModelFilesHash(files_.texts),
                        .bucket_bytes = options_.bucket_bytes};
  if (parameters.lora.enabled()) {
    TEMPER_ASSIGN_OR_RETURN(
        const auto base,
        Publisher::BuildBase(publisher_options_, model::ExpectedTensors(parameters.config),
                             model::ViewsOf(parameters)));
    publisher_options_.adapted_base_hash = base->manifest().base_weights_hash();
    source_.SetBase(base);
  }
  return model_files_.Serve(membership_->run_id(), files_.texts);
}

absl::Status LearnerProcess::OpenTimeline() {
  const uint64_t step = trainer_->state().step;
  v1::BeginTimelineRequest request;
  request.set_run_id(membership_->run_id());
  request.set_member_id(membership_->member_id());
  request.set_incarnation(membership_->incarnation());
  request.set_resume_step(step);
  if (last_commit_.has_value()) *request.mutable_last_commit() = *last_commit_;
  TEMPER_ASSIGN_OR_RETURN(const v1::BeginTimelineReply reply,
                          orchestrator_->BeginTimeline(request, absl::Now() + kBeginPatience));
  timeline_ = reply.timeline();
  TEMPER_RETURN_IF_ERROR(MoveLaterFilesAside(options_.run_dir, step, timeline_));
  store_ = std::make_unique<GroupStore>(options_.batch);
  store_->Open(timeline_, step);
  desk_ = std::make_unique<SubmissionDesk>(
      SubmissionDeskOptions{.rules = options_.admission, .incarnation = membership_->incarnation()},
      store_.get(), orchestrator_.get(), &metrics_);
  learner_service_.Open(desk_.get());
  base::LogInfo("timeline_open", {{"timeline", timeline_}, {"step", step}});
  return absl::OkStatus();
}

absl::Status LearnerProcess::Train() {
  TEMPER_ASSIGN_OR_RETURN(const std::unique_ptr<weights::GroupRunner> group,
                          LeadBroadcasts({.run_id = membership_->run_id(),
                                          .timeline = timeline_,
                                          .incarnation = membership_->incarnation(),
                                          .config = membership_->join_reply().config().weights(),
                                          .membership = membership_.get(),
                                          .orchestrator = orchestrator_.get(),
                                          .metrics = &metrics_}));
  publisher_options_.timeline = timeline_;
  Publisher publisher(publisher_options_, &source_, orchestrator_.get(), group.get());
  StepLoop loop({.options = &options_,
                 .run_id = membership_->run_id(),
                 .timeline = timeline_,
                 .incarnation = membership_->incarnation(),
                 .trainer = trainer_.get(),
                 .store = store_.get(),
                 .orchestrator = orchestrator_.get(),
                 .publisher = &publisher,
                 .tokenizer = files_.parts.tokenizer.get(),
                 .chat_template = files_.parts.chat_template.source,
                 .metrics = &metrics_,
                 .stop = stop_,
                 .last_commit = last_commit_});
  TEMPER_RETURN_IF_ERROR(loop.Run());
  // The last version is out; the evaluation of it needs our bytes until the run is over. An
  // orchestrator that falls silent raises the stop too, through the membership.
  while (!stop_->WaitFor(absl::Minutes(1))) {
  }
  return absl::OkStatus();
}

absl::Status LearnerProcess::Run() {
  TEMPER_RETURN_IF_ERROR(StartServers());
  TEMPER_RETURN_IF_ERROR(Join());
  TEMPER_RETURN_IF_ERROR(PreparePolicy());
  TEMPER_RETURN_IF_ERROR(OpenTimeline());
  TEMPER_RETURN_IF_ERROR(Train());
  const member::MembershipView view = membership_->view();
  return view.leave ? view.end : absl::OkStatus();
}

void LearnerProcess::Shutdown() {
  if (server_ != nullptr) server_->Shutdown(kDrain);
  if (membership_ == nullptr) return;
  const absl::Status left = membership_->Leave(absl::Seconds(2));
  if (!left.ok()) base::LogInfo("left_silently", {{"reason", left.message()}});
}

}  // namespace

absl::Status RunLearner(const LearnerFlags& flags, base::StopToken* stop) {
  LearnerProcess process(flags, stop);
  absl::Status status = process.Run();
  // Calls that a stop interrupted are no failure.
  if (absl::IsCancelled(status) && stop->StopRequested()) return absl::OkStatus();
  return status;
}

absl::Status RunSftCommand(const LearnerFlags& flags, base::StopToken* stop) {
  SftOptions options;
  TEMPER_ASSIGN_OR_RETURN(options.config, config::LoadResolvedConfig(flags.process.config_file));
  options.resume_from = flags.resume_from;
  options.stop = stop;
  options.log_line = [](const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  };
  return RunStandaloneSft(options);
}

}  // namespace temper::learner
