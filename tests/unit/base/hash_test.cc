#include "services/base/hash.h"

#include <gtest/gtest.h>

#include "services/base/files.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::base {
namespace {

// Values published for XXH3 with seed 0.
TEST(HashTest, AgreesWithPublishedValues) {
  EXPECT_EQ(HexDigest(Hash64("")), "2d06800538d394c2");
  EXPECT_EQ(HexDigest(Hash128("")), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(HexDigest(Hash64("abc")), "78af5f94892f3950");
  EXPECT_EQ(HexDigest(Hash128("abc")), "06b05ab6733a618578af5f94892f3950");
}

TEST(HashTest, StreamDoesNotDependOnTheCuts) {
  std::string bytes;
  for (int i = 0; i < 100'000; ++i) bytes.push_back(static_cast<char>(i * 31 + i / 7));
  for (size_t part : {1UL, 63UL, 4096UL, 99'999UL}) {
    StreamHash stream;
    for (size_t at = 0; at < bytes.size(); at += part) {
      stream.Update(std::string_view(bytes).substr(at, part));
    }
    EXPECT_EQ(stream.Digest64(), Hash64(bytes)) << part;
    EXPECT_EQ(stream.Digest(), Hash128(bytes)) << part;
  }
}

TEST(HashTest, FileHasTheHashOfItsBytes) {
  testing::TempDir dir;
  const std::string bytes(3'000'000, 'x');  // more than one part
  ASSERT_THAT(WriteFileAtomically(dir.File("f"), bytes), testing::IsOk());
  EXPECT_EQ(HashFile64(dir.File("f")).value(), Hash64(bytes));
  EXPECT_EQ(HashFile128(dir.File("f")).value(), Hash128(bytes));
}

TEST(HashTest, MissingFileIsNotFound) {
  EXPECT_THAT(HashFile64("/nonexistent"), testing::StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace temper::base
