"""A training step of VTSum against the same model with the original's dense masks: time and peak memory.

    python -m bench.summary.training_step [--frames 512 2048 8192 32768] [--forms vtsum dense windowed] [--device cpu]

A step is forward, backward and AdamW, on videos of T frames and one sentence each; a batch holds `--budget` frames, one
video at least. Forms: `vtsum` (temporal transformer by SDPA, local attention by our op), `windowed` (its temporal
transformer on our op too, `--temporal-window` frames), `dense` (the original's [T, T] scores and -1e4 masks in both).
Each measurement is a process of its own, so that one that runs out of memory ends alone, and is recorded as such.
Beside the step stand its parts: the temporal transformer, the local attention, and in it the attention alone, each
forward and backward. Peak memory is what a step takes beside weights and optimizer state. One JSON line for each form
and length goes to results/training_step.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.kit.clock import peak_of_process
from bench.kit.command import keep, parser
from bench.kit.record import ROOT, machine

FORMS = ("vtsum", "windowed", "dense")
SIZES = ("base", "small")
SENTENCE = "a man is playing the guitar in a room and then a woman dances with a dog"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(SENTENCE.split())), "video", "of"]


def make_model(form: str, size: str, window: int, folder: Path) -> Any:
    """The full-size VTSum without memory bank (BLIP's sizes), or a small one for trying this out."""
    from bench.summary.dense_attention import make_dense
    from vtsum.config import TextConfig, VTSumConfig
    from vtsum.model import VTSum
    from vtsum.model.tokenizer import load_tokenizer

    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n")
    sizes: dict[str, Any] = {}
    if size == "small":
        text = TextConfig(100, 64, 1, 4, 128, 64)
        sizes = {"width": 64, "num_heads": 4, "text": text}
    temporal_window = window if form == "windowed" else None
    model = VTSum(VTSumConfig(memory_slots=0, temporal_window=temporal_window, **sizes), load_tokenizer(vocabulary))
    return make_dense(model) if form == "dense" else model


def timed(call: Callable[[], object], repeats: int, device: str) -> float:
    """Median seconds of a call that was made before."""
    import torch

    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def make_models(size: str, window: int, device: str) -> dict[str, Any]:
    """The same model in each form."""
    import torch

    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            torch.manual_seed(0)
            made[form] = make_model(form, size, window, Path(folder)).to(device)
    return made


def difference(models: dict[str, Any], device: str) -> float:
    """The largest difference of the forms' saliency on a short video, in float32, where the window sees all frames."""
    import torch

    width = next(iter(models.values())).config.width
    x = torch.randn(2, 24, width, generator=torch.Generator().manual_seed(0)).to(device)
    mask = torch.ones(2, 24, dtype=torch.bool, device=device)
    mask[1, 15:] = False
    found = []
    with torch.no_grad():
        for model in models.values():
            found.append(model.eval().saliency_logits(model.encode(x, mask))[mask])
            model.train()
    return max(float((other - found[0]).abs().max()) for other in found)


def measure(options: argparse.Namespace, form: str, frames: int) -> dict[str, Any]:
    """One line of results, in the process that is to be measured."""
    import torch

    torch.set_num_threads(options.threads)
    apart = difference(make_models(options.size, 2 * 24 + 1, "cpu"), "cpu")
    if not apart <= 1e-4:
        raise SystemExit(f"training_step: all forms must give the same saliency, differ by {apart:.1e}")
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(form, options.size, options.temporal_window, Path(folder)).to(options.device).train()
    return {**measure_model(model, options, frames), "saliency_difference": apart}


def facts_of(options: argparse.Namespace, form: str, frames: int) -> dict[str, Any]:
    """What tells a record from others."""
    return {
        "op": "training_step",
        "form": form,
        "size": options.size,
        "dtype": options.dtype,
        "device_type": options.device,
        "shape": {"T": frames, "B": max(1, options.budget // frames)},
        "temporal_window": options.temporal_window if form == "windowed" else None,
        "repeats": options.repeats,
        "threads": options.threads,
    }


def measure_model(model: Any, options: argparse.Namespace, frames: int) -> dict[str, Any]:
    """The times and the peak of a model's step and its parts at a length."""
    import torch

    device, dtype = options.device, getattr(torch, options.dtype)
    width, batch = model.config.width, max(1, options.budget // frames)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01)
    x = torch.randn(batch, frames, width, device=device)
    mask = torch.ones(batch, frames, dtype=torch.bool, device=device)
    labels = (torch.rand(batch, 10, frames, device=device) < 0.15).float()
    texts = [SENTENCE] * batch
    losses = []

    def step() -> None:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = model(x, mask, labels, texts).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))

    def part(module: Any, *inputs: Any) -> Callable[[], None]:
        def run() -> None:
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                out = module(x.requires_grad_(), *inputs)
            out.sum().backward()
            model.zero_grad(set_to_none=True)
            x.grad = None

        return run

    def attend() -> None:
        """What lies between the local attention's two linear layers, which are the same in every form."""
        local = model.local_attention.attn
        qkv, proj = local.qkv, local.proj
        local.qkv, local.proj = torch.nn.Identity(), torch.nn.Identity()
        try:
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                out = local(wide, mask)
            out.sum().backward()
        finally:
            local.qkv, local.proj = qkv, proj
        wide.grad = None

    step()  # the optimizer's state is there from now on, and so is all that a first call sets up
    took, peak = 0.0, 0

    def steps(_: int) -> tuple[()]:
        nonlocal took
        took = timed(step, options.repeats, device)
        return ()

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        steps(0)
        peak = torch.cuda.max_memory_allocated() - before
    else:
        peak = peak_of_process(steps) or 0
    parts = {
        "temporal_s": timed(part(model.temporal, mask), options.repeats, device),
        "local_s": timed(part(model.local_attention, mask), options.repeats, device),
    }
    x.requires_grad_(False)
    wide = torch.randn(batch, frames, 3 * width, device=device, dtype=dtype, requires_grad=True)
    attend()
    parts["local_attention_s"] = timed(attend, options.repeats, device)
    if not all(loss == loss for loss in losses):
        raise SystemExit("training_step: the loss must be a number, got nan")
    return {
        "status": "ok",
        "step_s": round(took, 4),
        **{name: round(value, 6) for name, value in parts.items()},
        "peak_mib": round(peak / 2**20, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def alone(options: argparse.Namespace, form: str, frames: int) -> dict[str, Any]:
    """`measure` in a process of its own, with no more memory than there is."""

    def bound() -> None:
        if options.device == "cpu":
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_DATA, (int(free * 0.92), resource.RLIM_INFINITY))

    words = [sys.executable, "-m", "bench.summary.training_step", "--measure", form, str(frames)]
    for name in ("device", "dtype", "size", "repeats", "threads", "budget", "temporal_window"):
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    try:
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=options.timeout, preexec_fn=bound
        )
    except subprocess.TimeoutExpired:
        return {"status": "too slow", "reason": f"took more than {options.timeout} s in all"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return dict(json.loads(lines[-1]))
    last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    known = ("allocate memory", "OutOfMemory", "MemoryError")
    memory = done.returncode < 0 or any(word in done.stderr for word in known)
    return {"status": "out of memory" if memory else "failed", "reason": last[:200]}


def main() -> None:
    given = parser(__doc__, "training_step")
    given.add_argument("--frames", type=int, nargs="+", default=[512, 2048, 8192, 32768])
    given.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    given.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="other than float32: autocast"
    )
    given.add_argument("--size", choices=SIZES, default="base")
    given.add_argument("--budget", type=int, default=8192, help="frames a batch")
    given.add_argument("--temporal-window", type=int, default=513)
    given.add_argument("--repeats", type=int, default=2)
    given.add_argument("--threads", type=int, default=os.cpu_count())
    given.add_argument("--timeout", type=float, default=1200.0, help="seconds for one form and length")
    given.add_argument("--measure", nargs=2, metavar=("FORM", "FRAMES"), help=argparse.SUPPRESS)
    options = given.parse_args()
    if options.measure:
        print(json.dumps(measure(options, options.measure[0], int(options.measure[1]))))
        return
    facts = machine(("torch", "transformers"))
    if options.device == "cuda":
        import torch

        facts["device"] = torch.cuda.get_device_name()
    for frames in options.frames:
        for form in options.forms:
            keep(options.results, facts, [{**facts_of(options, form, frames), **alone(options, form, frames)}])


if __name__ == "__main__":
    main()
