#include "services/member/process.h"

#include <CLI/CLI.hpp>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace temper::member {
namespace {

using temper::testing::IsOk;
using temper::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ProcessTest, ReadsTheCommonFlagsAndTheRolesOwn) {
  const char* argv[] = {"x",         "--join",      "a:1", "--incarnation",
                        "7",         "--member-id", "w-1", "--die-with-parent",
                        "--run-dir", "runs/a"};
  std::string run_dir;
  const auto flags = ParseProcessFlags(10, argv, "Does x.", [&](CLI::App* app) {
    app->add_option("--run-dir", run_dir, "Where the run's files go");
  });
  ASSERT_THAT(flags, IsOk());
  EXPECT_EQ(flags->join, "a:1");
  EXPECT_EQ(flags->incarnation, 7);
  EXPECT_EQ(flags->member_id, "w-1");
  EXPECT_TRUE(flags->die_with_parent);
  EXPECT_EQ(flags->listen, "127.0.0.1:0");
  EXPECT_EQ(run_dir, "runs/a");
  EXPECT_EQ(flags->help, "");
}

TEST(ProcessTest, AnUnknownFlagIsNamed) {
  const char* argv[] = {"x", "--jion", "a:1"};
  EXPECT_THAT(ParseProcessFlags(3, argv, "Does x."),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--jion")));
}

TEST(ProcessTest, HelpIsATextAndNoError) {
  const char* argv[] = {"x", "--help"};
  const auto flags = ParseProcessFlags(2, argv, "Does x.");
  ASSERT_THAT(flags, IsOk());
  EXPECT_THAT(flags->help, HasSubstr("Does x."));
  EXPECT_THAT(flags->help, HasSubstr("--metrics-listen"));
}

}  // namespace
}  // namespace temper::member
