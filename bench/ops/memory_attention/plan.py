"""What the memory benchmark measures: unless told otherwise, and by what it is told."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bench.kit.op import Options
from bench.ops.memory_attention.setting import Setting, smallest_first

PASSES = ("fwd", "fwd+bwd")
CASES = ("fuse", "projected", "attention", "topk", "search", "gather")
NUMBERS = {
    "tokens": "frames that read, to combine with the others",
    "dim": "features",
    "slots": "slots of the bank",
    "heads": "heads",
    "best": "slots that a frame reads, where it reads only the best",
}
WORDS: dict[str, tuple[str, ...]] = {}
QUICK = "a small shape of each case, few repeats"

SPARSE = ("topk", "search", "gather")
TOP_K, DIM, SLOTS, MANY_SLOTS = 32, 768, 256, 65536
MIDDLE = {"cpu": 4096, "cuda": 16384}
FORWARD, ALONE, BOTH = ("fwd",), ("float32",), ("float32", "bfloat16")
HALF = ("bfloat16",)


class Group(NamedTuple):
    """Sizes (frames, C, S, heads) of a case that are measured alike. The heads are 1 where they are left out."""

    case: str
    sizes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    passes: tuple[str, ...] = PASSES


#: On two cores about 25 minutes. What is left to ask for would take most of that for one size.
PLAN: dict[str, tuple[Group, ...]] = {
    "cpu": (
        Group("fuse", tuple((4096, DIM, s) for s in (64, 256, 1024, 4096)), BOTH),
        Group("fuse", tuple((n, DIM, SLOTS) for n in (256, 1024, 16384)), ALONE),
        Group("fuse", ((4096, 384, SLOTS), (1024, DIM, 16384)), ALONE),
        Group("fuse", ((4096, DIM, 64, 12), (4096, DIM, SLOTS, 12)), ALONE),
        Group("fuse", ((4096, DIM, 1024, 12), (256, DIM, MANY_SLOTS)), ALONE, FORWARD),
        Group("projected", ((4096, DIM, SLOTS),), ALONE),
        Group("attention", ((4096, DIM, SLOTS), (4096, DIM, 1024)), BOTH),
        Group("attention", ((4096, DIM, 4096), (4096, DIM, SLOTS, 12)), ALONE),
        Group("topk", ((1024, DIM, 16384), (1024, DIM, MANY_SLOTS)), ALONE),
        Group("topk", ((4096, DIM, MANY_SLOTS),), ALONE, FORWARD),
        Group("search", ((1024, DIM, 16384), (1024, DIM, MANY_SLOTS)), ALONE),
        Group("gather", ((4096, DIM, MANY_SLOTS),), BOTH),
    ),
    "cuda": (
        Group("fuse", tuple((16384, DIM, s, h) for h in (1, 12) for s in (64, 256, 1024, 4096)), HALF),
        Group("fuse", tuple((n, DIM, SLOTS) for n in (256, 1024, 4096)), HALF),
        Group("fuse", ((16384, 384, SLOTS), (16384, DIM, 16384), (16384, DIM, MANY_SLOTS)), HALF),
        Group("fuse", ((16384, DIM, SLOTS),), ALONE),
        Group("projected", ((16384, DIM, SLOTS),), HALF),
        Group("attention", tuple((16384, DIM, s, h) for h in (1, 12) for s in (256, 1024, 4096)), HALF),
        Group("topk", ((4096, DIM, MANY_SLOTS), (16384, DIM, 16384), (16384, DIM, MANY_SLOTS)), HALF),
        Group("search", ((16384, DIM, 16384), (16384, DIM, MANY_SLOTS)), HALF),
        Group("gather", ((16384, DIM, 16384), (16384, DIM, MANY_SLOTS)), HALF),
    ),
}
SMALL: dict[str, tuple[tuple[int, ...], ...]] = {
    "fuse": ((256, 384, 64), (256, 384, 64, 12)),
    "projected": ((256, 384, 64),),
    "attention": ((256, 384, 256, 12),),
    "topk": ((256, 384, 4096),),
    "search": ((256, 384, 4096),),
    "gather": ((256, 384, 4096),),
}


def settings(options: Options) -> list[Setting]:
    """What the options ask for, in the order in which it is measured, each once."""
    made: dict[Setting, None] = {}
    for group in _groups(options):
        if group.case not in (options.cases or CASES):
            continue
        best = (options.numbers["best"] or (TOP_K,)) if group.case in SPARSE else (0,)
        dtypes = options.dtypes or group.dtypes
        for size, dtype, direction, k in itertools.product(group.sizes, dtypes, group.passes, best):
            nothing = group.case == "search" and direction != "fwd"  # slots that were found have no gradient
            if direction in (options.passes or PASSES) and not nothing:
                tokens, dim, slots, heads = (*size, 1)[:4]
                made[Setting(group.case, options.device, dtype, direction, tokens, dim, slots, heads, k)] = None
    return smallest_first(list(made))


def _groups(options: Options) -> Iterable[Group]:
    dtypes = HALF if options.device == "cuda" else BOTH
    if any(options.numbers.values()):
        return (Group(case, tuple(_asked_for(case, options)), dtypes) for case in CASES)
    if options.quick:
        return (Group(case, sizes, dtypes) for case, sizes in SMALL.items())
    return PLAN[options.device]


def _asked_for(case: str, options: Options) -> Iterator[tuple[int, ...]]:
    """Every combination of the sizes that were asked for; those that were not are in the middle."""
    wanted = options.numbers
    heads = (1,) if case in SPARSE else wanted["heads"] or (1,)
    for slots in wanted["slots"] or ((MANY_SLOTS,) if case in SPARSE else (SLOTS,)):
        for tokens in wanted["tokens"] or (MIDDLE[options.device],):
            for dim in wanted["dim"] or (DIM,):
                yield from ((tokens, dim, slots, h) for h in heads)
