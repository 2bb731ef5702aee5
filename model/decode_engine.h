#pragma once

// The rollout's engine: batched decoding on CPU in float32 with a KV cache.
//
// The completions of a group share their prompt's cache: a prompt is computed once, and each
// completion attends over [cache of the prompt ; its own cache]. All unfinished completions of all
// groups of a request advance together, one token per step; a finished one leaves the batch.
//
// Every number is a function of the weights and of the group's own tokens and keys: the bits of a
// group do not depend on the other groups of the request, on the number of threads, or on the
// order of completions. docs/numerics.md, "Random numbers are functions", says how draws are keyed.

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/model_config.h"
#include "numerics/aqn_draw.h"
#include "numerics/noise_counters.h"
#include "numerics/noise_policy.h"
#include "numerics/site.h"

namespace temper::model {

struct Parameters;  // model/parameters.h, which brings in the tensor header; few callers need it
// One installed version, ready to decode with: model/decode_weights.h. Immutable; who holds it
// keeps it usable whatever is installed after it.
struct DecodeWeights;
using InstalledWeights = std::shared_ptr<const DecodeWeights>;

// One prompt and how many completions to sample from it.
struct PromptGroup {
  uint64_t scope = 0;               // group_index; in evaluation the question
  std::vector<int32_t> prompt_ids;  // at least one, each in [0, vocab_size)
  uint32_t samples = 1;             // >= 1
};

struct GenerateRequest {
  std::vector<PromptGroup> groups;     // scopes are distinct
  uint32_t max_completion_tokens = 0;  // with the stop id; >= 1
  double temperature = 1.0;  // logits are divided by it; 0: greedy, the lowest id of the largest
  std::vector<int32_t> stop_ids;  // a completion ends after the first of these; may be empty
  // kRollout: draws are keyed by (run seed, group_index). kEval: by (noise seed, question).
  numerics::Phase phase = numerics::Phase::kRollout;
  uint64_t seed = 0;                              // run seed, or the evaluation's noise seed
  const numerics::NoisePolicy* policy = nullptr;  // null: no error
  bool aqn = false;  // use norms under the AQN of the version; false: the clean ones
};

// The tokens of one version, in order: the first `tokens` of a completion (or the next ones).
struct VersionRun {
  uint64_t version = 0;
  uint32_t tokens = 0;
  friend bool operator==(const VersionRun&, const VersionRun&) = default;
};

struct Completion {
  std::vector<int32_t> token_ids;  // with the stop id, unless truncated
  // log-probability of each token under the distribution it was drawn from: softmax(logits /
  // temperature) of the version, error and AQN it was sampled under. With temperature 0: under
  // softmax(logits).
  std::vector<float> logprobs;
  std::vector<VersionRun> versions;  // counts sum to token_ids.size()
  bool truncated = false;            // ended by the length limit, not by a stop id
};

struct GeneratedGroup {
  std::vector<Completion> completions;  // one per sample, in order
  numerics::NoiseCounters counters;     // of this group's rows alone
  // AQN of the weights that sampled its newest tokens; 0 if the norms were clean.
  double aqn_sigma = 0.0;
};

struct GenerateResult {
  std::vector<GeneratedGroup> groups;  // in the order of the request
  uint64_t generated_tokens = 0;
  uint64_t decode_steps = 0;
  uint64_t swaps = 0;  // times newer weights were taken up inside this request
};

// What the engine asks between two decode steps, on the thread of Generate.
enum class StepDecision {
  kContinue,
  kSwapWeights,  // take up newer weights (no change if already in use). Caches stay.
  kCancel,       // give up: Generate returns Cancelled
};
struct StepState {
  uint64_t decode_steps = 0;  // steps done
  int64_t active_rows = 0;    // completions that go on
  uint64_t version = 0;       // in use
};
struct GenerateHooks {
  // Called before each decode step. Must be quick. Empty: always kContinue.
  std::function<StepDecision(const StepState&)> between_steps;
  // The weights to begin with and to take up at a swap, on the thread of Generate; null: at the
  // start an error, at a swap no change. Empty: the newest installed.
  std::function<InstalledWeights()> weights;
};

// What a version's AQN is. sigma 0, or plan null: none.
struct AqnInstall {
  const numerics::AqnPlan* plan = nullptr;  // only used during the call
  double sigma = 0.0;                       // of this version, before multipliers
  int64_t step = 0;                         // t of the schedule
  uint64_t run_seed = 0;                    // draws are keyed by (run seed, policy_version)
  uint64_t worker = 0;                      // and per worker by numerics::AqnWorker
};

// The injection that rollouts of a version run under; policy null: none.
struct InjectionInstall {
  const numerics::InjectionPolicy* policy = nullptr;  // only used during the call
  uint64_t run_seed = 0;  // draws of weights are keyed by (run seed, policy_version)
};

struct DecodeOptions {
  ModelConfig config;
  // Threads of a step, the caller's included; >= 1. A configured constant. Does not change results.
  int threads = 1;
};

// Thread-safe between one thread that calls Generate and one that calls Install; calls of Generate
// are serialised. Owns its packed weights and threads; the destructor joins them, and must not run
// during a call.
class DecodeEngine final {
 public:
  // Errors: InvalidArgument for a bad configuration or thread count.
  static absl::StatusOr<std::unique_ptr<DecodeEngine>> Create(DecodeOptions options);
  ~DecodeEngine();

  // Packs `parameters` (read during the call only) into a shadow copy with the norms of `aqn`, and
  // beside it the weights as `injection` perturbs them, and makes it the newest installed version.
  // A Generate that runs keeps its weights until its hook says kSwapWeights; the next Generate
  // starts with the newest, or with what its hook gives.
  // Returns what the draw did; where each group has its own, what the version's would do.
  // Errors: InvalidArgument if the shapes are not the engine's; as InjectWeights; nothing is
  // installed then.
  absl::StatusOr<numerics::AqnReport> Install(const Parameters& parameters, uint64_t version,
                                              const AqnInstall& aqn,
                                              const InjectionInstall& injection = {});

  // The newest installed weights, for GenerateHooks::weights; null before the first Install.
  InstalledWeights Installed() const;
  // Their version; FailedPrecondition before the first Install.
  absl::StatusOr<uint64_t> InstalledVersion() const;

  // Blocks until every completion has ended. Errors: FailedPrecondition before the first Install;
  // InvalidArgument for a bad request (names the group and both values); Unimplemented for a policy
  // that CheckPolicySupported refuses; Cancelled by the hook; ResourceExhausted without memory;
  // DataLoss if a logit is not finite (names group, sample and position).
  absl::StatusOr<GenerateResult> Generate(const GenerateRequest& request,
                                          const GenerateHooks& hooks = {});

 private:
  struct Impl;
  explicit DecodeEngine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace temper::model
