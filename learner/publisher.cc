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

absl::StatusOr<std::vector<weights::PublishedTensor>> ToPublish(
    const std::vector<model::ExpectedTensor>& expected, const model::TensorViewMap& tensors) {
  std::vector<weights::PublishedTensor> published;
  for (const model::ExpectedTensor& tensor : expected) {
    const auto found = tensors.find(tensor.name);
    if (found == tensors.end()) {
      return absl::InternalError(absl::StrCat("no tensor ", tensor.name, " to publish"));
    }
    published.push_back({.spec = {.name = tensor.name, .shape = tensor.shape, .dtype = "float32"},
                         .bytes = std::as_bytes(found->second.values)});
  }
  return published;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const weights::WeightVersion>> Publisher::BuildBase(
    const PublisherOptions& options, const std::vector<model::ExpectedTensor>& expected,
    const model::TensorViewMap& tensors) {
  TEMPER_ASSIGN_OR_RETURN(const std::vector<weights::PublishedTensor> published,
                          ToPublish(expected, tensors));
  return weights::BuildVersion({.run_id = options.run_id,
                                .source_address = options.source_address,
                                .model_files_hash = options.model_files_hash},
                               published, options.bucket_bytes);
}

absl::StatusOr<std::shared_ptr<const weights::WeightVersion>> Publisher::Build(
    uint64_t version, const std::vector<model::ExpectedTensor>& expected,
    const model::TensorViewMap& tensors) const {
  TEMPER_ASSIGN_OR_RETURN(const std::vector<weights::PublishedTensor> published,
                          ToPublish(expected, tensors));
  const int64_t t = static_cast<int64_t>(version);
  return weights::BuildVersion({.run_id = options_.run_id,
                                .timeline = options_.timeline,
                                .version = version,
                                .aqn_sigma = numerics::Sigma(options_.aqn, t),
                                .aqn_step = version,
                                .noise_id = options_.noise_id,
                                .source_address = options_.source_address,
                                .model_files_hash = options_.model_files_hash,
                                .adapted_base_hash = options_.adapted_base_hash},
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
