#include "weights/weight_source.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace temper::weights {

void WeightSource::Publish(std::shared_ptr<const WeightVersion> version) {
  const v1::Manifest& manifest = version->manifest();
  absl::MutexLock lock(&mutex_);
  if (!versions_.empty() && (versions_.back()->manifest().run_id() != manifest.run_id() ||
                             versions_.back()->manifest().timeline() != manifest.timeline())) {
    versions_.clear();
  }
  std::erase_if(versions_, [&](const std::shared_ptr<const WeightVersion>& kept) {
    return kept->manifest().version() == manifest.version();
  });
  versions_.push_back(std::move(version));
  while (versions_.size() > kKept) versions_.pop_front();
}

void WeightSource::SetBase(std::shared_ptr<const WeightVersion> base) {
  absl::MutexLock lock(&mutex_);
  base_ = std::move(base);
}

std::shared_ptr<const WeightVersion> WeightSource::base() const {
  absl::MutexLock lock(&mutex_);
  return base_;
}

absl::StatusOr<std::shared_ptr<const WeightVersion>> WeightSource::Find(std::string_view run_id,
                                                                        uint64_t timeline,
                                                                        uint64_t version) const {
  absl::MutexLock lock(&mutex_);
  if (!abort_reason_.empty()) return absl::AbortedError(abort_reason_);
  if (base_ != nullptr && base_->manifest().run_id() == run_id &&
      base_->manifest().timeline() == timeline) {
    return base_;
  }
  std::vector<uint64_t> kept;
  for (const auto& candidate : versions_) {
    const v1::Manifest& manifest = candidate->manifest();
    if (manifest.run_id() != run_id || manifest.timeline() != timeline) {
      return absl::AbortedError(absl::StrCat("versions of run ", manifest.run_id(), " timeline ",
                                             manifest.timeline(), " are kept here, not of run ",
                                             std::string(run_id), " timeline ", timeline));
    }
    if (manifest.version() == version) return candidate;
    kept.push_back(manifest.version());
  }
  return absl::NotFoundError(absl::StrCat("version ", version, " is not kept; there are [",
                                          absl::StrJoin(kept, ", "), "]"));
}

absl::Status WeightSource::Send(std::shared_ptr<const WeightVersion> version, absl::Time) {
  {
    absl::MutexLock lock(&mutex_);
    if (!abort_reason_.empty()) return absl::AbortedError(abort_reason_);
  }
  Publish(std::move(version));
  return absl::OkStatus();
}

void WeightSource::Abort(std::string_view reason) {
  absl::MutexLock lock(&mutex_);
  if (abort_reason_.empty()) abort_reason_ = absl::StrCat("aborted: ", std::string(reason));
}

}  // namespace temper::weights
