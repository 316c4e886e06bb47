"""The program that times training steps, and then frame encoders, on a GPU: ``bench.gpu.model`` starts it.

All forms of `bench.summary.training_step` in one process, so that starting one does not take what little time there is;
a length that has no room is recorded as such, and longer ones of that form are left out.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.gpu import encoders
from bench.gpu.child import BROKEN, Teller, parser
from bench.gpu.stage import Line
from bench.kit.clock import gpu_is_broken
from bench.kit.record import append, read
from bench.summary.training_step import FORMS, difference, facts_of, make_models, measure_model

PACKAGES = ("torch", "transformers", "triton")
#: The most telling first. A batch holds so many frames, one video at least.
FRAMES, BUDGET = (8192, 2048, 32768, 65536, 512, 16384), 16384
TINY_FRAMES, TINY_BUDGET = (32, 64), 64
WINDOW, TINY_WINDOW = 513, 65
#: By how much the forms' saliency may differ on a short video: float32's rounding on a GPU.
SAME = 1e-3
#: Seconds that a measurement may take, about.
LEAST = 5.0


def options_of(device: str, dry_run: bool) -> argparse.Namespace:
    """As `bench.summary.training_step` has them."""
    import torch

    return argparse.Namespace(
        device=device,
        dtype="bfloat16",
        size="small" if dry_run else "base",
        budget=TINY_BUDGET if dry_run else BUDGET,
        temporal_window=TINY_WINDOW if dry_run else WINDOW,
        repeats=1 if dry_run else 3,
        threads=torch.get_num_threads(),
    )


def measured(model: Any, options: argparse.Namespace, frames: int) -> dict[str, Any]:
    """A record's part about one form and length, whatever comes of it."""
    import torch

    try:
        return measure_model(model, options, frames)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        memory = isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)
        return {"status": "out of memory" if memory else "failed", "reason": reason}
    finally:
        model.zero_grad(set_to_none=True)


def known_to(path: Path, run: str) -> dict[tuple[str, int], dict[str, Any]]:
    """What this run knows."""
    return {(r["form"], r["shape"]["T"]): r for r in read(path) if r.get("run") == run and r["op"] == "training_step"}


def lines(known: dict[tuple[str, int], dict[str, Any]], frames: int) -> Iterator[Line]:
    """A line of a length: the ratio is that of the dense form's time over ours."""
    forms = {form: known[form, frames] for form in FORMS if (form, frames) in known}
    batch = next(iter(forms.values()))["shape"]["B"]
    said = [
        f"{form} {r['step_s']:.4g} s, {r['peak_mib']:,.0f} MiB" if r["status"] == "ok" else f"{form} {r['status']}"
        for form, r in forms.items()
    ]
    failed = [form for form, r in forms.items() if r["status"] == "failed"]
    ours, dense = forms.get("vtsum"), forms.get("dense")
    ratio = None
    if ours and dense and ours["status"] == dense["status"] == "ok":
        ratio = dense["step_s"] / ours["step_s"]
    reasons = [forms[form]["reason"] for form in failed]
    check = f"training step T {frames} x {batch}"
    yield Line(check, "failed" if failed else "ok", "; ".join(said + reasons), None, ratio)


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--steps-until", type=float, required=True, help="when to be done with training steps")
    arguments.add_argument("--product", type=float, default=0.0, help="measured bfloat16 operations a second")
    chosen = arguments.parse_args()
    import torch

    from bench.kit.record import environment

    options, teller = options_of(chosen.device, chosen.dry_run), Teller(chosen.tell)
    path = chosen.out / "training_step.jsonl"
    facts = environment(chosen.device, PACKAGES)
    models = make_models(options.size, options.temporal_window, options.device)
    apart = difference(models, chosen.device)
    if not apart < SAME:
        teller.line(Line("training step: one model in every form", "failed", f"saliency differs by {apart:.1e}"))
        return 0
    known = known_to(path, chosen.run)
    for frames in TINY_FRAMES if chosen.dry_run else FRAMES:
        if not chosen.dry_run and chosen.steps_until - time.monotonic() < LEAST:
            teller.line(Line(f"training step T {frames}", "skipped", "no time was left"))
            continue
        if all((form, frames) in known for form in FORMS):
            continue
        for form in FORMS:
            full = [t for (name, t), r in known.items() if name == form and r["status"] == "out of memory"]
            if (form, frames) in known:
                continue
            if full and frames > min(full):
                result = {"status": "out of memory", "reason": f"as at {min(full)} frames"}
            else:
                result = measured(models[form], options, frames)
            head = facts_of(options, form, frames)
            known[form, frames] = {**facts, **head, "run": chosen.run, "saliency_difference": apart, **result}
            append(path, known[form, frames])
            if gpu_is_broken():
                return BROKEN
            gc.collect()
            if chosen.device == "cuda":
                torch.cuda.empty_cache()
        for line in lines(known, frames):
            teller.line(line)
    teller.line(where_it_ends(known))
    models.clear()
    gc.collect()
    encoders.measure(chosen, teller, chosen.product)
    return 0


def where_it_ends(known: dict[tuple[str, int], dict[str, Any]]) -> Line:
    """The length at which each form runs out of memory."""
    said = []
    for form in FORMS:
        lengths = {t: r["status"] for (name, t), r in known.items() if name == form}
        full = [t for t, status in lengths.items() if status == "out of memory"]
        room = [t for t, status in lengths.items() if status == "ok"]
        said.append(f"{form} at T {min(full)}" if full else f"{form} not up to T {max(room, default=0)}")
    return Line("training step: out of memory", "ok", "; ".join(said))


if __name__ == "__main__":
    sys.exit(main())
