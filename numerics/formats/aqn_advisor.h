#pragma once

// Advice on AQN from measured quantization error: a function of its inputs, never a switch. The
// thresholds are those of the findings document, hypotheses that a study has to confirm;
// docs/numerics.md, "Number formats", has the table and where the document contradicts itself.

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "numerics/formats/number_format.h"

namespace temper::numerics {

enum class AqnPriority { kNone, kSkip, kOptional, kRecommended, kCritical };

// "none", "skip", "optional", "recommended", "critical".
std::string_view AqnPriorityName(AqnPriority priority);

enum class TrainingMode { kFull, kLora };

// What the static scan measured on one role of all linears, in one order.
struct RoleMeasurements {
  std::span<const double> sqnr_db;    // of each whole tensor
  std::span<const double> dead_zone;  // shares
};

struct AdvisorInputs {
  std::optional<NumberFormat> format;  // absent: no quantization error
  TrainingMode training = TrainingMode::kFull;
  bool quantized_inputs = false;  // W4A4 and the like; false: weights alone
  RoleMeasurements weights;       // read where there is a format
  RoleMeasurements inputs;        // read with quantized_inputs
};

struct AqnAdvice {
  AqnPriority priority = AqnPriority::kNone;
  double sigma_start = 0.0;  // 0 where no AQN is advised
  double sigma_end = 0.0;
  double sqnr_db = 0.0;    // what was judged: the lower of the medians of the roles in use
  double dead_zone = 0.0;  // the median of the role it comes from
  std::string reason;      // the row that matched, with the numbers
};

// The first row that matches:
//   no format                                    none
//   LoRA                                         critical     0.05 -> 0.0005
//   full training, NVFP4, SQNR 18 .. 22 dB       optional     0.01 -> 0.0001
//   SQNR < 18 dB                                 critical     0.05 -> 0.0005
//   SQNR 18 .. 20 dB, dead zone > 10 %           recommended  0.02 -> 0.0005
//   SQNR 18 .. 22 dB                             optional     0.01 -> 0.0001
//   SQNR > 22 dB                                 skip
// SQNR: the median over the linears of the weights; with quantized inputs the lower of that and the
// median of the inputs. Errors: InvalidArgument where a role in use has no measurement, a number
// that is not finite, or lists of different lengths.
absl::StatusOr<AqnAdvice> AdviseAqn(const AdvisorInputs& inputs);

}  // namespace temper::numerics
