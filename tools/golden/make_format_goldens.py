#!/usr/bin/env python3
"""Writes tests/golden/formats.txt: the codes and scales that torchao gives to tensors of ours.

    python tools/golden/make_format_goldens.py > tests/golden/formats.txt

Each case is a tensor (float32 bits, one line per row) with, per row, the E2M1 codes of every value
and the scale of every block: MXTensor with FLOOR scaling (E8M0 codes), NVFP4Tensor with
per_tensor_scale (E4M3 codes), and FP8 by PyTorch's own float8_e4m3fn cast of x / (amax / 448).
Random, heavy-tailed, few-bit (ties) and tiny tensors; finite values only, because torchao gives
other results where a block holds an infinity or NaN.

Needs torch 2.11.0 and torchao 0.18.0 on a CPU.
"""

import torch
from torchao.prototype.mx_formats.kernels import unpack_uint4
from torchao.prototype.mx_formats.mx_tensor import MXTensor, ScaleCalculationMode
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

ROWS, COLS = 4, 128


def tensors():
    make = torch.Generator().manual_seed(20260)
    normal = lambda *shape: torch.randn(*shape, generator=make)
    gaussian = normal(ROWS, COLS) * 0.02
    student = normal(ROWS, COLS) / (normal(5, ROWS, COLS).pow(2).mean(0)).sqrt() * 0.02
    outliers = normal(ROWS, COLS)
    outliers[:, ::37] *= 1000.0
    # Halves, quarters and eighths under powers of two: ties in every format.
    few_bits = torch.randint(-64, 65, (ROWS, COLS), generator=make).float() / 8
    few_bits = few_bits * torch.pow(2.0, torch.arange(ROWS).float())[:, None]
    rows = normal(ROWS, COLS) * torch.tensor([1e-3, 1.0, 30.0, 2e3])[:, None]
    tiny = normal(ROWS, COLS) * 1e-30
    huge = normal(ROWS, COLS) * 1e30
    zeros = normal(ROWS, COLS)
    zeros[:, 32:96] = 0.0
    zeros[:, 3] = -0.0
    return {"gaussian": gaussian, "student_t5": student, "outliers": outliers,
            "few_bits": few_bits, "rows": rows, "tiny": tiny, "huge": huge, "zeros": zeros}


def text(numbers, width):
    return "".join(f"{int(n) % 16 ** width:0{width}x}" for n in numbers)


def e2m1_codes(packed):
    return unpack_uint4(packed.contiguous().view(torch.uint8)).reshape(ROWS, COLS)


def fp8(x):
    scale = x.abs().max() / 448.0
    codes = torch.clamp(x / scale, -448.0, 448.0).to(torch.float8_e4m3fn).view(torch.uint8)
    return codes, scale.reshape(1).view(torch.int32)[0]


def main():
    print("# Written by tools/golden/make_format_goldens.py. Hexadecimal, without separators:")
    print("# x: float32 bits; mx, nv: E2M1 codes, then E8M0 or E4M3 block scales; nvt, f8t: float32")
    print("# bits of the tensor's scale; f8: E4M3 codes.")
    for name, x in tensors().items():
        mx = MXTensor.to_mx(x, torch.float4_e2m1fn_x2, 32, ScaleCalculationMode.FLOOR)
        nvt = per_tensor_amax_to_scale(x.abs().max())
        nv = NVFP4Tensor.to_nvfp4(x, per_tensor_scale=nvt)
        f8, f8t = fp8(x)
        print(f"case {name} {ROWS} {COLS}")
        print(f"nvt {text([nvt.reshape(1).view(torch.int32)[0]], 8)}")
        print(f"f8t {text([f8t], 8)}")
        for r in range(ROWS):
            print(f"x {text(x[r].view(torch.int32), 8)}")
            print(f"mx {text(e2m1_codes(mx.qdata)[r], 1)} {text(mx.scale.view(torch.uint8)[r], 2)}")
            print(f"nv {text(e2m1_codes(nv.qdata)[r], 1)} {text(nv.scale.view(torch.uint8)[r], 2)}")
            print(f"f8 {text(f8[r], 2)}")


if __name__ == "__main__":
    main()
