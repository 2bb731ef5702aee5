#pragma once

// Loads configurations that tests write.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "services/config/run_config.h"

namespace temper::config {

class RunConfigTest : public ::testing::Test {
 protected:
  RunConfigTest() {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(folder_);
  }
  ~RunConfigTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& text) {
    const std::string path = (folder_ / "run.yaml").string();
    std::ofstream(path) << text;
    return path;
  }
  std::string MistakesOf(const std::string& text, const std::vector<std::string>& overrides = {}) {
    const auto config = LoadRunConfig(Write(text), overrides);
    return config.ok() ? "no mistake" : std::string(config.status().message());
  }

  std::filesystem::path folder_;
};

inline constexpr char kMinimal[] = "model: {path: policy}\n";

}  // namespace temper::config
