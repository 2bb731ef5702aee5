#include "services/base/clock.h"

#include "absl/time/clock.h"

namespace temper::base {
namespace {

class RealClock final : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
  bool AwaitUntil(absl::Mutex* mutex, const absl::Condition& condition,
                  absl::Time deadline) override {
    return mutex->AwaitWithDeadline(condition, deadline);
  }
};

}  // namespace

Clock* SystemClock() {
  static RealClock clock;
  return &clock;
}

}  // namespace temper::base
