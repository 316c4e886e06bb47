"""Sliding-window attention against copying its bytes and against its rivals: the cases of its benchmark."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F

from bench.kit.accuracy import RMS_BOUND
from bench.kit.clock import Call, Clock, CudaClock, WallClock
from bench.kit.comparison import Comparison, Entry
from bench.kit.kernels import served
from bench.kit.op import Op, Options, Rival, entry_of
from bench.kit.record import COPY, OURS
from bench.kit.roofline import TRITON_INTERPRETED, copy_entry, input_sets
from bench.ops.sliding_window_attention.rivals import RIVALS, sdpa_masked
from bench.ops.sliding_window_attention.setting import Attend, Check, Inputs, Setting, call_of, make_inputs

NAME = "sliding_window_attention"
CASES = ("overhead", "sweep")
LAYOUTS = ("bhtd", "bthd")
WINDOWS = (3, 5, 9, 17, 33, 65, 129, 257)
WINDOW = 5
FRAMES = {"cpu": (300, 1024, 4096, 16384, 65536, 262144), "cuda": (300, 1024, 8192, 65536, 262144)}
MIDDLE = {"cpu": 4096, "cuda": 8192}
BATCH = {"cpu": 1, "cuda": 8}
HEADS, DIM = 12, 64
OVERHEAD_FRAMES = 32


def settings(options: Options) -> list[Setting]:
    return [
        setting
        for case, make in zip(CASES, (overhead_settings, sweep_settings), strict=True)
        if case in (options.cases or CASES)
        for setting in make(options)
    ]


def sweep_settings(options: Options) -> list[Setting]:
    """All lengths at one window, all windows at one length, the widest at both ends, some through a transposed view.

    Where lengths or windows were asked for, every combination of them.
    """
    device = options.device
    dtypes = options.dtypes or ("float32", "bfloat16")
    passes = options.passes or ("fwd", "fwd+bwd")
    middle, all_frames = MIDDLE[device], FRAMES[device]
    frames, windows = (options.numbers.get(name, ()) for name in ("frames", "window"))
    layouts = options.words.get("layout", ())
    if frames or windows:
        cells = [(t, w) for t in frames or (middle,) for w in windows or (WINDOW,)]
        shapes = [(t, w, layout) for layout in layouts or ("bhtd",) for t, w in cells]
    elif options.quick:
        shapes = [(300, 5, "bhtd"), (1024, 33, "bhtd"), (1024, 5, "bthd")]
    else:
        cells = [(t, WINDOW) for t in all_frames] + [(middle, w) for w in WINDOWS if w != WINDOW]
        cells += [(all_frames[0], WINDOWS[-1]), (all_frames[-2], WINDOWS[-1])]
        shapes = [(t, w, "bhtd") for t, w in cells] + [(t, WINDOW, "bthd") for t in (middle, all_frames[-2])]
        shapes = [shape for shape in shapes if shape[2] in (layouts or LAYOUTS)]
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


def comparison(setting: Setting, rivals: Sequence[Rival] = ()) -> Comparison:
    facts = {
        "case": setting.case,
        "pass": setting.direction,
        "dtype": setting.dtype,
        "shape": setting.shape,
        "layout": setting.layout,
    }
    clock: Callable[[], Clock] = WallClock
    if setting.case == "overhead":
        names: tuple[str, ...] = (*_ours(setting), "sdpa", "sdpa_masked")
        clock = functools.partial(WallClock, fill=2e-3, device=setting.device)
        return Comparison(facts, names, setting.moved_bytes, functools.partial(_overhead_entries, setting), clock)
    sets = input_sets(setting.device, 4 * setting.tensor_bytes)
    if setting.device == "cuda":
        clock = functools.partial(CudaClock, sets, graphs=setting.direction != "bwd")
    names = (COPY, *_ours(setting), *(rival.name for rival in rivals))
    return Comparison(facts, names, setting.moved_bytes, functools.partial(_entries, setting, rivals, sets), clock)


def _ours(setting: Setting) -> dict[str, str]:
    """Our implementations, and the backend each asks for."""
    if setting.device == "cuda" or TRITON_INTERPRETED:
        return {OURS: "auto", f"{OURS}_triton": "triton"}
    return {OURS: "auto"}


def _start(make: Callable[[Setting], Attend], setting: Setting, inputs: list[Inputs]) -> Callable[[], Call]:
    return lambda: call_of(make(setting), inputs, setting.direction)


def _attend(backend: str) -> Callable[[Setting], Attend]:
    from vtsum_kernels import sliding_window_attention

    return lambda setting: lambda q, k, v: sliding_window_attention(q, k, v, setting.window, backend=backend)


def _our_entries(setting: Setting, inputs: list[Inputs], check: Check) -> list[Entry]:
    return [
        Entry(
            name,
            _start(_attend(backend), setting, inputs),
            functools.partial(check.errors, gradients=setting.gradients),
            RMS_BOUND[setting.dtype],
            limited=False,
            facts={"backend": served(NAME, backend, *inputs[0][:3], setting.window)},
        )
        for name, backend in _ours(setting).items()
    ]


def _rival_entry(rival: Rival, setting: Setting, inputs: list[Inputs], check: Check) -> Entry:
    shift = rival.facts.get("border") == "shift"
    errors = functools.partial(check.errors, gradients=setting.gradients, shift=shift)
    return entry_of(rival, setting, _start(rival.make, setting, inputs), errors)


def _entries(setting: Setting, rivals: Sequence[Rival], sets: int) -> list[Entry]:
    if any(rival.compiled for rival in rivals):
        import torch
        from torch._functorch import config as functorch

        torch.compiler.reset()  # each compilation is for one shape, and torch gives up after eight of a function
        # A compiled backward may write over what was saved for it, and runs once only then.
        functorch.donated_buffer = setting.direction != "bwd"
    inputs = [make_inputs(setting, seed) for seed in range(sets)]
    check = Check(inputs[0], setting.window)
    return [
        copy_entry(setting.device, setting.moved_bytes, sets),
        *_our_entries(setting, inputs, check),
        *(_rival_entry(rival, setting, inputs, check) for rival in rivals),
    ]


def _overhead_entries(setting: Setting) -> list[Entry]:
    inputs = [make_inputs(setting)]
    check = Check(inputs[0], setting.window)
    masked = next(rival for rival in RIVALS if rival.make is sdpa_masked)
    # Without a mask SDPA computes something else: what a call costs, not a rival.
    plain = Entry("sdpa", _start(lambda _: F.scaled_dot_product_attention, setting, inputs))
    return [*_our_entries(setting, inputs, check), plain, _rival_entry(masked, setting, inputs, check)]


def _gpu(direction: str, frames: int = 8192, window: int = WINDOW, **others: Any) -> Setting:
    facts = {"case": "sweep", "dtype": "bfloat16", "batch": 8, "heads": HEADS, "dim": DIM, "device": "cuda", **others}
    return Setting(direction=direction, frames=frames, window=window, **facts)


BOTH = "fwd+bwd"
_CALL: dict[str, Any] = {"frames": OVERHEAD_FRAMES, "case": "overhead", "batch": 1, "dtype": "float32"}
GPU = (
    (_gpu("fwd"), True),
    (_gpu(BOTH), True),
    (_gpu("bwd"), False),
    (_gpu("fwd", window=33), True),
    (_gpu(BOTH, window=33), True),
    (_gpu("fwd", window=129), True),
    (_gpu(BOTH, window=129), True),
    (_gpu("fwd", window=17), False),
    (_gpu(BOTH, window=17), False),
    (_gpu("fwd", frames=300, batch=1), False),
    (_gpu("fwd", **_CALL), False),
    (_gpu(BOTH, **_CALL), False),
    (_gpu(BOTH, layout="bthd"), False),
    (_gpu(BOTH, dtype="float32"), False),
    (_gpu("fwd", window=257), False),
    (_gpu(BOTH, window=257), False),
    (_gpu("fwd", frames=65536), False),
    (_gpu(BOTH, frames=65536), False),
    (_gpu(BOTH, window=9), False),
)
_FEW = ("sdpa_masked", "unfold")
TINY = tuple((Setting("sweep", "cpu", "bfloat16", direction, 1, 1, 24, 16, 5), _FEW) for direction in ("fwd", BOTH))

OP = Op(
    NAME,
    quick="three small shapes, few repeats",
    cases=CASES,
    passes=("fwd", "fwd_recorded", "bwd", BOTH),
    numbers={"frames": "lengths to combine with --window", "window": "windows to combine with --frames"},
    words={"layout": LAYOUTS},
    packages=("torch", "triton", "local-attention", "natten", "flash-attn", "nvidia-cudnn-frontend"),
    rivals=RIVALS,
    settings=settings,
    comparison=comparison,
    gpu=GPU,
    tiny=TINY,
    triton=("sweep",),
)
