"""What NATTEN itself gives for a few small calls, so that na1d is held to it where NATTEN is not installed.

Written by NATTEN 0.21.7 (its flex backend on the CPU, which has no backward), torch 2.13.0, with

    pip install natten && python -m tests.kernels.integrations.natten_golden

natten.npz holds, for each case of CASES, the output and lse of `inputs(case)`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PATH = Path(__file__).with_name("natten.npz")


class Case(NamedTuple):
    frames: int
    kernel_size: int
    dilation: int = 1
    is_causal: bool = False
    heads: int = 2
    key_heads: int = 2
    scale: float | None = None


CASES = [
    Case(10, 5),
    Case(10, 4),
    Case(7, 2),
    Case(9, 9),
    Case(8, 8),
    Case(11, 3, dilation=2),
    Case(11, 3, dilation=3),
    Case(13, 6, dilation=2),
    Case(13, 4, dilation=3, key_heads=1),
    Case(10, 5, is_causal=True),
    Case(10, 4, is_causal=True, heads=4),
    Case(11, 3, dilation=3, is_causal=True),
    Case(12, 5, heads=4, key_heads=2, scale=0.3),
]


def inputs(case: Case, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """query [2, T, H, 8], key and value [2, T, K, 8]: sines, the same in every version of torch."""
    tensors = []
    for number, heads in enumerate((case.heads, case.key_heads, case.key_heads)):
        count = 2 * case.frames * heads * 8
        values = 2 * torch.sin(torch.arange(count, dtype=torch.float64) * (1.7 + number) + number)
        tensors.append(values.reshape(2, case.frames, heads, 8).to(dtype))
    return tensors


def by_natten(case: Case) -> tuple[Tensor, Tensor]:
    """Output [2, T, H, 8] and lse [2, T, H]."""
    import natten

    return natten.na1d(
        *inputs(case),
        case.kernel_size,
        dilation=case.dilation,
        is_causal=case.is_causal,
        scale=case.scale,
        backend="flex-fna",
        return_lse=True,
    )


def main() -> None:
    arrays = {}
    for number, case in enumerate(CASES):
        out, lse = by_natten(case)
        arrays[f"out{number}"], arrays[f"lse{number}"] = out.numpy(), lse.numpy()
    np.savez_compressed(PATH, **arrays)


if __name__ == "__main__":
    main()
