#pragma once

// What a worker needs of a model besides its weights, as files on their way from the learner: names
// and bytes. What they mean is model/io's (model/io/model_files.h).

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace temper::weights {

// By name: config.json, tokenizer.json, and chat_template.jinja where prompts are rendered by one.
using ModelFiles = std::map<std::string, std::string>;

// The names that may travel and the bytes each may have: a vocabulary of a million tokens makes a
// tokenizer.json of some 60 MB, the others are a few kilobytes.
std::map<std::string, uint64_t, std::less<>> ModelFileLimits();

// Errors: InvalidArgument for a name that may not travel, or if config.json or tokenizer.json is
// missing; ResourceExhausted for a file that is too large.
absl::Status CheckModelFiles(const ModelFiles& files);

// XXH3-64 over name, size and bytes of each: the manifest's model_files_hash. Never 0.
uint64_t ModelFilesHash(const ModelFiles& files);

// The learner's side: nothing until the policy is read, then always the same. Thread-safe.
class ModelFileSource final {
 public:
  struct Served {
    ModelFiles files;
    std::map<std::string, uint64_t> xxh3;  // of each
  };

  // Errors: those of CheckModelFiles; nothing is served then.
  absl::Status Serve(std::string run_id, ModelFiles files);

  // Errors: Unavailable before Serve; FailedPrecondition, with both, for another run.
  absl::StatusOr<std::shared_ptr<const Served>> Find(std::string_view run_id) const;

 private:
  mutable absl::Mutex mutex_;
  std::string run_id_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Served> served_
      ABSL_GUARDED_BY(mutex_);  // shared with streams that send it
};

}  // namespace temper::weights
