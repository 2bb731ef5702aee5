#include "tests/unit/rollout_worker/fake_sampler.h"

#include <memory>
#include <utility>

#include "model/decode_weights.h"

namespace temper::rollout_worker {
namespace {

constexpr absl::Duration kLongestWait = absl::Seconds(20);

}  // namespace

absl::StatusOr<numerics::AqnReport> FakeSampler::Install(const weights::WeightVersion& version) {
  absl::MutexLock lock(&mutex_);
  auto weights = std::make_shared<model::DecodeWeights>();
  weights->version = version.manifest().version();
  weights->aqn.sigma = version.manifest().aqn().sigma();
  installed_ = std::move(weights);
  return numerics::AqnReport{.sigma = version.manifest().aqn().sigma(),
                             .norms_touched = 3,
                             .checksum = version.manifest().base_weights_hash()};
}

model::InstalledWeights FakeSampler::Installed() const {
  absl::MutexLock lock(&mutex_);
  return installed_;
}

absl::StatusOr<model::GenerateResult> FakeSampler::Generate(const model::GenerateRequest& request,
                                                            const model::GenerateHooks& hooks) {
  model::GenerateResult result;
  uint64_t first = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (!failure_.ok()) return std::exchange(failure_, absl::OkStatus());
    running_ = true;
    const auto may_begin = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return begin_after_ == 0 || (installed_ != nullptr && installed_->version >= begin_after_);
    };
    mutex_.AwaitWithTimeout(absl::Condition(&may_begin), kLongestWait);
  }
  const model::InstalledWeights begun_with = hooks.weights();
  if (begun_with == nullptr) return absl::FailedPreconditionError("nothing is installed");
  first = begun_with->version;
  uint64_t now = first;
  for (bool more = true; more; ++result.decode_steps) {
    const model::StepDecision decision = hooks.between_steps(
        {.decode_steps = result.decode_steps, .active_rows = 1, .version = now});
    const model::InstalledWeights newest =
        decision == model::StepDecision::kSwapWeights ? hooks.weights() : nullptr;
    absl::MutexLock lock(&mutex_);
    if (decision == model::StepDecision::kCancel) {
      ++cancelled_;
      running_ = false;
      return absl::CancelledError("the hook says so");
    }
    if (newest != nullptr && newest->version != now) {
      now = newest->version;
      ++result.swaps;
    }
    more = endless_ && now == first;
    // Between two steps of an endless lease others get their turn.
    if (more) mutex_.AwaitWithTimeout(absl::Condition::kTrue, absl::ZeroDuration());
  }
  for (const model::PromptGroup& group : request.groups) {
    model::GeneratedGroup& out = result.groups.emplace_back();
    for (uint32_t sample = 0; sample < group.samples; ++sample) {
      model::Completion completion{
          .token_ids = {static_cast<int32_t>(40 + group.scope % 7),
                        static_cast<int32_t>(41 + sample)},
          .logprobs = {-0.5F, -0.25F},
          .versions = {{.version = first, .tokens = 1}, {.version = now, .tokens = 1}}};
      if (now == first) completion.versions = {{.version = first, .tokens = 2}};
      out.completions.push_back(std::move(completion));
      result.generated_tokens += 2;
    }
  }
  return result;
}

void FakeSampler::NeverEnd() {
  absl::MutexLock lock(&mutex_);
  endless_ = true;
}
void FakeSampler::BeginAfter(uint64_t version) {
  absl::MutexLock lock(&mutex_);
  begin_after_ = version;
}
void FakeSampler::FailOnce(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  failure_ = std::move(status);
}
bool FakeSampler::AwaitRunning() const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&running_), kLongestWait);
}
int FakeSampler::cancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

}  // namespace temper::rollout_worker
