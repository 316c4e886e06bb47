"""Calls that try every option of the op, alone and together, for every family of kernels that takes them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
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
    row_offset: int = 0
    sinks: bool = False
    softcap: float = 0.0
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

    def padding(self) -> Tensor:
        """bool [B, T], strided: stretches of padding longer than a window, at both ends too, between single frames."""
        frames = self.frames
        mask = (torch.rand(frames, self.batch) > 0.3).T
        mask[-1, frames // 8 : frames // 2] = True
        mask[0, : frames // 8] = mask[-1, frames - frames // 8 :] = False
        mask[0, frames // 3 : frames // 3 + max(self.left + self.right + 2, frames // 2)] = False
        return mask

    def call(self, dtype: torch.dtype) -> Call:
        heads, key_heads = self.heads, self.key_heads or self.heads
        q, k, v = self.tensor(heads, dtype), self.tensor(key_heads, dtype), self.tensor(key_heads, dtype)
        options: dict[str, Any] = {}
        if self.bias:
            entries = (2 if self.shift else 1) * (self.left + self.right) + 1
            options["bias"] = torch.randn(heads, entries)
        if self.mask:
            options["mask"] = mask = self.padding()
            # What padded keys hold must not matter.
            k.transpose(1, 2)[~mask], v.transpose(1, 2)[~mask] = torch.nan, torch.nan
        if self.lengths:
            assert sum(self.lengths) == self.frames
            assert self.batch == 1
            options["cu_seqlens"] = torch.tensor([0, *self.lengths]).cumsum(0).int()
        if self.dropout_p:
            options |= {"seed": torch.tensor([SEED]), "dropout_p": self.dropout_p, "row_offset": self.row_offset}
        if self.sinks:
            # One that weighs little, and one that outweighs a key.
            options["sinks"] = torch.linspace(-3.0, 2.0, heads) * max(self.amplitude, 1.0)
        options["softcap"] = self.softcap
        return Call(q, k, v, self.left, self.right, self.dilation, self.shift, self.scale, **options)

    def gradients(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """dout and dlse."""
        dlse = torch.randn(self.batch, self.heads, self.frames) if self.dlse else None
        return self.tensor(self.heads, dtype), dlse


PACKED: dict[str, Any] = {"batch": 1, "frames": 45, "lengths": (7, 0, 1, 20, 0, 17)}

#: Through the dispatcher and every family that takes them.
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
    Case(sinks=True, mask=True),
    Case(sinks=True, left=8, right=8, width=64, mask=True),
    Case(sinks=True, left=20, right=20, hand_on=True, mask=True, heads=3, key_heads=1),
    Case(sinks=True, left=-1, right=0, hand_on=True, dlse=False),
    Case(sinks=True, dropout_p=0.3, bias=True, dilation=2),
    Case(sinks=True, shift=True, hand_on=True),
    Case(**PACKED, sinks=True),
    Case(sinks=True, amplitude=6.0, scale=-0.3),
    Case(softcap=1.5, mask=True),
    Case(softcap=1.5, bias=True, sinks=True, dilation=2, dropout_p=0.3),
    Case(softcap=2.0, left=20, right=20, hand_on=True, heads=4, key_heads=2),
    Case(**PACKED, softcap=1.0, bias=True, shift=True, sinks=True, left=2, right=2),
    Case(softcap=50.0, amplitude=1e-3),
    Case(softcap=0.5, amplitude=6.0),
    Case(transposed=True, left=8, right=8),
    Case(transposed=True, width=40),
    Case(offset=1),
    Case(offset=4, width=64),
    Case(amplitude=6.0, scale=0.3),
    Case(amplitude=1e-3),
    Case(scale=-0.4),
    Case(scale=0.0),
]
FLOAT, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16
#: In float32 and one of the 16-bit dtypes, which differ in loads and stores alone; those have their cases below.
CASES = [
    (case, dtype)
    for number, case in enumerate([*WINDOWS, *WIDTHS, *LENGTHS, *OPTIONS])
    for dtype in (FLOAT, (HALF, BRAIN)[number % 2])
]


def one(left: int, right: int, frames: int, width: int = 32, **options: Any) -> Case:
    """Of one batch entry and head, if not said otherwise."""
    return Case(left, right, width, frames, **{"batch": 1, "heads": 1} | options)


def wide(left: int, right: int, frames: int, width: int = 32, **options: Any) -> Case:
    return one(left, right, frames, width, hand_on=True, **options)


_SCALES: list[dict[str, Any]] = [{"scale": 0.2, "amplitude": 0.05}, {"scale": -0.2, "amplitude": 4.0}, {"scale": 0.0}]
_GROUPED: dict[str, Any] = {"batch": 2, "heads": 4, "key_heads": 2, "transposed": True}
_MANY = (3, 0, 1, 8, 40, 2, 9, 100, 1, 1, 36)
#: What is particular to a family: each of its kernels, the windows and lengths at the edges of its blocks and walks.
OF_FAMILY: dict[str, list[tuple[Case, torch.dtype]]] = {
    "ring": [
        *(
            (one(keys // 2, keys // 2, 45, width, heads=2), dtype)
            for keys, width, dtype in product((3, 5, 7, 9), (32, 64, 128), (FLOAT, HALF, BRAIN))
        ),
        *((one(*sides, 40, 64), BRAIN) for sides in product(range(9), range(9)) if sum(sides) < 9),
        *(
            (one(*sides, frames, 64, batch=2), HALF)
            for sides, frames in product([(1, 1), (0, 8)], (0, 1, 2, 7, 8, 9, 15, 16, 17, 130))
        ),
        # So many rows for the emulated device that a strip has several blocks, and their number suits no strip.
        *((one(*sides, 811, 64, heads=3, transposed=True), BRAIN) for sides in [(2, 2), (4, 4), (8, 0), (1, 2)]),
        (one(2, 2, 811, 64, heads=3), BRAIN),
        *(
            (one(2, 3, 70, 64, batch=2, heads=2, dilation=dilation, mask=True, transposed=dilation % 2 == 0), BRAIN)
            for dilation in (2, 3, 50, 101)
        ),
        *(
            (one(*sides, 300, width, batch=2, heads=2, mask=True), dtype)
            for sides, width, dtype in [
                ((1, 1), 64, BRAIN), ((3, 3), 64, FLOAT), ((4, 4), 32, HALF), ((2, 4), 128, FLOAT), ((1, 0), 64, BRAIN),
                ((4, 4), 64, FLOAT), ((3, 3), 64, BRAIN),
            ]
        ),
        *(
            (one(*sides, sum(_MANY), 64, heads=2, transposed=True, lengths=_MANY, mask=True), dtype)
            for sides, dtype in [
                ((1, 1), BRAIN), ((2, 2), FLOAT), ((3, 3), HALF), ((4, 4), BRAIN), ((8, 0), FLOAT), ((0, 3), HALF),
            ]
        ),
        *((one(2, 2, 50, 64, **_GROUPED, scale=-0.2, amplitude=a), HALF) for a in (0.05, 6.0)),
        *(
            (one(*sides, 150, width, batch=2, heads=3, bias=True, mask=True, transposed=width == 64), dtype)
            for sides, width, dtype in [
                ((2, 2), 64, FLOAT), ((1, 2), 32, BRAIN), ((4, 4), 128, FLOAT), ((2, 2), 64, BRAIN),
            ]
        ),
        (one(1, 1, 70, 64, batch=2, heads=2, bias=True, dilation=3), FLOAT),
        *(
            (one(*sides, 150, width, batch=2, heads=3, sinks=True, mask=True, bias=width == 32), dtype)
            for sides, width, dtype in [((2, 2), 64, BRAIN), ((1, 2), 32, FLOAT), ((4, 4), 128, HALF)]
        ),
        (one(2, 1, 90, 64, heads=2, bias=True, lengths=(20, 1, 69)), FLOAT),
        # Numbers of frames that wrap round, and rows before the first one and after the last.
        *(
            (one(keys // 2, keys // 2, 45, width, heads=2, dropout_p=0.3, row_offset=2**32 - 20), dtype)
            for keys, width, dtype in [
                (3, 32, HALF), (5, 64, BRAIN), (5, 128, FLOAT), (7, 32, FLOAT), (9, 128, BRAIN), (9, 64, FLOAT),
            ]
        ),
        (one(3, 1, 260, 64, heads=3, transposed=True, dropout_p=0.5), BRAIN),
        (one(2, 3, 70, 64, batch=2, heads=2, dilation=3, mask=True, dropout_p=0.2, row_offset=7), BRAIN),
        (one(2, 2, 150, 64, batch=2, heads=3, bias=True, mask=True, sinks=True, dropout_p=0.4), FLOAT),
        (one(1, 3, sum(_MANY), 64, heads=2, transposed=True, lengths=_MANY, bias=True, dropout_p=0.3), BRAIN),
        (one(2, 2, 50, 64, **_GROUPED, scale=-0.2, dropout_p=0.9), HALF),
    ],
    "strip": [
        *((one(s, s, 75, width, heads=2), dtype) for s, width, dtype in product((8, 16), (32, 64, 128), (HALF, BRAIN))),
        *(
            (one(left, right, 90, dlse=False), BRAIN)
            for left, right in [(0, 0), (4, 4), (16, 0), (0, 16), (32, 0), (0, 32), (3, 20), (17, 0)]
        ),
        *(
            (one(*sides, frames), HALF)
            for sides, frames in product([(6, 5), (16, 16)], (0, 1, 2, 15, 16, 17, 33, 300))
        ),
        *((Case(left=side, right=side, width=64, frames=130, mask=True), BRAIN) for side in (5, 16)),
        *((Case(left=side, right=side, width=64, frames=130, mask=True, sinks=True), HALF) for side in (5, 16)),
        *((one(10, 12, 50, 64, **_GROUPED, **scale), HALF) for scale in _SCALES),
        *(
            (one(s, s, 75, width, heads=2, mask=width == 64, dropout_p=0.3, row_offset=2**32 - 20), dtype)
            for s, width, dtype in [(8, 32, BRAIN), (8, 64, HALF), (16, 64, BRAIN), (16, 128, HALF)]
        ),
        (one(20, 5, 130, sinks=True, dropout_p=0.5, **_GROUPED), BRAIN),
    ],
    "tile": [
        *((wide(40, 33, 210, width), dtype) for width, dtype in product((32, 64, 128), (HALF, BRAIN))),
        # Width 128 has blocks of another size in the backward.
        *(
            (wide(*sides, 200, width, dlse=False), BRAIN)
            for width, sides in product(
                (32, 128),
                [(17, 17), (64, 64), (100, 0), (0, 70), (3, 130), (-1, 0), (0, -1), (-1, -1), (500, 500)],
            )
        ),
        *(
            (wide(*sides, frames), HALF)
            for sides, frames in product([(20, 25), (-1, 40)], (1, 2, 16, 63, 64, 65, 129))
        ),
        *(
            (wide(*sides, 250, width, batch=2, mask=True), BRAIN)
            for sides, width in product([(20, 20), (70, 60), (-1, 0)], (64, 128))
        ),
        *((wide(30, 30, 80, **_GROUPED, **scale), HALF) for scale in _SCALES),
        *((wide(30, 30, 80, sinks=True, **_GROUPED, **scale), HALF) for scale in _SCALES),
        *((wide(127, 0, 250, width, heads=2, sinks=True, mask=True), BRAIN) for width in (64, 128)),
        *(
            (wide(*sides, 150, width, mask=width == 64, dropout_p=0.3, row_offset=2**32 - 20), dtype)
            for sides, width, dtype in [((20, 25), 32, HALF), ((-1, 40), 64, BRAIN), ((60, 0), 128, HALF)]
        ),
        (wide(30, 30, 80, sinks=True, dropout_p=0.5, **_GROUPED), BRAIN),
    ],
    "general": [
        (case, dtype)
        for case in (
            Case(**PACKED, bias=True, dropout_p=0.3, row_offset=2**32 - 20),
            Case(shift=True, bias=True, dilation=2, width=16),
        )
        for dtype in (FLOAT, HALF, BRAIN)
    ],
}  # fmt: skip
