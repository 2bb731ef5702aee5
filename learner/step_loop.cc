#include "learner/step_loop.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "learner/checkpoint.h"
#include "learner/policy_files.h"
#include "learner/samples_file.h"
#include "numerics/noise_rows.h"
#include "services/base/files.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"

namespace temper::learner {
namespace {

// How often a step that gets no groups says so.
constexpr absl::Duration kWaitReport = absl::Seconds(30);
// An orchestrator that is restarted comes back well within this.
constexpr absl::Duration kCommitPatience = absl::Minutes(30);

// How long a checkpoint waits for the ledger's copy; after SIGTERM the supervisor waits 10 s.
constexpr absl::Duration kLedgerPatience = absl::Minutes(2);
constexpr absl::Duration kLedgerPatienceAtStop = absl::Seconds(4);

// One examination asks the orchestrator once, with a deadline of seconds.
constexpr absl::Duration kExaminationPatience = absl::Minutes(1);

// The numbers of an update, as shares and means.
void AddUpdate(const DapoStepResult& result, StepRecord* record) {
  const double tokens = static_cast<double>(result.objective.tokens);
  const auto share = [&](double part) { return tokens > 0.0 ? part / tokens : 0.0; };
  record->tokens_trained = static_cast<uint64_t>(result.objective.tokens);
  record->loss = result.objective.loss;
  record->entropy = share(result.entropy_sum);
  record->clip_fraction_low = share(static_cast<double>(result.objective.clipped_low));
  record->clip_fraction_high = share(static_cast<double>(result.objective.clipped_high));
  record->dual_clip_fraction = share(static_cast<double>(result.objective.dual_clipped));
  record->importance_cut_ratio = share(static_cast<double>(result.objective.weights_cut));
  record->effective_sample_size = result.objective.EffectiveSampleShare();
  record->grad_norm = result.grad_norm;
  record->learning_rate = result.learning_rate;
  record->optimizer_steps = static_cast<uint64_t>(result.optimizer_steps);
  record->non_finite_gradients = static_cast<uint64_t>(result.non_finite_gradients);
  record->logprob_abs_diff_mean = result.gap.abs_mean();
  record->logprob_abs_diff_max = result.gap.abs_max;
  record->kl_sampler_learner = result.gap.k1();
  record->kl_sampler_learner_k3 = result.gap.k3();
  record->counters.Merge(result.counters);
}

void AddWeightHashes(const v1::Manifest& manifest, StepRecord* record) {
  const bool adapters = manifest.adapted_base_hash() != 0;
  record->base_weights_hash =
      adapters ? manifest.adapted_base_hash() : manifest.base_weights_hash();
  record->adapter_weights_hash = adapters ? manifest.base_weights_hash() : 0;
}

// A checkpoint without the ledger still saves what was trained, and goes on with the ledger that is
// there; failing the run for want of a second copy would lose more than it guards. But whoever is
// no longer the learner, or was stopped meanwhile, is to write none.
bool MayDoWithoutLedger(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsResourceExhausted(status) || absl::IsDataLoss(status);
}

// The learner's own passes of a step.
std::vector<numerics::MadePass> PassesMade(const DapoStepResult& result, OldLogprob old_logprob) {
  using numerics::Direction;
  using numerics::Phase;
  if (result.objective.tokens == 0) return {};
  std::vector<numerics::MadePass> made = {{Phase::kTrain, Direction::kForward},
                                          {Phase::kTrain, Direction::kBackward}};
  if (old_logprob == OldLogprob::kRecomputed) {
    made.push_back({Phase::kOldLogprob, Direction::kForward});
  }
  return made;
}

// Whether AQN acted in the learner's own forward passes where it should, and nowhere else.
absl::Status CheckOwnAqn(const ClosedBatch& batch, const DapoStepResult& result,
                         const LearnerOptions& options, int num_layers) {
  std::set<uint64_t> newest;
  for (const RolloutGroup& group : batch.train) newest.insert(group.newest_version);
  const std::vector<uint64_t> versions(newest.begin(), newest.end());
  for (const numerics::MadePass& pass : PassesMade(result, options.dapo.old_logprob)) {
    if (pass.direction != numerics::Direction::kForward) continue;
    TEMPER_RETURN_IF_ERROR(
        numerics::CheckAqnSeen(options.aqn, num_layers, versions, result.counters, pass.phase));
  }
  return absl::OkStatus();
}

std::string SkipReason(const ClosedBatch& batch, const DapoStepResult& result) {
  if (batch.train.empty()) return batch.reason;
  if (result.non_finite_gradients > 0) return "the gradient was not finite";
  return "no token was left unmasked";
}

void Close(const std::vector<RolloutGroup>& groups, v1::Ending ending,
           v1::CommitStepRequest* commit) {
  for (const RolloutGroup& group : groups) {
    v1::ClosedAttempt* closed = commit->add_closed();
    closed->set_group_index(group.group_index);
    closed->set_attempt(group.attempt);
    closed->set_ending(ending);
  }
}

}  // namespace

StepLoop::StepLoop(StepLoopParts parts)
    : parts_(std::move(parts)),
      probe_({.every = parts_.options->gap_probe_every,
              .groups = parts_.options->gap_probe_groups,
              .max_staleness = parts_.options->batch.max_staleness,
              .micro_batch_tokens = parts_.options->micro_batch_tokens,
              .rules = parts_.options->dapo},
             parts_.trainer) {}

absl::Status StepLoop::Run() {
  const LearnerOptions& options = *parts_.options;
  checkpointed_step_ = parts_.trainer->state().step;
  committed_optimizer_steps_ = parts_.trainer->state().optimizer_steps;
  TEMPER_ASSIGN_OR_RETURN(Version first, BuildVersion());
  absl::Status status = Publish(std::move(first));
  step_began_ = parts_.clock->Now();
  while (status.ok() && parts_.trainer->state().step < options.total_updates) {
    absl::Duration waited;
    absl::StatusOr<ClosedBatch> batch = AwaitBatch(parts_.trainer->state().step + 1, &waited);
    if (absl::IsCancelled(batch.status())) return CheckpointOnStop();
    TEMPER_RETURN_IF_ERROR(batch.status());
    status = RunStep(*std::move(batch), waited);
  }
  if (absl::IsCancelled(status) && parts_.stop->StopRequested()) return CheckpointOnStop();
  return status;
}

absl::StatusOr<ClosedBatch> StepLoop::AwaitBatch(uint64_t step, absl::Duration* waited) {
  const absl::Time began = parts_.clock->Now();
  while (true) {
    absl::StatusOr<ClosedBatch> batch =
        parts_.store->AwaitBatch(step, parts_.clock->Now() + kWaitReport, parts_.stop);
    *waited = parts_.clock->Now() - began;
    if (!absl::IsDeadlineExceeded(batch.status())) return batch;
    base::LogWarning("waiting_for_groups", {{"step", step},
                                            {"seconds", absl::ToInt64Seconds(*waited)},
                                            {"state", batch.status().message()}});
  }
}

absl::Status StepLoop::Probe(const ClosedBatch& batch, StepRecord* record) {
  const absl::Time began = parts_.clock->Now();
  TEMPER_ASSIGN_OR_RETURN(record->gap_probe, probe_.Run(record->step, batch.train));
  record->probe_seconds = absl::ToDoubleSeconds(parts_.clock->Now() - began);
  return absl::OkStatus();
}

absl::StatusOr<DapoStepResult> StepLoop::Update(const ClosedBatch& batch) {
  if (batch.train.empty()) return DapoStepResult{};
  const LearnerOptions& options = *parts_.options;
  return RunDapoStep(batch.train,
                     {.rules = options.dapo,
                      .minibatches_per_step = options.minibatches_per_step,
                      .micro_batch_tokens = options.micro_batch_tokens},
                     parts_.trainer, parts_.stop);
}

absl::Status StepLoop::RunStep(ClosedBatch batch, absl::Duration waited) {
  const uint64_t version = parts_.trainer->state().step;  // that is trained
  StepRecord record;
  record.step = version + 1;
  record.timeline = parts_.timeline;
  TEMPER_RETURN_IF_ERROR(Probe(batch, &record));
  const absl::Time update_began = parts_.clock->Now();
  TEMPER_ASSIGN_OR_RETURN(const DapoStepResult result, Update(batch));
  const absl::Time update_ended = parts_.clock->Now();
  parts_.trainer->CloseStep(result.skipped());
  TEMPER_ASSIGN_OR_RETURN(
      std::vector<RolloutGroup> stale,
      parts_.store->TakeStale(version + 1, parts_.clock->Now() + kExaminationPatience));
  std::move(stale.begin(), stale.end(), std::back_inserter(batch.stale));

  record.skipped = result.skipped();
  if (record.skipped) record.skip_reason = SkipReason(batch, result);
  record.rollouts = SummarizeRollouts(batch, version);
  record.sigma = numerics::Sigma(parts_.options->aqn, static_cast<int64_t>(version));
  AddUpdate(result, &record);
  TEMPER_RETURN_IF_ERROR(CheckNoise(batch, result, &record.counters));
  TEMPER_ASSIGN_OR_RETURN(Version next, BuildVersion());
  AddWeightHashes(next->manifest(), &record);
  record.update_seconds = absl::ToDoubleSeconds(update_ended - update_began);
  record.wait_seconds = absl::ToDoubleSeconds(waited);
  record.step_seconds = absl::ToDoubleSeconds(update_ended - step_began_);
  for (const RolloutGroup& group : batch.train) record.generate_seconds += group.generate_seconds;
  step_began_ = update_ended;

  TEMPER_RETURN_IF_ERROR(
      WriteSamples(parts_.options->run_dir, record.step, batch, *parts_.tokenizer));
  const uint64_t every = parts_.options->checkpoint_every;
  const bool last = record.step >= parts_.options->total_updates;
  const bool checkpoint_due = last || (every > 0 && record.step % every == 0);
  if (checkpoint_due) {
    TEMPER_RETURN_IF_ERROR(MeasureQuantization());
    record.quantization = Summarize(quantized_);
  }
  last_commit_ = CommitOf(batch, record);
  committed_optimizer_steps_ = parts_.trainer->state().optimizer_steps;
  if (checkpoint_due) TEMPER_RETURN_IF_ERROR(Checkpoint());
  TEMPER_RETURN_IF_ERROR(
      parts_.orchestrator->CommitStep(*last_commit_, absl::Now() + kCommitPatience).status());
  ShowMetrics(record);
  return Publish(std::move(next));
}

absl::Status StepLoop::CheckNoise(const ClosedBatch& batch, const DapoStepResult& result,
                                  numerics::NoiseCounters* counters) {
  const LearnerOptions& options = *parts_.options;
  absl::Status seen = numerics::CheckSeen(options.noise, result.counters,
                                          PassesMade(result, options.dapo.old_logprob));
  own_counts_.Merge(result.counters);
  own_groups_ += batch.train.size();
  if (seen.ok()) seen = numerics::CheckSeen(options.noise, own_counts_);
  if (seen.ok() && own_groups_ >= numerics::kJudgedGroups) {
    seen = numerics::CheckAchievedScale(options.noise, own_counts_);
  }
  const int layers = static_cast<int>(parts_.trainer->parameters().config.num_layers);
  if (seen.ok()) seen = CheckOwnAqn(batch, result, options, layers);
  if (seen.ok()) {
    seen = AddCheckedRolloutCounts(batch, options.noise, options.aqn, layers, &counts_by_worker_,
                                   counters);
  }
  if (seen.ok()) return seen;
  v1::StopRunRequest request;
  request.set_run_id(parts_.run_id);
  request.set_reason(absl::StrCat("noise is not what was configured: ", seen.message()));
  request.set_failed(true);
  const absl::Status told = parts_.orchestrator->StopRun(request, absl::Now() + absl::Seconds(10));
  if (!told.ok()) base::LogError("run_not_stopped", {{"error", told.message()}});
  return absl::FailedPreconditionError(request.reason());
}

absl::StatusOr<StepLoop::Version> StepLoop::BuildVersion() const {
  const model::Parameters& parameters = parts_.trainer->parameters();
  return parts_.publisher->Build(parts_.trainer->state().step, model::TrainedTensors(parameters),
                                 model::TrainedViewsOf(parameters));
}

v1::CommitStepRequest StepLoop::CommitOf(const ClosedBatch& batch, const StepRecord& record) const {
  v1::CommitStepRequest commit;
  commit.set_run_id(parts_.run_id);
  commit.set_timeline(parts_.timeline);
  commit.set_step(record.step);
  commit.set_learner_incarnation(parts_.incarnation);
  Close(batch.train, v1::ENDING_TRAINED, &commit);
  Close(batch.zero_variance, v1::ENDING_DROPPED_ZERO_VARIANCE, &commit);
  Close(batch.stale, v1::ENDING_DROPPED_STALE, &commit);
  commit.set_policy_version(record.step);
  commit.set_skipped(record.skipped);
  commit.set_metrics_json(MetricsJson(record));
  commit.set_update_seconds(record.update_seconds);
  return commit;
}

absl::StatusOr<std::string> StepLoop::CopyLedger() {
  const absl::Time began = parts_.clock->Now();
  v1::SnapshotLedgerRequest request;
  request.set_run_id(parts_.run_id);
  request.set_timeline(parts_.timeline);
  request.set_learner_incarnation(parts_.incarnation);
  const std::string path = LedgerCopyPath(parts_.options->run_dir, parts_.trainer->state().step);
  TEMPER_RETURN_IF_ERROR(base::MakeDirectories(std::filesystem::path(path).parent_path().string()));
  const bool stopping = parts_.stop->StopRequested();
  const absl::Status status = parts_.orchestrator->SnapshotLedger(
      request, path, absl::Now() + (stopping ? kLedgerPatienceAtStop : kLedgerPatience));
  const double seconds = absl::ToDoubleSeconds(parts_.clock->Now() - began);
  parts_.metrics->ledger_copy_seconds.Observe(seconds);
  if (status.ok()) {
    base::LogInfo("ledger_copied", {{"step", parts_.trainer->state().step}, {"seconds", seconds}});
    return path;
  }
  if (!MayDoWithoutLedger(status)) return status;
  parts_.metrics->checkpoints_without_ledger.Increment();
  base::LogWarning("checkpoint_without_ledger",
                   {{"step", parts_.trainer->state().step}, {"error", status.ToString()}});
  return std::string();
}

absl::Status StepLoop::MeasureQuantization() {
  const model::Parameters& parameters = parts_.trainer->parameters();
  TEMPER_ASSIGN_OR_RETURN(
      quantized_,
      QuantizeWeights(model::ViewsOf(parameters), static_cast<int>(parameters.config.num_layers)));
  return absl::OkStatus();
}

absl::Status StepLoop::Checkpoint() {
  const absl::Time began = parts_.clock->Now();
  if (quantized_.empty()) TEMPER_RETURN_IF_ERROR(MeasureQuantization());
  TEMPER_ASSIGN_OR_RETURN(const std::string ledger, CopyLedger());
  const LearnerOptions& options = *parts_.options;
  CheckpointContents contents =
      ContentsOf(*parts_.trainer, options, *parts_.tokenizer, parts_.chat_template);
  contents.commit = *last_commit_;
  contents.quantization_json = QuantizationJson(quantized_);
  contents.ledger_file = ledger;
  TEMPER_RETURN_IF_ERROR(WriteCheckpoint(options.run_dir, contents));
  quantized_.clear();
  checkpointed_step_ = parts_.trainer->state().step;
  const double seconds = absl::ToDoubleSeconds(parts_.clock->Now() - began);
  parts_.metrics->checkpoint_seconds.Observe(seconds);
  base::LogInfo("checkpoint_written", {{"step", checkpointed_step_}, {"seconds", seconds}});
  return PruneCheckpoints(options.run_dir, options.checkpoint_keep);
}

absl::Status StepLoop::CheckpointOnStop() {
  const TrainerState& state = parts_.trainer->state();
  if (!last_commit_.has_value() || checkpointed_step_ == state.step) return absl::OkStatus();
  // A step that began to change the weights is abandoned; the next incarnation does it again.
  const bool committed =
      state.step == last_commit_->step() && state.optimizer_steps == committed_optimizer_steps_;
  return committed ? Checkpoint() : absl::OkStatus();
}

absl::Status StepLoop::Publish(Version version) {
  probe_.Keep(version);
  const uint64_t number = version->manifest().version();
  parts_.metrics->aqn_sigma.Set(version->manifest().aqn().sigma());
  TEMPER_ASSIGN_OR_RETURN(const v1::RunState state, parts_.publisher->Publish(std::move(version)));
  base::LogInfo("version_published",
                {{"version", number}, {"run_state", v1::RunState_Name(state)}});
  return absl::OkStatus();
}

void StepLoop::ShowMetrics(const StepRecord& record) {
  LearnerMetrics* const metrics = parts_.metrics;
  metrics->step.Set(static_cast<double>(record.step));
  metrics->reward_mean.Set(record.rollouts.reward_mean);
  metrics->accuracy_raw.Set(record.rollouts.accuracy_raw);
  metrics->format_rate.Set(record.rollouts.format_rate);
  metrics->entropy_nats.Set(record.entropy);
  metrics->grad_norm.Set(record.grad_norm);
  metrics->learning_rate.Set(record.learning_rate);
  metrics->clip_fraction_low.Set(record.clip_fraction_low);
  metrics->clip_fraction_high.Set(record.clip_fraction_high);
  metrics->logprob_gap_mean_nats.Set(record.logprob_abs_diff_mean);
  metrics->logprob_gap_max_nats.Set(record.logprob_abs_diff_max);
  metrics->kl_sampler_learner_nats.Set(record.kl_sampler_learner);
  metrics->staleness_max_steps.Set(static_cast<double>(record.rollouts.staleness_max));
  metrics->groups_held.Set(static_cast<double>(parts_.store->held()));
  metrics->update_seconds.Observe(record.update_seconds);
  metrics->wait_seconds.Observe(record.wait_seconds);
  metrics->tokens_trained.Increment(static_cast<double>(record.tokens_trained));
  if (record.skipped) metrics->steps_skipped.Increment();
  metrics->CountNoise(record.counters);
  if (record.gap_probe.has_value()) metrics->ShowGapSplit(*record.gap_probe);
  metrics->ShowQuantization(record.quantization);
  base::LogInfo("step_closed", {{"step", record.step},
                                {"skipped", record.skipped},
                                {"reward", record.rollouts.reward_mean},
                                {"accuracy", record.rollouts.accuracy_raw},
                                {"gap", record.logprob_abs_diff_mean},
                                {"update_seconds", record.update_seconds}});
}

}  // namespace temper::learner
