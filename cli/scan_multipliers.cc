#include "cli/scan_multipliers.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "model/io/model_reader.h"
#include "scan/scan_json.h"
#include "services/base/hash.h"
#include "services/base/status_macros.h"

namespace temper::cli {

absl::Status ResolveScanMultipliers(bool resolved, v1::RunConfig* config) {
  v1::NoiseInjectionConfig* aqn = config->mutable_trainer()->mutable_noise_injection();
  v1::LayerSigmaConfig* layers = aqn->mutable_layer_sigma_config();
  if (!aqn->enabled() || !layers->enabled() || layers->preset() != "from_scan") {
    return absl::OkStatus();
  }
  if (!layers->layer_multipliers().empty()) {
    if (resolved) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "trainer.noise_injection.layer_sigma_config: preset from_scan takes layer_multipliers from "
        "scan_file; give one of the two");
  }
  TEMPER_ASSIGN_OR_RETURN(const scan::ScanFile scan, scan::ReadScanFile(layers->scan_file()));
  TEMPER_ASSIGN_OR_RETURN(const auto model, model::ModelReader::Open(config->model().path()));
  TEMPER_ASSIGN_OR_RETURN(const uint64_t hash, model->HashWeights());
  if (scan.model_hash != base::HexDigest(hash)) {
    return absl::InvalidArgumentError(absl::StrCat(
        layers->scan_file(), ": a scan file of another model: its weights are ", scan.model_hash,
        ", those of ", config->model().path(), " are ", base::HexDigest(hash)));
  }
  if (static_cast<int64_t>(scan.multipliers.size()) != model->config().num_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat(layers->scan_file(), ": multipliers for ", scan.multipliers.size(),
                     " layers, the model has ", model->config().num_layers));
  }
  for (size_t l = 0; l < scan.multipliers.size(); ++l) {
    (*layers->mutable_layer_multipliers())[static_cast<int>(l)] = scan.multipliers[l];
  }
  return absl::OkStatus();
}

}  // namespace temper::cli
