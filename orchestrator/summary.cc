#include "orchestrator/summary.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "numerics/statistics.h"
#include "services/base/status_macros.h"

namespace temper::orchestrator {
namespace {

using Json = nlohmann::ordered_json;

// Evaluations of one version under one error scale.
struct Cell {
  std::vector<const EvalResult*> seeds;
  std::vector<double> means;  // by question, over seeds
};

bool IsComplete(const EvalResult& result) {
  return result.questions > 0 && result.outcomes.size() == result.questions;
}

template <typename Field>
double MeanOf(const std::vector<OutcomeRow>& outcomes, Field field) {
  double sum = 0;
  for (const OutcomeRow& outcome : outcomes) sum += outcome.*field;
  return outcomes.empty() ? 0 : sum / static_cast<double>(outcomes.size());
}

int64_t Successes(const std::vector<OutcomeRow>& outcomes) {
  return std::count_if(outcomes.begin(), outcomes.end(),
                       [](const OutcomeRow& outcome) { return outcome.accuracy >= 0.5; });
}

Json IntervalJson(const numerics::Interval& interval) { return {interval.low, interval.high}; }

Json EvaluationJson(const EvalResult& result) {
  const int64_t done = static_cast<int64_t>(result.outcomes.size());
  Json json;
  json["version"] = result.version;
  json["error_scale"] = result.error_scale;
  json["injected"] = result.injected;
  json["noise_seed"] = result.noise_seed;
  json["n"] = result.questions;
  json["done"] = done;
  json["accuracy"] = MeanOf(result.outcomes, &OutcomeRow::accuracy);
  json["interval"] = IntervalJson(numerics::WilsonInterval(Successes(result.outcomes), done));
  json["strict"] = MeanOf(result.outcomes, &OutcomeRow::strict);
  json["flexible"] = MeanOf(result.outcomes, &OutcomeRow::flexible);
  json["numeric"] = MeanOf(result.outcomes, &OutcomeRow::numeric);
  json["truncated_ratio"] = MeanOf(result.outcomes, &OutcomeRow::truncated);
  json["completion_tokens_mean"] = MeanOf(result.outcomes, &OutcomeRow::completion_tokens);
  const EvalInjections& counts = result.injections;
  json["achieved_error_scale"] =
      counts.sum_sq_value > 0 ? std::sqrt(counts.sum_sq_error / counts.sum_sq_value) : 0.0;
  json["perturbed_elements"] = counts.elements;
  json["injected_elements"] = counts.injected_elements;
  return json;
}

// The error that an evaluation names: those without injection come first.
struct EvalError {
  bool injected = false;
  double scale = 0.0;
  friend auto operator<=>(const EvalError&, const EvalError&) = default;
};

// By error, then version; a cell misses where a seed of it is incomplete.
std::map<EvalError, std::map<uint64_t, Cell>> CellsOf(const std::vector<EvalResult>& results) {
  std::map<EvalError, std::map<uint64_t, Cell>> cells;
  for (const EvalResult& result : results) {
    cells[{result.injected, result.error_scale}][result.version].seeds.push_back(&result);
  }
  for (auto& [error, versions] : cells) {
    for (auto it = versions.begin(); it != versions.end();) {
      Cell& cell = it->second;
      if (!std::all_of(cell.seeds.begin(), cell.seeds.end(),
                       [](const EvalResult* result) { return IsComplete(*result); })) {
        it = versions.erase(it);
        continue;
      }
      cell.means.assign(cell.seeds.front()->outcomes.size(), 0.0);
      for (const EvalResult* seed : cell.seeds) {
        for (size_t q = 0; q < cell.means.size(); ++q) {
          cell.means[q] += seed->outcomes[q].accuracy / static_cast<double>(cell.seeds.size());
        }
      }
      ++it;
    }
  }
  return cells;
}

absl::StatusOr<Json> ScaleJson(const EvalError& error, uint64_t version, const Cell& cell,
                               uint64_t seed) {
  Json json;
  json["version"] = version;
  json["error_scale"] = error.scale;
  json["injected"] = error.injected;
  json["noise_seeds"] = cell.seeds.size();
  json["n"] = cell.means.size() * cell.seeds.size();
  json["accuracy"] = numerics::Mean(cell.means);
  if (cell.seeds.size() == 1) {
    json["interval"] = IntervalJson(numerics::WilsonInterval(
        Successes(cell.seeds[0]->outcomes), static_cast<int64_t>(cell.means.size())));
    json["interval_method"] = "wilson";
    return json;
  }
  // The difference to an accuracy of zero on every question is the accuracy itself.
  const std::vector<double> zeros(cell.means.size(), 0.0);
  TEMPER_ASSIGN_OR_RETURN(const numerics::BootstrapResult spread,
                          numerics::PairedBootstrap(zeros, cell.means, seed));
  json["interval"] = IntervalJson(spread.interval);
  json["interval_method"] = "bootstrap_over_questions";
  return json;
}

absl::StatusOr<Json> PairedJson(const EvalError& error,
                                const std::pair<uint64_t, const Cell*>& first,
                                const std::pair<uint64_t, const Cell*>& last, uint64_t seed) {
  TEMPER_ASSIGN_OR_RETURN(const numerics::BootstrapResult spread,
                          numerics::PairedBootstrap(first.second->means, last.second->means, seed));
  Json json;
  json["error_scale"] = error.scale;
  json["injected"] = error.injected;
  json["first_version"] = first.first;
  json["last_version"] = last.first;
  json["questions"] = spread.questions;
  json["noise_seeds"] = last.second->seeds.size();
  json["before"] = numerics::Mean(first.second->means);
  json["after"] = numerics::Mean(last.second->means);
  json["difference"] = spread.difference;
  json["interval"] = IntervalJson(spread.interval);
  if (last.second->seeds.size() > 1) {
    json["p_value"] = spread.p_value;
    json["test"] = "paired_bootstrap_over_questions";
    json["replicates"] = spread.replicates;
    return json;
  }
  int64_t only_before = 0, only_after = 0;
  for (size_t q = 0; q < first.second->means.size(); ++q) {
    const bool before = first.second->means[q] >= 0.5, after = last.second->means[q] >= 0.5;
    only_before += before && !after;
    only_after += after && !before;
  }
  json["p_value"] = numerics::McNemar(only_before, only_after).p_value;
  json["test"] = "mcnemar_exact";
  json["only_before"] = only_before;
  json["only_after"] = only_after;
  return json;
}

Json GroupsJson(const SummaryInputs& inputs) {
  Json json;
  json["opened"] = inputs.groups_opened;
  json["attempts_leased"] = inputs.accounting.attempts_leased;
  json["leased"] = inputs.accounting.leased;
  json["admitted"] = inputs.accounting.admitted;
  for (Ending ending : AllEndings()) json[EndingName(ending)] = inputs.accounting.Ended(ending);
  return json;
}

}  // namespace

absl::StatusOr<std::string> SummaryJson(const SummaryInputs& inputs) {
  Json json;
  json["run_id"] = inputs.run_id;
  json["state"] = inputs.state;
  json["failure_reason"] = inputs.failure_reason;
  json["seed"] = inputs.seed;
  json["config_fingerprint"] = absl::StrFormat("%016x", inputs.config_fingerprint);
  json["reward_rule"] = inputs.reward_rule;
  json["error_type"] = inputs.error_type;
  if (!inputs.injection.empty()) json["injection"] = inputs.injection;
  json["timeline"] = inputs.timeline;
  json["steps"] = inputs.steps_closed;
  json["planned_steps"] = inputs.planned_steps;
  json["steps_skipped"] = inputs.steps_skipped;
  json["wall_seconds"] = absl::ToDoubleSeconds(inputs.wall_time);
  json["groups"] = GroupsJson(inputs);
  json["evaluations"] = Json::array();
  for (const EvalResult& result : inputs.evaluations) {
    json["evaluations"].push_back(EvaluationJson(result));
  }
  json["by_scale"] = Json::array();
  json["paired"] = Json::array();
  for (const auto& [error, versions] : CellsOf(inputs.evaluations)) {
    for (const auto& [version, cell] : versions) {
      TEMPER_ASSIGN_OR_RETURN(Json row, ScaleJson(error, version, cell, inputs.seed));
      json["by_scale"].push_back(std::move(row));
    }
    if (versions.size() < 2) continue;
    const auto first = versions.begin();
    const auto last = std::prev(versions.end());
    if (first->second.means.size() != last->second.means.size()) continue;
    TEMPER_ASSIGN_OR_RETURN(Json row, PairedJson(error, {first->first, &first->second},
                                                 {last->first, &last->second}, inputs.seed));
    json["paired"].push_back(std::move(row));
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace temper::orchestrator
