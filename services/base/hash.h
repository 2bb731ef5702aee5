#pragma once

// XXH3 over bytes, streams and files: fast checksums and stable ids, not protection against a
// forger. Values are the same on every machine.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace temper::base {

// XXH3-64 with seed 0.
uint64_t Hash64(std::string_view bytes);
uint64_t Hash64(const void* bytes, size_t size);

struct Digest128 {
  uint64_t high = 0;
  uint64_t low = 0;
  friend bool operator==(const Digest128&, const Digest128&) = default;
};

// XXH3-128 with seed 0.
Digest128 Hash128(std::string_view bytes);

// 16 or 32 lower-case hexadecimal digits, most significant first (as xxhsum prints).
std::string HexDigest(uint64_t digest);
std::string HexDigest(const Digest128& digest);

// The same hashes of bytes that arrive in parts: how they were cut does not matter.
// Thread-compatible.
class StreamHash final {
 public:
  StreamHash();
  ~StreamHash();
  StreamHash(StreamHash&&) noexcept;
  StreamHash& operator=(StreamHash&&) noexcept;

  void Update(const void* bytes, size_t size);
  void Update(std::string_view bytes) { Update(bytes.data(), bytes.size()); }

  // Of everything so far; more may follow.
  uint64_t Digest64() const;
  Digest128 Digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Of a whole file, read in 1 MiB parts. Returns: NotFound, or Unavailable if reading fails.
absl::StatusOr<uint64_t> HashFile64(const std::string& path);
absl::StatusOr<Digest128> HashFile128(const std::string& path);

}  // namespace temper::base
