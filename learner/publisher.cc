#include "learner/publisher.h"

#include <algorithm>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "model/io/loader.h"
#include "services/base/status_macros.h"

namespace temper::learner {
namespace {

// An evaluation may hold a version back for long; the group that will carry it may be another by
// then, so the manifest is made anew so often.
constexpr absl::Duration kSameEpoch = absl::Seconds(5);

}  // namespace

absl::StatusOr<std::shared_ptr<const weights::WeightVersion>> Publisher::Build(
    uint64_t version, const model::ModelConfig& config, const model::TensorViewMap& tensors) const {
  std::vector<weights::PublishedTensor> published;
  for (const model::ExpectedTensor& expected : model::ExpectedTensors(config)) {
    const auto found = tensors.find(expected.name);
    if (found == tensors.end()) {
      return absl::InternalError(absl::StrCat("no tensor ", expected.name, " to publish"));
    }
    published.push_back(
        {.spec = {.name = expected.name, .shape = expected.shape, .dtype = "float32"},
         .bytes = std::as_bytes(found->second.values)});
  }
  const int64_t t = static_cast<int64_t>(version);
  return weights::BuildVersion({.run_id = options_.run_id,
                                .timeline = options_.timeline,
                                .version = version,
                                .aqn_sigma = numerics::Sigma(options_.aqn, t),
                                .aqn_step = version,
                                .noise_id = options_.noise_id,
                                .source_address = options_.source_address,
                                .model_files_hash = options_.model_files_hash},
                               published, options_.bucket_bytes);
}

absl::StatusOr<v1::RunState> Publisher::Publish(
    std::shared_ptr<const weights::WeightVersion> version) {
  const absl::Time deadline = absl::Now() + options_.patience;
  while (true) {
    if (group_ != nullptr) version = version->WithCommEpoch(group_->CarryingEpoch());
    TEMPER_RETURN_IF_ERROR(root_->Send(version, deadline));
    v1::PublishManifestRequest request;
    *request.mutable_manifest() = version->manifest();
    request.set_learner_incarnation(options_.incarnation);
    const absl::StatusOr<v1::PublishManifestReply> reply =
        orchestrator_->PublishManifest(request, std::min(deadline, absl::Now() + kSameEpoch));
    if (reply.ok()) {
      // Not before: members come for a version once they have its manifest.
      if (group_ != nullptr) group_->VersionOut(std::move(version));
      return reply->state();
    }
    const bool again =
        absl::IsUnavailable(reply.status()) || absl::IsDeadlineExceeded(reply.status());
    if (!again || absl::Now() >= deadline) return reply.status();
  }
}

}  // namespace temper::learner
