#include "services/base/random_key.h"

#include <xxhash.h>

#include <cstddef>

namespace temper::base {
namespace {

constexpr uint32_t kMultiplier0 = 0xD2511F53u;
constexpr uint32_t kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u;
constexpr uint32_t kWeyl1 = 0xBB67AE85u;
constexpr int kRounds = 10;

void StoreLittleEndian(uint64_t word, unsigned char* out) {
  for (int i = 0; i < 8; ++i) out[i] = static_cast<unsigned char>(word >> (8 * i));
}

}  // namespace

std::array<uint32_t, 4> Philox(const std::array<uint32_t, 4>& counter, uint64_t key) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t p0 = uint64_t{kMultiplier0} * c0;
    const uint64_t p1 = uint64_t{kMultiplier1} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return {c0, c1, c2, c3};
}

uint64_t RandomKey(uint64_t seed, Purpose purpose, uint64_t scope, uint64_t subscope) {
  unsigned char bytes[32];
  StoreLittleEndian(seed, bytes);
  StoreLittleEndian(static_cast<uint64_t>(purpose), bytes + 8);
  StoreLittleEndian(scope, bytes + 16);
  StoreLittleEndian(subscope, bytes + 24);
  return XXH3_64bits(bytes, sizeof(bytes));
}

uint64_t ForwardErrorKey(uint64_t run_seed, uint64_t group_index) {
  return RandomKey(run_seed, Purpose::kForwardError, group_index);
}

uint64_t FreshForwardErrorKey(uint64_t run_seed, uint64_t group_index, uint64_t optimizer_step,
                              uint32_t phase) {
  return RandomKey(run_seed, Purpose::kForwardErrorFresh, group_index, optimizer_step * 8 + phase);
}

uint64_t GradInputErrorKey(uint64_t run_seed, uint64_t group_index, uint64_t optimizer_step) {
  return RandomKey(run_seed, Purpose::kGradInputError, group_index, optimizer_step);
}

uint64_t GradWeightErrorKey(uint64_t run_seed, uint64_t optimizer_step) {
  return RandomKey(run_seed, Purpose::kGradWeightError, optimizer_step);
}

uint64_t FrozenErrorKey(uint64_t device_seed) {
  return RandomKey(device_seed, Purpose::kFrozenError, 0);
}

uint64_t AqnKey(uint64_t run_seed, uint64_t policy_version, uint64_t subscope) {
  return RandomKey(run_seed, Purpose::kAqn, policy_version, subscope);
}

uint64_t SamplingKey(uint64_t run_seed, uint64_t group_index) {
  return RandomKey(run_seed, Purpose::kSampling, group_index);
}

uint64_t WeightErrorKey(uint64_t run_seed, uint64_t policy_version, uint64_t subscope) {
  return RandomKey(run_seed, Purpose::kWeightError, policy_version, subscope);
}

uint64_t StochasticRoundingKey(uint64_t run_seed, uint64_t scope, uint64_t subscope) {
  return RandomKey(run_seed, Purpose::kStochasticRounding, scope, subscope);
}

uint64_t EvaluationErrorKey(uint64_t noise_seed, uint64_t question) {
  return RandomKey(noise_seed, Purpose::kEvaluationError, question);
}

uint64_t EvaluationSamplingKey(uint64_t noise_seed, uint64_t question) {
  return RandomKey(noise_seed, Purpose::kEvaluationSampling, question);
}

double SamplingUniform(uint64_t key, uint32_t lane, uint32_t position) {
  return UniformFromWord(Philox({0, position, 0, lane}, key)[0]);
}

uint64_t UniformBelow(uint64_t key, uint32_t index, uint64_t bound) {
  const std::array<uint32_t, 4> words = Philox({index / 2, 0, 0, 0}, key);
  const size_t first = (index % 2) * 2;
  const uint64_t word = (uint64_t{words[first]} << 32) | words[first + 1];
  return static_cast<uint64_t>((static_cast<unsigned __int128>(word) * bound) >> 64);
}

}  // namespace temper::base
