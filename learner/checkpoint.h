#pragma once

// Checkpoints of a run: RUN/checkpoints/step_N, whole or not there.
//
//   hf/                          a Hugging Face directory: config, weights, tokenizer
//   adapter/                     in its place, in a run that trains adapters: a PEFT directory. The
//                                frozen base is not copied; the manifest has its hash
//   state/optimizer.safetensors  moments, as first.<parameter> and second.<parameter>
//   state/trainer.json           the numbers of TrainerState
//   state/commit.binpb           the CommitStepRequest that closed step N
//   state/ledger.db              the orchestrator's ledger just before (or after) that commit: with
//                                the commit it is the ledger as of step N. Missing in supervised
//                                training, and where the orchestrator could not give it
//   state/quantization.json      what number formats would make of each weight
//                                (learner/weight_quantization.h); missing in supervised training
//   MANIFEST.json                XXH3-128 and size of every file above, configuration fingerprint,
//                                HashParameters of the frozen base
//
// A checkpoint is written under a temporary name, synced, hashed and renamed. Functions keep no
// state; one writer per run directory. Numbers are exact: what is read equals what was written, bit
// for bit.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "learner/adamw.h"
#include "model/io/loader.h"
#include "model/io/peft_adapter.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::learner {

// Where training stands besides weights and moments.
struct TrainerState {
  uint64_t step = 0;              // steps closed; also the policy version
  uint64_t optimizer_steps = 0;   // optimizer steps begun: noise keys and warm-up count by it
  int64_t optimizer_updates = 0;  // optimizer steps applied: AdamW's k
  uint64_t skipped_steps = 0;     // steps that trained nothing
};

// The trained part of a policy that is a frozen base and adapters.
struct AdapterContents {
  model::PeftAdapterViews views;
  int64_t num_layers = 0;  // of the base
  uint64_t base_hash = 0;  // model::HashParameters of the base
};

// What a checkpoint is made of. Views must stay valid during the call.
struct CheckpointContents {
  model::HuggingFaceModel model;
  std::optional<AdapterContents> adapter;  // is written in place of `model`
  const std::vector<AdamWMoments>* moments = nullptr;
  TrainerState state;
  uint64_t config_fingerprint = 0;
  v1::CommitStepRequest commit;
  std::string quantization_json;  // empty: none
  std::string ledger_file;        // moved to state/ledger.db; beside the checkpoints; empty: none
};

// What was read back.
struct LoadedCheckpoint {
  model::LoadedModel model;           // empty where there are adapters
  std::string adapter_dir;            // the PEFT directory inside; empty: `model`
  uint64_t base_hash = 0;             // of the base that the adapters were trained on
  std::vector<AdamWMoments> moments;  // in the order of their names
  TrainerState state;
  uint64_t config_fingerprint = 0;
  v1::CommitStepRequest commit;
  bool has_commit = false;  // false for a checkpoint of standalone supervised training
};

// "RUN/checkpoints/step_12".
std::string CheckpointPath(const std::string& run_dir, uint64_t step);

// Where a copy of the ledger is put for the checkpoint of `step`, before that is written. What a
// kill leaves there is cleared by MoveLaterFilesAside.
std::string LedgerCopyPath(const std::string& run_dir, uint64_t step);

// The copy of the ledger in checkpoint `dir`; empty if it holds none.
std::string LedgerOf(const std::string& dir);

// Writes RUN/checkpoints/step_<state.step>; one of that step that exists is replaced. On an error
// nothing of it remains, the ledger's copy included. ResourceExhausted on a full disk, naming the
// path.
absl::Status WriteCheckpoint(const std::string& run_dir, const CheckpointContents& contents);

// Checks the manifest and every hash, then reads. DataLoss, naming the file, for a checkpoint that
// is incomplete, altered or truncated; NotFound if there is no such directory; FailedPrecondition
// if it was written under another configuration (expected_fingerprint; 0: any).
absl::StatusOr<LoadedCheckpoint> ReadCheckpoint(const std::string& dir,
                                                uint64_t expected_fingerprint);

// The newest whole step_N under RUN/checkpoints: all files are there and have their hashes. Those
// that are newer and damaged are logged and moved to RUN/rewound/damaged/; nullopt if there are no
// checkpoints; DataLoss, naming a file of the newest, if there are and none is whole (nothing is
// moved then). Temporary names are passed over, but a checkpoint that was about to be replaced when
// its writer died gets its name back. Not for use while a checkpoint is being written.
absl::StatusOr<std::optional<std::string>> FindLatestCheckpoint(const std::string& run_dir);

// Removes all but the newest `keep` checkpoints, and what interrupted writes left. 0: keeps all.
absl::Status PruneCheckpoints(const std::string& run_dir, uint32_t keep);

// Moves the checkpoints and samples files of steps after resume_step to RUN/rewound/timeline_T/,
// so that a new timeline starts where they are not, and removes files whose writing a kill
// interrupted. timeline: the new one's number.
absl::Status MoveLaterFilesAside(const std::string& run_dir, uint64_t resume_step,
                                 uint64_t timeline);

}  // namespace temper::learner
