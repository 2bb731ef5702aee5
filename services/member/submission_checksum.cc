#include "services/member/submission_checksum.h"

#include <bit>

#include "services/base/hash.h"

namespace temper::member {
namespace {

// Feeds words to the hash as little-endian bytes, whatever the machine's order.
class WordHash final {
 public:
  void Add(uint64_t word) {
    unsigned char bytes[8];
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(word >> (8 * i));
    hash_.Update(bytes, sizeof(bytes));
  }
  uint64_t Digest() const { return hash_.Digest64(); }

 private:
  base::StreamHash hash_;
};

void AddCompletion(const v1::Completion& completion, WordHash* hash) {
  hash->Add(static_cast<uint64_t>(completion.token_ids_size()));
  for (const int32_t id : completion.token_ids()) hash->Add(static_cast<uint32_t>(id));
  hash->Add(static_cast<uint64_t>(completion.rollout_logprobs_size()));
  for (const float value : completion.rollout_logprobs()) hash->Add(std::bit_cast<uint32_t>(value));
  hash->Add(static_cast<uint64_t>(completion.versions_size()));
  for (const v1::VersionRun& run : completion.versions()) {
    hash->Add(run.version());
    hash->Add(run.tokens());
  }
  hash->Add(completion.truncated() ? 1 : 0);
  hash->Add(std::bit_cast<uint64_t>(completion.score().reward()));
  hash->Add(std::bit_cast<uint64_t>(completion.score().accuracy()));
}

}  // namespace

uint64_t SubmissionChecksum(const v1::SubmitGroupRequest& group) {
  WordHash hash;
  hash.Add(group.ref().timeline());
  hash.Add(group.ref().group_index());
  hash.Add(group.ref().attempt());
  hash.Add(group.problem_id());
  hash.Add(group.seed());
  hash.Add(group.noise_id());
  hash.Add(static_cast<uint64_t>(group.prompt_token_ids_size()));
  for (const int32_t id : group.prompt_token_ids()) hash.Add(static_cast<uint32_t>(id));
  hash.Add(static_cast<uint64_t>(group.completions_size()));
  for (const v1::Completion& completion : group.completions()) AddCompletion(completion, &hash);
  return hash.Digest();
}

}  // namespace temper::member
