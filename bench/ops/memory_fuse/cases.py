"""Memory attention joined to the frame, against its rivals and a large matrix product: the cases of its benchmark."""

from __future__ import annotations

import functools

from bench.kit.op import Op
from bench.ops.memory_attention.cases import (
    BOTH,
    DIM,
    FLOAT,
    FORWARD,
    HALF,
    MANY_SLOTS,
    NUMBERS,
    PASSES,
    SLOTS,
    Group,
    comparison,
    on_gpu,
    settings,
)
from bench.ops.memory_attention.setting import Setting
from bench.ops.memory_fuse.rivals import RIVALS

#: On two cores some 15 minutes.
PLAN: dict[str, tuple[Group, ...]] = {
    "cpu": (
        Group("fuse", tuple((4096, DIM, s) for s in (64, 256, 1024, 4096)), BOTH),
        Group("fuse", tuple((n, DIM, SLOTS) for n in (256, 1024, 16384)), FLOAT),
        Group("fuse", ((4096, 384, SLOTS), (1024, DIM, 16384)), FLOAT),
        Group("fuse", ((4096, DIM, 64, 12), (4096, DIM, SLOTS, 12)), FLOAT),
        Group("fuse", ((4096, DIM, 1024, 12), (256, DIM, MANY_SLOTS)), FLOAT, FORWARD),
        Group("projected", ((4096, DIM, SLOTS),), FLOAT),
    ),
    "cuda": (
        Group("fuse", tuple((16384, DIM, s, h) for h in (1, 12) for s in (64, 256, 1024, 4096)), HALF),
        Group("fuse", tuple((n, DIM, SLOTS) for n in (256, 1024, 4096)), HALF),
        Group("fuse", ((16384, 384, SLOTS), (16384, DIM, 16384), (16384, DIM, MANY_SLOTS)), HALF),
        Group("fuse", ((16384, DIM, SLOTS),), FLOAT),
        Group("projected", ((16384, DIM, SLOTS),), HALF),
    ),
}
SMALL = {"fuse": ((256, 384, 64), (256, 384, 64, 12)), "projected": ((256, 384, 64),)}

OP = Op(
    "memory_fuse",
    quick="a small shape of each case, few repeats",
    cases=tuple(SMALL),
    passes=PASSES,
    numbers={name: what for name, what in NUMBERS.items() if name != "best"},
    words={},
    packages=("torch", "triton"),
    rivals=RIVALS,
    settings=functools.partial(settings, plan=PLAN, small=SMALL),
    comparison=comparison,
    gpu=(
        (on_gpu("fuse", "fwd+bwd", 256), True),
        (on_gpu("fuse", "fwd+bwd", 64), True),
        (on_gpu("fuse", "fwd+bwd", 1024), True),
        (on_gpu("fuse", "fwd+bwd", 4096), True),
        (on_gpu("fuse", "fwd", 256), True),
        (on_gpu("fuse", "fwd+bwd", 64, heads=12), False),
        (on_gpu("projected", "fwd+bwd", 256), False),
    ),
    tiny=((Setting("fuse", "cpu", "bfloat16", "fwd+bwd", 16, 32, 16, 1), ()),),
    triton=("fuse", "projected"),
)
