#include "services/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/base/files.h"
#include "services/base/text.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::base {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(LogTest, WritesOneLineOfKeysAndValues) {
  testing::TempDir dir;
  ASSERT_THAT(StartLogging({.role = "learner", .file = dir.File("log"), .to_stderr = false}),
              testing::IsOk());
  LogInfo("group_admitted", {{"group", 3}, {"why", std::string_view("two words")}});
  Log(LogLevel::kDebug, "not_shown");
  LogWarning("odd", {{"text", "a\nb \"c\" \\"}, {"empty", ""}});
  const std::string text = ReadFile(dir.File("log"), 10'000).value();
  EXPECT_THAT(text, HasSubstr(" I role=learner event=group_admitted group=3 why=\"two words\"\n"));
  EXPECT_THAT(text,
              HasSubstr(" W role=learner event=odd text=\"a\\nb \\\"c\\\" \\\\\" empty=\"\"\n"));
  EXPECT_THAT(text, Not(HasSubstr("not_shown")));
}

TEST(LogTest, FileThatCannotBeOpenedIsUnavailable) {
  EXPECT_THAT(StartLogging({.file = "/nonexistent/log"}),
              testing::StatusIs(absl::StatusCode::kUnavailable, HasSubstr("/nonexistent/log")));
}

TEST(TextTest, CatJoinsBothKindsOfViews) {
  EXPECT_EQ(Cat("a", std::string_view("b"), std::string("c"), 4, absl::string_view("e")), "abc4e");
}

}  // namespace
}  // namespace temper::base
