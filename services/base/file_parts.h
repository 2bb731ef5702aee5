#pragma once

// Files that come over a wire in parts: whether the parts make the whole that they claim.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "services/base/hash.h"

namespace temper::base {

// One part, as v1::FileChunk says it.
struct FilePart {
  std::string_view name;      // of the file
  uint64_t offset_bytes = 0;  // where the payload begins; 0 begins a file
  uint64_t size_bytes = 0;    // of the whole file
  uint64_t xxh3 = 0;          // XXH3-64 of the whole file
  std::string_view payload;
};

// Looks at the parts of one stream in the order in which they arrive; keeps none of them. A file is
// whole once its last byte is there and the hash agrees. Thread-compatible. After an error the
// stream is not to be trusted any more.
class FilePartsCheck final {
 public:
  // max_bytes: the names that may come, and how large each may be.
  explicit FilePartsCheck(std::map<std::string, uint64_t, std::less<>> max_bytes)
      : max_bytes_(std::move(max_bytes)) {}

  // Errors, naming the file: InvalidArgument for a name that may not come; ResourceExhausted for a
  // file that claims to be larger than it may be; DataLoss for a part that does not begin where the
  // last one ended, is empty, runs over the end, changes what was claimed, or completes a file of
  // another hash, and for a file that comes twice.
  absl::Status Add(const FilePart& part);

  // After the last part. DataLoss if a file is not whole.
  absl::Status Finish() const;

  // Names of the files that are whole.
  const std::set<std::string, std::less<>>& whole() const { return whole_; }

 private:
  absl::Status Begin(const FilePart& part);

  const std::map<std::string, uint64_t, std::less<>> max_bytes_;
  std::set<std::string, std::less<>> whole_;
  std::string open_;  // the file that is not whole yet; empty: none
  uint64_t size_bytes_ = 0;
  uint64_t xxh3_ = 0;
  uint64_t received_bytes_ = 0;
  StreamHash hash_;
};

}  // namespace temper::base
