"""Searches the best sizes of our kernels on this GPU, and writes them to a file that the kernels read.

As a program it tunes the calls of the plan (`bench.gpu.plan`) in their order, as far as the time goes: first several
processes compile all candidates at once, then one measures them alone. For Triton: rows, keys, warps and stages, from
the candidates of each kind of call; around the best of them, other warps and stages. For CUDA C++: how many strips each
resident warp serves in turn. Copied to kernels/vtsum_kernels/tuned.json, the file becomes the default.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.gpu import child
from bench.gpu.plan import WINDOW, Planned, planned
from bench.gpu.stage import TUNED, Context, Line, call
from bench.kit.record import OURS
from bench.ops.sliding_window_attention.rivals import Setting as WindowSetting

TUNED_VARIABLE = "VTSUM_KERNELS_TUNED"
#: Share of the time for compiling ahead.
COMPILE = 0.35
WAVES = (1, 2, 3, 4, 6, 8, 12)
#: Seconds that it takes to tune one more call, about.
LEAST = 5.0
MOST_PROCESSES = 12
#: A choice must beat the kernel's own by this much, or it is noise.
BETTER = 0.98


def search(context: Context, until: float, environment: Mapping[str, str]) -> Iterator[Line]:
    """Compiles ahead, then measures; one line for all. Where nothing was written, that has failed."""
    out = context.out / TUNED
    environment = {**environment, TUNED_VARIABLE: str(out)}
    began = time.monotonic()
    ahead = began + COMPILE * max(until - began, 0.0)
    plans = targets(context.dry_run)
    workers = 1 if context.dry_run else max(min((os.cpu_count() or 2) - 2, MOST_PROCESSES, len(plans)), 1)

    def one(number: int) -> str:
        words = ["--compile", str(number), str(workers), "--tell", str(context.scratch / f"tune{number}.lines.jsonl")]
        words += ["--out", str(context.out), "--run", context.run, "--device", context.device, "--until", str(ahead)]
        words += ["--dry-run"] if context.dry_run else []
        done = call([*child.PYTHON, "bench.gpu.tune", *words], ahead + child.GRACE - time.monotonic(), environment)
        return done.output if done.ok else f"{done.output}\n{done.why()}"

    with ThreadPoolExecutor(workers) as pool:
        context.log("== bench.gpu.tune --compile\n" + "\n".join(pool.map(one, range(workers))))
    yield from child.follow(context, "bench.gpu.tune", until=until, environment=environment)


def targets(dry_run: bool) -> list[Planned]:
    """The calls of the plan that have anything to choose, each kind of call once: both passes of those with two."""
    made: dict[Any, Planned] = {}
    for plan in planned(dry_run):
        if plan.triton and plan.setting.case != "overhead":
            s = plan.setting
            kind = (
                (s.dtype, s.frames, s.window, s.layout) if isinstance(s, WindowSetting) else (s.case, s.slots, s.heads)
            )
            known = made.get(kind)
            if known is None or (known.setting.direction, s.direction) in (("fwd", "fwd+bwd"), ("bwd", "fwd+bwd")):
                made[kind] = plan
    return list(made.values())


def around(best: Any, candidates: Sequence[Any]) -> list[Any]:
    """The candidates' best with other warps and stages, those that are no candidates yet."""
    near = [best._replace(warps=warps) for warps in (best.warps // 2, 2 * best.warps) if warps in (1, 2, 4, 8, 16)]
    near += [best._replace(stages=stages) for stages in (best.stages - 1, best.stages + 1) if 1 <= stages <= 5]
    return [config for config in near if config not in candidates]


class Search:
    """Takes the place of the kernels' tuner: every choice is searched for, and remembered."""

    def __init__(self, wider: bool = True) -> None:
        self.wider = wider
        self.choices: dict[str, Any] = {}
        self.gains: list[float] = []

    def choose(
        self, key: str, candidates: Sequence[Any], measure: Callable[[Any], float], may_measure: bool = True
    ) -> Any:
        """The quickest of the candidates and of what is around the quickest of them."""
        if not may_measure:
            return self.choices.get(key, candidates[0])
        if key not in self.choices:
            times = {config: measure(config) for config in candidates}
            best = min(times, key=times.__getitem__)
            if self.wider:
                times |= {config: measure(config) for config in around(best, candidates)}
                best = min(times, key=times.__getitem__)
            first = times[candidates[0]]
            best = best if times[best] < BETTER * first else candidates[0]
            self.choices[key] = best
            if times[best] > 0 and first < math.inf:
                self.gains.append(first / times[best])
        return self.choices[key]


def use(search: Search) -> None:
    """Puts the search into the place of the kernels' tuner."""
    from vtsum_kernels.memory_retrieval import triton_launch as memory
    from vtsum_kernels.sliding_window_attention import triton as window

    window.TUNER = memory.TUNER = search  # type: ignore[assignment]


def compile_ahead(plans: Sequence[Planned], until: float) -> None:
    """Runs every candidate of these calls, whose binaries the compiler's cache keeps."""
    use(Search(wider=False))
    for plan in plans:
        if time.monotonic() > until:
            print(f"{plan.title}: no time was left", flush=True)
            return
        print(f"{plan.title}: {attempt(plan, 'triton')}", flush=True)


def attempt(plan: Planned, backend: str) -> str:
    """Makes a call of ours once, through Triton or as a user would; what came of it."""
    began = time.monotonic()
    name = f"{OURS}_triton" if backend == "triton" else OURS
    try:
        entry = next(entry for entry in plan.contest(("none",)).entries() if entry.name == name)
        entry.start()(0)
    except Exception as error:  # a size that does not compile is no reason to end
        return f"{type(error).__name__}: {str(error)[:200]}"
    return f"{time.monotonic() - began:.1f} s"


def waves_of(plan: Planned, device: str, say: Callable[[str], None]) -> dict[str, int]:
    """The best numbers of strips in turn for a window's passes; those that beat the kernels' own guess."""
    import torch
    from vtsum_kernels.sliding_window_attention import cuda_waves

    from bench.kit.clock import CudaClock, WallClock
    from bench.ops.sliding_window_attention.cases import make_inputs

    s = plan.setting
    if not isinstance(s, WindowSetting) or s.window > cuda_waves.MOST_KEYS:
        return {}
    q, k, v, dout = (x.detach() for x in make_inputs(s, 0))
    side, ops = s.window // 2, torch.ops.vtsum_kernels
    scale, none = s.dim**-0.5, (None, None, None, None)
    passes = {
        "fwd": lambda i: ops.sliding_window_attention_fwd(q, k, v, *none, side, side, 1, False, scale, 0.0, False),
        "bwd": lambda i: ops.sliding_window_attention_bwd(
            dout, q, k, v, *none, None, None, None, side, side, 1, False, scale, 0.0
        ),
    }
    gpu = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    found: dict[str, int] = {}
    for direction, run in passes.items():
        if direction == "bwd" and s.direction == "fwd":
            continue
        key = cuda_waves.key_of(gpu, direction, q.dtype, s.dim, s.window, s.batch * s.heads * s.frames)
        clock = CudaClock(1) if device == "cuda" else WallClock()
        times: dict[int, float] = {}
        for waves in (0, *WAVES):
            if device == "cuda":
                cuda_waves.choose(key, waves)
            _, once = clock.once(run)
            sampler = clock.sampler(run, once)  # a graph keeps the strips it was captured with
            times[waves] = statistics.median(sampler.sample() for _ in range(9))
        best = min(times, key=times.__getitem__)
        best = best if times[best] < BETTER * times[0] else 0
        if device == "cuda":
            cuda_waves.choose(key, best)
        say(f"{key}: {best} ({times[best] * 1e6:.4g} us, its own {times[0] * 1e6:.4g} us)")
        if best:
            found[key] = best
    return found


def main() -> int:
    options = child.parser(__doc__)
    options.add_argument("--compile", nargs=2, type=int, metavar=("NUMBER", "OF"), help="this share of the calls alone")
    chosen = options.parse_args()
    plans, device = targets(chosen.dry_run), chosen.device
    os.environ["VTSUM_KERNELS_AUTOTUNE"] = "1"
    if chosen.compile:
        number, of = chosen.compile
        compile_ahead(plans[number::of], chosen.until)
        return 0
    return tune(plans, device, chosen)


def tune(plans: Sequence[Planned], device: str, chosen: Any) -> int:
    """Measures call by call; the file is whole after each of them."""
    import torch
    import triton
    from vtsum_kernels import library
    from vtsum_kernels.tuned import Tuned, read, write

    teller, path = child.Teller(chosen.tell), Path(chosen.out) / TUNED
    searched, cuda, done = Search(), read(path).cuda, 0
    before = read(path).triton
    compiled = library.refusal("_cuda") is None or device == "cpu"
    use(searched)
    for plan in plans:
        if chosen.until - time.monotonic() < (0.0 if chosen.dry_run else LEAST):
            break
        print(f"{plan.title}: {attempt(plan, 'triton')}", flush=True)
        if compiled and plan.op == WINDOW:
            try:
                cuda |= waves_of(plan, device, lambda text: print(text, flush=True))
            except RuntimeError as error:
                print(f"{plan.title}: {error}", flush=True)
        write(path, Tuned(before | searched.choices, cuda), f"triton {triton.__version__}, torch {torch.__version__}")
        done += 1
    gain = f", {statistics.median(searched.gains):.2f} times as fast in the middle" if searched.gains else ""
    detail = f"{len(searched.choices)} Triton choices{gain}, {len(cuda)} of CUDA C++, of {done} of {len(plans)} calls"
    teller.line(Line("tuned sizes", "ok" if done else "failed", detail))
    return 0


if __name__ == "__main__":
    sys.exit(main())
