#include "scan/activations.h"

#include "scan/layer_profile.h"
#include "services/base/status_macros.h"

namespace temper::scan {
namespace {

// What one worker watches with.
class Watchers final : public model::PassObserver {
 public:
  Watchers(const model::ModelConfig& config, std::span<const ScanError> errors, Role site,
           uint64_t seed)
      : errors_(config, errors, site, seed), profiler_(config) {}

  void Observe(const model::ObservedRows& rows) override {
    errors_.Observe(rows);
    profiler_.Observe(rows);
  }
  void BeginSequence(uint64_t question) { errors_.BeginSequence(question); }
  void Merge(const Watchers& other) {
    errors_.Merge(other.errors_);
    profiler_.Merge(other.profiler_);
  }
  ActivationFindings Findings() const {
    return {.rows = errors_.Rows(), .profile = profiler_.Profiles()};
  }

 private:
  ActivationScan errors_;
  LayerProfiler profiler_;
};

}  // namespace

absl::StatusOr<ActivationFindings> ScanActivations(SequenceRunner* runner,
                                                   std::span<const Sequence> sequences,
                                                   const model::ModelConfig& config,
                                                   std::span<const ScanError> errors, Role site,
                                                   uint64_t seed, absl::FunctionRef<void()> done) {
  std::vector<Watchers> watchers(static_cast<size_t>(runner->workers()),
                                 Watchers(config, errors, site, seed));
  TEMPER_RETURN_IF_ERROR(
      runner->Run(sequences.size(), [&](model::SequencePass* pass, size_t index, int worker) {
        Watchers& watching = watchers[static_cast<size_t>(worker)];
        watching.BeginSequence(index);
        const absl::Status status = pass->Run({.ids = sequences[index].ids,
                                               .prompt_tokens = sequences[index].prompt_tokens,
                                               .question = index,
                                               .observer = &watching});
        done();
        return status;
      }));
  for (size_t i = 1; i < watchers.size(); ++i) watchers[0].Merge(watchers[i]);
  return watchers[0].Findings();
}

}  // namespace temper::scan
