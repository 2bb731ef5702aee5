#include "model/io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "model/io/safetensors_writer.h"
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

// A file with `header` and `data_bytes` zero bytes.
std::string MakeFile(const std::string& header, size_t data_bytes) {
  const uint64_t size = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &size, 8);
  return file + header + std::string(data_bytes, '\0');
}

class SafetensorsTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> OpenBytes(const std::string& bytes) {
    EXPECT_THAT(base::WriteFileAtomically(path_, bytes), IsOk());
    return SafetensorsFile::Open(path_);
  }
  void ExpectDataLoss(const std::string& header, size_t data_bytes, const std::string& message) {
    EXPECT_THAT(OpenBytes(MakeFile(header, data_bytes)),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(message)))
        << header;
  }

  TempDir dir_;
  const std::string path_ = dir_.File("model.safetensors");
};

TEST_F(SafetensorsTest, WhatIsWrittenReadsBackBitForBit) {
  TensorMap tensors;
  tensors["b"] = {.shape = {2, 3}, .values = {1, -2.5f, 3e-40f, 0, -0.0f, INFINITY}};
  tensors["a"] = {.shape = {1}, .values = {7}};
  tensors["empty"] = {.shape = {0, 4}, .values = {}};
  ASSERT_THAT(WriteSafetensors(path_, ViewsOf(tensors)), IsOk());
  const auto read = ReadSafetensorsDirectory(dir_.path());
  ASSERT_THAT(read, IsOk());
  ASSERT_EQ(read->size(), 3u);
  EXPECT_THAT(read->at("b").shape, ElementsAre(2, 3));
  EXPECT_EQ(std::memcmp(read->at("b").values.data(), tensors["b"].values.data(), 24), 0);
  EXPECT_THAT(read->at("a").values, ElementsAre(7));
}

TEST_F(SafetensorsTest, SixteenBitStorageRoundsToNearestEven) {
  TensorMap tensors;
  // bfloat16 steps by 2^-7 at 1; float16 by 2^-10, and has subnormals down to 2^-24.
  tensors["x"] = {
      .shape = {6},
      .values = {1 + 0x1p-8f, 1 + 3 * 0x1p-8f, 1 + 0x1p-11f, 0x1.8p-24f, 65519, -1e30f}};
  ASSERT_THAT(WriteSafetensors(path_, ViewsOf(tensors), StorageType::kBFloat16), IsOk());
  auto read = ReadSafetensorsDirectory(dir_.path());
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->at("x").values[0], 1.0f);
  EXPECT_EQ(read->at("x").values[1], 1 + 0x1p-6f);
  ASSERT_THAT(WriteSafetensors(path_, ViewsOf(tensors), StorageType::kFloat16), IsOk());
  read = ReadSafetensorsDirectory(dir_.path());
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->at("x").values[0], 1 + 0x1p-8f);
  EXPECT_EQ(read->at("x").values[2], 1.0f);
  EXPECT_EQ(read->at("x").values[3], 0x1p-23f);
  EXPECT_EQ(read->at("x").values[4], 65504.0f);
  EXPECT_EQ(read->at("x").values[5], -INFINITY);
}

TEST_F(SafetensorsTest, IsWrittenTensorByTensorEachInItsOwnType) {
  const std::vector<float> values = {1 + 0x1p-8f, 2.0f};
  auto writer = SafetensorsWriter::Create(
      path_, {{"z", {2}, StorageType::kBFloat16}, {"a", {2, 1}, StorageType::kFloat32}});
  ASSERT_THAT(writer, IsOk());
  ASSERT_THAT((*writer)->Append(values), IsOk());
  EXPECT_THAT((*writer)->Append(std::vector<float>(3)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("a of shape [2, 1] has 3")));
  EXPECT_THAT((*writer)->Commit(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("a has not been")));
  ASSERT_THAT((*writer)->Append(values), IsOk());
  EXPECT_THAT((*writer)->Append(values), StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_THAT((*writer)->Commit(), IsOk());
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->entries().at("z").type, StorageType::kBFloat16);
  EXPECT_EQ((*file)->entries().at("a").type, StorageType::kFloat32);
  EXPECT_EQ((*file)->Read("z")->values[0], 1.0f);
  EXPECT_EQ((*file)->Read("a")->values[0], 1 + 0x1p-8f);
}

TEST_F(SafetensorsTest, AWriterThatIsLeftOrRefusedLeavesNothing) {
  {
    const auto writer = SafetensorsWriter::Create(path_, {{"a", {1}}});
    ASSERT_THAT(writer, IsOk());
  }
  EXPECT_THAT(SafetensorsWriter::Create(path_, {{"a", {1}}, {"a", {1}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("twice")));
  EXPECT_THAT(SafetensorsWriter::Create(path_, {{"a", {-1}}}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
}

TEST_F(SafetensorsTest, RoundingToStorageIsWhatAFileGivesBack) {
  TensorMap tensors;
  tensors["x"] = {.shape = {4}, .values = {1 + 3 * 0x1p-8f, 0x1.8p-24f, -3e-40f, 0.1f}};
  for (const StorageType storage :
       {StorageType::kFloat32, StorageType::kFloat16, StorageType::kBFloat16}) {
    ASSERT_THAT(WriteSafetensors(path_, ViewsOf(tensors), storage), IsOk());
    std::vector<float> rounded = tensors["x"].values;
    RoundToStorage(storage, rounded);
    EXPECT_EQ(ReadSafetensorsDirectory(dir_.path())->at("x").values, rounded);
  }
}

TEST_F(SafetensorsTest, ReadsShardsThroughTheirIndex) {
  const TensorMap first = {{"a", {.shape = {1}, .values = {1}}}};
  const TensorMap second = {{"b", {.shape = {1}, .values = {2}}}};
  ASSERT_THAT(WriteSafetensors(dir_.File("s1.safetensors"), ViewsOf(first)), IsOk());
  ASSERT_THAT(WriteSafetensors(dir_.File("s2.safetensors"), ViewsOf(second)), IsOk());
  const std::string index = dir_.File("model.safetensors.index.json");
  ASSERT_THAT(base::WriteFileAtomically(
                  index, R"({"weight_map": {"a": "s1.safetensors", "b": "s2.safetensors"}})"),
              IsOk());
  const auto read = ReadSafetensorsDirectory(dir_.path());
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(read->at("b").values[0], 2);

  ASSERT_THAT(base::WriteFileAtomically(index, R"({"weight_map": {"c": "s1.safetensors"}})"),
              IsOk());
  EXPECT_THAT(ReadSafetensorsDirectory(dir_.path()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("lacks tensor c")));
  ASSERT_THAT(base::WriteFileAtomically(index, R"({"weight_map": {"c": "../s1.safetensors"}})"),
              IsOk());
  EXPECT_THAT(ReadSafetensorsDirectory(dir_.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("../s1.safetensors")));
  ASSERT_THAT(base::WriteFileAtomically(index, R"({"weight_map": {"c": "gone.safetensors"}})"),
              IsOk());
  EXPECT_THAT(ReadSafetensorsDirectory(dir_.path()), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(SafetensorsTest, NamesWhatIsMissing) {
  EXPECT_THAT(ReadSafetensorsDirectory(dir_.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("model.safetensors.index.json")));
}

TEST_F(SafetensorsTest, EveryTruncationIsDataLoss) {
  const TensorMap tensors = {{"a", {.shape = {3}, .values = {1, 2, 3}}}};
  ASSERT_THAT(WriteSafetensors(path_, ViewsOf(tensors)), IsOk());
  const auto whole = base::ReadFile(path_, 1 << 20);
  ASSERT_THAT(whole, IsOk());
  for (size_t size = 0; size < whole->size(); ++size) {
    EXPECT_THAT(OpenBytes(whole->substr(0, size)), StatusIs(absl::StatusCode::kDataLoss)) << size;
  }
  EXPECT_THAT(OpenBytes(*whole + "x"), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(SafetensorsTest, AHeaderThatLiesIsDataLossWithItsPlace) {
  ExpectDataLoss(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "tensor a: shape");
  ExpectDataLoss(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4, "do not lie in");
  ExpectDataLoss(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}})", 16, "do not lie in");
  ExpectDataLoss(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "shape");
  ExpectDataLoss(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
                 "shape");
  ExpectDataLoss(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8,
                 "begins at byte 4");
  ExpectDataLoss(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                 R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                 4, "begins at byte 0");
  ExpectDataLoss(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 12, "end at byte 4");
  ExpectDataLoss(R"({"a":)", 0, "JSON");
  ExpectDataLoss("[]", 0, "JSON");
}

TEST_F(SafetensorsTest, AHeaderLengthBeyondTheFileIsNotBelieved) {
  std::string file = MakeFile("{}", 0);
  const uint64_t huge = std::numeric_limits<uint64_t>::max();
  std::memcpy(file.data(), &huge, 8);
  EXPECT_THAT(OpenBytes(file), StatusIs(absl::StatusCode::kDataLoss,
                                        HasSubstr("claims 18446744073709551615 bytes")));
}

TEST_F(SafetensorsTest, RefusesOtherTypesByName) {
  EXPECT_THAT(
      OpenBytes(MakeFile(R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", 4)),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("F8_E4M3")));
}

TEST_F(SafetensorsTest, RefusesToWriteAShapeThatIsNotTheValues) {
  const std::vector<float> values = {1, 2};
  const TensorViewMap views = {{"a", {.shape = {3}, .values = values}}};
  EXPECT_THAT(WriteSafetensors(path_, views), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_FALSE(base::PathExists(path_));
}

}  // namespace
}  // namespace temper::model
