#include "services/base/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::base {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::temper::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename());
  }
  return names;
}

TEST(FilesTest, AtomicWriteReplacesTheOldContents) {
  TempDir dir;
  const std::string path = dir.File("state.json");
  ASSERT_THAT(WriteFileAtomically(path, "old"), IsOk());
  ASSERT_THAT(WriteFileAtomically(path, "new and longer"), IsOk());
  EXPECT_EQ(ReadFile(path, 100).value(), "new and longer");
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("state.json"));
}

TEST(FilesTest, WriterWithoutCommitLeavesNothing) {
  TempDir dir;
  {
    auto writer = AtomicFileWriter::Create(dir.File("weights")).value();
    ASSERT_THAT(writer->Append("half of it"), IsOk());
  }
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre());
}

TEST(FilesTest, PartsAppendedBecomeOneFile) {
  TempDir dir;
  auto writer = AtomicFileWriter::Create(dir.File("weights")).value();
  ASSERT_THAT(writer->Append("one "), IsOk());
  ASSERT_THAT(writer->Append(std::string("t\0wo", 4)), IsOk());
  ASSERT_THAT(writer->Commit(), IsOk());
  EXPECT_EQ(ReadFile(dir.File("weights"), 100).value(), std::string("one t\0wo", 8));
}

TEST(FilesTest, FullDiskIsResourceExhaustedAndKeepsTheOldFile) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "needs /dev/full";
  EXPECT_THAT(AppendToFile("/dev/full", "x"),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("No space left")));

  // A file-size limit stands in for a disk that fills up in the middle of a replacement.
  TempDir dir;
  const std::string path = dir.File("state.json");
  ASSERT_THAT(WriteFileAtomically(path, "old"), IsOk());
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small = {.rlim_cur = 1000, .rlim_max = before.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status status = WriteFileAtomically(path, std::string(5000, 'x'));
  const absl::Status appended = AppendToFile(path, std::string(5000, 'x'));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr(path)));
  EXPECT_THAT(appended, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr(path)));
  EXPECT_EQ(ReadFile(path, 100).value(), "old") << "no half of what did not fit";
  EXPECT_THAT(NamesIn(dir.path()), ElementsAre("state.json"));
}

TEST(FilesTest, ReadRefusesMoreThanItsLimitAndTakesExactlyIt) {
  TempDir dir;
  ASSERT_THAT(WriteFileAtomically(dir.File("a"), "12345"), IsOk());
  EXPECT_THAT(ReadFile(dir.File("a"), 5), IsOk());
  EXPECT_THAT(ReadFile(dir.File("a"), 4),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("limit of 4 bytes")));
}

TEST(FilesTest, MissingFileIsNotFoundAndNamed) {
  EXPECT_THAT(ReadFile("/nonexistent/file", 10),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent/file")));
  EXPECT_THAT(WriteFileAtomically("/nonexistent/file", "x"), StatusIs(absl::StatusCode::kNotFound));
}

TEST(FilesTest, DirectoryIsNotReadAsAFile) {
  TempDir dir;
  EXPECT_FALSE(ReadFile(dir.path(), 10).ok());
}

TEST(FilesTest, DirectoriesAreMadeRenamedAndRemoved) {
  TempDir dir;
  ASSERT_THAT(MakeDirectories(dir.File("a/b/c")), IsOk());
  ASSERT_THAT(MakeDirectories(dir.File("a/b/c")), IsOk());
  ASSERT_THAT(RenameDurably(dir.File("a"), dir.File("z")), IsOk());
  EXPECT_TRUE(PathExists(dir.File("z/b/c")));
  ASSERT_THAT(MakeDirectories(dir.File("full/inside")), IsOk());
  EXPECT_THAT(RenameDurably(dir.File("z"), dir.File("full")),
              StatusIs(absl::StatusCode::kAlreadyExists));
  ASSERT_THAT(RemoveAll(dir.File("z")), IsOk());
  ASSERT_THAT(RemoveAll(dir.File("z")), IsOk());
  EXPECT_FALSE(PathExists(dir.File("z")));
}

}  // namespace
}  // namespace temper::base
