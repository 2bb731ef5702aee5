#pragma once

// What one scan found; scan_json.h writes it for programs, scan_page.h for a person.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "numerics/formats/aqn_advisor.h"
#include "numerics/formats/sensitivity_labels.h"
#include "scan/localise.h"
#include "scan/sensitivity.h"
#include "scan/static_scan.h"

namespace temper::scan {

struct LayerLabel {
  int layer = 0;
  double value = 0.0;  // of the metric
  numerics::SensitivityLabel label = numerics::SensitivityLabel::kMedium;
  double multiplier = 1.0;  // of AQN's sigma, through preset from_scan
};

struct Labels {
  std::string by;     // "sensitivity", "sqnr", "dead_zone"
  std::string error;  // the error it was measured under
  std::vector<LayerLabel> layers;
};

struct FormatAdvice {
  std::string format;
  numerics::TrainingMode training = numerics::TrainingMode::kFull;
  bool quantized_inputs = false;
  numerics::AqnAdvice advice;
};

struct FaultReport {
  std::string injected;  // "saturation:0.3@2"; empty: none, an unknown one is looked for
  std::vector<std::string> references;  // paths of healthy scans
  int repeats = 0;
  std::optional<double> kl_nats;  // of the output against the clean model, where that is known
  FaultFinding finding;
};

struct ScanResult {
  std::string model_path;
  std::string model_hash;  // 16 hexadecimal digits of HashParameters
  int num_layers = 0;
  std::string prompts;         // where they come from
  std::string sequences_hash;  // HashSequences
  int64_t sequences = 0;
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  std::vector<std::string> errors;  // of the static scan
  std::vector<StaticRow> static_rows;
  ModelProfile profile;
  std::string sensitivity_error;  // empty: not measured
  std::vector<LayerSensitivity> sensitivity;
  std::optional<Labels> labels;
  std::vector<FormatAdvice> advice;
  std::optional<FaultReport> fault;
  double weight_seconds = 0.0;      // of the static scan, wall clock
  double activation_seconds = 0.0;  // passes included
};

}  // namespace temper::scan
