"""Calls of the Triton kernels of the memory ops, for compile_triton.py: real ones, on the CPU, up to the launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import torch
from vtsum_kernels.memory_attention import triton as memory
from vtsum_kernels.memory_fuse.triton import join
from vtsum_kernels.triton_kit import launch

Record = Callable[[Any, Any, dict[str, Any], Any], None]


class Case(NamedTuple):
    """A call: which, and the sizes that decide on its kernels."""

    form: str  # "weights", "join" or "flash"
    dtype: torch.dtype
    dim: int
    slots: int
    heads: int = 1
    options: bool = False  # all of them: slot bias, query mask, gradients of lse and usage, weights kept in float32

    def __str__(self) -> str:
        told = f"memory {self.form} {str(self.dtype).removeprefix('torch.')} D={self.dim} S={self.slots} H={self.heads}"
        return f"{told} with options" if self.options else told


HALF, SINGLE = torch.bfloat16, torch.float32
CASES = [
    *(Case("weights", HALF, 768, slots, 1, slots in (64, 512, 1024)) for slots in (64, 128, 256, 512, 1024)),
    Case("weights", HALF, 384, 1000, 1, True),
    Case("weights", torch.float16, 64, 500, 12, True),
    *(Case("weights", SINGLE, dim, slots, 1, True) for dim, slots in ((768, 512), (96, 60))),
    *(Case("join", HALF, 768, slots, 1, True) for slots in (128, 256, 512, 1000)),
    Case("join", HALF, 40, 300, 2, False),
    Case("join", torch.float16, 384, 64, 1, False),
    Case("join", SINGLE, 768, 512, 1, True),
    *(Case("flash", HALF, dim, 4096, 768 // dim, options) for dim in (64, 128, 256) for options in (False, True)),
    Case("flash", torch.float16, 40, 4000, 2, False),
    Case("flash", HALF, 96, 4096, 8, True),
    *(Case("flash", SINGLE, dim, 4096, 768 // dim, True) for dim in (64, 128, 256)),
    *(Case(form, HALF, 1, 1, 1, True) for form in ("weights", "join", "flash")),
]


def calls(case: Case, record: Record) -> None:
    """A forward and a backward pass; every launch goes to `record`."""
    form, dtype, dim, slots, heads, options = case
    n = 4096 if slots > 1 else 1  # what is 1 becomes a constant
    x = torch.zeros(1, n, heads, dim, dtype=dtype)
    bank = torch.zeros(1, heads, slots, dim, dtype=dtype)
    factor, lse, dusage = torch.ones(1, heads, n), torch.zeros(1, heads, n), torch.zeros(1, heads, slots)
    bias = torch.zeros(1, heads, slots) if options else None
    mask = torch.ones(1, n, dtype=torch.bool) if options else None
    dlse = lse if options else None
    with mock.patch.object(launch, "start", record):
        if form == "flash":
            memory.flash_forward(x, bank, bank, factor, bias, mask, options)
            dusage_or_none = dusage if options else None
            memory.flash_backward(x, dlse, dusage_or_none, x, bank, bank, factor, bias, mask, x, lse)
            return
        weights = torch.zeros(1, heads, n, slots, dtype=dtype)
        if form == "weights":
            memory.weights_forward(x, bank, factor, bias, mask, torch.float32 if options else dtype)
            memory.weights_backward(weights, dlse, dusage, weights, x, bank, factor, mask, options)
            return
        flat, weight = x.flatten(2)[0], torch.zeros(heads * dim, heads * dim, dtype=dtype)
        folded = torch.zeros(heads * slots, heads * dim, dtype=dtype)
        vector = weight[0] if options else None
        for joined in (weights, weights.float()):
            rows = joined.transpose(1, 2).flatten(2)[0]
            join(flat, rows, weight, folded, vector, flat if options else None)
