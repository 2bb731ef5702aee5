#include "services/base/file_parts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace temper::base {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::string_view kText = "seven b";

FilePart Part(uint64_t offset, std::string_view payload, std::string_view whole = kText) {
  return {.name = "a.json",
          .offset_bytes = offset,
          .size_bytes = whole.size(),
          .xxh3 = Hash64(whole),
          .payload = payload};
}

class FilePartsCheckTest : public ::testing::Test {
 protected:
  FilePartsCheck check_{{{"a.json", 10}, {"b.json", 10}}};
};

TEST_F(FilePartsCheckTest, TakesFilesWholeInParts) {
  EXPECT_THAT(check_.Add(Part(0, "sev")), IsOk());
  EXPECT_THAT(check_.Add(Part(3, "en b")), IsOk());
  FilePart empty = Part(0, "", "");
  empty.name = "b.json";
  EXPECT_THAT(check_.Add(empty), IsOk());
  EXPECT_THAT(check_.Finish(), IsOk());
  EXPECT_THAT(check_.whole(), ElementsAre("a.json", "b.json"));
}

TEST_F(FilePartsCheckTest, SeesAStreamThatEndsEarly) {
  EXPECT_THAT(check_.Add(Part(0, "sev")), IsOk());
  EXPECT_THAT(check_.Finish(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("3 of 7 bytes")));
  EXPECT_TRUE(check_.whole().empty());
}

TEST_F(FilePartsCheckTest, RefusesAForeignName) {
  FilePart part = Part(0, kText);
  part.name = "../a.json";
  EXPECT_THAT(check_.Add(part), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("../a")));
}

TEST_F(FilePartsCheckTest, RefusesAFileAboveItsLimitBeforeItComes) {
  EXPECT_THAT(check_.Add(Part(0, "e", "eleven byte")),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("at most 10")));
}

TEST_F(FilePartsCheckTest, RefusesPartsThatAreLostRepeatedEmptyOrTooMany) {
  EXPECT_THAT(check_.Add(Part(0, "sev")), IsOk());
  EXPECT_THAT(check_.Add(Part(0, "sev")), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(check_.Add(Part(4, "n b")), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(check_.Add(Part(3, "")), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(check_.Add(Part(3, "en bytes")), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(FilePartsCheckTest, RefusesAnotherClaimInTheMiddleAndAnotherFile) {
  EXPECT_THAT(check_.Add(Part(0, "sev")), IsOk());
  EXPECT_THAT(check_.Add(Part(3, "en c", "seven c")), StatusIs(absl::StatusCode::kDataLoss));
  FilePart other = Part(3, "en b");
  other.name = "b.json";
  EXPECT_THAT(check_.Add(other), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(FilePartsCheckTest, RefusesBytesOfAnotherHashAndAFileThatComesTwice) {
  EXPECT_THAT(check_.Add(Part(0, "seven c")),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("hash")));
  FilePartsCheck fresh({{"a.json", 10}});
  EXPECT_THAT(fresh.Add(Part(0, kText)), IsOk());
  EXPECT_THAT(fresh.Add(Part(0, kText)), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("twice")));
}

}  // namespace
}  // namespace temper::base
