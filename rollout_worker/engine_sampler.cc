#include "rollout_worker/engine_sampler.h"

#include <bit>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/adapter_parameters.h"
#include "model/parameters.h"
#include "services/base/status_macros.h"

namespace temper::rollout_worker {
namespace {

// Widens the tensor's little-endian bytes into `target`.
absl::Status CopyTensor(std::string_view name, std::string_view dtype,
                        std::span<const std::byte> bytes, std::span<float> target) {
  const uint64_t element_bytes = weights::DtypeBytes(dtype);
  if (bytes.size() != target.size() * element_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", std::string(name), " has ",
                                                   bytes.size(), " bytes, the model needs ",
                                                   target.size(), " elements"));
  }
  if (element_bytes == sizeof(float)) {
    std::memcpy(target.data(), bytes.data(), bytes.size());
    return absl::OkStatus();
  }
  for (size_t i = 0; i < target.size(); ++i) {
    uint16_t high = 0;
    std::memcpy(&high, bytes.data() + 2 * i, sizeof(high));
    target[i] = std::bit_cast<float>(uint32_t{high} << 16);
  }
  return absl::OkStatus();
}

// Fills what of `parameters` is trained from the version, which holds exactly that.
absl::Status FillFrom(const weights::WeightVersion& version, model::Parameters* parameters) {
  const v1::Manifest& manifest = version.manifest();
  std::map<std::string, std::span<float>> targets = model::MutableViewsOf(*parameters);
  if (static_cast<size_t>(manifest.tensors_size()) != targets.size()) {
    return absl::InvalidArgumentError(absl::StrCat("version ", manifest.version(), " has ",
                                                   manifest.tensors_size(),
                                                   " tensors, the model has ", targets.size()));
  }
  for (const v1::TensorEntry& entry : manifest.tensors()) {
    const auto target = targets.find(entry.name());
    if (target == targets.end()) {
      return absl::InvalidArgumentError(absl::StrCat("the model has no tensor ", entry.name()));
    }
    TEMPER_ASSIGN_OR_RETURN(const auto bytes, version.Tensor(entry.name()));
    TEMPER_RETURN_IF_ERROR(CopyTensor(entry.name(), entry.dtype(), bytes, target->second));
  }
  return absl::OkStatus();
}

class EngineSampler final : public Sampler {
 public:
  // base: with setup.lora, the frozen base; else without tensors.
  EngineSampler(const RunSetup& setup, uint64_t worker, model::Parameters base,
                std::unique_ptr<model::DecodeEngine> engine)
      : setup_(setup), worker_(worker), base_(std::move(base)), engine_(std::move(engine)) {}

  absl::StatusOr<numerics::AqnReport> Install(const weights::WeightVersion& version) override {
    const v1::Manifest& manifest = version.manifest();
    TEMPER_ASSIGN_OR_RETURN(model::Parameters parameters,
                            setup_.lora.enabled() ? model::WithZeroAdapter(base_, setup_.lora)
                                                  : model::ZeroParameters(setup_.model));
    TEMPER_RETURN_IF_ERROR(FillFrom(version, &parameters));
    TEMPER_ASSIGN_OR_RETURN(
        const numerics::AqnReport report,
        engine_->Install(parameters, manifest.version(),
                         {.plan = &setup_.aqn,
                          .sigma = manifest.aqn().sigma(),
                          .step = static_cast<int64_t>(manifest.aqn().step()),
                          .run_seed = setup_.config.seed(),
                          .worker = worker_},
                         {.policy = &setup_.policy.injection(), .run_seed = setup_.config.seed()}));
    if (manifest.aqn().sigma() > 0.0 && report.norms_touched == 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("version ", manifest.version(), " is to be sampled under AQN sigma ",
                       manifest.aqn().sigma(), ", but it changed none of the model's norms"));
    }
    return report;
  }

  model::InstalledWeights Installed() const override { return engine_->Installed(); }

  absl::StatusOr<model::GenerateResult> Generate(const model::GenerateRequest& request,
                                                 const model::GenerateHooks& hooks) override {
    return engine_->Generate(request, hooks);
  }

 private:
  const RunSetup& setup_;
  const uint64_t worker_;  // numerics::AqnWorker
  const model::Parameters base_;
  const std::unique_ptr<model::DecodeEngine> engine_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Sampler>> MakeEngineSampler(const RunSetup& setup,
                                                           std::string_view member_id,
                                                           const weights::WeightVersion* base) {
  if (setup.lora.enabled() != (base != nullptr)) {
    return absl::InvalidArgumentError("adapters need their base, and whole models none");
  }
  model::Parameters frozen;
  if (base != nullptr) {
    TEMPER_ASSIGN_OR_RETURN(frozen, model::ZeroParameters(setup.model));
    TEMPER_RETURN_IF_ERROR(FillFrom(*base, &frozen));
  }
  TEMPER_ASSIGN_OR_RETURN(
      auto engine,
      model::DecodeEngine::Create(
          {.config = setup.model, .threads = static_cast<int>(setup.config.rollout().threads())}));
  return std::make_unique<EngineSampler>(setup, numerics::AqnWorker(member_id), std::move(frozen),
                                         std::move(engine));
}

}  // namespace temper::rollout_worker
