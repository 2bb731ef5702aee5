#include "model/io/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/io/loader.h"
#include "services/base/files.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::model {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::temper::testing::TempDir;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

// Writes GGUF by hand, so that a test can lie.
class Bytes final {
 public:
  template <typename T>
  Bytes& Put(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Bytes& Text(const std::string& text) {
    Put<uint64_t>(text.size());
    out_ += text;
    return *this;
  }
  Bytes& Header(uint64_t tensors, uint64_t entries, uint32_t version = 3) {
    out_ += "GGUF";
    return Put<uint32_t>(version).Put<uint64_t>(tensors).Put<uint64_t>(entries);
  }
  Bytes& Tensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type, uint64_t at) {
    Text(name).Put<uint32_t>(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) Put<uint64_t>(dim);
    return Put<uint32_t>(type).Put<uint64_t>(at);
  }
  Bytes& Align() {
    out_.resize((out_.size() + 31) / 32 * 32, '\0');
    return *this;
  }
  const std::string& str() const { return out_; }

 private:
  std::string out_;
};

class GgufTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<GgufFile>> OpenBytes(const std::string& bytes) {
    EXPECT_THAT(base::WriteFileAtomically(path_, bytes), IsOk());
    return GgufFile::Open(path_);
  }

  TempDir dir_;
  const std::string path_ = dir_.File("model.gguf");
};

TEST_F(GgufTest, ReadsWhatTheReferenceWriterWrote) {
  const auto model = LoadModel("tests/golden/tiny_llama.gguf");
  ASSERT_THAT(model, IsOk());
  const auto original = LoadModel("tests/golden/tiny_llama");
  ASSERT_THAT(original, IsOk());
  ModelConfig expected = original->config;
  expected.pad_token_id = -1;  // the file names none
  EXPECT_EQ(model->config, expected);
  std::ifstream file("tests/golden/tiny_llama_gguf.json");
  const Json golden = Json::parse(file);
  ASSERT_EQ(golden.size(), model->tensors.size());
  for (const auto& [name, tensor] : model->tensors) {
    const Json& row = golden.at(name);
    EXPECT_EQ(tensor.shape, row["shape"].get<std::vector<int64_t>>()) << name;
    for (size_t i = 0; i < row["indices"].size(); ++i) {
      const float value = tensor.values.at(row["indices"][i].get<size_t>());
      EXPECT_EQ(value, row["values"][i].get<float>()) << name << " " << row["type"];
    }
  }
}

TEST_F(GgufTest, QwenRowsStandAsTheyAre) {
  const auto model = LoadModel("tests/golden/tiny_qwen2.gguf");
  ASSERT_THAT(model, IsOk());
  const auto original = LoadModel("tests/golden/tiny_qwen2");
  ASSERT_THAT(original, IsOk());
  EXPECT_TRUE(model->config.tie_word_embeddings);
  for (const auto& [name, tensor] : original->tensors) {
    EXPECT_EQ(model->tensors.at(name).values, tensor.values) << name;
  }
}

TEST_F(GgufTest, ReadsTheTokenizerInside) {
  const auto inside = LoadTokenizer("tests/golden/tiny_llama.gguf");
  ASSERT_THAT(inside, IsOk());
  const auto beside = LoadTokenizer("tests/golden/tiny_llama");
  ASSERT_THAT(beside, IsOk());
  const std::string text = "<|im_start|>Mia has 12 pencils.<|im_end|>\n";
  EXPECT_EQ(*(*inside)->Encode(text, true), *(*beside)->Encode(text, true));
  EXPECT_EQ((*inside)->eos_token_id(), 2);
}

TEST_F(GgufTest, DequantizesHandWorkedBlocks) {
  // d = 0.5 and m = -1 as float16; nibbles 0x21: low half 1, high half 2.
  std::string q8("\x00\x38", 2), q40("\x00\x38", 2), q41("\x00\x38\x00\xbc", 4);
  for (int i = 0; i < 32; ++i) q8 += static_cast<char>(i - 16);
  q40 += std::string(16, '\x21');
  q41 += std::string(16, '\x21');
  std::vector<float> out(32);
  const auto bytes = [](const std::string& text) { return std::as_bytes(std::span(text)); };
  Dequantize(GgufType::kQ8_0, bytes(q8), out);
  EXPECT_EQ(out[0], -8.0f);
  EXPECT_EQ(out[31], 7.5f);
  Dequantize(GgufType::kQ4_0, bytes(q40), out);
  EXPECT_EQ(out[0], -3.5f);
  EXPECT_EQ(out[16], -3.0f);
  Dequantize(GgufType::kQ4_1, bytes(q41), out);
  EXPECT_EQ(out[0], -0.5f);
  EXPECT_EQ(out[16], 0.0f);
}

TEST_F(GgufTest, EveryTruncationIsRefused) {
  const auto whole = base::ReadFile("tests/golden/tiny_llama.gguf", 1 << 20);
  ASSERT_THAT(whole, IsOk());
  for (size_t size = 1; size < whole->size() - 32; size += 97) {
    ASSERT_THAT(base::WriteFileAtomically(path_, whole->substr(0, size)), IsOk());
    EXPECT_THAT(LoadModel(path_), StatusIs(absl::StatusCode::kDataLoss)) << size;
  }
}

TEST_F(GgufTest, AHeaderThatLiesIsDataLossWithItsPlace) {
  const auto expect = [this](const Bytes& bytes, const std::string& message) {
    EXPECT_THAT(OpenBytes(bytes.str()), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(message)));
  };
  constexpr uint64_t kHuge = uint64_t{1} << 62;
  expect(Bytes().Header(kHuge, 0), "tensors");
  expect(Bytes().Header(0, kHuge), "metadata entries");
  expect(Bytes().Header(0, 1).Put<uint64_t>(kHuge), "claims 4611686018427387904 bytes of text");
  expect(Bytes().Header(0, 1).Text("k").Put<uint32_t>(99), "unknown type 99");
  expect(Bytes().Header(0, 1).Text("k").Put<uint32_t>(9).Put<uint32_t>(4).Put<uint64_t>(kHuge),
         "elements");
  expect(Bytes().Header(0, 1).Text("k").Put<uint32_t>(9).Put<uint32_t>(4).Put<uint64_t>(1000),
         "more than the file holds");
  expect(Bytes().Header(0, 1).Text("k").Put<uint32_t>(9).Put<uint32_t>(8).Put<uint64_t>(1000),
         "more than the file holds");
  expect(Bytes().Header(0, 1).Text("k").Put<uint32_t>(9).Put<uint32_t>(9).Put<uint64_t>(1),
         "array of unknown type 9");
  expect(Bytes().Header(1, 0).Tensor("t", {32, 32}, 0, 0).Align(), "needs bytes 0 to 4096");
  expect(Bytes().Header(1, 0).Tensor("t", {1}, 0, kHuge).Align(), "needs bytes");
  expect(Bytes().Header(1, 0).Tensor("t", {1}, 0, 7).Align(), "not a multiple of 32");
  expect(Bytes().Header(1, 0).Tensor("t", {kHuge, kHuge}, 0, 0).Align(), "claims a dimension");
  expect(Bytes().Header(1, 0).Tensor("t", {0}, 0, 0).Align(), "claims a dimension of 0");
  expect(Bytes().Header(1, 0).Tensor("t", {1, 1, 1, 1, 1}, 0, 0).Align(), "claims 5 dimensions");
  expect(Bytes().Header(1, 0).Tensor("t", {33}, 8, 0).Align(), "not whole blocks");
}

TEST_F(GgufTest, RefusesOtherFilesAndVersions) {
  EXPECT_THAT(OpenBytes("GGML and more"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a GGUF file")));
  EXPECT_THAT(OpenBytes(Bytes().Header(0, 0, 1).str()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("version 1")));
  EXPECT_THAT(GgufFile::Open(dir_.File("none.gguf")), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(GgufTest, RefusesOtherTypesAndArchitecturesByName) {
  const auto file = OpenBytes(Bytes().Header(1, 0).Tensor("t", {256}, 12, 0).Align().str());
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT((*file)->Read("t"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("ggml type 12")));
  const std::string falcon =
      Bytes().Header(0, 1).Text("general.architecture").Put<uint32_t>(8).Text("falcon").str();
  ASSERT_THAT(base::WriteFileAtomically(path_, falcon), IsOk());
  EXPECT_THAT(LoadModel(path_), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("falcon")));
}

TEST_F(GgufTest, LookUpsSayWhatIsWrong) {
  const auto file = OpenBytes(Bytes()
                                  .Header(0, 2)
                                  .Text("n")
                                  .Put<uint32_t>(4)
                                  .Put<uint32_t>(7)
                                  .Text("s")
                                  .Put<uint32_t>(8)
                                  .Text("x")
                                  .str());
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->Integer("n").value_or(-1), 7);
  EXPECT_THAT((*file)->Integer("s"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT((*file)->Integer("m"), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace temper::model
