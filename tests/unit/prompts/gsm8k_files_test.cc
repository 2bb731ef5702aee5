#include "prompts/gsm8k_files.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/files.h"
#include "tests/support/temp_dir.h"

namespace temper::prompts {
namespace {

using ::testing::HasSubstr;

constexpr char kLine[] =
    R"({"question": "Weng earns $12?", "answer": "12/60 = <<12/60=0.2>>0.2\n#### 1,210"})";

absl::StatusOr<std::unique_ptr<Gsm8kFile>> Load(const std::string& name, std::string_view contents,
                                                uint64_t problems = 0) {
  const std::string path = ::testing::TempDir() + "/" + name;
  EXPECT_TRUE(base::WriteFileAtomically(path, contents).ok());
  return Gsm8kFile::Create(
      {.path = path, .prompt_suffix = std::string(kGsm8kPromptSuffix), .problems = problems});
}

void ExpectRefused(const std::string& name, std::string_view contents, absl::StatusCode code,
                   const std::string& message) {
  const auto status = Load(name, contents).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

TEST(Gsm8kFileTest, ReadsQuestionsAndTruthsWithoutCommas) {
  const auto file = Load("good.jsonl", std::string(kLine) + "\n\n" + kLine);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->size(), 2);
  const auto problem = (*file)->Get(1);
  ASSERT_TRUE(problem.ok());
  EXPECT_EQ(problem->id, 1);
  EXPECT_EQ(problem->truth, "1210");
  EXPECT_EQ(problem->prompt,
            "Weng earns $12? Let's think step by step and output the final answer after \"####\".");
  EXPECT_THAT(problem->answer_text, HasSubstr("<<12/60=0.2>>"));
  EXPECT_EQ((*file)->Get(2).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(Gsm8kFileTest, TakesOnlyTheFirstProblemsWhereAsked) {
  const auto file = Load("first.jsonl", std::string(kLine) + "\n" + kLine + "\nbroken", 2);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->size(), 2);
}

TEST(Gsm8kFileTest, NamesFileAndLineOfWhatIsBroken) {
  const std::string good = std::string(kLine) + "\n";
  const auto data_loss = absl::StatusCode::kDataLoss;
  ExpectRefused("a.jsonl", good + "{\"question\": ", data_loss, "a.jsonl:2: not JSON");
  ExpectRefused("b.jsonl", good + "\n[1]", data_loss, "b.jsonl:3: not a JSON object");
  ExpectRefused("c.jsonl", R"({"question": "q"})", data_loss, "\"answer\" is missing");
  ExpectRefused("d.jsonl", R"({"question": 1, "answer": "#### 1"})", data_loss, "\"question\"");
  ExpectRefused("e.jsonl", R"({"question": "q", "answer": "18"})", data_loss, "e.jsonl:1: ");
  ExpectRefused("f.jsonl", R"({"question": "q", "answer": "#### "})", data_loss, "nothing follows");
  ExpectRefused("g.jsonl", "{\"question\": \"\xFF\", \"answer\": \"#### 1\"}", data_loss, "JSON");
  ExpectRefused("h.jsonl", "\n \n", absl::StatusCode::kInvalidArgument, "no problems");
}

TEST(Gsm8kFileTest, LinesAndDepthAreBounded) {
  ExpectRefused("long.jsonl", std::string(kMaxLineBytes + 1, ' ') + "x",
                absl::StatusCode::kResourceExhausted, "long.jsonl:1");
  ExpectRefused("deep.jsonl", std::string(60000, '['), absl::StatusCode::kDataLoss, "not JSON");
}

TEST(Gsm8kFileTest, AMissingFileNamesThePublicDataSet) {
  const auto status = Gsm8kFile::Create({.path = "nowhere/train.jsonl"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* word : {"nowhere/train.jsonl", "GSM8K", "test.jsonl", "MIT"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(word));
  }
}

TEST(Gsm8kFileTest, AFolderLacksTheFileThatIsNamed) {
  testing::TempDir folder;
  ASSERT_TRUE(base::WriteFileAtomically(folder.File("train.jsonl"), "{}\n").ok());
  EXPECT_THAT(std::string(CheckGsm8kFolder(folder.path()).message()),
              HasSubstr(folder.File("test.jsonl") + ": no such file"));
  ASSERT_TRUE(base::WriteFileAtomically(folder.File("test.jsonl"), "{}\n").ok());
  EXPECT_TRUE(CheckGsm8kFolder(folder.path()).ok());
}

}  // namespace
}  // namespace temper::prompts
