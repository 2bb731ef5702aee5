#include "orchestrator/orchestrator_metrics.h"

namespace temper::orchestrator {
namespace {

metrics::Gauge& Attempts(metrics::MetricsRegistry* registry, const char* state) {
  return registry->AddGauge("temper_orchestrator_attempts",
                            "Attempts at rollout groups, by how they ended or where they are.",
                            {{"state", state}});
}

}  // namespace

OrchestratorMetrics::OrchestratorMetrics(metrics::MetricsRegistry* registry)
    : step(registry->AddGauge("temper_orchestrator_step", "Steps closed.")),
      weights_version(registry->AddGauge("temper_orchestrator_weights_version",
                                         "Newest weight version that is out.")),
      workers_behind(registry->AddGauge("temper_orchestrator_workers_behind",
                                        "Rollout workers that have not acknowledged it.")),
      accounting_violation(registry->AddGauge("temper_orchestrator_accounting_violation",
                                              "1 if the ledger does not add up, else 0.")),
      filter_examined(registry->AddCounter("temper_orchestrator_filter_examined_total",
                                           "Groups examined by the dynamic-sampling filter.")),
      filter_kept(registry->AddCounter("temper_orchestrator_filter_kept_total",
                                       "Groups the dynamic-sampling filter kept.")),
      registry_(registry),
      leased_(Attempts(registry, "leased")),
      admitted_(Attempts(registry, "admitted")) {
  for (Ending ending : AllEndings()) {
    ended_[static_cast<size_t>(ending)] = &Attempts(registry, EndingName(ending));
  }
}

void OrchestratorMetrics::SetAttempts(const Accounting& accounting) {
  leased_.Set(static_cast<double>(accounting.leased));
  admitted_.Set(static_cast<double>(accounting.admitted));
  for (Ending ending : AllEndings()) {
    ended_[static_cast<size_t>(ending)]->Set(static_cast<double>(accounting.Ended(ending)));
  }
  accounting_violation.Set(CheckAccounting(accounting).ok() ? 0 : 1);
}

void OrchestratorMetrics::SetMembers(Role role, int alive) {
  registry_
      ->AddGauge("temper_orchestrator_members", "Members heard from in time, by role.",
                 {{"role", RoleName(role)}})
      .Set(alive);
}

void OrchestratorMetrics::CountLease(const char* kind) {
  registry_->AddCounter("temper_orchestrator_leases_total", "Leases given.", {{"kind", kind}})
      .Increment();
}

void OrchestratorMetrics::CountNoWork(const std::string& reason) {
  registry_
      ->AddCounter("temper_orchestrator_no_work_total",
                   "Requests for work that were answered without any, by reason.",
                   {{"reason", reason}})
      .Increment();
}

}  // namespace temper::orchestrator
