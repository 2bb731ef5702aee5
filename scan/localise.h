#pragma once

// Finds the decoder layer that errs from what its outputs look like (docs/scan.md, "Finding a
// fault"). Pure.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scan/layer_profile.h"

namespace temper::scan {

// One profile per layer.
using ModelProfile = std::vector<LayerProfile>;

struct FaultObservation {
  // Of the suspected device, over equal tokens; at least one. Two or more show what differs between
  // repeats.
  std::span<const ModelProfile> repeats;
  // Of healthy devices over the same tokens. The first is what is compared with; how far others
  // depart from it is what a healthy device may depart, layer by layer. May be empty.
  std::span<const ModelProfile> references;
};

enum class Evidence {
  kNone,         // nothing departs from anything
  kInstability,  // repeats differ, from this layer on
  kDeparture,    // the reference is left, from this layer on
  kOutlier,      // no reference: the layer is unlike the others of its model
};
// "none", "instability", "departure", "outlier".
std::string EvidenceName(Evidence evidence);

struct Suspicion {
  int layer = 0;
  double z = 0.0;      // robust z of `value` among the layers
  double value = 0.0;  // decades above what came before, or the outlying statistic
  std::string field;   // the statistic that says most
};

struct FaultFinding {
  Evidence evidence = Evidence::kNone;
  std::vector<Suspicion> ranking;  // most suspect first; empty with kNone
  // How the first layer's update differs from the reference: "more values near zero", "heavier
  // tails", "flatter", "larger", "changed"; empty without a reference. What is seen, not its cause.
  std::string symptom;
};

// (v - median) / (1.4826 max(MAD, 1 % of |median|, 1e-6)) of each value.
std::vector<double> RobustZ(std::span<const double> values);

// Largest relative difference of two profiles' statistics, and of their projections the absolute
// one; `field` (may be null) is which.
double Departure(const LayerProfile& observed, const LayerProfile& baseline, std::string* field);

// Instability is looked for first, since it needs no reference; then departure from the reference;
// outliers only without one. Instability and departure are ranked by onset, the decades by which a
// layer departs more than any before it, each in units of what is allowed there: a healthy layer
// that comes after the faulty one departs too, but not more steeply than its input did.
// InvalidArgument if there is no profile, or profiles of different numbers of layers.
absl::StatusOr<FaultFinding> LocaliseFault(const FaultObservation& observation);

}  // namespace temper::scan
