#include "learner/rollout_noise.h"

#include <cstdint>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "numerics/noise_rows.h"
#include "services/base/status_macros.h"

namespace temper::learner {
namespace {

// The versions that sampled any token of a group, ascending.
std::vector<uint64_t> SampledVersions(const RolloutGroup& group) {
  std::set<uint64_t> versions;
  for (const SampledCompletion& completion : group.completions) {
    for (const VersionSpan& span : completion.versions) versions.insert(span.version);
  }
  return {versions.begin(), versions.end()};
}

// CheckSeen of what a rollout by itself counted: it has run, so it counted something, and nothing
// but rows of (rollout, forward).
absl::Status CheckRolloutSeen(const numerics::NoisePolicy& policy,
                              const numerics::NoiseCounters& counters) {
  for (const auto& [id, row] : counters.rows()) {
    if (id.phase != numerics::Phase::kRollout || id.direction != numerics::Direction::kForward) {
      return absl::FailedPreconditionError(
          absl::StrCat("noise row ", numerics::NoiseRowName(id),
                       " counted by a rollout, which runs forward in its own phase"));
    }
  }
  constexpr numerics::MadePass kMade[] = {
      {numerics::Phase::kRollout, numerics::Direction::kForward}};
  return numerics::CheckSeen(policy, counters, kMade);
}

}  // namespace

absl::StatusOr<numerics::NoiseCounters> RolloutCountsOf(const RolloutGroup& group) {
  numerics::NoiseCounters counters;
  for (const v1::InjectionCount& count : group.injections) {
    const auto phase = numerics::PhaseFromName(count.phase());
    const auto direction = numerics::DirectionFromName(count.direction());
    const auto op = numerics::OperatorFromName(count.operator_());
    if (!phase || !direction || !op) {
      return absl::FailedPreconditionError(absl::StrCat("a count of '", count.phase(), " ",
                                                        count.direction(), " ", count.operator_(),
                                                        "', which is no row of the noise table"));
    }
    numerics::NoiseRowId id = {.phase = *phase,
                               .direction = *direction,
                               .layer = count.layer(),
                               .op = *op,
                               .role = numerics::RoleInPass(*direction, *op)};
    if (!count.tensor().empty()) {
      id.role =
          numerics::TensorRoleFromName(count.tensor()).value_or(numerics::TensorRole::kOutput);
      if (!numerics::IsInjection(id)) {
        return absl::FailedPreconditionError(
            absl::StrCat("a count of the tensor '", count.tensor(),
                         "', which is none that hw_error_injection perturbs"));
      }
    }
    numerics::NoiseRow row;
    row.operator_calls = count.calls();
    row.stats.calls = count.elements() > 0 ? count.calls() : 0;
    row.stats.elements = count.elements();
    row.stats.changed = count.elements_changed();
    row.stats.non_finite = count.non_finite();
    row.stats.sum_sq_error.Add(count.sum_sq_error());
    row.stats.sum_sq_value.Add(count.sum_sq_value());
    counters.Add(id, row);
  }
  return counters;
}

absl::Status AddCheckedRolloutCounts(const ClosedBatch& batch, const numerics::NoisePolicy& policy,
                                     const numerics::AqnPlan& aqn, int num_layers,
                                     CountsByWorker* by_worker, numerics::NoiseCounters* counters) {
  for (const RolloutGroup* group : ExaminedGroups(batch)) {
    const auto check = [&]() -> absl::Status {
      TEMPER_ASSIGN_OR_RETURN(const numerics::NoiseCounters own, RolloutCountsOf(*group));
      counters->Merge(own);
      TEMPER_RETURN_IF_ERROR(CheckRolloutSeen(policy, own));
      WorkerCounts& of_worker = (*by_worker)[group->worker];
      ++of_worker.groups;
      of_worker.counters.Merge(own);
      TEMPER_RETURN_IF_ERROR(numerics::CheckSeen(policy, of_worker.counters));
      if (of_worker.groups >= numerics::kJudgedGroups) {
        TEMPER_RETURN_IF_ERROR(numerics::CheckAchievedScale(policy, of_worker.counters));
      }
      return numerics::CheckAqnSeen(aqn, num_layers, SampledVersions(*group), own);
    };
    const absl::Status seen = check();
    if (!seen.ok()) {
      return absl::Status(seen.code(), absl::StrCat("group ", group->group_index, " of ",
                                                    group->worker, ": ", seen.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace temper::learner
