#include "weights/model_files.h"

#include <utility>

#include "services/base/hash.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::weights {

std::map<std::string, uint64_t, std::less<>> ModelFileLimits() {
  return {{"config.json", uint64_t{16} << 20},
          {"tokenizer.json", uint64_t{256} << 20},
          {"chat_template.jinja", uint64_t{16} << 20}};
}

absl::Status CheckModelFiles(const ModelFiles& files) {
  const auto limits = ModelFileLimits();
  for (const auto& [name, bytes] : files) {
    const auto limit = limits.find(name);
    if (limit == limits.end()) {
      return absl::InvalidArgumentError(base::Cat(name, " is no file of a model's that travels"));
    }
    if (bytes.size() > limit->second) {
      return absl::ResourceExhaustedError(
          base::Cat(name, " has ", bytes.size(), " bytes, at most ", limit->second, " may travel"));
    }
  }
  for (const char* needed : {"config.json", "tokenizer.json"}) {
    if (!files.contains(needed)) {
      return absl::InvalidArgumentError(base::Cat("the model's ", needed, " is missing"));
    }
  }
  return absl::OkStatus();
}

uint64_t ModelFilesHash(const ModelFiles& files) {
  base::StreamHash hash;
  for (const auto& [name, bytes] : files) {
    hash.Update(base::Cat(name, "\n", bytes.size(), "\n"));
    hash.Update(bytes);
  }
  const uint64_t digest = hash.Digest64();
  return digest == 0 ? 1 : digest;  // 0 is what a message says that does not know of the field
}

absl::Status ModelFileSource::Serve(std::string run_id, ModelFiles files) {
  TEMPER_RETURN_IF_ERROR(CheckModelFiles(files));
  auto served = std::make_shared<Served>();
  for (const auto& [name, bytes] : files) served->xxh3[name] = base::Hash64(bytes);
  served->files = std::move(files);
  absl::MutexLock lock(&mutex_);
  run_id_ = std::move(run_id);
  served_ = std::move(served);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const ModelFileSource::Served>> ModelFileSource::Find(
    std::string_view run_id) const {
  absl::MutexLock lock(&mutex_);
  if (served_ == nullptr) {
    return absl::UnavailableError("the learner has not read its policy yet");
  }
  if (run_id != run_id_) {
    return absl::FailedPreconditionError(base::Cat(
        "this learner is of run ", run_id_, ", the model of run ", run_id, " was asked for"));
  }
  return served_;
}

}  // namespace temper::weights
