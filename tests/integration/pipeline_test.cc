// The whole road of a group, from lease to weights, with every service in this process.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "learner/sft.h"
#include "services/config/run_config.h"
#include "tests/integration/in_process_run.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::testing {
namespace {

namespace fs = std::filesystem;

constexpr char kProblems[] =
    "dataset: {name: gsm-arith, min_steps: 1, max_steps: 1, max_number: 5}\n"
    "rollout: {samples_per_group: 4, groups_per_lease: 2, max_prompt_tokens: 96,\n"
    "          max_completion_tokens: 40}\n";

v1::RunConfig Load(const TempDir& folder, const std::string& yaml,
                   const std::vector<std::string>& overrides = {}) {
  const std::string path = folder.File("recipe.yaml");
  std::ofstream(path) << kProblems << yaml;
  auto config = config::LoadRunConfig(path, overrides);
  EXPECT_THAT(config, IsOk());
  return *config;
}

// A policy that is right now and then, made once: a small model after seconds of supervised
// training.
class Pipeline : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    policy_ = new TempDir();
    const std::string untrained = policy_->File("untrained");
    fs::create_directory(untrained);
    fs::copy("recipes/quickstart/tokenizer.json", untrained);
    std::ifstream recipe("recipes/quickstart/config.json");
    nlohmann::json shape = nlohmann::json::parse(recipe);
    shape.update({{"hidden_size", 32},
                  {"num_hidden_layers", 2},
                  {"num_attention_heads", 2},
                  {"num_key_value_heads", 1},
                  {"head_dim", 16},
                  {"intermediate_size", 64}});
    std::ofstream(untrained + "/config.json") << shape;
    const v1::RunConfig config = Load(
        *policy_, absl::StrCat("model: {path: ", untrained, "}\nrun_dir: ", policy_->File("sft"),
                               "\ntrainer: {loss: sft, total_updates: 300, threads: 1,\n"
                               "  sft: {problems_per_step: 32},\n"
                               "  optimizer: {learning_rate: 1e-2, warmup_steps: 10}}\n"
                               "checkpoint: {every: 0}\n"));
    fs::create_directory(config.run_dir());
    ASSERT_THAT(learner::RunStandaloneSft({.config = config}), IsOk());
  }
  static void TearDownTestSuite() { delete policy_; }

  // A run of six steps under error and AQN, in a folder of its own.
  std::unique_ptr<InProcessRun> StartRun(const std::vector<std::string>& overrides = {}) {
    folder_ = std::make_unique<TempDir>();
    const v1::RunConfig config = Load(
        *folder_,
        absl::StrCat("model: {path: ", policy_->File("sft"), "/checkpoints/step_300/hf}\n",
                     "run_dir: ", folder_->path(),
                     "\ntrainer:\n"
                     "  total_updates: 6\n"
                     "  groups_per_step: 4\n"
                     "  threads: 1\n"
                     "  noisy_ops: {enabled: true, error_scale: 0.1}\n"
                     "  noise_injection: {enabled: true, schedule: global, sigma_start: 0.05,\n"
                     "    sigma_end: 0.0005, num_stages: 3}\n"
                     "eval: {questions: 8, noise_seeds: 1, questions_per_item: 4,\n"
                     "  error_scales: [0.0, 0.1]}\n"),
        overrides);
    auto run = InProcessRun::Start(config);
    EXPECT_THAT(run, IsOk());
    return run.ok() ? *std::move(run) : nullptr;
  }

  static void AddWorkers(InProcessRun* run, int count) {
    for (int i = 0; i < count; ++i) EXPECT_THAT(run->AddWorker(), IsOk());
  }

  static TempDir* policy_;
  std::unique_ptr<TempDir> folder_;
};

TempDir* Pipeline::policy_ = nullptr;

TEST_F(Pipeline, ASynchronousRunIsTheSameWithOneWorkerAndWithThree) {
  auto one = StartRun();
  ASSERT_NE(one, nullptr);
  AddWorkers(one.get(), 1);
  ASSERT_THAT(one->PlayToTheEnd(), IsOk());
  const std::vector<std::string> hashes = one->WeightHashes();
  EXPECT_EQ(hashes.size(), 6u);
  EXPECT_GE(one->Attempts("trained"), 12u) << "most steps found nothing to learn from";
  one.reset();

  auto three = StartRun();
  ASSERT_NE(three, nullptr);
  AddWorkers(three.get(), 3);
  ASSERT_THAT(three->PlayToTheEnd(), IsOk());
  EXPECT_EQ(three->WeightHashes(), hashes);
  EXPECT_THAT(three->coordinator().VerifyAccounting(), IsOk());
}

TEST_F(Pipeline, AWorkerThatVanishesWithALeaseCostsNothingButTime) {
  auto undisturbed = StartRun();
  ASSERT_NE(undisturbed, nullptr);
  AddWorkers(undisturbed.get(), 1);
  ASSERT_THAT(undisturbed->PlayToTheEnd(), IsOk());
  const std::vector<std::string> hashes = undisturbed->WeightHashes();
  undisturbed.reset();

  auto run = StartRun({"eval.enabled=false"});
  ASSERT_NE(run, nullptr);
  AddWorkers(run.get(), 2);
  // Worker 0 gets as far as holding a training lease, and no further.
  bool vanished = false;
  for (int turn = 0; turn < 1000 && !vanished; ++turn) {
    const uint64_t seen = run->happened();
    const auto installed = run->Turn(0);
    ASSERT_THAT(installed, IsOk());
    if (!*installed) {
      ASSERT_TRUE(run->AwaitAfter(seen));
    } else {
      const auto took = run->TakeAndVanish(0);
      ASSERT_THAT(took, IsOk());
      vanished = *took;
    }
  }
  ASSERT_TRUE(vanished);
  run->Pass(absl::Seconds(9));
  run->Pass(absl::Seconds(9));  // it has not been heard of for longer than a member may be silent
  run->Pass(absl::Seconds(9));
  ASSERT_THAT(run->PlayToTheEnd(), IsOk());
  EXPECT_EQ(run->Attempts("lease_expired"), 2u);
  EXPECT_EQ(run->WeightHashes(), hashes);
}

TEST_F(Pipeline, ADamagedSubmissionIsRefusedAndItsGroupSampledAgain) {
  auto run = StartRun();
  ASSERT_NE(run, nullptr);
  AddWorkers(run.get(), 1);
  int damaged = 0;
  run->set_tamper([&](v1::SubmitGroupRequest* submission) {
    if (submission->ref().attempt() > 1 || damaged == 2) return;
    ++damaged;
    submission->mutable_completions(0)->set_token_ids(0, 1);  // not what the checksum is of
  });
  for (int turn = 0; turn < 100'000 && run->Attempts("refused") < 2; ++turn) {
    ASSERT_THAT(run->Turn(0), IsOk());
  }
  run->Pass(absl::Seconds(5));  // the refused groups wait before they are leased again
  ASSERT_THAT(run->PlayToTheEnd(), IsOk());
  EXPECT_EQ(run->Attempts("refused"), 2u);
  EXPECT_EQ(run->WeightHashes().size(), 6u);
}

TEST_F(Pipeline, AnAsynchronousRunStaysWithinItsStaleness) {
  auto run = StartRun({"trainer.max_staleness=2"});
  ASSERT_NE(run, nullptr);
  AddWorkers(run.get(), 2);
  ASSERT_THAT(run->PlayToTheEnd(), IsOk());
  EXPECT_EQ(run->WeightHashes().size(), 6u);
  EXPECT_THAT(run->coordinator().VerifyAccounting(), IsOk());
}

TEST_F(Pipeline, ProbesOfTheGapFindNoImprecisionAndChangeNoWeight) {
  std::vector<std::vector<std::string>> hashes;
  for (const char* every : {"trainer.gap_probe_every=1", "trainer.gap_probe_every=0"}) {
    auto run = StartRun({every, "eval.enabled=false"});
    ASSERT_NE(run, nullptr);
    AddWorkers(run.get(), 1);
    ASSERT_THAT(run->PlayToTheEnd(), IsOk());
    hashes.push_back(run->WeightHashes());
    const bool probing = hashes.size() == 1;
    double aqn = 0.0;
    for (const std::string& text : run->MetricsLines()) {
      const auto line = nlohmann::json::parse(text);
      EXPECT_EQ(line.contains("gap_probe"), probing && line["groups"]["trained"] > 0) << text;
      if (!line.contains("gap_probe")) continue;
      const auto& probe = line["gap_probe"];
      EXPECT_GT(probe["groups"], 0);
      EXPECT_EQ(probe["precision_abs_max"], 0.0) << text;
      EXPECT_EQ(probe["staleness_abs_max"], 0.0) << text;
      EXPECT_GT(probe["noise_abs_mean"], 0.0) << text;
      aqn = std::max(aqn, probe["aqn_abs_mean"].get<double>());
    }
    EXPECT_EQ(aqn > 0.0, probing);
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}

TEST_F(Pipeline, WithAqnInTheLearnerTooEveryGroupsDrawIsReplayedToTheBit) {
  auto run = StartRun({"trainer.noise_injection.draw=per_group",
                       "trainer.noise_injection.where=both", "eval.enabled=false"});
  ASSERT_NE(run, nullptr);
  AddWorkers(run.get(), 2);
  ASSERT_THAT(run->PlayToTheEnd(), IsOk());
  int noisy = 0;
  for (const std::string& text : run->MetricsLines()) {
    const auto line = nlohmann::json::parse(text);
    EXPECT_EQ(line["logprob_abs_diff_max"], 0.0) << text;
    EXPECT_EQ(line.contains("aqn_learner"), line["sigma"] > 0 && line["tokens_trained"] > 0);
    if (!line.contains("aqn_learner")) continue;
    EXPECT_GT(line["aqn_learner"]["elements_changed"], 0) << text;
    ++noisy;
  }
  EXPECT_GT(noisy, 0);
}

TEST_F(Pipeline, WorkersWithDrawsOfTheirOwnAreToldApartAndRecreated) {
  auto run =
      StartRun({"trainer.noise_injection.draw=per_worker", "trainer.max_staleness=1",
                "trainer.gap_probe_every=1", "trainer.gap_probe_groups=4", "eval.enabled=false"});
  ASSERT_NE(run, nullptr);
  AddWorkers(run.get(), 2);
  ASSERT_THAT(run->PlayToTheEnd(), IsOk());
  double aqn = 0.0;
  for (const std::string& text : run->MetricsLines()) {
    const auto line = nlohmann::json::parse(text);
    if (!line.contains("gap_probe") || line["gap_probe"]["tokens"] == 0) continue;
    EXPECT_EQ(line["gap_probe"]["precision_abs_max"], 0.0) << text;
    aqn = std::max(aqn, line["gap_probe"]["aqn_abs_mean"].get<double>());
  }
  EXPECT_GT(aqn, 0.0);
}

TEST_F(Pipeline, ProbesOfAnAsynchronousRunFindStalenessAndNoImprecision) {
  auto run = StartRun({"trainer.max_staleness=2", "trainer.gap_probe_every=1",
                       "trainer.gap_probe_groups=4", "eval.enabled=false"});
  ASSERT_NE(run, nullptr);
  AddWorkers(run.get(), 2);
  ASSERT_THAT(run->PlayToTheEnd(), IsOk());
  double staleness = 0.0;
  for (const std::string& text : run->MetricsLines()) {
    const auto line = nlohmann::json::parse(text);
    if (!line.contains("gap_probe") || line["gap_probe"]["tokens"] == 0) continue;
    EXPECT_EQ(line["gap_probe"]["precision_abs_max"], 0.0) << text;
    staleness = std::max(staleness, line["gap_probe"]["staleness_abs_mean"].get<double>());
  }
  EXPECT_GT(staleness, 0.0) << "sampling never ran ahead of the learner";
}

TEST_F(Pipeline, ARunOfAdaptersLeavesTheBaseSendsThemAloneAndReplaysThemToTheBit) {
  auto run = StartRun({"trainer.lora.enabled=true", "trainer.lora.rank=4",
                       "trainer.optimizer.learning_rate=1e-2", "trainer.gap_probe_every=2",
                       "trainer.noise_injection.enabled=false"});
  ASSERT_NE(run, nullptr);
  AddWorkers(run.get(), 2);
  ASSERT_THAT(run->PlayToTheEnd(), IsOk());
  const std::vector<std::string> bases = run->WeightHashes();
  ASSERT_EQ(bases.size(), 6u);
  std::set<std::string> adapters;
  uint64_t trained = 0, probes = 0;
  for (const std::string& text : run->MetricsLines()) {
    const auto line = nlohmann::json::parse(text);
    EXPECT_EQ(line["base_weights_hash"], bases.front());
    EXPECT_EQ(line["logprob_abs_diff_max"], 0.0) << text;
    adapters.insert(line["adapter_weights_hash"].get<std::string>());
    trained += line["skipped"] ? 0 : 1;
    if (!line.contains("gap_probe")) continue;
    ++probes;
    EXPECT_EQ(line["gap_probe"]["precision_abs_max"], 0.0) << text;
  }
  EXPECT_GE(trained, 3u);
  EXPECT_GT(probes, 0u);
  EXPECT_GE(adapters.size(), trained) << "each optimizer step makes other adapters";
  // Seven versions to two workers: per layer, rank 4 of q, k, v, o and of the MLP's three.
  const uint64_t adapter_floats = 2 * 4 * ((32 + 32) + (32 + 16) * 2 + (32 + 32) + (32 + 64) * 3);
  EXPECT_EQ(run->installed_bytes(), 7 * 2 * adapter_floats * sizeof(float));
}

}  // namespace
}  // namespace temper::testing
