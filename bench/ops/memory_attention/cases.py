"""The memory ops against their rivals, a large matrix product and a copy: the cases of their benchmark."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.kit.accuracy import RIVAL_SLACK, RMS_BOUND, Errors
from bench.kit.clock import Call, CudaClock, WallClock
from bench.kit.comparison import Contest, Entry
from bench.kit.op import Options
from bench.kit.record import COPY, OURS, PRODUCT
from bench.kit.roofline import TRITON_INTERPRETED, copy_entry, input_sets, product_entry
from bench.ops.memory_attention import rivals as memory_rivals
from bench.ops.memory_attention.oracle import Oracle
from bench.ops.memory_attention.plan import CASES, NUMBERS, PASSES, QUICK, SPARSE, WORDS, settings
from bench.ops.memory_attention.rivals import Rival
from bench.ops.memory_attention.setting import (
    Inputs,
    Layer,
    Setting,
    call_of,
    least_work,
    make_inputs,
    moved_bytes,
)

__all__ = ["CASES", "NUMBERS", "PACKAGES", "PASSES", "QUICK", "WORDS", "names", "plan"]

PACKAGES = ("torch", "triton", "faiss-cpu")
#: Seconds a call beyond which not even we are measured.
LONGEST = 10.0


def names(device: str) -> tuple[str, ...]:
    """The rivals that --rivals may choose from."""
    return tuple(rival.name for rival in memory_rivals.RIVALS if device in rival.devices)


def plan(options: Options) -> list[Contest]:
    """The contests, in the order in which they are held."""
    return [contest_of(setting, options.rivals) for setting in settings(options)]


def contest_of(setting: Setting, wanted: tuple[str, ...] = ()) -> Contest:
    """The contest of a setting, against the rivals of those names; () stands for all."""
    rivals = [
        rival
        for rival in memory_rivals.RIVALS
        if setting.case in rival.cases and setting.device in rival.devices and (not wanted or rival.name in wanted)
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
    if (setting.device == "cuda" or TRITON_INTERPRETED) and setting.case not in SPARSE:
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
