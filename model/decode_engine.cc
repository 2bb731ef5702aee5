#include "model/decode_engine.h"

#include <algorithm>
#include <new>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "model/decode_pass.h"
#include "model/decode_request.h"
#include "model/decode_weights.h"
#include "model/thread_pool.h"
#include "services/base/status_macros.h"

namespace temper::model {

struct DecodeEngine::Impl {
  explicit Impl(const DecodeOptions& options)
      : config(options.config),
        memory{.threads = ThreadPool(options.threads),
               .pages = KvPagePool(options.config),
               .rope = RopeTable(options.config.rope_theta, options.config.head_dim)} {
    memory.scratch.resize(static_cast<size_t>(options.threads));
  }

  std::shared_ptr<const DecodeWeights> Newest() const {
    absl::MutexLock lock(&mutex);
    return installed;
  }

  const ModelConfig config;
  mutable absl::Mutex mutex;
  std::shared_ptr<const DecodeWeights> installed ABSL_GUARDED_BY(mutex);
  absl::Mutex generate_mutex;  // serialises Generate
  DecodeMemory memory ABSL_GUARDED_BY(generate_mutex);
};

DecodeEngine::DecodeEngine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DecodeEngine::~DecodeEngine() = default;

absl::StatusOr<std::unique_ptr<DecodeEngine>> DecodeEngine::Create(DecodeOptions options) {
  TEMPER_RETURN_IF_ERROR(ValidateModelConfig(options.config));
  if (options.threads < 1 || options.threads > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads of the decode engine: ", options.threads, ", not 1 .. 1024"));
  }
  return std::unique_ptr<DecodeEngine>(new DecodeEngine(std::make_unique<Impl>(options)));
}

absl::StatusOr<numerics::AqnReport> DecodeEngine::Install(const Parameters& parameters,
                                                          uint64_t version, const AqnInstall& aqn,
                                                          const InjectionInstall& injection) {
  if (!(parameters.config == impl_->config)) {
    return absl::InvalidArgumentError(
        absl::StrCat("weights of version ", version, " are of another model configuration"));
  }
  TEMPER_ASSIGN_OR_RETURN(std::shared_ptr<const DecodeWeights> weights,
                          PackForDecoding(parameters, version, aqn, injection));
  const numerics::AqnReport report = weights->aqn_report;
  absl::MutexLock lock(&impl_->mutex);
  impl_->installed.swap(weights);  // what was installed is freed after the lock
  return report;
}

InstalledWeights DecodeEngine::Installed() const { return impl_->Newest(); }

absl::StatusOr<uint64_t> DecodeEngine::InstalledVersion() const {
  const std::shared_ptr<const DecodeWeights> weights = impl_->Newest();
  if (weights == nullptr) return absl::FailedPreconditionError("no weights are installed");
  return weights->version;
}

absl::StatusOr<GenerateResult> DecodeEngine::Generate(const GenerateRequest& request,
                                                      const GenerateHooks& hooks) {
  TEMPER_RETURN_IF_ERROR(CheckGenerateRequest(request, impl_->config));
  absl::MutexLock lock(&impl_->generate_mutex);
  const auto current = [&] { return hooks.weights ? hooks.weights() : impl_->Newest(); };
  InstalledWeights weights = current();
  if (weights == nullptr) return absl::FailedPreconditionError("no weights are installed");
  try {
    DecodeRequest decoding(request, impl_->config, &impl_->memory);
    TEMPER_RETURN_IF_ERROR(decoding.Use(std::move(weights)));
    TEMPER_RETURN_IF_ERROR(decoding.Prefill());
    while (decoding.active_rows() > 0) {
      const StepDecision decision = hooks.between_steps == nullptr
                                        ? StepDecision::kContinue
                                        : hooks.between_steps(decoding.state());
      if (decision == StepDecision::kCancel) {
        return absl::CancelledError(absl::StrCat("generation was cancelled after ",
                                                 decoding.state().decode_steps, " steps"));
      }
      if (decision == StepDecision::kSwapWeights) TEMPER_RETURN_IF_ERROR(decoding.Swap(current()));
      TEMPER_RETURN_IF_ERROR(decoding.Step());
    }
    return decoding.TakeResult();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the caches of ", request.groups.size(), " groups"));
  }
}

}  // namespace temper::model
