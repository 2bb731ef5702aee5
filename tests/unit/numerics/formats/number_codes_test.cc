#include "numerics/formats/number_codes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/unit/numerics/formats/format_test_support.h"

namespace temper::numerics {
namespace {

TEST(E2M1, HasTheSixteenValuesOfTheStandard) {
  const float values[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  for (uint8_t code = 0; code < 16; ++code) {
    const float expected = code < 8 ? values[code] : -values[code - 8];
    EXPECT_EQ(DecodeE2M1(code), expected) << int{code};
    EXPECT_EQ(std::signbit(DecodeE2M1(code)), code >= 8) << int{code};
    EXPECT_EQ(EncodeE2M1(expected), code) << expected;
  }
}

TEST(E2M1, TiesGoToTheEvenCode) {
  const float ties[7][2] = {{0.25f, 0.0f}, {0.75f, 1.0f}, {1.25f, 1.0f}, {1.75f, 2.0f},
                            {2.5f, 2.0f},  {3.5f, 4.0f},  {5.0f, 4.0f}};
  for (const auto& [x, rounded] : ties) {
    EXPECT_EQ(DecodeE2M1(EncodeE2M1(x)), rounded) << x;
    EXPECT_EQ(DecodeE2M1(EncodeE2M1(-x)), -rounded) << x;
  }
}

TEST(E2M1, ValuesBesideATieGoToTheirSide) {
  for (int code = 0; code < 7; ++code) {
    const float below = DecodeE2M1(static_cast<uint8_t>(code));
    const float above = DecodeE2M1(static_cast<uint8_t>(code + 1));
    const float tie = (below + above) / 2;
    EXPECT_EQ(EncodeE2M1(std::nextafter(tie, 0.0f)), code) << tie;
    EXPECT_EQ(EncodeE2M1(std::nextafter(tie, 10.0f)), code + 1) << tie;
  }
}

TEST(E2M1, SaturatesBeyondSix) {
  for (const float x : {6.0f, 6.0001f, 100.0f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(EncodeE2M1(x), 7) << x;
    EXPECT_EQ(EncodeE2M1(-x), 15) << x;
  }
}

// A code's value by the definition of the format: bias 7, three fraction bits.
double E4M3Value(int code) {
  const int exponent = (code >> 3) & 15, fraction = code & 7;
  if (exponent == 15 && fraction == 7) return std::numeric_limits<double>::quiet_NaN();
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(1.0 + fraction / 8.0, exponent - 7);
  return code >= 128 ? -magnitude : magnitude;
}

TEST(E4M3, HasThe256ValuesOfTheFormat) {
  int nans = 0;
  for (int code = 0; code < 256; ++code) {
    const float value = DecodeE4M3(static_cast<uint8_t>(code));
    if (std::isnan(E4M3Value(code))) {
      EXPECT_TRUE(std::isnan(value)) << code;
      ++nans;
    } else {
      EXPECT_EQ(value, E4M3Value(code)) << code;
      EXPECT_EQ(std::signbit(value), code >= 128) << code;
    }
    EXPECT_EQ(EncodeE4M3(value), code) << value;
  }
  EXPECT_EQ(nans, 2);
  EXPECT_EQ(DecodeE4M3(0x7e), 448.0f);
  EXPECT_EQ(DecodeE4M3(0x08), 0x1p-6f);
  EXPECT_EQ(DecodeE4M3(0x01), 0x1p-9f);
}

TEST(E4M3, HalvesGoToTheEvenCodeAndTheirNeighboursToTheirSide) {
  for (int code = 0; code < 0x7e; ++code) {
    const float tie = static_cast<float>((E4M3Value(code) + E4M3Value(code + 1)) / 2);
    EXPECT_EQ(EncodeE4M3(tie), (code + 1) / 2 * 2) << tie;
    EXPECT_EQ(EncodeE4M3(std::nextafter(tie, 0.0f)), code) << tie;
    EXPECT_EQ(EncodeE4M3(std::nextafter(tie, 1000.0f)), code + 1) << tie;
    EXPECT_EQ(EncodeE4M3(-tie), (code + 1) / 2 * 2 + 128) << tie;
  }
}

TEST(E4M3, SaturatesBeyond448AndKeepsNan) {
  for (const float x : {449.0f, 464.0f, 465.0f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(EncodeE4M3(x), 0x7e) << x;
    EXPECT_EQ(EncodeE4M3(-x), 0xfe) << x;
  }
  EXPECT_EQ(EncodeE4M3(std::numeric_limits<float>::quiet_NaN()) & 0x7f, 0x7f);
}

TEST(E4M3, IsTheNearestOfAllCodesForAnyFiniteNumber) {
  int checked = 0;
  for (const float x : BitPatterns(1 << 14)) {
    if (!std::isfinite(x) || std::abs(x) > 448.0f) continue;
    const float chosen = DecodeE4M3(EncodeE4M3(x));
    for (int code = 0; code < 256; ++code) {
      if (std::isnan(E4M3Value(code))) continue;
      ASSERT_LE(std::abs(double{chosen} - x), std::abs(E4M3Value(code) - x)) << x;
    }
    ++checked;
  }
  EXPECT_GT(checked, 1000);
}

}  // namespace
}  // namespace temper::numerics
