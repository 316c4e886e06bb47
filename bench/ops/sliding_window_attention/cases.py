"""The sliding-window attention op against copying its bytes and against its rivals: the cases of its benchmark."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.kit.accuracy import RIVAL_SLACK, RMS_BOUND
from bench.kit.clock import Call, Clock, CudaClock, WallClock
from bench.kit.comparison import Contest, Entry
from bench.kit.op import Options
from bench.kit.record import COPY, OURS
from bench.kit.roofline import TRITON_INTERPRETED, copy_entry, input_sets
from bench.ops.sliding_window_attention.oracle import Oracle
from bench.ops.sliding_window_attention.rivals import RIVALS, Attend, Rival, Setting, sdpa_masked

NAME = "sliding_window_attention"
PACKAGES = ("torch", "triton", "local-attention", "natten", "flash-attn", "nvidia-cudnn-frontend")
PASSES = ("fwd", "fwd_recorded", "bwd", "fwd+bwd")
CASES = ("overhead", "sweep")
#: What else may be chosen on the command line: numbers, and words of a list.
NUMBERS = {"frames": "lengths to combine with --window", "window": "windows to combine with --frames"}
WORDS = {"layout": ("bhtd", "bthd")}
QUICK = "three small shapes, few repeats"

WINDOWS = (3, 5, 9, 17, 33, 65, 129, 257)
WINDOW = 5
FRAMES = {"cpu": (300, 1024, 4096, 16384, 65536, 262144), "cuda": (300, 1024, 8192, 65536, 262144)}
MIDDLE = {"cpu": 4096, "cuda": 8192}
BATCH = {"cpu": 1, "cuda": 8}
HEADS, DIM = 12, 64
OVERHEAD_FRAMES = 32

#: Tensors that each pass has to read and to write: q, k, v, out; dout, q, k, v, dq, dk, dv; both.
TENSORS = {"fwd": 4, "fwd_recorded": 4, "bwd": 7, "fwd+bwd": 11}


def names(device: str) -> tuple[str, ...]:
    """The rivals that --rivals may choose from."""
    return tuple(rival.name for rival in RIVALS if device in rival.devices)


def plan(options: Options) -> list[Contest]:
    """The contests, in the order in which they are held."""
    return [
        contest
        for case, make in zip(CASES, (overhead_settings, sweep_settings), strict=True)
        if case in (options.cases or CASES)
        for contest in (contest_of(setting, options.rivals) for setting in make(options))
    ]


def sweep_settings(options: Options) -> list[Setting]:
    """All lengths at one window, all windows at one length, the widest at both ends, some through a transposed view.

    Where lengths or windows were asked for, every combination of them.
    """
    device = options.device
    dtypes = options.dtypes or ("float32", "bfloat16")
    passes = options.passes or ("fwd", "fwd+bwd")
    middle, all_frames = MIDDLE[device], FRAMES[device]
    frames, windows, layouts = options.numbers["frames"], options.numbers["window"], options.words["layout"]
    if frames or windows:
        cells = [(t, w) for t in frames or (middle,) for w in windows or (WINDOW,)]
        shapes = [(t, w, layout) for layout in layouts or ("bhtd",) for t, w in cells]
    elif options.quick:
        shapes = [(300, 5, "bhtd"), (1024, 33, "bhtd"), (1024, 5, "bthd")]
    else:
        cells = [(t, WINDOW) for t in all_frames] + [(middle, w) for w in WINDOWS if w != WINDOW]
        cells += [(all_frames[0], WINDOWS[-1]), (all_frames[-2], WINDOWS[-1])]
        shapes = [(t, w, "bhtd") for t, w in cells] + [(t, WINDOW, "bthd") for t in (middle, all_frames[-2])]
        shapes = [shape for shape in shapes if shape[2] in (layouts or WORDS["layout"])]
    # Short sequences first: what a rival needs for them tells whether to try it on longer ones.
    return [
        Setting("sweep", device, dtype, direction, BATCH[device], HEADS, length, DIM, window, layout)
        for length, window, layout in sorted(shapes, key=lambda shape: shape[:2])
        for dtype in dtypes
        for direction in passes
    ]


def overhead_settings(options: Options) -> list[Setting]:
    """So few frames that a call costs what starting it costs."""
    return [
        Setting("overhead", options.device, dtype, direction, 1, HEADS, OVERHEAD_FRAMES, DIM, WINDOW)
        for dtype in options.dtypes or ("float32",)
        for direction in options.passes or ("fwd", "fwd_recorded", "fwd+bwd")
    ]


def contest_of(setting: Setting, rivals: tuple[str, ...] = ()) -> Contest:
    """The contest of a setting, against the rivals of those names; () stands for all."""
    moved = TENSORS[setting.direction] * setting.tensor_bytes
    chosen = [r for r in RIVALS if setting.device in r.devices and (not rivals or r.name in rivals)]
    ours = _ours(setting)
    facts = {
        "case": setting.case,
        "pass": setting.direction,
        "dtype": setting.dtype,
        "shape": {
            "B": setting.batch,
            "H": setting.heads,
            "T": setting.frames,
            "D": setting.dim,
            "window": setting.window,
        },
        "layout": setting.layout,
    }
    if setting.case == "overhead":
        all_names = (*ours, "sdpa", "sdpa_masked")
        clock: Callable[[], Clock] = functools.partial(WallClock, fill=2e-3, device=setting.device)
        return Contest(facts, all_names, moved, functools.partial(_overhead_entries, setting), clock)
    sets = input_sets(setting.device, 4 * setting.tensor_bytes)
    clock = (
        functools.partial(CudaClock, sets, graphs=setting.direction != "bwd") if setting.device == "cuda" else WallClock
    )
    all_names = (COPY, *ours, *(rival.name for rival in chosen))
    return Contest(facts, all_names, moved, functools.partial(_sweep_entries, setting, chosen, sets), clock)


def _ours(setting: Setting) -> dict[str, str]:
    """Our contestants, and the backend each asks for."""
    if setting.device == "cuda" or TRITON_INTERPRETED:
        return {OURS: "auto", f"{OURS}_triton": "triton"}
    return {OURS: "auto"}


def make_inputs(setting: Setting, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and the output's gradient, in the setting's layout."""
    generator = torch.Generator(setting.device).manual_seed(seed)
    dtype = getattr(torch, setting.dtype)
    made = []
    for name in ("q", "k", "v", "dout"):
        shape = [setting.batch, setting.heads, setting.frames, setting.dim]
        if setting.layout == "bthd":
            shape[1], shape[2] = shape[2], shape[1]
        x = torch.randn(shape, generator=generator, dtype=dtype, device=setting.device)
        x = x.transpose(1, 2) if setting.layout == "bthd" else x
        made.append(x.requires_grad_(name != "dout" and setting.direction != "fwd"))
    return made[0], made[1], made[2], made[3]


def call_of(attend: Attend, inputs: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], direction: str) -> Call:
    """The pass to measure."""
    if direction in ("fwd", "fwd_recorded"):
        return lambda i: (attend(*inputs[i][:3]),)
    if direction == "bwd":
        recorded = [attend(*tensors[:3]) for tensors in inputs]
        return lambda i: torch.autograd.grad(recorded[i], inputs[i][:3], inputs[i][3], retain_graph=True)

    def both(i: int) -> tuple[Tensor, ...]:
        q, k, v, dout = inputs[i]
        out = attend(q, k, v)
        return out, *torch.autograd.grad(out, (q, k, v), dout)

    return both


def _start(
    make: Callable[[Setting], Attend], setting: Setting, inputs: list[tuple[Tensor, Tensor, Tensor, Tensor]]
) -> Callable[[], Call]:
    def start() -> Call:
        return call_of(make(setting), inputs, setting.direction)

    return start


def _attend(backend: str) -> Callable[[Setting], Attend]:
    from vtsum_kernels import sliding_window_attention

    return lambda setting: lambda q, k, v: sliding_window_attention(q, k, v, setting.window, backend=backend)


def _our_entries(setting: Setting, inputs: list[tuple[Tensor, Tensor, Tensor, Tensor]], oracle: Oracle) -> list[Entry]:
    from vtsum_kernels import explain

    entries = []
    for name, backend in _ours(setting).items():
        served = re.search(r"-> (\w+)", explain(NAME, *inputs[0][:3], setting.window, backend=backend))
        entries.append(
            Entry(
                name,
                _start(_attend(backend), setting, inputs),
                functools.partial(oracle.errors, gradients=setting.gradients, border="truncate"),
                RMS_BOUND[setting.dtype],
                limited=False,
                facts={"backend": served[1] if served else backend},
            )
        )
    return entries


def _rival_entry(
    rival: Rival, setting: Setting, inputs: list[tuple[Tensor, Tensor, Tensor, Tensor]], oracle: Oracle
) -> Entry:
    facts: dict[str, Any] = {"border": rival.border} if rival.border != "truncate" else {}
    return Entry(
        rival.name,
        _start(rival.make, setting, inputs),
        functools.partial(oracle.errors, gradients=setting.gradients, border=rival.border),
        RIVAL_SLACK * RMS_BOUND[setting.dtype],
        rival.needs(setting),
        rival.work(setting),
        compiled=rival.compiled,
        facts=facts,
    )


def _sweep_entries(setting: Setting, rivals: list[Rival], sets: int) -> list[Entry]:
    if any(rival.compiled for rival in rivals):
        from torch._functorch import config as functorch

        torch.compiler.reset()  # each compilation is for one shape, and torch gives up after eight of a function
        # A compiled backward may write over what was saved for it, and runs once only then.
        functorch.donated_buffer = setting.direction != "bwd"
    inputs = [make_inputs(setting, seed) for seed in range(sets)]
    oracle = Oracle(*inputs[0], setting.window)
    return [
        copy_entry(setting.device, TENSORS[setting.direction] * setting.tensor_bytes, sets),
        *_our_entries(setting, inputs, oracle),
        *(_rival_entry(rival, setting, inputs, oracle) for rival in rivals),
    ]


def _overhead_entries(setting: Setting) -> list[Entry]:
    inputs = [make_inputs(setting, 0)]
    oracle = Oracle(*inputs[0], setting.window)
    masked = next(rival for rival in RIVALS if rival.make is sdpa_masked)
    # Without a mask SDPA computes something else: a yardstick of what a call costs, not a rival.
    plain = Entry("sdpa", _start(lambda _: F.scaled_dot_product_attention, setting, inputs))
    return [*_our_entries(setting, inputs, oracle), plain, _rival_entry(masked, setting, inputs, oracle)]
