#pragma once

// Norms, rotary embedding, SwiGLU and their gradients in Lanes; included by one .cc file per
// instruction set, after its lanes_*.h.

#include <cstdint>

namespace temper::model::kernels {
namespace {

// exp(x) for x <= 88, relative error below 2e-7; 0 for x < -87; NaN stays NaN. Range reduction by
// log 2 in two parts, then a polynomial on +-log(2) / 2 (coefficients as in Cephes' expf).
inline Lanes Exp(Lanes x) {
  const Lanes round = Lanes::Broadcast(0x1.8p+23f);
  const Lanes y = Lanes::Max(Lanes::Broadcast(-88.0f), Lanes::Min(Lanes::Broadcast(88.0f), x));
  const Lanes shifted = Lanes::Fma(y, Lanes::Broadcast(0x1.715476p+0f), round);
  const Lanes n = shifted - round;
  Lanes r = Lanes::Fma(n, Lanes::Broadcast(-0.693359375f), y);
  r = Lanes::Fma(n, Lanes::Broadcast(2.12194440e-4f), r);
  Lanes p = Lanes::Broadcast(1.9875691500e-4f);
  p = Lanes::Fma(p, r, Lanes::Broadcast(1.3981999507e-3f));
  p = Lanes::Fma(p, r, Lanes::Broadcast(8.3334519073e-3f));
  p = Lanes::Fma(p, r, Lanes::Broadcast(4.1665795894e-2f));
  p = Lanes::Fma(p, r, Lanes::Broadcast(1.6666665459e-1f));
  p = Lanes::Fma(p, r, Lanes::Broadcast(5.0000001201e-1f));
  p = Lanes::Fma(p, r * r, r) + Lanes::Broadcast(1.0f);
  // y - y is NaN where x is, and 0 elsewhere: adding to the exponent alone would lose a NaN.
  return Lanes::ZeroBelow(y, -87.0f, Lanes::ScaleByPower(p, shifted)) + (y - y);
}

inline Lanes LoadUpTo(const float* p, int64_t left) {
  return left >= 16 ? Lanes::Load(p) : Lanes::LoadPart(p, left);
}
inline void StoreUpTo(const Lanes& x, float* p, int64_t left) {
  if (left >= 16) {
    x.Store(p);
  } else {
    x.StorePart(p, left);
  }
}

void RmsNorm(const float* x, int64_t rows, int64_t cols, int64_t x_stride, const float* gamma,
             float eps, float* y, int64_t y_stride, float* inv_rms) {
  for (int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * x_stride;
    float* out = y + row * y_stride;
    Lanes sum = Lanes::Zero();
    for (int64_t c = 0; c < cols; c += 16) {
      const Lanes v = LoadUpTo(in + c, cols - c);
      sum = Lanes::Fma(v, v, sum);
    }
    const float r = 1.0f / __builtin_sqrtf(sum.Sum() / static_cast<float>(cols) + eps);
    if (inv_rms != nullptr) inv_rms[row] = r;
    const Lanes factor = Lanes::Broadcast(r);
    for (int64_t c = 0; c < cols; c += 16) {
      const int64_t left = cols - c;
      StoreUpTo((LoadUpTo(in + c, left) * factor) * LoadUpTo(gamma + c, left), out + c, left);
    }
  }
}

void RmsNormBackward(const float* x, const float* gy, const float* gamma, const float* inv_rms,
                     int64_t rows, int64_t cols, float* gx) {
  for (int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * cols;
    const float* g = gy + row * cols;
    float* out = gx + row * cols;
    Lanes sum = Lanes::Zero();
    for (int64_t c = 0; c < cols; c += 16) {
      const int64_t left = cols - c;
      const Lanes scaled = LoadUpTo(g + c, left) * LoadUpTo(gamma + c, left);
      sum = Lanes::Fma(scaled, LoadUpTo(in + c, left), sum);
    }
    const float r = inv_rms[row];
    const Lanes factor = Lanes::Broadcast(r);
    const Lanes pull = Lanes::Broadcast(-(r * r * r) * (sum.Sum() / static_cast<float>(cols)));
    for (int64_t c = 0; c < cols; c += 16) {
      const int64_t left = cols - c;
      const Lanes scaled = LoadUpTo(g + c, left) * LoadUpTo(gamma + c, left);
      StoreUpTo(Lanes::Fma(pull, LoadUpTo(in + c, left), factor * scaled), out + c, left);
    }
  }
}

void RmsNormGamma(const float* x, const float* gy, const float* inv_rms, int64_t rows, int64_t cols,
                  int64_t begin, int64_t end, float* ggamma) {
  for (int64_t c = begin; c < end; c += 16) {
    const int64_t left = end - c;
    Lanes sum = LoadUpTo(ggamma + c, left);
    for (int64_t row = 0; row < rows; ++row) {
      const Lanes normed = LoadUpTo(x + row * cols + c, left) * Lanes::Broadcast(inv_rms[row]);
      sum = Lanes::Fma(LoadUpTo(gy + row * cols + c, left), normed, sum);
    }
    StoreUpTo(sum, ggamma + c, left);
  }
}

void Add(float* y, const float* x, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) {
    const int64_t left = count - i;
    StoreUpTo(LoadUpTo(y + i, left) + LoadUpTo(x + i, left), y + i, left);
  }
}

void AddBias(float* y, int64_t rows, int64_t cols, int64_t stride, const float* bias) {
  for (int64_t row = 0; row < rows; ++row) Add(y + row * stride, bias, cols);
}

void ColumnSums(const float* g, int64_t rows, int64_t cols, float* sums) {
  for (int64_t c = 0; c < cols; c += 16) {
    const int64_t left = cols - c;
    Lanes sum = LoadUpTo(sums + c, left);
    for (int64_t row = 0; row < rows; ++row) sum = sum + LoadUpTo(g + row * cols + c, left);
    StoreUpTo(sum, sums + c, left);
  }
}

void Rope(float* x, int64_t heads, int64_t head_dim, const float* cosine, const float* sine,
          bool inverse) {
  const int64_t half = head_dim / 2;
  const Lanes sign = Lanes::Broadcast(inverse ? -1.0f : 1.0f);
  for (int64_t h = 0; h < heads; ++h) {
    float* first = x + h * head_dim;
    float* second = first + half;
    for (int64_t i = 0; i < half; i += 16) {
      const int64_t left = half - i;
      const Lanes c = LoadUpTo(cosine + i, left);
      const Lanes s = LoadUpTo(sine + i, left) * sign;
      const Lanes a = LoadUpTo(first + i, left);
      const Lanes b = LoadUpTo(second + i, left);
      StoreUpTo(a * c - b * s, first + i, left);
      StoreUpTo(b * c + a * s, second + i, left);
    }
  }
}

inline Lanes Sigmoid(Lanes x) {
  const Lanes one = Lanes::Broadcast(1.0f);
  return one / (one + Exp(Lanes::Zero() - x));
}

void SwiGlu(const float* gate, const float* up, int64_t rows, int64_t cols, int64_t in_stride,
            float* y, int64_t y_stride) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < cols; c += 16) {
      const int64_t left = cols - c;
      const Lanes g = LoadUpTo(gate + row * in_stride + c, left);
      const Lanes u = LoadUpTo(up + row * in_stride + c, left);
      StoreUpTo((g * Sigmoid(g)) * u, y + row * y_stride + c, left);
    }
  }
}

void SwiGluBackward(const float* gate, const float* up, const float* gy, int64_t count,
                    float* ggate, float* gup) {
  const Lanes one = Lanes::Broadcast(1.0f);
  for (int64_t i = 0; i < count; i += 16) {
    const int64_t left = count - i;
    const Lanes g = LoadUpTo(gate + i, left);
    const Lanes out = LoadUpTo(gy + i, left);
    const Lanes s = Sigmoid(g);
    // silu'(g) = s (1 + g (1 - s))
    const Lanes slope = s * Lanes::Fma(g, one - s, one);
    StoreUpTo((out * LoadUpTo(up + i, left)) * slope, ggate + i, left);
    StoreUpTo(out * (g * s), gup + i, left);
  }
}

}  // namespace
}  // namespace temper::model::kernels
