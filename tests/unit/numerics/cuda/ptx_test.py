"""Reads the kernels' PTX: every float32 operation rounds once, to nearest, and keeps denormals.

Usage: ptx_test.py FILE. What a device computes differently from the host would be here: contracted,
approximate or flushing instructions, calls into CUDA's mathematical library.
"""

import collections
import re
import sys
import unittest

# Instructions on floats that compare, move or convert exactly, or round once to nearest.
EXACT = re.compile(
    r"^(ld|st|mov|selp|setp|neg|abs|cvt\.rn\.f32\.s(32|64)|cvt\.rn\.f32\.u(32|64)|cvt\.rzi\.f32\.f32"
    r"|(add|sub|mul|div|sqrt|fma)\.rn\.f32)\b")
DOUBLE = re.compile(
    r"^(ld|st|mov|selp|setp|neg|cvt\.f64\.f32|cvt\.rn\.f64\.[su](32|64)|cvt\.rzi\.[su]64\.f64|(add|sub|mul|fma)\.rn\.f64)\b")
KERNELS = ["ErrorKernel", "NormKernel", "QuantizeKernel", "RowMaximumKernel", "TensorAmaxKernel"]


def instructions(text):
    """The instructions of a PTX text, without predicates, as written."""
    found = []
    for line in text.splitlines():
        line = re.sub(r"^@!?%p\d+\s+", "", line.strip())
        if re.match(r"^[a-z]+[\w.]*\s.*;", line):
            found.append(line)
    return found


def inexact(text):
    """Instructions of `text` that may not round as the host does."""
    wrong = []
    for line in instructions(text):
        opcode = line.split()[0]
        if ".ftz" in opcode or ".approx" in opcode or ".full" in opcode or opcode.startswith("call"):
            wrong.append(line)
        elif ".f32" in opcode and ".f64" not in opcode and not EXACT.match(opcode):
            wrong.append(line)
        elif ".f64" in opcode and not DOUBLE.match(opcode):
            wrong.append(line)
    return wrong


class Ptx(unittest.TestCase):
    text = ""

    def test_all_kernels_are_there(self):
        for name in KERNELS:
            self.assertRegex(self.text, rf"\.entry \w*{name}")

    def test_float_operations_round_as_the_hosts(self):
        self.assertEqual(inexact(self.text), [])

    def test_the_polynomials_are_fused_multiply_adds_and_nothing_else_is(self):
        # Of a pair of normals (keyed_normals.h): u1 1, logarithm and radius 9, angle 2, sine 3, cosine 3. A counter has
        # two pairs, and relative error adds one for each of the four factors.
        counted = collections.Counter()
        for body in re.split(r"\.entry ", self.text)[1:]:
            name = re.match(r"\w+", body).group(0)
            counted[name] = sum(i.startswith("fma.rn.f32") for i in instructions(body))
        relative = [n for name, n in counted.items() if re.search(r"ErrorKernelILNS\w*E0E", name)]
        truncation = [n for name, n in counted.items() if re.search(r"ErrorKernelILNS\w*E3E", name)]
        self.assertEqual((relative, truncation), ([2 * 18 + 4], [0]), counted)

    def test_what_is_inexact_would_be_seen(self):
        for line in ("mul.ftz.f32 %f1, %f2, %f3;", "sqrt.approx.f32 %f1, %f2;", "ex2.approx.f32 %f1, %f2;",
                     "mad.f32 %f1, %f2, %f3, %f4;", "call.uni (retval0), __internal_log, (param0);",
                     "min.f32 %f1, %f2, %f3;", "@%p1 div.full.f32 %f1, %f2, %f3;"):
            self.assertEqual(len(inexact("\t" + line)), 1, line)


if __name__ == "__main__":
    with open(sys.argv.pop(), encoding="utf-8") as file:
        Ptx.text = file.read()
    unittest.main()
