#include "rollout_worker/prepare_sampler.h"

#include "rollout_worker/engine_sampler.h"
#include "services/base/status_macros.h"

namespace temper::rollout_worker {

absl::StatusOr<std::unique_ptr<Sampler>> PrepareSampler(const ModelPullOptions& pull,
                                                        std::unique_ptr<RunSetup>* setup) {
  TEMPER_ASSIGN_OR_RETURN(*setup, AwaitRunSetup(pull));
  if (!(*setup)->lora.enabled()) return MakeEngineSampler(**setup, pull.membership->member_id());
  TEMPER_ASSIGN_OR_RETURN(const auto base, AwaitBase(pull));
  (*setup)->base_hash = base->manifest().base_weights_hash();
  return MakeEngineSampler(**setup, pull.membership->member_id(), base.get());
}

}  // namespace temper::rollout_worker
