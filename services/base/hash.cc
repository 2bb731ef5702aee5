#include "services/base/hash.h"

#define XXH_STATIC_LINKING_ONLY  // XXH3_state_t is complete only then
#include <xxhash.h>

#include <cerrno>
#include <cstdio>
#include <vector>

#include "absl/strings/str_format.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper::base {
namespace {

constexpr size_t kFilePartBytes = 1 << 20;

absl::StatusOr<StreamHash> HashFile(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rbe");
  if (file == nullptr) return StatusFromErrno(errno, "cannot open", path);
  StreamHash hash;
  std::vector<char> part(kFilePartBytes);
  errno = 0;
  while (size_t read = std::fread(part.data(), 1, part.size(), file))
    hash.Update(part.data(), read);
  const bool failed = std::ferror(file) != 0;
  const int error = errno;
  std::fclose(file);
  if (failed) return StatusFromErrno(error, "cannot read", path);
  return hash;
}

}  // namespace

uint64_t Hash64(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }
uint64_t Hash64(const void* bytes, size_t size) { return XXH3_64bits(bytes, size); }

Digest128 Hash128(std::string_view bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {.high = hash.high64, .low = hash.low64};
}

std::string HexDigest(uint64_t digest) { return absl::StrFormat("%016x", digest); }
std::string HexDigest(const Digest128& digest) {
  return HexDigest(digest.high) + HexDigest(digest.low);
}

struct StreamHash::State {
  XXH3_state_t state64;
  XXH3_state_t state128;
};

StreamHash::StreamHash() : state_(std::make_unique<State>()) {
  XXH3_64bits_reset(&state_->state64);
  XXH3_128bits_reset(&state_->state128);
}
StreamHash::~StreamHash() = default;
StreamHash::StreamHash(StreamHash&&) noexcept = default;
StreamHash& StreamHash::operator=(StreamHash&&) noexcept = default;

void StreamHash::Update(const void* bytes, size_t size) {
  XXH3_64bits_update(&state_->state64, bytes, size);
  XXH3_128bits_update(&state_->state128, bytes, size);
}

uint64_t StreamHash::Digest64() const { return XXH3_64bits_digest(&state_->state64); }

Digest128 StreamHash::Digest() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(&state_->state128);
  return {.high = hash.high64, .low = hash.low64};
}

absl::StatusOr<uint64_t> HashFile64(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(StreamHash hash, HashFile(path));
  return hash.Digest64();
}

absl::StatusOr<Digest128> HashFile128(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(StreamHash hash, HashFile(path));
  return hash.Digest();
}

}  // namespace temper::base
