#include "model/io/bpe.h"

#include <queue>
#include <tuple>

#include "model/io/byte_level.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

uint64_t PairKey(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

// A place where two neighbours could merge. Found stale when one of them has changed since.
struct Candidate {
  int32_t rank = 0;
  int32_t left = 0;   // index of the left symbol
  int32_t right = 0;  // index of the right one
  int32_t id = 0;     // of the merged symbol

  // priority_queue puts the largest on top: the lowest rank, then the leftmost.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    return std::tie(a.rank, a.left) > std::tie(b.rank, b.left);
  }
};

// A symbol in the chain of those that are left. id -1: merged into its left neighbour.
struct Link {
  int32_t id = 0;
  int32_t previous = 0;
  int32_t next = 0;
};

absl::Status MissingPiece(std::string_view piece, std::string_view left, std::string_view right) {
  return absl::DataLossError(base::Cat("the tokenizer lacks the piece \"", piece,
                                       "\" of its merge \"", left, " ", right, "\""));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Bpe>> Bpe::Create(const BpeParts& parts) {
  std::unique_ptr<Bpe> bpe(new Bpe());
  bpe->fuse_unknown_ = parts.fuse_unknown;
  bpe->ignore_merges_ = parts.ignore_merges;
  bpe->ids_.reserve(parts.vocabulary.size());
  for (const auto& [token, id] : parts.vocabulary) {
    if (!bpe->ids_.emplace(token, id).second) {
      return absl::DataLossError(base::Cat("token \"", token, "\" stands twice in the vocabulary"));
    }
  }
  bpe->merges_.reserve(parts.merges.size());
  int32_t rank = 0;
  for (const auto& [left, right] : parts.merges) {
    const std::string merged = left + right;
    for (const std::string* piece : {&left, &right, &merged}) {
      if (bpe->Find(*piece) < 0) return MissingPiece(*piece, left, right);
    }
    bpe->merges_.insert_or_assign(PairKey(bpe->Find(left), bpe->Find(right)),
                                  Merge{.rank = rank++, .id = bpe->Find(merged)});
  }
  for (int byte = 0; byte < 256; ++byte) {
    bpe->byte_ids_.push_back(bpe->Find(SpellByte(static_cast<uint8_t>(byte))));
  }
  if (!parts.unknown_token.empty()) {
    bpe->unknown_id_ = bpe->Find(parts.unknown_token);
    if (bpe->unknown_id_ < 0) {
      return absl::DataLossError(
          base::Cat("the tokenizer lacks its unknown token \"", parts.unknown_token, "\""));
    }
  }
  return bpe;
}

int32_t Bpe::Find(std::string_view token) const {
  const auto found = ids_.find(base::ToAbsl(token));
  return found == ids_.end() ? -1 : found->second;
}

const Bpe::Merge* Bpe::FindMerge(int32_t left, int32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

absl::StatusOr<std::vector<int32_t>> Bpe::Split(std::string_view word) const {
  std::vector<int32_t> symbols;
  symbols.reserve(word.size());
  for (const char c : word) {
    const uint8_t byte = static_cast<uint8_t>(c);
    const int32_t id = byte_ids_[byte] >= 0 ? byte_ids_[byte] : unknown_id_;
    if (id < 0) {
      return absl::InvalidArgumentError(
          base::Cat("the vocabulary has no token for byte ", static_cast<int>(byte)));
    }
    const bool unknown = byte_ids_[byte] < 0;
    if (unknown && fuse_unknown_ && !symbols.empty() && symbols.back() == id) continue;
    symbols.push_back(id);
  }
  return symbols;
}

void Bpe::ApplyMerges(std::vector<int32_t>& symbols) const {
  const int32_t count = static_cast<int32_t>(symbols.size());
  std::vector<Link> links(symbols.size());
  std::priority_queue<Candidate> candidates;
  const auto propose = [&](int32_t left, int32_t right) {
    if (left < 0 || right >= count) return;
    const Merge* merge = FindMerge(links[left].id, links[right].id);
    if (merge != nullptr) candidates.push({merge->rank, left, right, merge->id});
  };
  for (int32_t i = 0; i < count; ++i) links[i] = {symbols[i], i - 1, i + 1};
  for (int32_t i = 0; i + 1 < count; ++i) propose(i, i + 1);
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Link& left = links[best.left];
    Link& right = links[best.right];
    if (left.id < 0 || right.id < 0 || left.next != best.right) continue;
    const Merge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->rank != best.rank) continue;  // a neighbour has changed
    left.id = best.id;
    left.next = right.next;
    right.id = -1;
    if (left.next < count) links[left.next].previous = best.left;
    propose(left.previous, best.left);
    propose(best.left, left.next);
  }
  symbols.clear();
  for (int32_t i = 0; i < count; i = links[i].next) symbols.push_back(links[i].id);
}

absl::Status Bpe::EncodeWord(std::string_view word, std::vector<int32_t>& ids) const {
  if (word.size() <= kMaxCachedBytes) {
    absl::MutexLock lock(&mutex_);
    const auto found = cache_.find(base::ToAbsl(word));
    if (found != cache_.end()) {
      ids.insert(ids.end(), found->second.begin(), found->second.end());
      return absl::OkStatus();
    }
  }
  std::vector<int32_t> symbols;
  if (ignore_merges_) {
    std::string spelled;
    for (const char c : word) spelled += SpellByte(static_cast<uint8_t>(c));
    const int32_t whole = Find(spelled);
    if (whole >= 0) symbols.push_back(whole);
  }
  if (symbols.empty()) {
    TEMPER_ASSIGN_OR_RETURN(symbols, Split(word));
    if (symbols.size() > 1) ApplyMerges(symbols);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.end());
  if (word.size() <= kMaxCachedBytes) {
    absl::MutexLock lock(&mutex_);
    if (cache_.size() >= kMaxCachedWords) cache_.clear();
    cache_.emplace(std::string(word), std::move(symbols));
  }
  return absl::OkStatus();
}

}  // namespace temper::model
