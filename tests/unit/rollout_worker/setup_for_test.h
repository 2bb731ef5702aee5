#pragma once

// What a worker is set up with: the embedded policy under its recipe, run "run-1".

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "rollout_worker/run_setup.h"
#include "services/config/run_config.h"
#include "tests/support/status_matchers.h"

namespace temper::rollout_worker {

inline v1::RunConfig QuickstartConfig(const std::vector<std::string>& overrides = {}) {
  auto config = config::LoadRunConfig("recipes/quickstart.yaml", overrides);
  EXPECT_THAT(config, testing::IsOk());
  return *std::move(config);
}

// What the run's learner serves.
inline model::ModelFiles QuickstartFiles() {
  auto files = model::LoadModelFiles(QuickstartConfig().model().path(), true);
  EXPECT_THAT(files, testing::IsOk());
  return *std::move(files);
}

inline std::unique_ptr<RunSetup> SetupForTest(const std::vector<std::string>& overrides = {}) {
  auto setup = MakeRunSetup("run-1", QuickstartConfig(overrides), QuickstartFiles());
  EXPECT_THAT(setup, testing::IsOk());
  return *std::move(setup);
}

}  // namespace temper::rollout_worker
