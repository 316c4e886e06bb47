"""Memory attention against its rivals, a large matrix product and a copy: the cases of its benchmark.

`memory_fuse` is measured in the same way, of other cases against other rivals.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.kit.accuracy import RMS_BOUND
from bench.kit.clock import Call, CudaClock, WallClock
from bench.kit.comparison import Comparison, Entry
from bench.kit.kernels import served
from bench.kit.op import Op, Options, Rival, entry_of
from bench.kit.record import COPY, OURS, PRODUCT
from bench.kit.roofline import TRITON_INTERPRETED, copy_entry, input_sets, product_entry, product_size
from bench.ops.memory_attention.check import Check
from bench.ops.memory_attention.rivals import RIVALS
from bench.ops.memory_attention.setting import (
    Inputs,
    Layer,
    Setting,
    call_of,
    least_work,
    make_inputs,
    moved_bytes,
    smallest_first,
)

#: Seconds a call beyond which not even we are measured.
LONGEST = 10.0
SPARSE = ("topk", "search", "gather")
TOP_K, DIM, SLOTS, MANY_SLOTS = 32, 768, 256, 65536
MIDDLE = {"cpu": 4096, "cuda": 16384}
FORWARD, FLOAT, BOTH, HALF = ("fwd",), ("float32",), ("float32", "bfloat16"), ("bfloat16",)
PASSES = ("fwd", "fwd+bwd")
NUMBERS = {
    "tokens": "frames that read, to combine with the others",
    "dim": "features",
    "slots": "slots of the bank",
    "heads": "heads",
    "best": "slots that a frame reads, where it reads only the best",
}


class Group(NamedTuple):
    """Sizes (frames, C, S, heads) of a case that are measured alike. The heads are 1 where they are left out."""

    case: str
    sizes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    passes: tuple[str, ...] = PASSES


#: On two cores some ten minutes. What is left to ask for would take most of that for one size.
PLAN: dict[str, tuple[Group, ...]] = {
    "cpu": (
        Group("attention", ((4096, DIM, SLOTS), (4096, DIM, 1024)), BOTH),
        Group("attention", ((4096, DIM, 4096), (4096, DIM, SLOTS, 12)), FLOAT),
        Group("topk", ((1024, DIM, 16384), (1024, DIM, MANY_SLOTS)), FLOAT),
        Group("topk", ((4096, DIM, MANY_SLOTS),), FLOAT, FORWARD),
        Group("search", ((1024, DIM, 16384), (1024, DIM, MANY_SLOTS)), FLOAT),
        Group("gather", ((4096, DIM, MANY_SLOTS),), BOTH),
    ),
    "cuda": (
        Group("attention", tuple((16384, DIM, s, h) for h in (1, 12) for s in (256, 1024, 4096)), HALF),
        Group("topk", ((4096, DIM, MANY_SLOTS), (16384, DIM, 16384), (16384, DIM, MANY_SLOTS)), HALF),
        Group("search", ((16384, DIM, 16384), (16384, DIM, MANY_SLOTS)), HALF),
        Group("gather", ((16384, DIM, 16384), (16384, DIM, MANY_SLOTS)), HALF),
    ),
}
SMALL = {
    "attention": ((256, 384, 256, 12),),
    "topk": ((256, 384, 4096),),
    "search": ((256, 384, 4096),),
    "gather": ((256, 384, 4096),),
}


def settings(
    options: Options,
    plan: Mapping[str, Sequence[Group]] = PLAN,
    small: Mapping[str, tuple[tuple[int, ...], ...]] = SMALL,
) -> list[Setting]:
    """What the options ask for, each once: a plan, small shapes, or every combination of the sizes asked for."""
    groups: Sequence[Group] = plan[options.device]
    dtypes = HALF if options.device == "cuda" else BOTH
    if any(options.numbers.values()):
        groups = [Group(case, tuple(_asked_for(case, options)), dtypes) for case in small]
    elif options.quick:
        groups = [Group(case, sizes, dtypes) for case, sizes in small.items()]
    made: dict[Setting, None] = {}
    for group in groups:
        if group.case not in (options.cases or small):
            continue
        best = (options.numbers.get("best") or (TOP_K,)) if group.case in SPARSE else (0,)
        chosen = options.dtypes or group.dtypes
        for size, dtype, direction, k in itertools.product(group.sizes, chosen, group.passes, best):
            nothing = group.case == "search" and direction != "fwd"  # slots that were found have no gradient
            if direction in (options.passes or PASSES) and not nothing:
                tokens, dim, slots, heads = (*size, 1)[:4]
                made[Setting(group.case, options.device, dtype, direction, tokens, dim, slots, heads, k)] = None
    return smallest_first(list(made))


def _asked_for(case: str, options: Options) -> Iterator[tuple[int, ...]]:
    """Those that were not asked for are in the middle."""
    wanted = options.numbers
    heads = (1,) if case in SPARSE else wanted.get("heads") or (1,)
    many = (MANY_SLOTS,) if case in SPARSE else (SLOTS,)
    tokens, dims = wanted.get("tokens") or (MIDDLE[options.device],), wanted.get("dim") or (DIM,)
    return itertools.product(tokens, dims, wanted.get("slots") or many, heads)


def comparison(setting: Setting, rivals: Sequence[Rival] = ()) -> Comparison:
    facts = {"case": setting.case, "pass": setting.direction, "dtype": setting.dtype, "shape": setting.shape}
    roofline = COPY if setting.case == "gather" else PRODUCT
    names = (roofline, *_ours(setting), *(rival.name for rival in rivals))
    sets = input_sets(setting.device, 2 * setting.tokens * setting.dim * setting.element_bytes)
    clock = functools.partial(CudaClock, sets) if setting.device == "cuda" else WallClock
    entries = functools.partial(_entries, setting, rivals, sets)
    return Comparison(facts, names, moved_bytes(setting), entries, clock, least_work(setting))


def _ours(setting: Setting) -> dict[str, tuple[Setting, str]]:
    """Our implementations: what each computes, and the backend it asks for."""
    found = {OURS: (setting, "auto")}
    if (setting.device == "cuda" or TRITON_INTERPRETED) and setting.case not in SPARSE:
        found[f"{OURS}_triton"] = (setting, "triton")
    if setting.case == "topk":
        found[f"{OURS}_product_keys"] = (setting.as_case("product_keys"), "auto")
    return found


def asked(setting: Setting, x: Tensor, p: Mapping[str, Any]) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """The public op, its arguments and its options, as a user of the package calls it."""
    options: dict[str, Any] = {"num_heads": setting.heads, "scale": p["scale"]}
    if setting.case == "product_keys":
        return "memory_attention", (x, (p["first"], p["second"]), p["values"]), {**options, "top_k": setting.k}
    options["normalize"] = setting.cosine
    if setting.case in ("fuse", "projected"):
        options |= {"query_weight": p.get("query_weight"), "fold": p.get("fold", "auto")}
        return "memory_fuse", (x, p["bank"], None, p["join_weight"], p["join_bias"]), options
    if setting.case == "topk":
        options["top_k"] = setting.k
    return "memory_attention", (x, p["bank"]), options


def our_layer(setting: Setting, backend: str) -> Layer:
    import vtsum_kernels

    if setting.case in ("search", "gather"):
        return _our_op(setting)

    def prepare(**p: Any) -> tuple[dict[str, Any]]:
        if setting.case in ("fuse", "projected") and not setting.gradients:
            options: dict[str, Any] = {
                "query_weight": p.get("query_weight"),
                "num_heads": setting.heads,
                "normalize": setting.cosine,
            }
            p["fold"] = vtsum_kernels.fold_bank(p["bank"], None, p["join_weight"], **options)
        return (p,)

    def compute(x: Tensor, p: dict[str, Any]) -> Any:
        name, arguments, options = asked(setting, x, p)
        return getattr(vtsum_kernels, name)(*arguments, backend=backend, **options)

    return Layer(prepare, compute)


def _our_op(setting: Setting) -> Layer:
    """The search and the gather through the registered ops, whose groups and heads are one each."""
    ops = torch.ops.vtsum_kernels
    if setting.case == "gather":
        return Layer(
            lambda table, index: (table[None, None], index[None, None]),
            lambda weights, table, index: ops.memory_gather(weights[None, None], index, table)[0, :, 0],
        )

    def compute(x: Tensor, bank: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        scores, index = ops.memory_topk(x[:, :, None], bank[None, None], factor, None, setting.k)
        return scores[0, 0], index[0, 0]

    def prepare(bank: Tensor) -> tuple[Tensor, ...]:
        return bank, bank.new_ones((1, 1, setting.tokens), dtype=torch.promote_types(bank.dtype, torch.float32))

    return Layer(prepare, compute)


def _served(setting: Setting, inputs: Inputs, backend: str) -> str:
    if setting.case in ("search", "gather"):
        return "cpp" if setting.device == "cpu" else "cuda"
    name, arguments, options = asked(setting, inputs.x[0], inputs.parameters)
    return served(name, backend, *arguments, **options)


def _entries(setting: Setting, rivals: Sequence[Rival], sets: int) -> list[Entry]:
    if any(rival.compiled for rival in rivals):
        torch.compiler.reset()  # each compilation is for one shape, and torch gives up after eight of a function

    @functools.cache
    def inputs_of(what: Setting) -> Inputs:
        return make_inputs(what, sets)

    @functools.cache
    def check(what: Setting) -> Check:
        return Check(what, inputs_of(what))

    def start(make: Callable[[], Layer], what: Setting, compiled: bool = False) -> Callable[[], Call]:
        return lambda: call_of(make(), what, inputs_of(what), compiled)

    if setting.case == "gather":
        entries = [copy_entry(setting.device, moved_bytes(setting), sets)]
    else:
        size = product_size(setting.device, least_work(setting))
        entries = [product_entry(setting.device, setting.dtype, size)]
    for name, (what, backend) in _ours(setting).items():
        entries.append(
            Entry(
                name,
                start(functools.partial(our_layer, what, backend), what),
                check(what).errors,
                RMS_BOUND[setting.dtype],
                limited=False,
                longest=LONGEST,
                facts={"backend": _served(what, inputs_of(what), backend)},
            )
        )
    for rival in rivals:
        make = functools.partial(rival.make, setting)
        entries.append(entry_of(rival, setting, start(make, setting, rival.compiled), check(setting).errors, LONGEST))
    return entries


def on_gpu(case: str, direction: str, slots: int, heads: int = 1, tokens: int = 16384) -> Setting:
    """A shape of the GPU check."""
    k = TOP_K if case in SPARSE else 0
    return Setting(case, "cuda", "bfloat16", direction, tokens, DIM, slots, heads, k)


OP = Op(
    "memory_attention",
    quick="a small shape of each case, few repeats",
    cases=tuple(SMALL),
    passes=PASSES,
    numbers=NUMBERS,
    words={},
    packages=("torch", "triton", "faiss-cpu"),
    rivals=RIVALS,
    settings=settings,
    comparison=comparison,
    gpu=(
        (on_gpu("gather", "fwd", MANY_SLOTS), False),
        (on_gpu("topk", "fwd", MANY_SLOTS, tokens=4096), False),
        (on_gpu("attention", "fwd+bwd", 1024, heads=12), True),
        (on_gpu("topk", "fwd+bwd", MANY_SLOTS, tokens=4096), False),
        (on_gpu("gather", "fwd+bwd", MANY_SLOTS), False),
        (on_gpu("search", "fwd", MANY_SLOTS), False),
    ),
    tiny=((Setting("gather", "cpu", "bfloat16", "fwd", 64, 32, 64, 1, 4), ()),),
    triton=("attention",),
)
