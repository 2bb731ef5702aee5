#include "numerics/formats/aqn_advisor.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "numerics/statistics.h"
#include "services/base/text.h"

namespace temper::numerics {
namespace {

struct Role {
  double sqnr_db = 0.0;
  double dead_zone = 0.0;
};

absl::StatusOr<Role> MedianOf(std::string_view name, const RoleMeasurements& m) {
  if (m.sqnr_db.empty() || m.sqnr_db.size() != m.dead_zone.size()) {
    return absl::InvalidArgumentError(
        base::Cat("advice on ", name, " needs their SQNR and dead zone: ", m.sqnr_db.size(),
                  " and ", m.dead_zone.size(), " were given"));
  }
  const auto finite = [](double value) { return std::isfinite(value); };
  if (!std::all_of(m.sqnr_db.begin(), m.sqnr_db.end(), finite) ||
      !std::all_of(m.dead_zone.begin(), m.dead_zone.end(), finite)) {
    return absl::InvalidArgumentError(base::Cat("a measurement of ", name, " is not finite"));
  }
  return Role{.sqnr_db = Median(m.sqnr_db), .dead_zone = Median(m.dead_zone)};
}

AqnAdvice Advice(AqnPriority priority, double sigma_start, double sigma_end, const Role& role,
                 const std::string& reason) {
  return {.priority = priority,
          .sigma_start = sigma_start,
          .sigma_end = sigma_end,
          .sqnr_db = role.sqnr_db,
          .dead_zone = role.dead_zone,
          .reason = reason};
}

}  // namespace

std::string_view AqnPriorityName(AqnPriority priority) {
  switch (priority) {
    case AqnPriority::kNone:
      return "none";
    case AqnPriority::kSkip:
      return "skip";
    case AqnPriority::kOptional:
      return "optional";
    case AqnPriority::kRecommended:
      return "recommended";
    case AqnPriority::kCritical:
      return "critical";
  }
  return "unknown";
}

absl::StatusOr<AqnAdvice> AdviseAqn(const AdvisorInputs& inputs) {
  if (!inputs.format.has_value()) {
    return Advice(AqnPriority::kNone, 0, 0, {}, "nothing is quantized");
  }
  absl::StatusOr<Role> role = MedianOf("weights", inputs.weights);
  if (!role.ok()) return role.status();
  std::string_view name = "weights";
  if (inputs.quantized_inputs) {
    const absl::StatusOr<Role> input_role = MedianOf("inputs", inputs.inputs);
    if (!input_role.ok()) return input_role.status();
    if (input_role->sqnr_db < role->sqnr_db) {
      role = input_role;
      name = "inputs";
    }
  }
  const double db = role->sqnr_db;
  const std::string measured = absl::StrFormat("median SQNR of the %s %.2f dB, dead zone %.1f %%",
                                               name, db, 100 * role->dead_zone);
  const auto because = [&](std::string_view row) { return base::Cat(row, ": ", measured); };
  using enum AqnPriority;
  if (inputs.training == TrainingMode::kLora) {
    return Advice(kCritical, 0.05, 0.0005, *role, because("LoRA on a quantized model"));
  }
  if (*inputs.format == NumberFormat::kNvfp4 && db >= 18.0 && db <= 22.0) {
    return Advice(kOptional, 0.01, 0.0001, *role, because("full training on NVFP4, 18 to 22 dB"));
  }
  if (db < 18.0) return Advice(kCritical, 0.05, 0.0005, *role, because("below 18 dB"));
  if (db <= 20.0 && role->dead_zone > 0.10) {
    return Advice(kRecommended, 0.02, 0.0005, *role,
                  because("18 to 20 dB with a dead zone above 10 %"));
  }
  if (db <= 22.0) return Advice(kOptional, 0.01, 0.0001, *role, because("18 to 22 dB"));
  return Advice(kSkip, 0, 0, *role, because("above 22 dB"));
}

}  // namespace temper::numerics
