#include "scan/localise.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "numerics/statistics.h"

namespace temper::scan {
namespace {

// Departures below this are rounding: another device adds in another order. Float32 sums over a
// layer differ by some 1e-6 of their value.
constexpr double kRounding = 1e-5;
// Another healthy device may depart more than those at hand do.
constexpr double kMargin = 2.0;

struct Departures {
  std::vector<double> values;  // by layer
  std::vector<std::string> fields;
};

Departures Compare(const ModelProfile& observed, const ModelProfile& baseline) {
  Departures result;
  for (size_t l = 0; l < observed.size(); ++l) {
    result.values.push_back(Departure(observed[l], baseline[l], &result.fields.emplace_back()));
  }
  return result;
}

void MergeLargest(const Departures& from, Departures* into) {
  if (into->values.empty()) *into = from;
  for (size_t l = 0; l < from.values.size(); ++l) {
    if (from.values[l] <= into->values[l]) continue;
    into->values[l] = from.values[l];
    into->fields[l] = from.fields[l];
  }
}

// What a healthy device may depart from the first reference, by layer.
std::vector<double> Allowed(std::span<const ModelProfile> references, size_t layers) {
  std::vector<double> allowed(layers, kRounding);
  for (const ModelProfile& reference : references) {
    const Departures spread = Compare(reference, references[0]);
    for (size_t l = 0; l < layers; ++l) {
      allowed[l] = std::max(allowed[l], kMargin * spread.values[l]);
    }
  }
  return allowed;
}

// In units of what is allowed.
Departures Scaled(Departures departures, const std::vector<double>& allowed) {
  for (size_t l = 0; l < allowed.size(); ++l) departures.values[l] /= allowed[l];
  return departures;
}

bool Departs(const Departures& scaled) {
  return std::any_of(scaled.values.begin(), scaled.values.end(),
                     [](double value) { return value > 1.0; });
}

// Decades by which each layer departs more than any layer before it.
std::vector<double> Onsets(const std::vector<double>& scaled) {
  std::vector<double> onsets;
  double before = 1.0;
  for (const double departure : scaled) {
    onsets.push_back(std::log10(std::max(departure, 1.0) / before));
    before = std::max(before, departure);
  }
  return onsets;
}

std::vector<Suspicion> Ranked(const std::vector<double>& values, const std::vector<double>& z,
                              const std::vector<std::string>& fields) {
  std::vector<Suspicion> ranking;
  for (size_t l = 0; l < values.size(); ++l) {
    ranking.push_back(
        {.layer = static_cast<int>(l), .z = z[l], .value = values[l], .field = fields[l]});
  }
  std::stable_sort(ranking.begin(), ranking.end(),
                   [](const Suspicion& a, const Suspicion& b) { return a.z > b.z; });
  return ranking;
}

std::vector<Suspicion> RankedByOnset(const Departures& departures) {
  const std::vector<double> onsets = Onsets(departures.values);
  return Ranked(onsets, RobustZ(onsets), departures.fields);
}

// Without anything to compare with: the layer whose statistic is farthest from those of the others.
std::vector<Suspicion> RankedByOutlier(const ModelProfile& profile) {
  std::vector<double> values(profile.size()), worst(profile.size(), -1.0);
  std::vector<std::string> fields(profile.size());
  for (const ProfileField& field : ProfileFields()) {
    std::vector<double> logs;
    for (const LayerProfile& layer : profile) {
      logs.push_back(std::log(std::max(layer.*field.value, 1e-12)));
    }
    const std::vector<double> z = RobustZ(logs);
    for (size_t l = 0; l < z.size(); ++l) {
      if (std::abs(z[l]) <= worst[l]) continue;
      worst[l] = std::abs(z[l]);
      values[l] = profile[l].*field.value;
      fields[l] = std::string(field.name);
    }
  }
  return Ranked(values, worst, fields);
}

std::string SymptomOf(const LayerProfile& observed, const LayerProfile& baseline) {
  const auto ratio = [&](double LayerProfile::*field) {
    return observed.*field / std::max(baseline.*field, 1e-12);
  };
  if (ratio(&LayerProfile::near_zero) > 1.5) return "more values near zero";
  if (ratio(&LayerProfile::kurtosis) > 1.5) return "heavier tails";
  if (ratio(&LayerProfile::crest) < 0.9) return "flatter";
  if (ratio(&LayerProfile::update_gain) > 1.05) return "larger";
  return "changed";
}

}  // namespace

std::string EvidenceName(Evidence evidence) {
  switch (evidence) {
    case Evidence::kNone:
      return "none";
    case Evidence::kInstability:
      return "instability";
    case Evidence::kDeparture:
      return "departure";
    case Evidence::kOutlier:
      return "outlier";
  }
  return "unknown";
}

std::vector<double> RobustZ(std::span<const double> values) {
  const double median = numerics::Median(values);
  std::vector<double> distances;
  for (const double value : values) distances.push_back(std::abs(value - median));
  const double spread = std::max({numerics::Median(distances), 0.01 * std::abs(median), 1e-6});
  std::vector<double> z;
  for (const double value : values) z.push_back((value - median) / (1.4826 * spread));
  return z;
}

double Departure(const LayerProfile& observed, const LayerProfile& baseline, std::string* field) {
  double largest = 0.0;
  const auto offer = [&](double difference, const std::string& name) {
    if (difference <= largest) return;
    largest = difference;
    if (field != nullptr) *field = name;
  };
  if (observed.rows != baseline.rows) offer(1.0, "rows");  // some were not finite
  for (const ProfileField& f : ProfileFields()) {
    const double a = observed.*f.value, b = baseline.*f.value;
    offer(std::abs(a - b) / std::max(std::abs(b), 1e-12), std::string(f.name));
  }
  for (size_t k = 0; k < std::min(observed.projections.size(), baseline.projections.size()); ++k) {
    offer(std::abs(observed.projections[k] - baseline.projections[k]),
          absl::StrCat("projection ", k));
  }
  return largest;
}

absl::StatusOr<FaultFinding> LocaliseFault(const FaultObservation& observation) {
  if (observation.repeats.empty() || observation.repeats[0].empty()) {
    return absl::InvalidArgumentError("no profile of the suspected device");
  }
  const ModelProfile& first = observation.repeats[0];
  for (const auto& profiles : {observation.repeats, observation.references}) {
    for (const ModelProfile& profile : profiles) {
      if (profile.size() == first.size()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("a profile of ", profile.size(), " layers beside one of ", first.size()));
    }
  }
  Departures unstable;
  for (const ModelProfile& repeat : observation.repeats) {
    MergeLargest(Compare(repeat, first), &unstable);
  }
  unstable = Scaled(std::move(unstable), std::vector<double>(first.size(), kRounding));
  FaultFinding finding;
  const bool referenced = !observation.references.empty();
  if (Departs(unstable)) {
    finding.evidence = Evidence::kInstability;
    finding.ranking = RankedByOnset(unstable);
  } else if (!referenced) {
    finding.evidence = Evidence::kOutlier;
    finding.ranking = RankedByOutlier(first);
  } else {
    const Departures departed = Scaled(Compare(first, observation.references[0]),
                                       Allowed(observation.references, first.size()));
    if (!Departs(departed)) return finding;
    finding.evidence = Evidence::kDeparture;
    finding.ranking = RankedByOnset(departed);
  }
  if (referenced) {
    const auto layer = static_cast<size_t>(finding.ranking[0].layer);
    finding.symptom = SymptomOf(first[layer], observation.references[0][layer]);
  }
  return finding;
}

}  // namespace temper::scan
