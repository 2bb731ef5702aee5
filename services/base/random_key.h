#pragma once

// Keyed random numbers: every draw is a pure function of a 64-bit key and a 128-bit counter, so it
// does not depend on process, thread, batch or order. There is no generator object and no state.
//
//   key     = XXH3-64 of four little-endian 64-bit words (seed, purpose, scope, subscope)
//   counter = (element / 4, position, site, lane), 32 bits each; element mod 4 picks the output
//   word
//
// Which words name which draw: docs/numerics.md, "Random numbers are functions". All functions here
// are pure and thread-safe.

#include <array>
#include <cstdint>

namespace temper::base {

// What a draw is for. The numbers enter the key and so the fingerprint of a run's noise: they are
// never reused or renumbered.
enum class Purpose : uint64_t {
  kForwardError = 1,       // operator output; (run seed, group_index, 0)
  kForwardErrorFresh = 2,  // the learner's own forward; (run seed, group_index, step * 8 + phase)
  kGradInputError = 3,     // g_x; (run seed, group_index, optimizer step)
  kGradWeightError = 4,    // g_W; (run seed, optimizer step, 0)
  kFrozenError = 5,        // a mis-calibrated device; (device seed, 0, 0); the role is in the site
  kWeightError = 6,  // a weight operand; (run seed, policy_version, 0 or step * 8 + phase + 1)
  kAqn = 7,          // norm weights; (run seed, policy_version, 0 or group or worker)
  kSampling = 8,     // token choice; (run seed, group_index, 0)
  kStochasticRounding = 9,   // (run seed, group_index or policy_version, as kWeightError)
  kEvaluationError = 10,     // operator output in evaluation; (noise seed, question, 0)
  kEvaluationSampling = 11,  // token choice in evaluation; (noise seed, question, 0)
  kPromptOrder = 12,         // (run seed, epoch, 0)
  kWeightInit = 13,          // (run seed, 0, 0); of adapters (run seed, 1, 0)
  kDataset = 14,             // generated problems; (data seed, problem index, 0)
  kBootstrap = 15,           // resampling in statistics; (seed, replicate, 0)
  kTest = 16,                // draws of tests and benchmarks
};

// Philox4x32-10 (Salmon et al. 2011). key: low 32 bits are the first key word, high 32 the second.
// Known answer: counter {0, 0, 0, 0}, key 0 -> 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
std::array<uint32_t, 4> Philox(const std::array<uint32_t, 4>& counter, uint64_t key);

// The key of a draw. scope and subscope as listed at `Purpose`.
uint64_t RandomKey(uint64_t seed, Purpose purpose, uint64_t scope, uint64_t subscope = 0);

// Keys by their meaning, so that callers cannot mix up the words.
uint64_t ForwardErrorKey(uint64_t run_seed, uint64_t group_index);
// phase: the numeric value of numerics::Phase, below 8. optimizer_step counts from 0 over the run.
uint64_t FreshForwardErrorKey(uint64_t run_seed, uint64_t group_index, uint64_t optimizer_step,
                              uint32_t phase);
uint64_t GradInputErrorKey(uint64_t run_seed, uint64_t group_index, uint64_t optimizer_step);
uint64_t GradWeightErrorKey(uint64_t run_seed, uint64_t optimizer_step);
uint64_t FrozenErrorKey(uint64_t device_seed);
// subscope: 0 for one draw per version, else group_index + 1 or numerics::AqnWorker.
uint64_t AqnKey(uint64_t run_seed, uint64_t policy_version, uint64_t subscope = 0);
uint64_t SamplingKey(uint64_t run_seed, uint64_t group_index);
// subscope: 0 for the draw of a version, which sampler and learner share, else the learner's own:
// optimizer step * 8 + phase + 1.
uint64_t WeightErrorKey(uint64_t run_seed, uint64_t policy_version, uint64_t subscope = 0);
// scope: of a weight its policy_version, of an activation its group_index; the site tells them
// apart. subscope: as WeightErrorKey's; in an evaluation (noise seed, question) 2^64 - 1.
uint64_t StochasticRoundingKey(uint64_t run_seed, uint64_t scope, uint64_t subscope = 0);
uint64_t EvaluationErrorKey(uint64_t noise_seed, uint64_t question);
uint64_t EvaluationSamplingKey(uint64_t noise_seed, uint64_t question);

// The lane of a token: 0 inside the prompt that the group's samples share, sample + 1 from there
// on. position: index in the sequence, from 0 at its first real token.
constexpr uint32_t TokenLane(uint32_t position, uint32_t prompt_length, uint32_t sample) {
  return position < prompt_length ? 0u : sample + 1u;
}

// A word as a double in the open interval (0, 1): (word + 1/2) * 2^-32.
constexpr double UniformFromWord(uint32_t word) { return (word + 0.5) * 0x1p-32; }

// Two words as a double in [0, 1) with 53 random bits.
constexpr double UniformFromWords(uint32_t high, uint32_t low) {
  return static_cast<double>((uint64_t{high} << 21) | (low >> 11)) * 0x1p-53;
}

// The uniform that chooses a token, in (0, 1). key: SamplingKey or EvaluationSamplingKey; lane:
// sample + 1; position: index in the sequence of the token that is drawn. Site 0, element 0.
double SamplingUniform(uint64_t key, uint32_t lane, uint32_t position);

// An integer in [0, bound), bound > 0, from one word pair by multiplication (bias below 2^-32 for
// any bound under 2^32). Elements 2 i and 2 i + 1 of (key, site 0, lane 0, position 0) for index i.
uint64_t UniformBelow(uint64_t key, uint32_t index, uint64_t bound);

}  // namespace temper::base
