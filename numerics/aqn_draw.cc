#include "numerics/aqn_draw.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "absl/strings/str_format.h"
#include "numerics/gaussian.h"
#include "services/base/check.h"
#include "services/base/random_key.h"

namespace temper::numerics {
namespace {

// The checksum reads floats as bytes; workers on other hosts must read the same ones.
static_assert(std::endian::native == std::endian::little);

}  // namespace

uint64_t VersionAqn::Key(uint64_t group_index, uint64_t worker) const {
  switch (plan == nullptr ? AqnDrawScope::kPerVersion : plan->draw) {
    case AqnDrawScope::kPerGroup:
      return base::AqnKey(run_seed, policy_version, group_index + 1);
    case AqnDrawScope::kPerWorker:
      return base::AqnKey(run_seed, policy_version, worker);
    case AqnDrawScope::kPerVersion:
      break;
  }
  return base::AqnKey(run_seed, policy_version);
}

uint64_t AqnWorker(std::string_view member_id) {
  return XXH3_64bits(member_id.data(), member_id.size());
}

double RootMeanSquare(std::span<const float> values) {
  if (values.empty()) return 0.0;
  double sum = 0.0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

uint32_t AqnSite(const AqnTarget& target) {
  return Site(target.layer, target.op, TensorRole::kWeightOperand);
}

void ApplyAqn(std::span<const float> gamma, std::span<float> perturbed, const AqnTarget& target,
              const AqnDraw& draw, double multiplier, AqnReport* report, SimdPath path) {
  TEMPER_CHECK(gamma.size() == perturbed.size(), "gamma and its copy have one length");
  const uint32_t site = AqnSite(target);
  double scale = draw.sigma * multiplier;
  if (draw.mode == SigmaMode::kRelativeToRms) scale *= RootMeanSquare(gamma);
  const auto rounded = static_cast<float>(scale);
  std::vector<float> normals(gamma.size(), 0.0f);
  if (rounded != 0.0f) {
    FillGaussian(normals.data(), static_cast<int64_t>(normals.size()), draw.key, site, 0, 0, path);
  }
  double largest = 0.0;
  for (size_t c = 0; c < gamma.size(); ++c) {
    const float clean = gamma[c];
    perturbed[c] = rounded == 0.0f ? clean : std::fma(rounded, normals[c], clean);
    largest = std::max(largest, std::abs(static_cast<double>(perturbed[c]) - clean));
  }
  if (report == nullptr) return;
  report->sigma = draw.sigma;
  if (largest > 0.0) ++report->norms_touched;
  report->max_abs_change = std::max(report->max_abs_change, largest);
  report->checksum ^= XXH3_64bits_withSeed(perturbed.data(), perturbed.size_bytes(), site);
}

double LargestAqnShare(const AqnPlan& plan, const AqnTarget& target, int num_layers, double rms) {
  double largest = 0.0;
  for (int64_t t = 0; t < plan.total_steps; ++t) {
    largest = std::max(largest, Sigma(plan, t) * AqnMultiplier(plan, target, num_layers, t));
  }
  if (plan.sigma_mode == SigmaMode::kRelativeToRms) return largest;
  return rms > 0.0 ? largest / rms : 0.0;
}

absl::Status CheckLinearShare(const AqnPlan& plan, const AqnTarget& target, int num_layers,
                              double rms) {
  if (IsNorm(target.op) || plan.force) return absl::OkStatus();
  const double share = LargestAqnShare(plan, target, num_layers, rms);
  if (share <= kMostLinearShare) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "AQN reaches %.0f %% of the RMS %.3g of %s; above %.0f %% it destroys a policy (say "
      "noise_injection.force: true if that is meant)",
      100 * share, rms, AqnTargetName(target), 100 * kMostLinearShare));
}

}  // namespace temper::numerics
