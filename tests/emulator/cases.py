"""Calls that try every option of the op, alone and together, for every family of kernels that takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.emulator.run import Call

SEED = 0x0123_4567_89AB_CDEF


@dataclass
class Case:
    """A call by its shape and options; `call` draws its tensors."""

    left: int = 3
    right: int = 2
    width: int = 32
    frames: int = 45
    batch: int = 2
    heads: int = 2
    key_heads: int = 0  # 0: as many as heads
    dilation: int = 1
    shift: bool = False
    bias: bool = False
    mask: bool = False
    lengths: tuple[int, ...] = ()  # of packed sequences; their sum is the number of frames
    dropout_p: float = 0.0
    transposed: bool = False  # laid out as [B, T, H, D]
    offset: int = 0  # elements by which rows miss their alignment
    amplitude: float = 1.0
    scale: float | None = None
    dlse: bool = True
    hand_on: bool = False  # the forward's out and lse to the backward

    def __str__(self) -> str:
        default = Case()
        return " ".join(f"{k}={v}" for k, v in vars(self).items() if v != getattr(default, k)) or "plain"

    def tensor(self, heads: int, dtype: torch.dtype) -> Tensor:
        """[B, heads, T, D] whose last element is the last of its allocation."""
        shape = (self.batch, self.frames, heads, self.width)
        if not self.transposed:
            shape = (self.batch, heads, self.frames, self.width)
        flat = torch.empty(self.offset + torch.Size(shape).numel(), dtype=dtype)
        x = flat[self.offset :].view(shape).copy_(torch.randn(shape) * self.amplitude)
        return x.transpose(1, 2) if self.transposed else x

    def call(self, dtype: torch.dtype) -> Call:
        heads, key_heads = self.heads, self.key_heads or self.heads
        q, k, v = self.tensor(heads, dtype), self.tensor(key_heads, dtype), self.tensor(key_heads, dtype)
        options: dict[str, Any] = {}
        if self.bias:
            entries = (2 if self.shift else 1) * (self.left + self.right) + 1
            options["bias"] = torch.randn(heads, entries)
        if self.mask:
            mask = torch.rand(self.batch, self.frames) > 0.3
            mask[:, self.frames // 3 : self.frames // 3 + self.left + self.right + 2] = False  # rows that see nothing
            # What padded keys hold must not matter.
            k.transpose(1, 2)[~mask], v.transpose(1, 2)[~mask] = torch.nan, torch.nan
            options["mask"] = mask
        if self.lengths:
            assert sum(self.lengths) == self.frames
            assert self.batch == 1
            options["cu_seqlens"] = torch.tensor([0, *self.lengths]).cumsum(0).int()
        if self.dropout_p:
            options |= {"seed": torch.tensor([SEED]), "dropout_p": self.dropout_p}
        return Call(q, k, v, self.left, self.right, self.dilation, self.shift, self.scale, **options)

    def gradients(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """dout and dlse."""
        dlse = torch.randn(self.batch, self.heads, self.frames) if self.dlse else None
        return self.tensor(self.heads, dtype), dlse


PACKED: dict[str, Any] = {"batch": 1, "frames": 45, "lengths": (7, 0, 1, 20, 0, 17)}

WINDOWS = [
    Case(left=left, right=right, dlse=dlse)
    for left, right, dlse in [
        (0, 0, False),
        (2, 2, False),
        (8, 8, True),
        (16, 16, False),
        (32, 0, True),
        (0, 5, True),
        (20, 15, True),
        (-1, -1, True),
        (-1, 0, False),
        (2, -1, True),
        (90, 100, True),
    ]
]
WIDTHS = [Case(width=width, frames=21) for width in (1, 8, 13, 16, 24, 40, 64, 72, 80, 96, 128, 160, 192, 256)]
LENGTHS = [Case(left=5, right=5, frames=frames, dlse=False) for frames in (1, 2, 6, 31, 33, 130)]
OPTIONS = [
    Case(heads=6, key_heads=2),
    Case(heads=3, key_heads=1, transposed=True),
    Case(dilation=4),
    Case(dilation=60, dlse=False),
    Case(left=4, right=0, dilation=2, mask=True),
    Case(bias=True),
    Case(bias=True, left=0, right=7, mask=True, heads=4, key_heads=2),
    Case(shift=True),
    Case(shift=True, left=0, right=4),
    Case(shift=True, left=4, right=0, dilation=3),
    Case(shift=True, left=8, right=8, width=64),
    Case(shift=True, bias=True, dilation=2),
    Case(shift=True, bias=True, frames=4),
    Case(shift=True, bias=True, frames=13, dilation=3, mask=True),
    Case(mask=True, left=8, right=8, width=64),
    Case(mask=True, left=-1, right=-1),
    Case(dropout_p=0.3),
    Case(dropout_p=0.5, bias=True, dilation=2, width=128, frames=33),
    Case(dropout_p=0.2, shift=True, bias=True, width=64),
    Case(dropout_p=0.4, left=-1, right=6, hand_on=True),
    Case(**PACKED),
    Case(**PACKED, left=-1, right=-1),
    Case(**PACKED, dilation=2, bias=True, mask=True),
    Case(**PACKED, dilation=2, bias=True, shift=True, heads=4, key_heads=2, dropout_p=0.3),
    Case(**PACKED, left=20, right=20, dropout_p=0.3, hand_on=True),
    Case(left=20, right=20, hand_on=True, mask=True, bias=True),
    Case(left=20, right=20, hand_on=True, dilation=2),
    Case(left=-1, right=0, hand_on=True, width=64, frames=100, batch=1),
    Case(left=40, right=30, hand_on=True, width=128, frames=140, batch=1, heads=1, dlse=False),
    Case(transposed=True, left=8, right=8),
    Case(transposed=True, width=40),
    Case(offset=1),
    Case(offset=4, width=64),
    Case(amplitude=6.0, scale=0.3),
    Case(amplitude=1e-3),
    Case(scale=-0.4),
    Case(scale=0.0),
]
CASES = [*WINDOWS, *WIDTHS, *LENGTHS, *OPTIONS]
