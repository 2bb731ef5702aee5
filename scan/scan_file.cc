#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "scan/scan_json.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper::scan {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMostBytes = int64_t{64} << 20;
constexpr int kMostDepth = 16;
constexpr size_t kMostLayers = 1024;

// Looks things up in one file; every error names it.
class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {}

  absl::Status Wrong(const std::string& what) const {
    return absl::DataLossError(absl::StrCat(path_, ": ", what));
  }

  absl::StatusOr<Json> Parse(const std::string& text) const {
    bool too_deep = false;
    const auto watch = [&](int depth, Json::parse_event_t, Json&) {
      too_deep = too_deep || depth > kMostDepth;
      return !too_deep;
    };
    Json json = Json::parse(text, watch, /*allow_exceptions=*/false);
    if (too_deep) return Wrong("nested too deep for a scan");
    if (json.is_discarded() || !json.is_object()) return Wrong("not a JSON object, or cut short");
    return json;
  }

  absl::StatusOr<std::string> Text(const Json& json, const char* key) const {
    const auto found = json.find(key);
    if (!json.is_object() || found == json.end() || !found->is_string()) {
      return Wrong(absl::StrCat("lacks the text \"", key, "\""));
    }
    return found->get<std::string>();
  }

  absl::StatusOr<double> Number(const Json& json, std::string_view key) const {
    const std::string name(key);
    if (!json.is_object() || !json.contains(name) || !json[name].is_number()) {
      return Wrong(absl::StrCat("lacks the number \"", name, "\""));
    }
    const double value = json[name].get<double>();
    if (!std::isfinite(value)) return Wrong(absl::StrCat("\"", name, "\" is not finite"));
    return value;
  }

  // A list of objects with "layer" 0, 1, 2, ...
  absl::StatusOr<std::vector<Json>> Layers(const Json& json, const std::string& name) const {
    if (!json.is_array() || json.empty() || json.size() > kMostLayers) {
      return Wrong(absl::StrCat("lacks the list of layers \"", name, "\""));
    }
    std::vector<Json> layers(json.begin(), json.end());
    for (size_t l = 0; l < layers.size(); ++l) {
      TEMPER_ASSIGN_OR_RETURN(const double layer, Number(layers[l], "layer"));
      if (layer != static_cast<double>(l)) {
        return Wrong(absl::StrCat("\"", name, "\" has layer ", layer, " in place of ", l));
      }
    }
    return layers;
  }

  absl::StatusOr<LayerProfile> Profile(const Json& json) const {
    LayerProfile profile;
    TEMPER_ASSIGN_OR_RETURN(const double rows, Number(json, "rows"));
    profile.rows = static_cast<int64_t>(std::min(std::max(rows, 0.0), 1e15));
    for (const ProfileField& field : ProfileFields()) {
      TEMPER_ASSIGN_OR_RETURN(profile.*field.value, Number(json, field.name));
    }
    if (!json.contains("projections") || json["projections"].size() != kProjections) {
      return Wrong("a layer's profile lacks its projections");
    }
    for (const Json& projection : json["projections"]) {
      if (!projection.is_number()) return Wrong("a projection is no number");
      profile.projections.push_back(projection.get<double>());
    }
    return profile;
  }

 private:
  const std::string path_;
};

}  // namespace

absl::StatusOr<ScanFile> ReadScanFile(const std::string& path) {
  absl::StatusOr<std::string> text = base::ReadFile(path, kMostBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::InvalidArgumentError(absl::StrCat("there is no scan file ", path));
  }
  if (!text.ok()) return text.status();
  const Reader reader(path);
  TEMPER_ASSIGN_OR_RETURN(const Json json, reader.Parse(*text));
  TEMPER_ASSIGN_OR_RETURN(const std::string format, reader.Text(json, "format"));
  if (format != "temper-scan-1") {
    return reader.Wrong(absl::StrCat("format \"", format, "\" is not temper-scan-1"));
  }
  ScanFile file;
  const auto part = [&](const char* key) { return json.value(key, Json()); };
  TEMPER_ASSIGN_OR_RETURN(file.model_hash, reader.Text(part("model"), "hash"));
  TEMPER_ASSIGN_OR_RETURN(file.sequences_hash, reader.Text(part("prompts"), "hash"));
  const Json labels = part("labels");
  TEMPER_ASSIGN_OR_RETURN(
      const std::vector<Json> label_layers,
      reader.Layers(labels.is_object() ? labels.value("layers", Json()) : Json(), "labels.layers"));
  for (const Json& layer : label_layers) {
    TEMPER_ASSIGN_OR_RETURN(const double multiplier, reader.Number(layer, "multiplier"));
    if (multiplier < 0.0) return reader.Wrong("a multiplier is below 0");
    file.multipliers.push_back(multiplier);
  }
  TEMPER_ASSIGN_OR_RETURN(const std::vector<Json> profile,
                          reader.Layers(part("profile"), "profile"));
  for (const Json& layer : profile) {
    TEMPER_ASSIGN_OR_RETURN(LayerProfile one, reader.Profile(layer));
    file.profile.push_back(std::move(one));
  }
  return file;
}

}  // namespace temper::scan
