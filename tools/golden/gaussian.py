#!/usr/bin/env python3
"""Writes tests/golden/gaussian.txt or gaussian_fast.txt: keyed Gaussians computed without the C++ code.

Philox is done in Python integers; every float32 operation is done in exact rational arithmetic and
then rounded once to nearest even, which is what the definition in docs/numerics.md asks for.
Usage: tools/golden/gaussian.py > tests/golden/gaussian.txt
       tools/golden/gaussian.py fast > tests/golden/gaussian_fast.txt
"""
import sys
from fractions import Fraction as F
from math import isqrt

LOG = ["0x1.fffffap-1", "-0x1.5556f4p-1", "0x1.00049ap-1", "-0x1.98d2c0p-2",
       "0x1.535d32p-2", "-0x1.318524p-2", "0x1.250494p-2", "-0x1.65c766p-3"]
SIN = ["0x1.921fb6p+2", "-0x1.4abbbap+5", "0x1.465e92p+6", "-0x1.2d9302p+6"]
COS = ["-0x1.3bd39cp+4", "0x1.03b090p+6", "-0x1.4e844ap+6"]
FAST_LOG = ["0x1.ffea5ap-1", "-0x1.54b9e0p-1", "0x1.03f908p-1", "-0x1.c1166ep-2", "0x1.232512p-2"]
FAST_SIN = ["0x1.921f8ep+2", "-0x1.4aa60ap+5", "0x1.3f3df0p+6"]
FAST_COS = ["-0x1.3bafa0p+4", "0x1.f8d4aep+5"]
MINUS_TWO_LN2 = "-0x1.62e430p+0"


def const(text):
    return F(float.fromhex(text))


def exponent(x):
    """e with 2^e <= |x| < 2^(e+1)."""
    e = abs(x).numerator.bit_length() - abs(x).denominator.bit_length()
    return e if F(2) ** e <= abs(x) else e - 1


def rn(x):
    """Round to float32, nearest even (no overflow or subnormals occur here)."""
    if x == 0:
        return F(0)
    unit = F(2) ** (exponent(x) - 23)
    return round(x / unit) * unit  # Python rounds halves to even


def rsqrt_exact(x):
    """sqrt rounded to float32."""
    if x == 0:
        return F(0)
    scale = 2 ** 120
    scaled = x * scale * scale
    root = isqrt(scaled.numerator // scaled.denominator)
    # Sticky bit: exact halves cannot occur unless the root is exact.
    exact = root * root == scaled
    return rn(F(root, scale)) if exact else rn(F(2 * root + 1, 2 * scale))


def fma(a, b, c):
    return rn(a * b + c)


def philox(counter, key):
    c, k = list(counter), [key & 0xffffffff, key >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xffffffff, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xffffffff]
        k = [(k[0] + 0x9E3779B9) & 0xffffffff, (k[1] + 0xBB67AE85) & 0xffffffff]
    return c


def polynomial(coefficients, x):
    value = const(coefficients[-1])
    for k in reversed(coefficients[:-1]):
        value = fma(value, x, const(k))
    return value


def exact(w0, w1):
    u1 = fma(rn(F(w0 >> 1)), F(1, 2 ** 31), F(1, 2 ** 32))
    return box_muller(u1, rn(rn(F(w1 >> 1)) / 2 ** 31), LOG, SIN, COS)


def fast(w):
    u1 = fma(F(w & 0xffff), F(1, 2 ** 16), F(1, 2 ** 17))
    return box_muller(u1, F(w >> 16, 2 ** 16), FAST_LOG, FAST_SIN, FAST_COS)


def box_muller(u1, u2, log, sin, cos):
    """The two normals, float32 values as fractions."""
    e = exponent(u1)
    m = u1 / F(2) ** e
    if m >= F(0x3504f3 + 0x800000, 2 ** 23):
        m, e = m / 2, e + 1
    f = rn(m - 1)
    p = polynomial(log, f)
    radius = rsqrt_exact(fma(F(e), const(MINUS_TWO_LN2), fma(rn(f * f), p, rn(-2 * f))))
    q = round(4 * u2)
    r = rn(u2 - F(q, 4))
    z = rn(r * r)
    s = rn(polynomial(sin, z) * r)
    c = fma(polynomial(cos, z), z, F(1))
    if q % 2 == 1:
        c, s = s, c
    cos_sign = -1 if (q + 1) & 2 else 1
    sin_sign = -1 if q & 2 else 1
    return rn(radius * c) * cos_sign, rn(radius * s) * sin_sign


def bits(x):
    assert x != 0
    e = exponent(x)
    mantissa = int(abs(x) / F(2) ** (e - 23))
    return (1 << 31 if x < 0 else 0) | ((e + 127) << 23) | (mantissa & 0x7fffff)


def main():
    print("# key site position lane element float-bits, all hexadecimal; by tools/golden/gaussian.py")
    cases = [(0, 0, 0, 0), (0x0123456789abcdef, 0xff3ff070, 0, 0), (0xfedcba9876543210, 0x00fff000, 511, 1),
             (42, 0x02fff061, 0xffffffff, 0xffffffff)]
    for key, site, position, lane in cases:
        for element in [0, 1, 2, 3, 4, 5, 6, 7, 31, 32, 63, 64, 95, 575, 1535, 4095]:
            if sys.argv[1:] == ["fast"]:
                w = philox([element // 8, position, site, lane], key)
                value = fast(w[element % 4])[element % 8 // 4]
            else:
                w = philox([element // 4, position, site, lane], key)
                half = (element % 4) // 2
                value = exact(w[2 * half], w[2 * half + 1])[element % 2]
            print(f"{key:x} {site:x} {position:x} {lane:x} {element:x} {bits(value):08x}")


if __name__ == "__main__":
    main()
