#include "learner/metrics_record.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "services/base/hash.h"

namespace temper::learner {
namespace {

using nlohmann::ordered_json;
using numerics::TensorRole;

double Ratio(double part, double whole) { return whole > 0.0 ? part / whole : 0.0; }

double MeanReward(const std::vector<RolloutGroup>& groups) {
  double sum = 0.0;
  double count = 0.0;
  for (const RolloutGroup& group : groups) {
    for (const SampledCompletion& completion : group.completions) {
      sum += completion.score.reward;
      count += 1.0;
    }
  }
  return Ratio(sum, count);
}

ordered_json CountsOf(const numerics::ErrorStats& stats) {
  return {{"calls", stats.calls},
          {"elements", stats.elements},
          {"elements_changed", stats.changed},
          {"non_finite", stats.non_finite},
          {"achieved_error_scale", stats.AchievedScale()}};
}

// What AQN did, as the engines counted it where they read the norms' weights.
ordered_json Aqn(const numerics::NoiseRow& row) {
  const auto elements = static_cast<double>(row.stats.elements);
  return {{"norms_run", row.operator_calls},
          {"norms_perturbed", row.stats.calls},
          {"elements", row.stats.elements},
          {"elements_changed", row.stats.changed},
          {"achieved_sigma", std::sqrt(Ratio(row.stats.sum_sq_error.value(), elements))},
          {"achieved_sigma_over_rms", row.stats.AchievedScale()}};
}

ordered_json Injections(const numerics::NoiseCounters& counters) {
  ordered_json phases = ordered_json::object();
  for (int p = 0; p < numerics::kPhaseCount; ++p) {
    const auto phase = static_cast<numerics::Phase>(p);
    for (const auto direction : {numerics::Direction::kForward, numerics::Direction::kBackward}) {
      uint64_t operator_calls = 0;
      for (const auto& [row, counts] : counters.rows()) {
        if (row.phase == phase && row.direction == direction &&
            row.role != TensorRole::kWeightNoise && !numerics::IsInjection(row)) {
          operator_calls += counts.operator_calls;
        }
      }
      if (operator_calls == 0) continue;
      ordered_json& entry = phases[std::string(numerics::PhaseName(phase))]
                                  [std::string(numerics::DirectionName(direction))];
      entry["operator_calls"] = operator_calls;
      entry.update(CountsOf(counters.Total(phase, direction)));
      for (const auto role :
           {TensorRole::kInputOperand, TensorRole::kWeightOperand, TensorRole::kInjectedOutput}) {
        const numerics::ErrorStats injected = counters.Total(phase, direction, role);
        if (injected.calls == 0) continue;
        entry[std::string(numerics::TensorRoleName(role))] = CountsOf(injected);
      }
      if (direction == numerics::Direction::kForward) continue;
      for (const auto role : {TensorRole::kGradInput, TensorRole::kGradWeight}) {
        entry[std::string(numerics::TensorRoleName(role))] =
            CountsOf(counters.Total(phase, direction, role));
      }
    }
  }
  return phases;
}

// Four significant digits: enough to judge a row by, and what keeps the lines short.
double Rounded(double value) {
  return std::strtod(absl::StrFormat("%.4g", value).c_str(), nullptr);
}

// Sets element `layer` of an array that grows; layers in between have none. Without a layer: sets
// `target` itself.
void PutAt(ordered_json& target, int layer, const ordered_json& value) {
  if (layer < 0) {
    target = value;
    return;
  }
  while (static_cast<int>(target.size()) <= layer) target.push_back(nullptr);
  target[static_cast<size_t>(layer)] = value;
}

// Every row that was perturbed: pass -> operator -> a number per layer.
ordered_json NoiseRows(const numerics::NoiseCounters& counters) {
  ordered_json passes = ordered_json::object();
  for (const auto& [id, row] : counters.rows()) {
    if (row.stats.elements == 0) continue;
    std::string pass = absl::StrCat(std::string(numerics::PhaseName(id.phase)), " ",
                                    std::string(numerics::DirectionName(id.direction)));
    if (id.role != TensorRole::kOutput) {
      absl::StrAppend(&pass, " ", std::string(numerics::TensorRoleName(id.role)));
    }
    ordered_json& entry = passes[pass][std::string(numerics::OperatorName(id.op))];
    const bool aqn = id.role == TensorRole::kWeightNoise;
    const double sigma =
        std::sqrt(Ratio(row.stats.sum_sq_error.value(), static_cast<double>(row.stats.elements)));
    PutAt(entry[aqn ? "achieved_sigma" : "achieved_error_scale"], id.layer,
          Rounded(aqn ? sigma : row.stats.AchievedScale()));
    PutAt(entry["elements_changed"], id.layer, row.stats.changed);
  }
  return passes;
}

ordered_json Quantization(const std::vector<QuantizationSummary>& summaries) {
  ordered_json formats = ordered_json::object();
  for (const QuantizationSummary& summary : summaries) {
    formats[summary.format] = {{"sqnr_db_median", summary.sqnr_db_median},
                               {"sqnr_db_least", summary.sqnr_db_least},
                               {"dead_zone_median", summary.dead_zone_median},
                               {"dead_zone_most", summary.dead_zone_most}};
  }
  return formats;
}

// Means and the largest of every term, in nats per token; none where no group could be probed.
ordered_json GapProbeOf(const GapSplit& split, double seconds) {
  ordered_json probe = {{"groups", split.groups}, {"tokens", split.tokens}};
  if (split.tokens > 0) {
    for (const auto& [name, term] : split.Terms()) {
      probe[absl::StrCat(name, "_mean")] = split.MeanOver(term->sum);
      probe[absl::StrCat(name, "_abs_mean")] = split.MeanOver(term->abs_sum);
      probe[absl::StrCat(name, "_abs_max")] = term->abs_max;
    }
  }
  probe["probe_seconds"] = seconds;
  return probe;
}

}  // namespace

RolloutSummary SummarizeRollouts(const ClosedBatch& batch, uint64_t policy_version) {
  RolloutSummary summary;
  summary.groups_trained = batch.train.size();
  summary.groups_zero_variance = batch.zero_variance.size();
  summary.groups_stale = batch.stale.size();
  double truncated = 0.0;
  double formatted = 0.0;
  for (const RolloutGroup* group : ExaminedGroups(batch)) {
    if (DiffersByOverlongOnly(*group)) ++summary.groups_overlong_only;
    for (const SampledCompletion& completion : group->completions) {
      ++summary.completions;
      summary.tokens_generated += completion.token_ids.size();
      summary.reward_mean += completion.score.reward;
      summary.accuracy_raw += completion.score.accuracy;
      summary.accuracy_strict += completion.score.strict;
      summary.accuracy_flexible += completion.score.flexible;
      summary.accuracy_numeric += completion.score.numeric;
      formatted += completion.score.format_ok ? 1.0 : 0.0;
      truncated += completion.truncated ? 1.0 : 0.0;
    }
  }
  const double count = static_cast<double>(summary.completions);
  for (double* sum : {&summary.reward_mean, &summary.accuracy_raw, &summary.accuracy_strict,
                      &summary.accuracy_flexible, &summary.accuracy_numeric}) {
    *sum = Ratio(*sum, count);
  }
  summary.format_rate = Ratio(formatted, count);
  summary.truncated_ratio = Ratio(truncated, count);
  summary.completion_tokens_mean = Ratio(static_cast<double>(summary.tokens_generated), count);
  summary.reward_mean_trained = MeanReward(batch.train);
  double staleness_sum = 0.0;
  for (const RolloutGroup& group : batch.train) {
    const uint64_t staleness = policy_version - std::min(policy_version, group.oldest_version);
    summary.staleness_max = std::max(summary.staleness_max, staleness);
    staleness_sum += static_cast<double>(staleness);
  }
  summary.staleness_mean = Ratio(staleness_sum, static_cast<double>(batch.train.size()));
  return summary;
}

std::string MetricsJson(const StepRecord& record) {
  const RolloutSummary& rollouts = record.rollouts;
  ordered_json line = {{"step", record.step},
                       {"timeline", record.timeline},
                       {"policy_version", record.step},
                       {"skipped", record.skipped},
                       {"reward_mean", rollouts.reward_mean},
                       {"reward_mean_trained", rollouts.reward_mean_trained},
                       {"accuracy_raw", rollouts.accuracy_raw},
                       {"accuracy_strict", rollouts.accuracy_strict},
                       {"accuracy_flexible", rollouts.accuracy_flexible},
                       {"accuracy_numeric", rollouts.accuracy_numeric},
                       {"format_rate", rollouts.format_rate},
                       {"sigma", record.sigma},
                       {"loss", record.loss},
                       {"entropy", record.entropy},
                       {"completion_tokens_mean", rollouts.completion_tokens_mean},
                       {"truncated_ratio", rollouts.truncated_ratio},
                       {"clip_fraction_low", record.clip_fraction_low},
                       {"clip_fraction_high", record.clip_fraction_high},
                       {"dual_clip_fraction", record.dual_clip_fraction},
                       {"grad_norm", record.grad_norm},
                       {"learning_rate", record.learning_rate},
                       {"optimizer_steps", record.optimizer_steps},
                       {"non_finite_gradients", record.non_finite_gradients}};
  if (record.skipped) line["skip_reason"] = record.skip_reason;
  line["groups"] = {{"trained", rollouts.groups_trained},
                    {"dropped_zero_variance", rollouts.groups_zero_variance},
                    {"dropped_stale", rollouts.groups_stale}};
  line["groups_overlong_only"] = rollouts.groups_overlong_only;
  line["staleness_max"] = rollouts.staleness_max;
  line["staleness_mean"] = rollouts.staleness_mean;
  line["logprob_abs_diff_mean"] = record.logprob_abs_diff_mean;
  line["logprob_abs_diff_max"] = record.logprob_abs_diff_max;
  line["kl_sampler_learner"] = record.kl_sampler_learner;
  line["kl_sampler_learner_k3"] = record.kl_sampler_learner_k3;
  line["effective_sample_size"] = record.effective_sample_size;
  line["importance_cut_ratio"] = record.importance_cut_ratio;
  if (record.gap_probe) line["gap_probe"] = GapProbeOf(*record.gap_probe, record.probe_seconds);
  line["tokens_generated"] = rollouts.tokens_generated;
  line["tokens_trained"] = record.tokens_trained;
  line["injections"] = Injections(record.counters);
  line["aqn"] = Aqn(record.counters.Aqn());
  const numerics::NoiseRow in_learner = record.counters.Aqn(numerics::Phase::kTrain);
  if (in_learner.stats.calls > 0) line["aqn_learner"] = Aqn(in_learner);
  line["achieved_error_scale"] = record.counters.TotalForward().AchievedScale();
  line["noise_rows"] = NoiseRows(record.counters);
  if (!record.quantization.empty()) line["quantization"] = Quantization(record.quantization);
  line["base_weights_hash"] = base::HexDigest(record.base_weights_hash);
  if (record.adapter_weights_hash != 0) {
    line["adapter_weights_hash"] = base::HexDigest(record.adapter_weights_hash);
  }
  line["update_seconds"] = record.update_seconds;
  line["wait_seconds"] = record.wait_seconds;
  line["generate_seconds"] = record.generate_seconds;
  line["step_seconds"] = record.step_seconds;
  line["tokens_per_second"] =
      Ratio(static_cast<double>(rollouts.tokens_generated), record.step_seconds);
  return line.dump();
}

}  // namespace temper::learner
