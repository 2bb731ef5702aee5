#include "model/sequence_pass.h"

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/decode_pass.h"
#include "model/decode_weights.h"
#include "services/base/random_key.h"
#include "services/base/status_macros.h"

namespace temper::model {
namespace {

// Positions whose logits exist at one time.
constexpr int64_t kLogitRows = 16;

absl::Status CheckRequest(const SequenceRequest& request, const ModelConfig& config) {
  if (request.policy != nullptr && request.policy->injection().enabled()) {
    return absl::UnimplementedError("a pass over whole sequences has no hw_error_injection");
  }
  const auto length = static_cast<int64_t>(request.ids.size());
  if (request.prompt_tokens < 1 || request.prompt_tokens >= length) {
    return absl::InvalidArgumentError(absl::StrCat("sequence ", request.question, ": a prompt of ",
                                                   request.prompt_tokens, " tokens of ", length,
                                                   " leaves nothing to predict, or is none"));
  }
  if (config.max_position_embeddings > 0 && length > config.max_position_embeddings) {
    return absl::InvalidArgumentError(absl::StrCat("sequence ", request.question, ": ", length,
                                                   " tokens, the model has ",
                                                   config.max_position_embeddings, " positions"));
  }
  for (const int32_t id : request.ids) {
    if (id < 0 || id >= config.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("sequence ", request.question, ": token ", id,
                                                     " is outside the vocabulary of ",
                                                     config.vocab_size));
    }
  }
  return request.policy == nullptr ? absl::OkStatus() : CheckPolicySupported(*request.policy);
}

}  // namespace

struct SequencePass::Impl {
  explicit Impl(InstalledWeights installed)
      : weights(std::move(installed)),
        config(weights->config),
        pages(config),
        rope(config.rope_theta, config.head_dim) {}

  void LayOut(const SequenceRequest& request, int64_t count, std::span<float* const> cache);
  // visit: null for none.
  absl::Status Run(const SequenceRequest& request, const LogitsVisitor* visit);
  void VisitLogits(const DecodePass& pass, int64_t first, int64_t count, LogitsVisitor visit);

  const InstalledWeights weights;
  const ModelConfig& config;
  KvPagePool pages;
  RopeTable rope;
  DecodeScratch scratch;
  std::vector<DecodeRow> rows;
  std::vector<numerics::RowKey> keys;
};

void SequencePass::Impl::LayOut(const SequenceRequest& request, int64_t count,
                                std::span<float* const> cache) {
  const bool frozen =
      request.policy != nullptr && request.policy->noise_key() == numerics::NoiseKey::kFrozen;
  const uint64_t key = frozen ? base::FrozenErrorKey(request.policy->device_seed())
                              : base::EvaluationErrorKey(request.noise_seed, request.question);
  rows.resize(static_cast<size_t>(count));
  keys.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const auto position = static_cast<uint32_t>(i);
    const auto prompt = static_cast<uint32_t>(request.prompt_tokens);
    rows[static_cast<size_t>(i)] = {.token = request.ids[static_cast<size_t>(i)],
                                    .position = position,
                                    .page = cache[static_cast<size_t>(i / kernels::kPagePositions)],
                                    .segments = {{.pages = cache.data(), .count = i + 1}, {}}};
    keys[static_cast<size_t>(i)] =
        frozen ? numerics::RowKey{.key = key}
               : numerics::RowKey{.key = key,
                                  .position = position,
                                  .lane = base::TokenLane(position, prompt, request.sample)};
  }
}

void SequencePass::Impl::VisitLogits(const DecodePass& pass, int64_t first, int64_t count,
                                     LogitsVisitor visit) {
  const int64_t vocab = config.vocab_size;
  for (int64_t row = first; row < count; row += kLogitRows) {
    const int64_t part = std::min(kLogitRows, count - row);
    ComputeLogits(pass, row, part, &scratch);
    for (int64_t i = 0; i < part; ++i) {
      visit(row - first + i, {scratch.logits.data() + i * vocab, static_cast<size_t>(vocab)});
    }
  }
}

absl::Status SequencePass::Impl::Run(const SequenceRequest& request, const LogitsVisitor* visit) {
  TEMPER_RETURN_IF_ERROR(CheckRequest(request, config));
  const auto count = static_cast<int64_t>(request.ids.size()) - 1;
  std::vector<float*> cache;
  try {
    rope.Extend(count);
    ReserveScratch(config, count, count, kLogitRows, /*injection=*/false, &scratch);
    for (int64_t p = 0; p < count; p += kernels::kPagePositions) cache.push_back(pages.Take());
    LayOut(request, count, cache);
    GroupCounts counts(numerics::Phase::kEval, static_cast<int>(config.num_layers));
    const RowSegment segment = {.begin = 0, .end = count, .counts = &counts};
    const NormDraw* const clean_norms = nullptr;
    const DecodePass pass = {.weights = weights.get(),
                             .pages = &pages,
                             .rope = &rope,
                             .kernels = &BestKernels(),
                             .noise = {.policy = request.policy,
                                       .phase = numerics::Phase::kEval,
                                       .keys = keys,
                                       .segments = {&segment, 1}},
                             .norms = {&clean_norms, 1},
                             .rows = rows,
                             .observer = request.observer};
    RunDecodePass(pass, &scratch);
    if (visit != nullptr) VisitLogits(pass, request.prompt_tokens - 1, count, *visit);
  } catch (const std::bad_alloc&) {
    pages.Return(cache);
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a pass over ", request.ids.size(), " tokens"));
  }
  pages.Return(cache);
  return absl::OkStatus();
}

SequencePass::SequencePass(InstalledWeights weights)
    : impl_(std::make_unique<Impl>(std::move(weights))) {}
SequencePass::~SequencePass() = default;

absl::Status SequencePass::Run(const SequenceRequest& request, LogitsVisitor visit) {
  return impl_->Run(request, &visit);
}

absl::Status SequencePass::Run(const SequenceRequest& request) {
  return impl_->Run(request, nullptr);
}

}  // namespace temper::model
