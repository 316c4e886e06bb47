"""The memory ops against their rivals, a large matrix product and a copy: the cases of their benchmark."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from bench import memory_rivals
from bench.accuracy import RIVAL_SLACK, RMS_BOUND, Errors
from bench.clock import Call, CudaClock, WallClock
from bench.contest import Contest, Entry
from bench.memory_oracle import Oracle
from bench.memory_rivals import Rival
from bench.memory_setting import (
    Inputs,
    Layer,
    Setting,
    call_of,
    least_work,
    make_inputs,
    moved_bytes,
    smallest_first,
)
from bench.options import Options
from bench.record import COPY, OURS, PRODUCT
from bench.yardsticks import copy_entry, input_sets, product_entry

PACKAGES = ("torch", "triton", "faiss-cpu")
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
TOP_K, DIM = 32, 768
MIDDLE = {"cpu": 4096, "cuda": 16384}
#: Seconds a call beyond which not even we are measured.
LONGEST = 10.0
#: (tokens, C, S, heads) of the dense cases, and (tokens, C, S) of the sparse ones, that are measured unless others are
#: asked for: first those at which everything is, in two dtypes and both passes; then more, in the first dtype.
FULL: dict[str, dict[str, tuple[tuple[int, ...], ...]]] = {
    "cpu": {
        "fuse": tuple((4096, DIM, s, 1) for s in (64, 256, 1024, 4096)),
        "attention": ((4096, DIM, 256, 1), (4096, DIM, 1024, 1)),
        "gather": ((4096, DIM, 65536),),
    },
    "cuda": {
        "fuse": tuple((16384, DIM, s, h) for h in (1, 12) for s in (64, 256, 1024, 4096)),
        "projected": ((16384, DIM, 256, 1),),
        "attention": tuple((16384, DIM, s, h) for h in (1, 12) for s in (256, 1024, 4096)),
        "topk": ((16384, DIM, 16384), (16384, DIM, 65536), (4096, DIM, 65536)),
        "search": ((16384, DIM, 16384), (16384, DIM, 65536)),
        "gather": ((16384, DIM, 16384), (16384, DIM, 65536)),
    },
}
MORE: dict[str, dict[str, tuple[tuple[int, ...], ...]]] = {
    "cpu": {
        "fuse": (
            *((n, DIM, 256, 1) for n in (256, 1024, 16384)),
            (1024, DIM, 16384, 1),
            (256, DIM, 65536, 1),
            (4096, 384, 256, 1),
            *((4096, DIM, s, 12) for s in (64, 256, 1024)),
        ),
        "projected": ((4096, DIM, 256, 1),),
        "attention": ((4096, DIM, 4096, 1), (4096, DIM, 256, 12)),
        "topk": ((1024, DIM, 16384), (1024, DIM, 65536), (4096, DIM, 65536)),
        "search": ((1024, DIM, 16384), (1024, DIM, 65536)),
    },
    "cuda": {
        "fuse": (*((n, DIM, 256, 1) for n in (256, 1024, 4096)), (16384, DIM, 16384, 1), (16384, 384, 256, 1)),
    },
}
DTYPES = {"cpu": ("float32", "bfloat16"), "cuda": ("bfloat16", "float32")}
QUICK_SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "fuse": ((256, 384, 64, 1), (256, 384, 64, 12)),
    "projected": ((256, 384, 64, 1),),
    "attention": ((256, 384, 256, 12),),
    "topk": ((256, 384, 4096),),
    "search": ((256, 384, 4096),),
    "gather": ((256, 384, 4096),),
}


def names(device: str) -> tuple[str, ...]:
    """The rivals that --rivals may choose from."""
    return tuple(rival.name for rival in memory_rivals.RIVALS if device in rival.devices)


def plan(options: Options) -> list[Contest]:
    """The contests, in the order in which they are held."""
    return [_contest(setting, options) for setting in settings(options)]


def settings(options: Options) -> list[Setting]:
    device = options.device
    first, *others = options.dtypes or DTYPES[device]
    made: dict[Setting, None] = {}
    for case in options.cases or CASES:
        if any(options.numbers.values()):
            chosen = [(shape, (first, *others)) for shape in _asked_for(case, options)]
        elif options.quick:
            chosen = [(shape, (first, *others)) for shape in QUICK_SHAPES[case]]
        else:
            # A dtype that was asked for is measured everywhere.
            more = (first, *others) if options.dtypes else (first,)
            chosen = [(shape, (first, *others)) for shape in FULL[device].get(case, ())]
            chosen += [(shape, more) for shape in MORE[device].get(case, ())]
        for shape, dtypes in chosen:
            tokens, dim, slots, heads = (*shape, 1)[:4]
            k = (options.numbers["best"] or (TOP_K,)) if case in SPARSE else (0,)
            for dtype in dtypes:
                for direction in options.passes or PASSES:
                    if (case, direction) != ("search", "fwd+bwd"):  # slots that were found have no gradient
                        for count in k:
                            made[Setting(case, device, dtype, direction, tokens, dim, slots, heads, count)] = None
    return smallest_first(list(made))


def _asked_for(case: str, options: Options) -> Iterable[tuple[int, ...]]:
    """Every combination of the sizes that were asked for; those that were not are in the middle."""
    wanted = options.numbers
    heads = (1,) if case in SPARSE else wanted["heads"] or (1,)
    for slots in wanted["slots"] or ((65536,) if case in SPARSE else (256,)):
        for tokens in wanted["tokens"] or (MIDDLE[options.device],):
            for dim in wanted["dim"] or (DIM,):
                yield from ((tokens, dim, slots, h) for h in heads)


def _contest(setting: Setting, options: Options) -> Contest:
    rivals = [
        rival
        for rival in memory_rivals.RIVALS
        if setting.case in rival.cases
        and setting.device in rival.devices
        and (not options.rivals or rival.name in options.rivals)
    ]
    facts = {"case": setting.case, "pass": setting.direction, "dtype": setting.dtype, "shape": setting.shape}
    yardstick = COPY if setting.case == "gather" else PRODUCT
    all_names = (yardstick, *_ours(setting), *(rival.name for rival in rivals))
    sets = input_sets(setting.device, 2 * setting.tokens * setting.dim * setting.element_bytes)
    clock = functools.partial(CudaClock, sets) if setting.device == "cuda" else WallClock
    entries = functools.partial(_entries, setting, rivals, sets)
    return Contest(facts, all_names, moved_bytes(setting), entries, clock, least_work(setting))


def _ours(setting: Setting) -> dict[str, tuple[Setting, str]]:
    """Our contestants: what each computes, and the backend it asks for."""
    found = {OURS: (setting, "auto")}
    if setting.device == "cuda" and setting.case not in ("search", "gather"):
        found[f"{OURS}_triton"] = (setting, "triton")
    if setting.case == "topk":
        found[f"{OURS}_product_keys"] = (setting.as_case("product_keys"), "auto")
    return found


def asked(
    setting: Setting, x: Tensor, p: dict[str, Tensor], backend: str
) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """The public op, its arguments and its options, as a user of the package calls it."""
    options: dict[str, Any] = {"num_heads": setting.heads, "scale": p["scale"], "backend": backend}
    if setting.case == "product_keys":
        return "memory_attention", (x, (p["first"], p["second"]), p["values"]), {**options, "top_k": setting.k}
    options["normalize"] = setting.cosine
    if setting.case in ("fuse", "projected"):
        options["query_weight"] = p.get("query_weight")
        return "memory_fuse", (x, p["bank"], None, p["join_weight"], p["join_bias"]), options
    if setting.case == "topk":
        options["top_k"] = setting.k
    return "memory_attention", (x, p["bank"]), options


def our_layer(setting: Setting, backend: str) -> Layer:
    import vtsum_kernels

    if setting.case in ("search", "gather"):
        return _our_op(setting)

    def compute(x: Tensor, p: dict[str, Tensor]) -> Any:
        name, arguments, options = asked(setting, x, p, backend)
        return getattr(vtsum_kernels, name)(*arguments, **options)

    return Layer(lambda **parameters: (parameters,), compute)


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
    """The backend that serves the call."""
    import vtsum_kernels

    if setting.case in ("search", "gather"):
        return "cpp" if setting.device == "cpu" else "cuda"
    name, arguments, options = asked(setting, inputs.x[0], inputs.parameters, backend)
    try:
        found = re.search(r"-> (\w+)", vtsum_kernels.explain(name, *arguments, **options))
    except (TypeError, ValueError, NotImplementedError):  # the call itself will say why it cannot run
        return backend
    return found[1] if found else backend


def _entries(setting: Setting, rivals: list[Rival], sets: int) -> list[Entry]:
    if any(rival.compiled for rival in rivals):
        torch.compiler.reset()  # each compilation is for one shape, and torch gives up after eight of a function
    inputs = {setting.case: make_inputs(setting, sets)}
    oracles: dict[str, Oracle] = {}

    def check(what: Setting) -> Callable[[tuple[Tensor, ...]], Errors]:
        if what.case not in oracles:
            oracles[what.case] = Oracle(what, inputs[what.case])
        return oracles[what.case].errors

    if setting.case == "gather":
        entries = [copy_entry(setting.device, moved_bytes(setting), sets)]
    else:
        entries = [product_entry(setting.device, setting.dtype)]
    for name, (what, backend) in _ours(setting).items():
        if what.case not in inputs:
            inputs[what.case] = make_inputs(what, sets)
        entries.append(
            Entry(
                name,
                _start(functools.partial(our_layer, what, backend), what, inputs[what.case]),
                check(what),
                RMS_BOUND[setting.dtype],
                work=float(least_work(what) or moved_bytes(what)),
                limited=False,
                longest=LONGEST,
                facts={"backend": _served(what, inputs[what.case], backend)},
            )
        )
    for rival in rivals:
        entries.append(
            Entry(
                rival.name,
                _start(functools.partial(rival.make, setting), setting, inputs[setting.case], rival.compiled),
                check(setting),
                RIVAL_SLACK * RMS_BOUND[setting.dtype],
                rival.needs(setting),
                rival.work(setting),
                longest=LONGEST,
                compiled=rival.compiled,
            )
        )
    return entries


def _start(make: Callable[[], Layer], setting: Setting, inputs: Inputs, compiled: bool = False) -> Callable[[], Call]:
    return lambda: call_of(make(), setting, inputs, compiled)
