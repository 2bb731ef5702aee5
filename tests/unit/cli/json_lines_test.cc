#include "cli/json_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "services/base/exit_code.h"
#include "services/base/files.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::cli {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

class JsonLinesTest : public ::testing::Test {
 protected:
  // What reading a file of `text` comes to, if each object is answered with `answer`.
  absl::Status Read(const std::string& text, const absl::Status& answer = absl::OkStatus()) {
    EXPECT_THAT(base::WriteFileAtomically(path_, text), IsOk());
    return ForEachJsonLine(path_, [&](const nlohmann::json&) {
      ++visited_;
      return answer;
    });
  }
  testing::TempDir dir_;
  const std::string path_ = dir_.File("lines.jsonl");
  int visited_ = 0;
};

TEST_F(JsonLinesTest, VisitsEveryObjectAndPassesOverEmptyLines) {
  EXPECT_THAT(Read("{}\n\n{\"a\": 1}\n{}"), IsOk());
  EXPECT_EQ(visited_, 3);
}

TEST_F(JsonLinesTest, ALineThatIsNotAJsonObjectIsCorruptDataAtItsPlace) {
  for (const char* broken : {"{\"a\": ", "[1]", "nonsense"}) {
    const absl::Status status = Read(std::string("{}\n") + broken + "\n");
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss, HasSubstr(path_ + ":2: ")));
    EXPECT_EQ(base::ExitCode(status), base::kExitData);
  }
}

TEST_F(JsonLinesTest, AnObjectThatIsRefusedIsCorruptDataToo) {
  EXPECT_THAT(Read("{}\n", absl::InvalidArgumentError("needs a name")),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr(path_ + ":1: needs a name")));
}

TEST_F(JsonLinesTest, AFailureOfTheVisitorKeepsItsCode) {
  EXPECT_THAT(Read("{}\n", absl::UnavailableError("not now")),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(":1: not now")));
}

TEST_F(JsonLinesTest, AFileThatIsNotThereIsAMistakeOfTheCommandLine) {
  const absl::Status status =
      ForEachJsonLine(dir_.File("missing"), [](const nlohmann::json&) { return absl::OkStatus(); });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("missing")));
}

}  // namespace
}  // namespace temper::cli
