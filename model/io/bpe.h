#pragma once

// The merges of byte-level BPE. Private to model/io.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace temper::model {

// What a BPE model is made of, in printable byte-level spelling.
struct BpeParts {
  std::vector<std::pair<std::string, int32_t>> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::string unknown_token;   // stands for bytes without a token; empty: those are refused
  bool fuse_unknown = false;   // a run of unknown bytes is one unknown token
  bool ignore_merges = false;  // a word that is a token stays whole
};

// Thread-safe; owns its tables and a bounded cache of words.
class Bpe final {
 public:
  // Errors: DataLoss for a token that stands there twice, or a merge one of whose parts, or whose
  // result, is no token; it names the merge.
  static absl::StatusOr<std::unique_ptr<Bpe>> Create(const BpeParts& parts);

  // Appends the ids of `word` (raw bytes, one piece of the pre-tokenizer) to `ids`.
  // Errors: InvalidArgument if a byte has no token and there is no unknown token.
  absl::Status EncodeWord(std::string_view word, std::vector<int32_t>& ids) const;

  // Id of a token in printable spelling, or -1.
  int32_t Find(std::string_view token) const;

 private:
  struct Merge {
    int32_t rank = 0;
    int32_t id = 0;
  };
  Bpe() = default;

  absl::StatusOr<std::vector<int32_t>> Split(std::string_view word) const;
  void ApplyMerges(std::vector<int32_t>& symbols) const;
  const Merge* FindMerge(int32_t left, int32_t right) const;

  // A word longer than this is not worth a place in the cache.
  static constexpr size_t kMaxCachedBytes = 48;
  static constexpr size_t kMaxCachedWords = size_t{1} << 15;

  absl::flat_hash_map<std::string, int32_t> ids_;  // by printable spelling
  absl::flat_hash_map<uint64_t, Merge> merges_;    // by (left << 32 | right)
  std::vector<int32_t> byte_ids_;                  // by byte; -1: none
  int32_t unknown_id_ = -1;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;

  mutable absl::Mutex mutex_;
  mutable absl::flat_hash_map<std::string, std::vector<int32_t>> cache_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace temper::model
