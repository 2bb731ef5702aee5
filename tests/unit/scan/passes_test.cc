// What needs a model: the observer, sequence passes, sensitivity, faults that are injected and
// found.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <utility>

#include "model/parameters.h"
#include "scan/activations.h"
#include "scan/fault.h"
#include "scan/layer_profile.h"
#include "scan/sensitivity.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/model/tiny_model.h"

namespace temper::scan {
namespace {

using numerics::Operator;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

constexpr uint32_t kTokens = 12;

// Counts rows by point, operator and layer.
class RowCounter final : public model::PassObserver {
 public:
  void Observe(const model::ObservedRows& rows) override {
    counts[{rows.point, rows.op, rows.layer}] += rows.rows;
    cols[{rows.point, rows.op}] = rows.cols;
  }
  std::map<std::tuple<model::ObservedPoint, Operator, int>, int64_t> counts;
  std::map<std::pair<model::ObservedPoint, Operator>, int64_t> cols;
};

class Passes : public ::testing::Test {
 protected:
  Passes()
      : config_([] {
          model::ModelConfig config = model::TinyConfig();
          config.num_layers = 4;
          return config;
        }()),
        parameters_(model::TinyParameters(config_)),
        engine_(model::DecodeEngine::Create({.config = config_, .threads = 2}).value()) {
    EXPECT_THAT(engine_->Install(parameters_, 0, {}), IsOk());
    for (int64_t i = 0; i < 3; ++i) {
      Sequence& sequence = sequences_.emplace_back();
      sequence.ids = model::TinyPrompt(7 + 6 * i, config_.vocab_size, i);
      sequence.prompt_tokens = static_cast<int64_t>(sequence.ids.size());
    }
    EXPECT_THAT(Complete(engine_.get(), {}, kTokens, 5, &sequences_), IsOk());
  }

  SequenceRunner Runner(int threads = 2) { return {engine_->Installed(), threads}; }
  ModelProfile Profile(const numerics::NoisePolicy* policy, uint64_t repeat, int threads = 2) {
    SequenceRunner runner = Runner(threads);
    return ProfileDevice(&runner, sequences_, config_, policy, repeat).value();
  }

  const model::ModelConfig config_;
  model::Parameters parameters_;
  std::unique_ptr<model::DecodeEngine> engine_;
  std::vector<Sequence> sequences_;
};

TEST_F(Passes, AnObserverSeesEveryRowOfEveryLinearAndLayer) {
  using enum model::ObservedPoint;
  RowCounter counter;
  model::SequencePass pass(engine_->Installed());
  const Sequence& sequence = sequences_[0];
  int64_t visited = 0;
  EXPECT_THAT(
      pass.Run({.ids = sequence.ids, .prompt_tokens = sequence.prompt_tokens, .observer = &counter},
               [&](int64_t, std::span<const float>) { ++visited; }),
      IsOk());
  const auto rows = static_cast<int64_t>(sequence.ids.size()) - 1;
  EXPECT_EQ(visited, kTokens);
  for (int layer = 0; layer < 4; ++layer) {
    for (const Operator op : {Operator::kQ, Operator::kO, Operator::kGate, Operator::kDown}) {
      EXPECT_EQ((counter.counts[{kLinearInput, op, layer}]), rows);
    }
    EXPECT_EQ((counter.counts[{kLayerOutput, Operator::kQ, layer}]), rows);
  }
  EXPECT_EQ((counter.counts[{kLayerOutput, Operator::kQ, numerics::kNoLayer}]), rows);
  EXPECT_EQ((counter.counts[{kLinearInput, Operator::kLmHead, numerics::kNoLayer}]), kTokens);
  EXPECT_EQ(counter.counts.size(), 4u * 5 + 2);
  EXPECT_EQ((counter.cols[{kLinearInput, Operator::kDown}]), config_.intermediate_size);
  EXPECT_EQ((counter.cols[{kLinearInput, Operator::kO}]), config_.num_heads * config_.head_dim);
}

TEST_F(Passes, ASequenceHasTheLogProbsItWasSampledWith) {
  const numerics::NoisePolicy base =
      numerics::NoisePolicy::Create({.enabled = true, .error_scale = 0.1}, {.num_layers = 4})
          .value();
  const numerics::NoisePolicy policy = numerics::EvaluationPolicy(base, 0.1);
  const model::GenerateResult generated =
      engine_
          ->Generate({.groups = {{.scope = 3, .prompt_ids = sequences_[0].ids}},
                      .max_completion_tokens = kTokens,
                      .phase = numerics::Phase::kEval,
                      .seed = 9,
                      .policy = &policy})
          .value();
  const model::Completion& completion = generated.groups[0].completions[0];
  std::vector<int32_t> ids = sequences_[0].ids;
  const auto prompt = static_cast<int64_t>(ids.size());
  ids.insert(ids.end(), completion.token_ids.begin(), completion.token_ids.end());
  model::SequencePass pass(engine_->Installed());
  std::vector<float> log_probs(static_cast<size_t>(config_.vocab_size));
  EXPECT_THAT(
      pass.Run(
          {.ids = ids, .prompt_tokens = prompt, .policy = &policy, .noise_seed = 9, .question = 3},
          [&](int64_t index, std::span<const float> logits) {
            LogSoftmax(logits, log_probs);
            const auto i = static_cast<size_t>(index);
            EXPECT_EQ(log_probs[static_cast<size_t>(completion.token_ids[i])],
                      completion.logprobs[i]);
          }),
      IsOk());
}

TEST_F(Passes, BadSequencesAreRefused) {
  using enum absl::StatusCode;
  model::SequencePass pass(engine_->Installed());
  const std::vector<int32_t> ids = {1, 2, 3}, wrong = {1, 999};
  EXPECT_THAT(pass.Run({.ids = ids, .prompt_tokens = 3}), StatusIs(kInvalidArgument));
  EXPECT_THAT(pass.Run({.ids = ids, .prompt_tokens = 0}), StatusIs(kInvalidArgument));
  EXPECT_THAT(pass.Run({.ids = wrong, .prompt_tokens = 1}),
              StatusIs(kInvalidArgument, HasSubstr("999")));
  const std::vector<int32_t> long_one(300, 1);
  EXPECT_THAT(pass.Run({.ids = long_one, .prompt_tokens = 1}),
              StatusIs(kInvalidArgument, HasSubstr("256")));
}

TEST_F(Passes, TheScanSeesEachTokenOnceWhateverTheThreads) {
  const std::vector<ScanError> errors = {ParseScanError("mxfp4").value()};
  int64_t tokens = 0;
  for (const Sequence& sequence : sequences_) {
    tokens += static_cast<int64_t>(sequence.ids.size()) - 1;
  }
  std::vector<ActivationFindings> found;
  for (const int threads : {1, 2}) {
    SequenceRunner runner = Runner(threads);
    found.push_back(
        ScanActivations(&runner, sequences_, config_, errors, Role::kInput, 1, [] {}).value());
  }
  ASSERT_EQ(found[0].rows.size(), 4u * 7);
  for (size_t i = 0; i < found[0].rows.size(); ++i) {
    const StaticRow& a = found[0].rows[i];
    const bool down = a.op == Operator::kDown;
    EXPECT_EQ(a.elements, tokens * (down ? config_.intermediate_size : config_.hidden_size));
    EXPECT_NEAR(a.sqnr_db, found[1].rows[i].sqnr_db, 1e-9);
    EXPECT_EQ(a.block_row_sqnr_db, found[1].rows[i].block_row_sqnr_db);
  }
  EXPECT_EQ(found[0].profile[0].rows, tokens);
  EXPECT_LT(Departure(found[0].profile[3], found[1].profile[3], nullptr), 1e-12);
}

TEST(Kl, HasTheValueOfAHandWorkedCase) {
  const std::vector<float> p = {std::log(0.5f), std::log(0.25f), std::log(0.25f)};
  const std::vector<float> q = {std::log(0.25f), std::log(0.5f), std::log(0.25f)};
  // 0.5 ln 2 - 0.25 ln 2
  EXPECT_NEAR(KlDivergence(p, q), 0.25 * std::log(2.0), 1e-6);
  EXPECT_EQ(KlDivergence(p, p), 0.0);
}

TEST_F(Passes, CleanPassesDoNotDiverge) {
  SequenceRunner runner = Runner();
  const CleanDistributions clean =
      CleanDistributions::Record(&runner, sequences_, config_.vocab_size).value();
  EXPECT_EQ(clean.positions(), 3 * kTokens);
  EXPECT_EQ(clean.Divergence(&runner, nullptr, 1).value(), 0.0);
  SequenceRunner alone = Runner(1);
  EXPECT_EQ(clean.Divergence(&alone, nullptr, 1).value(), 0.0);
}

TEST_F(Passes, SensitivityIsMeasuredInOnePlaceAndLeavesTheModelAsItWas) {
  const uint64_t before = model::HashParameters(parameters_);
  const auto measure = [&](const char* error, bool per_operator) {
    size_t done = 0;
    const auto rows = MeasureSensitivity(&parameters_, sequences_,
                                         {.error = ParseScanError(error).value(),
                                          .per_operator = per_operator,
                                          .noise_seed = 1,
                                          .threads = 2},
                                         [&](size_t, size_t) { ++done; });
    EXPECT_EQ(done, rows->size());
    return *rows;
  };
  const auto small = measure("relative_gaussian:0.01", false);
  const auto large = measure("relative_gaussian:0.1", false);
  ASSERT_EQ(small.size(), 4u);
  for (size_t l = 0; l < 4; ++l) {
    EXPECT_GT(small[l].kl_nats, 0.0);
    // KL is quadratic in a small error.
    EXPECT_GT(large[l].kl_nats, 20 * small[l].kl_nats);
  }
  const auto operators = measure("mxfp4", true);
  ASSERT_EQ(operators.size(), 28u);
  for (const LayerSensitivity& row : operators) EXPECT_GT(row.kl_nats, 0.0);
  EXPECT_EQ(model::HashParameters(parameters_), before);
  // The same questions and keys give the same number.
  EXPECT_EQ(measure("relative_gaussian:0.01", false)[2].kl_nats, small[2].kl_nats);
}

TEST_F(Passes, ALayerTheModelDoesNotHaveIsRefused) {
  using enum absl::StatusCode;
  EXPECT_THAT(FaultPolicy({.kind = FaultKind::kNoise, .size = 0.1, .layer = 4}, 4),
              StatusIs(kInvalidArgument, HasSubstr("0 .. 3")));
  EXPECT_THAT(FaultPolicy({.kind = FaultKind::kDeadZone, .size = 1.5, .layer = 0}, 4),
              StatusIs(kInvalidArgument));
  for (const char* text : {"", "noise", "noise:0.1", "noise:x@1", "rust:0.1@1", "noise@1:0.1"}) {
    EXPECT_THAT(ParseFault(text), StatusIs(kInvalidArgument, HasSubstr("KIND:SIZE@LAYER")));
  }
  EXPECT_EQ(FaultText(ParseFault("dead_zone:0.25@3").value()), "dead_zone:0.25@3");
}

TEST_F(Passes, EveryFaultIsFoundInEveryLayerByItsReference) {
  const ModelProfile reference = Profile(nullptr, 1, 1);
  const std::map<FaultKind, double> sizes = {
      {FaultKind::kSaturation, 0.5}, {FaultKind::kBias, 0.1},  {FaultKind::kNoise, 0.2},
      {FaultKind::kDeadZone, 0.3},   {FaultKind::kSpike, 2.0}, {FaultKind::kNonDeterminism, 0.2}};
  for (const FaultKind kind : kFaultKinds) {
    for (int layer = 0; layer < 4; ++layer) {
      const Fault fault = {.kind = kind, .size = sizes.at(kind), .layer = layer};
      const numerics::NoisePolicy policy = FaultPolicy(fault, 4).value();
      const std::vector<ModelProfile> repeats = {Profile(&policy, 1), Profile(&policy, 2)};
      const FaultFinding found =
          LocaliseFault({.repeats = repeats, .references = {&reference, 1}}).value();
      ASSERT_FALSE(found.ranking.empty()) << FaultText(fault);
      EXPECT_EQ(found.ranking[0].layer, layer) << FaultText(fault);
      const bool drawn = kind == FaultKind::kSpike || kind == FaultKind::kNonDeterminism;
      EXPECT_EQ(found.evidence, drawn ? Evidence::kInstability : Evidence::kDeparture)
          << FaultText(fault);
    }
  }
}

TEST_F(Passes, AHealthyDeviceIsNotSuspected) {
  const ModelProfile reference = Profile(nullptr, 1, 1);
  const std::vector<ModelProfile> repeats = {Profile(nullptr, 1), Profile(nullptr, 2)};
  EXPECT_EQ(LocaliseFault({.repeats = repeats, .references = {&reference, 1}}).value().evidence,
            Evidence::kNone);
}

}  // namespace
}  // namespace temper::scan
