#include "model/io/model_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/io/loader.h"
#include "tests/support/status_matchers.h"

namespace temper::model {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kText[] = "<|im_start|>Mia has 12 pencils.<|im_end|>\n";

TEST(ModelFilesTest, WhatIsReadFromTheFilesIsTheModel) {
  for (const char* path : {"tests/golden/tiny_qwen2", "tests/golden/tiny_qwen3",
                           "tests/golden/tiny_llama", "recipes/quickstart"}) {
    SCOPED_TRACE(path);
    const auto files = LoadModelFiles(path, true);
    ASSERT_THAT(files, IsOk());
    const auto parts = ParseModelFiles(*files);
    ASSERT_THAT(parts, IsOk());
    EXPECT_EQ(parts->config, *LoadModelConfig(path));
    const auto tokenizer = LoadTokenizer(path);
    EXPECT_EQ(*parts->tokenizer->Encode(kText, true), *(*tokenizer)->Encode(kText, true));
    EXPECT_EQ(parts->chat_template.source, LoadChatTemplate(path)->source);
  }
}

TEST(ModelFilesTest, AGgufFileIsToldInTheSameFiles) {
  const auto files = LoadModelFiles("tests/golden/tiny_llama.gguf", true);
  ASSERT_THAT(files, IsOk());
  const auto parts = ParseModelFiles(*files);
  ASSERT_THAT(parts, IsOk());
  EXPECT_EQ(parts->config, *LoadModelConfig("tests/golden/tiny_llama.gguf"));
  const auto beside = LoadTokenizer("tests/golden/tiny_llama");
  EXPECT_EQ(*parts->tokenizer->Encode(kText, true), *(*beside)->Encode(kText, true));
  EXPECT_EQ(parts->chat_template.source, LoadChatTemplate("tests/golden/tiny_llama.gguf")->source);
}

TEST(ModelFilesTest, PlainPromptsLeaveTheTemplateOut) {
  ModelFiles files = {{"chat_template.jinja", "{{ messages }}"}};
  const auto plain = LoadModelFiles("tests/golden/tiny_qwen2", false);
  ASSERT_THAT(plain, IsOk());
  EXPECT_FALSE(plain->contains("chat_template.jinja"));
  files.insert(plain->begin(), plain->end());
  EXPECT_THAT(ParseModelFiles(files),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("chat_template.jinja")));
}

TEST(ModelFilesTest, NamesTheFileThatIsMissingOrBroken) {
  const auto files = LoadModelFiles("tests/golden/tiny_qwen2", true);
  ASSERT_THAT(files, IsOk());
  for (const char* name : {"config.json", "tokenizer.json"}) {
    ModelFiles missing = *files;
    missing.erase(name);
    EXPECT_THAT(ParseModelFiles(missing), StatusIs(absl::StatusCode::kNotFound, HasSubstr(name)));
    ModelFiles cut = *files;
    cut[name].resize(cut[name].size() / 2);
    EXPECT_THAT(ParseModelFiles(cut), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(name)));
  }
}

}  // namespace
}  // namespace temper::model
