"""Powers of two and products, as tensor cores and Triton's interpreter each want them."""
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


#: Triton's interpreter multiplies bfloat16 as if it were integers.
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


#: Not so on AMD's GPUs.
NVIDIA = tl.constexpr(not INTERPRETED.value and torch.version.hip is None)


@triton.jit
def power(x):
    """2 to the x, in one instruction: results too small for a normal float32 become 0."""
    if NVIDIA:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
    return tl.exp2(x)


@triton.jit
def tanh(x):
    """Near 0 by Lambert's continued fraction, whose fifth convergent is off by 2e-10 of its value at 0.55."""
    z = x * x
    near = x * (945.0 + z * (105.0 + z)) / (945.0 + z * (420.0 + 15.0 * z))
    e = power(tl.abs(x) * (-2.0 * LOG2_E))
    far = (1.0 - e) / (1.0 + e)
    return tl.where(tl.abs(x) < 0.55, near, tl.where(x < 0, -far, far))


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """a @ b on tensor cores, in float32."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32))
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def add_product(total, a, b, PRECISION: tl.constexpr):
    """total + a @ b."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total)
    return tl.dot(a, b, total, input_precision=PRECISION)
