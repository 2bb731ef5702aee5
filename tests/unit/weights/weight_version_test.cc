#include "weights/weight_version.h"

#include <cstring>
#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/weights/version_builder.h"
#include "weights/version_assembler.h"
#include "weights/weight_source.h"

namespace temper::weights {
namespace {

using ::testing::HasSubstr;

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(BuildVersionTest, KeepsEveryTensorsBytesAndNamesTheVersion) {
  const float q[] = {1.5F, -2.0F};
  const float norm[] = {3.0F};
  const std::vector<PublishedTensor> tensors = {
      {.spec = {"q", {2}, "float32"}, .bytes = std::as_bytes(std::span(q))},
      {.spec = {"norm", {1}, "float32"}, .bytes = std::as_bytes(std::span(norm))}};
  const auto version = BuildVersion({.run_id = "r",
                                     .timeline = 2,
                                     .version = 7,
                                     .aqn_sigma = 0.05,
                                     .aqn_step = 7,
                                     .noise_id = 9,
                                     .source_address = "127.0.0.1:1"},
                                    tensors, 1 << 20);
  ASSERT_TRUE(version.ok()) << version.status();
  const v1::Manifest& manifest = (*version)->manifest();
  EXPECT_EQ(manifest.version(), 7u);
  EXPECT_EQ(manifest.aqn().sigma(), 0.05);
  EXPECT_EQ(manifest.noise_id(), 9u);
  float read[2];
  std::memcpy(read, (*version)->Tensor("q")->data(), sizeof(read));
  EXPECT_EQ(read[0], 1.5F);
  EXPECT_EQ(read[1], -2.0F);
  EXPECT_EQ((*version)->Tensor("k").status().code(), absl::StatusCode::kNotFound);
}

TEST(BuildVersionTest, HashDependsOnTheBytesAlone) {
  const auto a = MakeTestVersion({.version = 3});
  const auto b = MakeTestVersion({.version = 3, .source_address = "elsewhere:1"});
  const auto c = MakeTestVersion({.version = 4});
  EXPECT_EQ(a->manifest().base_weights_hash(), b->manifest().base_weights_hash());
  EXPECT_NE(a->manifest().base_weights_hash(), c->manifest().base_weights_hash());
}

TEST(BuildVersionTest, RefusesBytesThatAreNotTheShapes) {
  const float one[] = {1.0F};
  const std::vector<PublishedTensor> tensors = {
      {.spec = {"q", {2}, "float32"}, .bytes = std::as_bytes(std::span(one))}};
  EXPECT_EQ(BuildVersion({.run_id = "r"}, tensors, 100).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// A manifest that lies in one way, and what must be said about it.
struct Lie {
  std::string name;
  std::function<void(v1::Manifest*)> tell;
  std::string answer;
};

class LyingManifestTest : public ::testing::TestWithParam<Lie> {};

TEST_P(LyingManifestTest, IsRefusedBeforeAnythingIsAllocated) {
  v1::Manifest manifest = MakeTestVersion({.version = 1})->manifest();
  GetParam().tell(&manifest);
  const absl::Status status = ValidateManifest(manifest, {.max_total_bytes = 1 << 20});
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().answer));
  EXPECT_FALSE(VersionAssembler::Create(manifest, {.max_total_bytes = 1 << 20}).ok());
}

INSTANTIATE_TEST_SUITE_P(
    Manifest, LyingManifestTest,
    ::testing::Values(
        Lie{"NoBuckets", [](v1::Manifest* m) { m->clear_buckets(); }, "without buckets"},
        Lie{"NoTensors", [](v1::Manifest* m) { m->clear_tensors(); }, "without buckets"},
        Lie{"HugeBucket",
            [](v1::Manifest* m) { m->mutable_buckets(0)->set_size_bytes(uint64_t{1} << 60); },
            "more than the limit"},
        Lie{"SumOverLimit",
            [](v1::Manifest* m) {
              for (auto& bucket : *m->mutable_buckets()) bucket.set_size_bytes((1 << 20) - 1);
            },
            "more than the limit"},
        Lie{"EmptyBucket", [](v1::Manifest* m) { m->mutable_buckets(0)->set_size_bytes(0); },
            "no bytes"},
        Lie{"BucketHash", [](v1::Manifest* m) { m->mutable_buckets(0)->set_xxh3(1); },
            "base_weights_hash"},
        Lie{"BaseHash", [](v1::Manifest* m) { m->set_base_weights_hash(1); }, "base_weights_hash"},
        Lie{"ForeignBucket", [](v1::Manifest* m) { m->mutable_tensors(0)->set_bucket(99); },
            "lies in bucket 99"},
        Lie{"OverTheEnd",
            [](v1::Manifest* m) { m->mutable_tensors(0)->set_offset_bytes(uint64_t{1} << 40); },
            "takes"},
        Lie{"OffsetWraps",
            [](v1::Manifest* m) { m->mutable_tensors(0)->set_offset_bytes(~uint64_t{0} - 3); },
            "takes"},
        Lie{"InsideAnElement", [](v1::Manifest* m) { m->mutable_tensors(2)->set_offset_bytes(1); },
            "element"},
        Lie{"Overlap",
            [](v1::Manifest* m) {
              m->mutable_tensors(1)->set_offset_bytes(m->tensors(0).offset_bytes());
              m->mutable_tensors(1)->set_bucket(m->tensors(0).bucket());
            },
            "overlap"},
        Lie{"TwoOfOneName",
            [](v1::Manifest* m) { m->mutable_tensors(1)->set_name(m->tensors(0).name()); },
            "two tensors"},
        Lie{"NoName", [](v1::Manifest* m) { m->mutable_tensors(1)->clear_name(); }, "name"},
        Lie{"Dtype", [](v1::Manifest* m) { m->mutable_tensors(1)->set_dtype("float64"); }, "dtype"},
        Lie{"NegativeExtent", [](v1::Manifest* m) { m->mutable_tensors(1)->set_shape(0, -1); },
            "extent"}),
    [](const auto& info) { return info.param.name; });

TEST(VersionAssemblerTest, MakesTheVersionFromChunksOfAnySize) {
  const auto source = MakeTestVersion({.version = 5});
  for (const size_t chunk : {1u, 7u, 1000u, 1u << 20}) {
    auto assembler = *VersionAssembler::Create(source->manifest());
    for (size_t b = 0; b < source->buckets().size(); ++b) {
      const std::string_view bytes = Text(*source->buckets()[b]);
      for (size_t at = 0; at < bytes.size(); at += chunk) {
        ASSERT_TRUE(
            assembler->AddChunk(static_cast<uint32_t>(b), at, bytes.substr(at, chunk)).ok());
      }
    }
    const auto whole = assembler->Finish();
    ASSERT_TRUE(whole.ok()) << whole.status();
    EXPECT_EQ(Text(*(*whole)->Tensor("head")), Text(*source->Tensor("head")));
  }
}

TEST(VersionAssemblerTest, SeesLostRepeatedAndForeignChunks) {
  const auto source = MakeTestVersion({.version = 5});
  auto assembler = *VersionAssembler::Create(source->manifest());
  const std::string_view bytes = Text(*source->buckets()[0]);
  ASSERT_TRUE(assembler->AddChunk(0, 0, bytes.substr(0, 100)).ok());
  EXPECT_TRUE(absl::IsDataLoss(assembler->AddChunk(0, 200, bytes.substr(200, 10))));
  EXPECT_TRUE(absl::IsDataLoss(assembler->AddChunk(0, 50, bytes.substr(50, 50))));
  EXPECT_TRUE(absl::IsDataLoss(assembler->AddChunk(0, 100, "")));
  EXPECT_TRUE(absl::IsDataLoss(assembler->AddChunk(0, 100, std::string(bytes.size(), 'x'))));
  EXPECT_TRUE(absl::IsDataLoss(assembler->AddChunk(77, 0, "x")));
}

TEST(VersionAssemblerTest, ForgetsABucketWhoseHashIsWrongAndTakesItAgain) {
  const auto source = MakeTestVersion({.version = 5});
  auto assembler = *VersionAssembler::Create(source->manifest());
  std::string damaged(Text(*source->buckets()[0]));
  damaged[10] ^= 1;
  EXPECT_TRUE(absl::IsDataLoss(assembler->AddChunk(0, 0, damaged)));
  EXPECT_EQ(assembler->Missing().front(), 0u);
  EXPECT_TRUE(assembler->AddChunk(0, 0, Text(*source->buckets()[0])).ok());
  EXPECT_NE(assembler->Missing().front(), 0u);
  EXPECT_TRUE(absl::IsDataLoss(assembler->AddChunk(0, 0, Text(*source->buckets()[0]))))
      << "a verified bucket is not written again";
  EXPECT_TRUE(absl::IsFailedPrecondition(assembler->Finish().status()))
      << "half a version is no version";
}

TEST(WeightSourceTest, KeepsTheNewestTwoVersionsOfOneTimeline) {
  WeightSource source;
  for (uint64_t version = 0; version < 4; ++version) {
    source.Publish(MakeTestVersion({.version = version}));
  }
  EXPECT_TRUE(source.Find("run", 1, 3).ok());
  EXPECT_TRUE(source.Find("run", 1, 2).ok());
  EXPECT_TRUE(absl::IsNotFound(source.Find("run", 1, 1).status()));
  EXPECT_TRUE(absl::IsAborted(source.Find("run", 2, 3).status()));
  EXPECT_TRUE(absl::IsAborted(source.Find("other", 1, 3).status()));
  source.Publish(MakeTestVersion({.timeline = 2, .version = 1}));
  EXPECT_TRUE(source.Find("run", 2, 1).ok());
  EXPECT_TRUE(absl::IsAborted(source.Find("run", 1, 3).status()));
}

TEST(WeightSourceTest, PublishingTheSameVersionTwiceTakesOnePlace) {
  WeightSource source;
  source.Publish(MakeTestVersion({.version = 1}));
  source.Publish(MakeTestVersion({.version = 2}));
  source.Publish(MakeTestVersion({.version = 2}));
  EXPECT_TRUE(source.Find("run", 1, 1).ok());
}

}  // namespace
}  // namespace temper::weights
