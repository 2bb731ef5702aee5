#include "scan/scan_page.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace temper::scan {
namespace {

constexpr const char* kStyle = R"(
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #d8dde5}
table{border-collapse:collapse;width:100%}td,th{padding:.15rem .6rem;text-align:right;font-variant-numeric:tabular-nums}
th{color:#5b6675;font-weight:600;border-bottom:1px solid #d8dde5}td.t,th.t{text-align:left}td.bar{width:45%}
.bar div{height:.8rem;border-radius:2px;background:#6b8fb8;min-width:1px}
.high div{background:#c4473a}.medium div{background:#d9a441}.low div{background:#5a9a68}
.note,.meta{color:#5b6675}.advice{border-left:4px solid #6b8fb8;padding:.4rem 1rem;margin:.6rem 0;background:#f5f7fa}
.critical{border-color:#c4473a}.recommended{border-color:#d9a441}.skip,.none{border-color:#5a9a68}
pre{background:#f5f7fa;padding:.7rem 1rem;overflow-x:auto}details{margin:.6rem 0}summary{cursor:pointer}
)";

std::string Escape(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

// A bar of `share` of its column, with a label for those who do not see it.
std::string Bar(double share, const std::string& colour, const std::string& title) {
  const double width = std::clamp(std::isfinite(share) ? share : 0.0, 0.0, 1.0);
  return absl::StrFormat(R"(<td class="bar %s" title="%s"><div style="width:%.1f%%"></div></td>)",
                         colour, title, 100 * width);
}

// Share of the power that is error: so a longer bar is worse, as for the other metrics.
double ErrorPower(double sqnr_db) { return std::pow(10.0, -sqnr_db / 10.0); }

// A row per layer with a bar.
struct BarRow {
  std::string name;
  double value = 0.0;
  std::string shown;
  std::string colour;
  std::string extra;  // further cells
};

std::string BarTable(const std::vector<BarRow>& rows, const std::string& unit,
                     const std::string& extra_heads) {
  double largest = 0.0;
  for (const BarRow& row : rows) largest = std::max(largest, row.value);
  std::string html = absl::StrCat("<table><tr><th class=\"t\">layer</th><th>", unit,
                                  "</th><th class=\"t\"></th>", extra_heads, "</tr>\n");
  for (const BarRow& row : rows) {
    absl::StrAppend(&html, "<tr><td class=\"t\">", row.name, "</td><td>", row.shown, "</td>",
                    Bar(largest > 0 ? row.value / largest : 0.0, row.colour, row.shown), row.extra,
                    "</tr>\n");
  }
  return absl::StrCat(html, "</table>\n");
}

std::string Header(const ScanResult& result) {
  return absl::StrFormat(
      "<h1>Scan of %s</h1>\n<p class=\"meta\">weights %s, %d decoder layers &middot; %d sequences "
      "(%d prompt and %d completion tokens) from %s &middot; static scan: weights %.1f s, "
      "activations %.1f s</p>\n",
      Escape(result.model_path), result.model_hash, result.num_layers, result.sequences,
      result.prompt_tokens, result.completion_tokens, Escape(result.prompts), result.weight_seconds,
      result.activation_seconds);
}

std::string AdviceSection(const ScanResult& result) {
  if (result.advice.empty()) return "";
  std::string html = "<h2>Advice on AQN</h2>\n";
  for (const FormatAdvice& row : result.advice) {
    const numerics::AqnAdvice& advice = row.advice;
    const std::string priority(numerics::AqnPriorityName(advice.priority));
    const std::string sigma =
        advice.sigma_start > 0
            ? absl::StrFormat("sigma %g &rarr; %g", advice.sigma_start, advice.sigma_end)
            : "no AQN";
    absl::StrAppendFormat(
        &html, "<div class=\"advice %s\"><b>%s</b>, %s training, %s: <b>%s</b>, %s<br>%s</div>\n",
        priority, row.format, row.training == numerics::TrainingMode::kLora ? "LoRA" : "full",
        row.quantized_inputs ? "weights and inputs" : "weights alone", priority, sigma,
        Escape(advice.reason));
  }
  return absl::StrCat(html,
                      "<p class=\"note\">The thresholds are hypotheses of the findings document; "
                      "nothing is switched on by this.</p>\n");
}

std::string LabelSection(const ScanResult& result) {
  if (!result.labels.has_value()) return "";
  const Labels& labels = *result.labels;
  std::vector<BarRow> rows;
  for (const LayerLabel& label : labels.layers) {
    const std::string name(numerics::SensitivityLabelName(label.label));
    const double value = labels.by == "dead_zone" ? 100 * label.value : label.value;
    rows.push_back(
        {.name = absl::StrCat(label.layer),
         .value = labels.by == "sqnr" ? ErrorPower(value) : value,
         .shown = absl::StrFormat("%.4g", value),
         .colour = name,
         .extra = absl::StrFormat("<td class=\"t\">%s</td><td>%g</td>", name, label.multiplier)});
  }
  const char* unit = labels.by == "sqnr"        ? "SQNR, dB (bar: power of the error)"
                     : labels.by == "dead_zone" ? "dead zone, %"
                                                : "KL, nats";
  return absl::StrCat(
      "<h2>Layers by ", labels.by, " under ", Escape(labels.error), "</h2>\n",
      BarTable(rows, unit, "<th class=\"t\">label</th><th>multiplier</th>"),
      "<p>To give AQN these multipliers:</p>\n<pre>trainer:\n  noise_injection:\n"
      "    layer_sigma_config: {enabled: true, preset: from_scan, scan_file: scan.json}</pre>\n");
}

// Median over a layer's linears is what a reader compares; the table below has each.
std::string StaticSection(const ScanResult& result, const std::string& error, Role role) {
  std::map<int, std::vector<const StaticRow*>> layers;
  for (const StaticRow& row : result.static_rows) {
    if (row.error == error && row.role == role) layers[row.layer].push_back(&row);
  }
  if (layers.empty()) return "";
  std::vector<BarRow> bars;
  std::string table =
      "<table><tr><th class=\"t\">layer</th><th class=\"t\">linear</th><th>SQNR, dB</th>"
      "<th>without largest 0.1 %</th><th>block rows p5 / p50 / p95</th><th>dead zone</th>"
      "<th>relative error</th><th>saturated</th></tr>\n";
  for (const auto& [layer, rows] : layers) {
    const auto least = std::min_element(rows.begin(), rows.end(),
                                        [](auto* a, auto* b) { return a->sqnr_db < b->sqnr_db; });
    const std::string where =
        role == Role::kLayerOutput
            ? ""
            : absl::StrFormat("<td class=\"t\">%s</td>",
                              std::string(numerics::OperatorName((*least)->op)));
    bars.push_back({.name = absl::StrCat(layer),
                    .value = ErrorPower((*least)->sqnr_db),
                    .shown = absl::StrFormat("%.2f", (*least)->sqnr_db),
                    .extra = where});
    for (const StaticRow* row : rows) {
      absl::StrAppendFormat(
          &table,
          "<tr><td class=\"t\">%d</td><td class=\"t\">%s</td><td>%.2f</td><td>%.2f</td>"
          "<td>%.2f / %.2f / %.2f</td><td>%.2f %%</td><td>%.2f %%</td><td>%.3f %%</td></tr>\n",
          layer, role == Role::kLayerOutput ? "" : std::string(numerics::OperatorName(row->op)),
          row->sqnr_db, row->sqnr_db_without_largest, row->block_row_sqnr_db[1],
          row->block_row_sqnr_db[3], row->block_row_sqnr_db[5], 100 * row->dead_zone,
          100 * row->relative_error, 100 * row->saturation);
    }
  }
  const char* head = role == Role::kLayerOutput ? "" : "<th class=\"t\">of</th>";
  return absl::StrCat("<h2>", Escape(error), ", ",
                      role == Role::kWeight  ? "weights"
                      : role == Role::kInput ? "inputs"
                                             : "layer outputs",
                      "</h2>\n", BarTable(bars, "least SQNR, dB (bar: power of the error)", head),
                      "<details><summary>every linear</summary>\n", table, "</table></details>\n");
}

std::string SensitivitySection(const ScanResult& result) {
  if (result.sensitivity.empty()) return "";
  std::vector<BarRow> rows;
  for (const LayerSensitivity& row : result.sensitivity) {
    std::string name = absl::StrCat(row.layer);
    if (row.op.has_value()) {
      absl::StrAppend(&name, " ", std::string(numerics::OperatorName(*row.op)));
    }
    rows.push_back({.name = std::move(name),
                    .value = row.kl_nats,
                    .shown = absl::StrFormat("%.4g", row.kl_nats)});
  }
  return absl::StrCat("<h2>Sensitivity: ", Escape(result.sensitivity_error),
                      " in one place alone</h2>\n", BarTable(rows, "KL, nats", ""));
}

std::string FaultSection(const ScanResult& result) {
  if (!result.fault.has_value()) return "";
  const FaultReport& fault = *result.fault;
  std::string html =
      absl::StrCat("<h2>Fault</h2>\n<p>",
                   fault.injected.empty() ? "This machine's own run"
                                          : absl::StrCat("Injected: ", Escape(fault.injected)),
                   ", ", fault.repeats, " repeats, ",
                   fault.references.empty()
                       ? "without a reference"
                       : absl::StrCat("against ", Escape(absl::StrJoin(fault.references, ", "))),
                   ". Evidence: <b>", EvidenceName(fault.finding.evidence), "</b>");
  if (!fault.finding.symptom.empty()) {
    absl::StrAppend(&html, "; its update there: <b>", fault.finding.symptom, "</b>");
  }
  if (fault.kl_nats.has_value()) {
    absl::StrAppendFormat(&html, "; KL of the output %.3g nats", *fault.kl_nats);
  }
  absl::StrAppend(&html, ".</p>\n");
  if (fault.finding.evidence == Evidence::kOutlier) {
    absl::StrAppend(&html,
                    "<p class=\"note\">Without a reference this is a guess: a layer of a healthy "
                    "machine is the least like the others, too.</p>\n");
  }
  std::vector<BarRow> rows;
  for (const Suspicion& suspect : fault.finding.ranking) {
    rows.push_back({.name = absl::StrCat(suspect.layer),
                    .value = std::max(suspect.value, 0.0),
                    .shown = absl::StrFormat("%.3g", suspect.value),
                    .extra = absl::StrFormat("<td>%.3g</td><td class=\"t\">%s</td>", suspect.z,
                                             suspect.field)});
  }
  return absl::StrCat(html, BarTable(rows, "value", "<th>robust z</th><th class=\"t\">by</th>"));
}

}  // namespace

std::string ToHtml(const ScanResult& result) {
  std::string body = absl::StrCat(Header(result), FaultSection(result), AdviceSection(result),
                                  LabelSection(result), SensitivitySection(result));
  for (const std::string& error : result.errors) {
    for (const Role role : {Role::kWeight, Role::kInput, Role::kLayerOutput}) {
      absl::StrAppend(&body, StaticSection(result, error, role));
    }
  }
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>Scan of ",
      Escape(result.model_path), "</title>\n<style>", kStyle, "</style></head>\n<body>\n", body,
      "</body></html>\n");
}

}  // namespace temper::scan
