#include "scan/scan_json.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "services/base/text.h"

namespace temper::scan {
namespace {

using OrderedJson = nlohmann::ordered_json;

OrderedJson RowJson(const StaticRow& row) {
  OrderedJson blocks = OrderedJson::object();
  for (size_t i = 0; i < row.block_row_sqnr_db.size(); ++i) {
    const int percent = static_cast<int>(100 * kBlockRowQuantiles[i] + 0.5);
    blocks[absl::StrCat("p", percent)] = row.block_row_sqnr_db[i];
  }
  OrderedJson json = {{"error", row.error}, {"role", RoleName(row.role)}, {"layer", row.layer}};
  if (row.role != Role::kLayerOutput) json["op"] = std::string(numerics::OperatorName(row.op));
  json.update(OrderedJson{{"sqnr_db", row.sqnr_db},
                          {"sqnr_db_without_largest", row.sqnr_db_without_largest},
                          {"block_row_sqnr_db", std::move(blocks)},
                          {"dead_zone", row.dead_zone},
                          {"relative_error", row.relative_error},
                          {"saturation", row.saturation},
                          {"elements", row.elements},
                          {"non_finite", row.non_finite}});
  return json;
}

OrderedJson ProfileJson(const ModelProfile& profile) {
  OrderedJson layers = OrderedJson::array();
  for (size_t l = 0; l < profile.size(); ++l) {
    OrderedJson layer = {{"layer", l}, {"rows", profile[l].rows}};
    for (const ProfileField& field : ProfileFields()) {
      layer[std::string(field.name)] = profile[l].*field.value;
    }
    layer["projections"] = profile[l].projections;
    layers.push_back(std::move(layer));
  }
  return layers;
}

OrderedJson SensitivityJson(const LayerSensitivity& row, const std::string& error) {
  OrderedJson json = {{"error", error}, {"layer", row.layer}};
  if (row.op.has_value()) json["op"] = std::string(numerics::OperatorName(*row.op));
  json["kl_nats"] = row.kl_nats;
  return json;
}

OrderedJson LabelJson(const LayerLabel& label) {
  return {{"layer", label.layer},
          {"value", label.value},
          {"label", std::string(numerics::SensitivityLabelName(label.label))},
          {"multiplier", label.multiplier}};
}

OrderedJson AdviceJson(const FormatAdvice& advice) {
  return {{"format", advice.format},
          {"training", advice.training == numerics::TrainingMode::kLora ? "lora" : "full"},
          {"quantized_inputs", advice.quantized_inputs},
          {"priority", std::string(numerics::AqnPriorityName(advice.advice.priority))},
          {"sigma_start", advice.advice.sigma_start},
          {"sigma_end", advice.advice.sigma_end},
          {"sqnr_db", advice.advice.sqnr_db},
          {"dead_zone", advice.advice.dead_zone},
          {"reason", advice.advice.reason}};
}

OrderedJson SuspectJson(const Suspicion& suspect) {
  return {{"layer", suspect.layer},
          {"z", suspect.z},
          {"value", suspect.value},
          {"field", suspect.field}};
}

OrderedJson FaultJson(const FaultReport& fault) {
  OrderedJson json = {{"injected", fault.injected},
                      {"references", fault.references},
                      {"repeats", fault.repeats},
                      {"evidence", EvidenceName(fault.finding.evidence)},
                      {"symptom", fault.finding.symptom}};
  if (!fault.finding.ranking.empty()) json["layer"] = fault.finding.ranking[0].layer;
  if (fault.kl_nats.has_value()) json["kl_nats"] = *fault.kl_nats;
  return json;
}

OrderedJson HeaderJson(const ScanResult& result) {
  return {
      {"format", "temper-scan-1"},
      {"model",
       {{"path", result.model_path}, {"hash", result.model_hash}, {"layers", result.num_layers}}},
      {"prompts",
       {{"source", result.prompts},
        {"hash", result.sequences_hash},
        {"sequences", result.sequences},
        {"prompt_tokens", result.prompt_tokens},
        {"completion_tokens", result.completion_tokens}}},
      {"seconds",
       {{"weights", result.weight_seconds}, {"activations", result.activation_seconds}}}};
}

OrderedJson LabelsJson(const Labels& labels) {
  OrderedJson layers = OrderedJson::array();
  for (const LayerLabel& label : labels.layers) layers.push_back(LabelJson(label));
  return {{"by", labels.by}, {"error", labels.error}, {"layers", std::move(layers)}};
}

// A kind, then the fields of `json`.
std::string Line(const char* kind, const OrderedJson& json) {
  OrderedJson line = {{"kind", kind}};
  line.update(json);
  return line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace

std::string ToJson(const ScanResult& result) {
  OrderedJson json = HeaderJson(result);
  json["static"] = OrderedJson::array();
  for (const StaticRow& row : result.static_rows) json["static"].push_back(RowJson(row));
  json["sensitivity"] = OrderedJson::array();
  for (const LayerSensitivity& row : result.sensitivity) {
    json["sensitivity"].push_back(SensitivityJson(row, result.sensitivity_error));
  }
  if (result.labels.has_value()) json["labels"] = LabelsJson(*result.labels);
  json["advice"] = OrderedJson::array();
  for (const FormatAdvice& advice : result.advice) json["advice"].push_back(AdviceJson(advice));
  json["profile"] = ProfileJson(result.profile);
  if (result.fault.has_value()) {
    json["fault"] = FaultJson(*result.fault);
    json["fault"]["ranking"] = OrderedJson::array();
    for (const Suspicion& suspect : result.fault->finding.ranking) {
      json["fault"]["ranking"].push_back(SuspectJson(suspect));
    }
  }
  return json.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::vector<std::string> ToJsonLines(const ScanResult& result) {
  std::vector<std::string> lines = {Line("scan", HeaderJson(result))};
  for (const StaticRow& row : result.static_rows) lines.push_back(Line("static", RowJson(row)));
  for (const LayerSensitivity& row : result.sensitivity) {
    lines.push_back(Line("sensitivity", SensitivityJson(row, result.sensitivity_error)));
  }
  if (result.labels.has_value()) {
    for (const LayerLabel& label : result.labels->layers) {
      OrderedJson json = {{"by", result.labels->by}, {"error", result.labels->error}};
      json.update(LabelJson(label));
      lines.push_back(Line("label", json));
    }
  }
  for (const FormatAdvice& advice : result.advice) {
    lines.push_back(Line("advice", AdviceJson(advice)));
  }
  if (result.fault.has_value()) {
    for (const Suspicion& suspect : result.fault->finding.ranking) {
      lines.push_back(Line("suspect", SuspectJson(suspect)));
    }
    lines.push_back(Line("fault", FaultJson(*result.fault)));
  }
  return lines;
}

}  // namespace temper::scan
