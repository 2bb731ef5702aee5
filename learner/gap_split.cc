#include "learner/gap_split.h"

#include <algorithm>
#include <cmath>

#include "services/base/check.h"

namespace temper::learner {

void GapTerm::Add(std::span<const float> from, std::span<const float> to) {
  TEMPER_CHECK(from.size() == to.size(), "one number per token");
  for (size_t t = 0; t < from.size(); ++t) {
    const double d = static_cast<double>(to[t]) - static_cast<double>(from[t]);
    sum += d;
    abs_sum += std::fabs(d);
    abs_max = std::max(abs_max, std::fabs(d));
  }
}

void GapSplit::Add(const GapChain& chain) {
  precision.Add(chain.recorded, chain.recreated);
  aqn.Add(chain.recreated, chain.without_aqn);
  staleness.Add(chain.without_aqn, chain.current_weights);
  noise.Add(chain.current_weights, chain.without_error);
  whole.Add(chain.recorded, chain.without_error);
  tokens += chain.recorded.size();
}

std::array<std::pair<const char*, const GapTerm*>, 5> GapSplit::Terms() const {
  return {{{"precision", &precision},
           {"aqn", &aqn},
           {"staleness", &staleness},
           {"noise", &noise},
           {"whole", &whole}}};
}

double GapSplit::MeanOver(double sum) const {
  return tokens == 0 ? 0.0 : sum / static_cast<double>(tokens);
}

bool ProbeIsDue(uint64_t step, uint64_t every) { return every > 0 && step % every == 0; }

std::vector<size_t> ChooseProbeGroups(std::span<const RolloutGroup> groups,
                                      const std::set<uint64_t>& kept, size_t limit) {
  std::vector<size_t> chosen;
  for (size_t i = 0; i < groups.size() && chosen.size() < limit; ++i) {
    const RolloutGroup& group = groups[i];
    const bool one_version = group.oldest_version == group.newest_version;
    if (one_version && kept.count(group.newest_version) > 0) chosen.push_back(i);
  }
  return chosen;
}

}  // namespace temper::learner
