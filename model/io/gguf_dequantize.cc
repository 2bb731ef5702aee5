// Block formats of ggml. Each block holds 32 values of a row.
//   Q8_0   float16 d, 32 x int8 q                    x = d q
//   Q4_0   float16 d, 16 bytes                       x = d (q - 8)
//   Q4_1   float16 d, float16 m, 16 bytes            x = d q + m
// In the 4-bit formats byte j holds value j in its low and value j + 16 in its high half.

#include <cstring>

#include "model/io/float_formats.h"
#include "model/io/gguf.h"
#include "services/base/check.h"

namespace temper::model {
namespace {

constexpr size_t kBlock = 32;

// Bytes of one block, or of one value where there are no blocks.
int64_t UnitBytes(GgufType type) {
  switch (type) {
    case GgufType::kF32:
      return 4;
    case GgufType::kF16:
    case GgufType::kBF16:
      return 2;
    case GgufType::kQ4_0:
      return 2 + 16;
    case GgufType::kQ4_1:
      return 4 + 16;
    case GgufType::kQ8_0:
      return 2 + 32;
  }
  return 0;
}

float ReadHalf(const std::byte* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return Float16ToFloat32(bits);
}

void DequantizeQ8Block(const std::byte* block, float* out) {
  const float d = ReadHalf(block);
  for (size_t j = 0; j < kBlock; ++j) {
    out[j] = d * static_cast<float>(static_cast<int8_t>(block[2 + j]));
  }
}

void DequantizeQ40Block(const std::byte* block, float* out) {
  const float d = ReadHalf(block);
  for (size_t j = 0; j < kBlock / 2; ++j) {
    const int byte = static_cast<int>(block[2 + j]);
    out[j] = d * static_cast<float>((byte & 15) - 8);
    out[j + kBlock / 2] = d * static_cast<float>((byte >> 4) - 8);
  }
}

void DequantizeQ41Block(const std::byte* block, float* out) {
  const float d = ReadHalf(block);
  const float m = ReadHalf(block + 2);
  for (size_t j = 0; j < kBlock / 2; ++j) {
    const int byte = static_cast<int>(block[4 + j]);
    out[j] = d * static_cast<float>(byte & 15) + m;
    out[j + kBlock / 2] = d * static_cast<float>(byte >> 4) + m;
  }
}

}  // namespace

int64_t GgufBytes(GgufType type, int64_t elements) {
  return UnitBytes(type) * (IsBlocked(type) ? elements / static_cast<int64_t>(kBlock) : elements);
}

void Dequantize(GgufType type, std::span<const std::byte> in, std::span<float> out) {
  TEMPER_CHECK(static_cast<int64_t>(in.size()) == GgufBytes(type, static_cast<int64_t>(out.size())),
               "a tensor's bytes and values were sized from different shapes");
  const size_t unit = static_cast<size_t>(UnitBytes(type));
  switch (type) {
    case GgufType::kF32:
      std::memcpy(out.data(), in.data(), in.size());
      return;
    case GgufType::kF16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = ReadHalf(in.data() + unit * i);
      return;
    case GgufType::kBF16:
      for (size_t i = 0; i < out.size(); ++i) {
        uint16_t bits;
        std::memcpy(&bits, in.data() + unit * i, sizeof(bits));
        out[i] = BFloat16ToFloat32(bits);
      }
      return;
    case GgufType::kQ8_0:
    case GgufType::kQ4_0:
    case GgufType::kQ4_1:
      for (size_t b = 0; b < out.size() / kBlock; ++b) {
        const std::byte* block = in.data() + unit * b;
        float* values = out.data() + kBlock * b;
        if (type == GgufType::kQ8_0) DequantizeQ8Block(block, values);
        if (type == GgufType::kQ4_0) DequantizeQ40Block(block, values);
        if (type == GgufType::kQ4_1) DequantizeQ41Block(block, values);
      }
      return;
  }
}

}  // namespace temper::model
