#pragma once

// One Generate call in progress: its groups, their caches, and the completions that go on. Used by
// decode_engine.cc alone. No LibTorch here.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "model/decode_engine.h"
#include "model/decode_pass.h"
#include "model/thread_pool.h"
#include "numerics/gaussian.h"

namespace temper::model {

// What requests of one engine share, one after the other.
struct DecodeMemory {
  ThreadPool threads;
  KvPagePool pages;
  RopeTable rope;
  std::vector<DecodeScratch> scratch;  // one per thread
  // Of the last evaluation that needed weights of its own, whose items follow each other, and of
  // what they were made.
  std::shared_ptr<const InjectedWeights> injected;
  std::weak_ptr<const DecodeWeights> injected_of;
};

// InvalidArgument, naming the group and both values, or Unimplemented; see DecodeEngine::Generate.
absl::Status CheckGenerateRequest(const GenerateRequest& request, const ModelConfig& config);

// Thread-compatible. `request` and `memory` outlive it; the destructor returns all pages.
class DecodeRequest final {
 public:
  DecodeRequest(const GenerateRequest& request, const ModelConfig& config, DecodeMemory* memory);
  ~DecodeRequest();
  DecodeRequest(const DecodeRequest&) = delete;
  DecodeRequest& operator=(const DecodeRequest&) = delete;

  // The weights to begin with, not null; before Prefill. Errors: as InjectWeights.
  absl::Status Use(std::shared_ptr<const DecodeWeights> weights);
  // Computes every prompt once and draws the first token of each completion.
  // DataLoss if a logit is not finite.
  absl::Status Prefill();
  // One more token for every active completion. Errors as Prefill.
  absl::Status Step();
  // Goes on with `newest`; null or what is in use already: no change. Errors: as Use.
  absl::Status Swap(std::shared_ptr<const DecodeWeights> newest);

  int64_t active_rows() const { return static_cast<int64_t>(active_.size()); }
  StepState state() const;
  GenerateResult TakeResult();

 private:
  struct Group {
    std::vector<float*> prompt_pages;
    uint64_t error_key = 0;
    uint64_t injection_key = 0;  // of hw_error_injection's draws
    uint64_t sampling_key = 0;
    std::optional<NormDraw> norms;  // of weights_, where every group has a draw of its own
  };
  struct ActiveRow {
    int32_t group = 0;
    uint32_t sample = 0;
    std::vector<float*> pages;  // of its own tokens
  };

  absl::Status PrefillGroup(int64_t group, int worker);
  absl::Status StepRows(int64_t begin, int64_t end, int worker);
  // Draws a token of a completion from a row of logits and appends it.
  absl::Status Draw(int64_t group, uint32_t sample, const float* logits, float* weights);
  bool Finished(const Completion& completion);
  void StartRows();
  void DropFinished();
  // Takes up the perturbed weights that belong to weights_.
  absl::Status UseInjected();
  numerics::RowKey KeyOf(int64_t group, uint32_t position, uint32_t lane) const;
  numerics::RowKey InjectionKeyOf(int64_t group, uint32_t position, uint32_t lane) const;
  DecodePass NewPass() const;
  // Makes the draws that the weights in use call for.
  void TakeUpAqn();
  // The draw that a group's norms have; null: clean.
  const NormDraw* NormsOf(int64_t group) const;
  double SigmaOf(const GeneratedGroup& group) const;
  void ReserveForWorkers(int64_t rows, int64_t logit_rows);
  absl::Status FirstError(const std::vector<absl::Status>& statuses) const;

  const GenerateRequest& request_;
  const ModelConfig& config_;
  const numerics::InjectionPolicy* const injection_;  // null: none in this phase
  std::shared_ptr<const DecodeWeights> weights_;
  std::shared_ptr<const InjectedWeights> injected_;  // null: no operand errs
  DecodeMemory& memory_;
  float inv_temperature_;
  int64_t longest_prompt_ = 0;
  std::map<uint64_t, double> sigmas_;  // of each version used, as its norms are read
  std::vector<Group> groups_;
  std::vector<ActiveRow> active_;
  std::vector<std::vector<GroupCounts>> counts_;  // [worker][group]
  // Per step, one per active row.
  std::vector<DecodeRow> rows_;
  std::vector<numerics::RowKey> keys_;
  std::vector<numerics::RowKey> injection_keys_;
  GenerateResult result_;
};

}  // namespace temper::model
