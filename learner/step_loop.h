#pragma once

// The learner's main loop, one step after the other:
//
//   wait for the batch -> probe if due -> update -> check the noise -> samples -> checkpoint if due
//     -> CommitStep -> publish the new version
//
// The commit is the truth. What is before it can be lost and is done again by the next incarnation;
// the checkpoint before it carries the commit, in case it never arrives.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "learner/dapo_update.h"
#include "learner/gap_probe.h"
#include "learner/group_store.h"
#include "learner/learner_metrics.h"
#include "learner/learner_options.h"
#include "learner/metrics_record.h"
#include "learner/orchestrator_link.h"
#include "learner/policy_trainer.h"
#include "learner/publisher.h"
#include "learner/rollout_noise.h"
#include "learner/weight_quantization.h"
#include "model/io/tokenizer.h"
#include "services/base/clock.h"
#include "services/base/stop_token.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::learner {

// What the loop works with; everything pointed to outlives it.
struct StepLoopParts {
  const LearnerOptions* options = nullptr;
  std::string run_id;
  uint64_t timeline = 0;
  uint64_t incarnation = 0;
  PolicyTrainer* trainer = nullptr;
  GroupStore* store = nullptr;
  OrchestratorLink* orchestrator = nullptr;
  Publisher* publisher = nullptr;
  const model::Tokenizer* tokenizer = nullptr;
  std::string chat_template;  // saved with the model
  LearnerMetrics* metrics = nullptr;
  base::StopToken* stop = nullptr;
  base::Clock* clock = base::SystemClock();
  // The commit of the checkpoint it resumed from, and so the newest one known.
  std::optional<v1::CommitStepRequest> last_commit;
};

// Thread-compatible: one thread calls Run.
class StepLoop final {
 public:
  explicit StepLoop(StepLoopParts parts);

  // Publishes the version it starts from and closes the steps that are left. OK once all are closed
  // and the last version is out, or after a stop, which abandons the step it finds open. A stop
  // writes a checkpoint of the last commit, unless that step has already changed the weights.
  // Errors: FailedPrecondition if error or AQN was configured and not seen (the run is told to
  // fail); Aborted if another learner has taken over; ResourceExhausted on a full disk; Unavailable
  // if the orchestrator does not come back.
  absl::Status Run();

 private:
  using Version = std::shared_ptr<const weights::WeightVersion>;

  absl::StatusOr<ClosedBatch> AwaitBatch(uint64_t step, absl::Duration* waited);
  absl::Status RunStep(ClosedBatch batch, absl::Duration waited);
  absl::Status Probe(const ClosedBatch& batch, StepRecord* record);
  absl::StatusOr<DapoStepResult> Update(const ClosedBatch& batch);
  // Whether the noise of this step, and of all steps so far, is what was configured. counters: the
  // batch's rollouts are added to it.
  absl::Status CheckNoise(const ClosedBatch& batch, const DapoStepResult& result,
                          numerics::NoiseCounters* counters);
  absl::StatusOr<Version> BuildVersion() const;
  v1::CommitStepRequest CommitOf(const ClosedBatch& batch, const StepRecord& record) const;
  // What number formats would make of the weights as they are, for the next checkpoint.
  absl::Status MeasureQuantization();
  absl::Status Checkpoint();
  // The ledger's copy for a checkpoint, a file; empty where the orchestrator cannot give it in
  // time.
  absl::StatusOr<std::string> CopyLedger();
  absl::Status CheckpointOnStop();
  absl::Status Publish(Version version);
  void ShowMetrics(const StepRecord& record);

  const StepLoopParts parts_;
  GapProbe probe_;
  std::optional<v1::CommitStepRequest> last_commit_ = parts_.last_commit;
  numerics::NoiseCounters own_counts_;      // of this learner's passes since it began
  uint64_t own_groups_ = 0;                 // of those
  CountsByWorker counts_by_worker_;         // of rollouts since then
  std::vector<QuantizedWeight> quantized_;  // of the weights as they are; empty: not measured
  uint64_t checkpointed_step_ = 0;          // of the newest checkpoint
  uint64_t committed_optimizer_steps_ = 0;  // when last_commit_ was made
  absl::Time step_began_;
};

}  // namespace temper::learner
