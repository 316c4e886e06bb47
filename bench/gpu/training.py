"""The program that times training steps on a GPU: ``bench.gpu.model`` starts it.

All forms of `bench.summary.training_step` in one process, so that starting one does not take what little time there is;
a length that has no room is recorded as such, and longer ones of that form are left out.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from typing import Any

from bench.gpu.child import BROKEN, Teller, parser
from bench.gpu.stage import Line
from bench.kit.clock import gpu_is_broken
from bench.kit.comparison import failure
from bench.kit.record import append, environment, read
from bench.kit.tables import ratio
from bench.summary.training_step import FORMS, difference, facts_of, make_models, measure_model

PACKAGES = ("torch", "transformers", "triton")
#: The most telling first. A batch holds so many frames, one video at least.
FRAMES, BUDGET, WINDOW = (8192, 2048, 32768, 65536, 512, 16384), 16384, 513
TINY_FRAMES, TINY_BUDGET, TINY_WINDOW = (32, 64), 64, 65
#: By how much the forms' saliency may differ on a short video: float32's rounding on a GPU.
SAME = 1e-3
#: Seconds that the forms take at a length, about.
LEAST = 10.0
Known = dict[tuple[str, int], dict[str, Any]]


def measured(model: Any, options: argparse.Namespace, frames: int) -> dict[str, Any]:
    """A record's part about one form and length, whatever comes of it."""
    try:
        return measure_model(model, options, frames)
    except Exception as error:
        return failure(error)
    finally:
        model.zero_grad(set_to_none=True)


def line_of(known: Known, frames: int) -> Line:
    """Of a length: the ratio is that of the dense form's time over ours."""
    forms = {form: known[form, frames] for form in FORMS if (form, frames) in known}
    said = [
        f"{form} {r['step_s']:.4g} s, {r['peak_mib']:,.0f} MiB" if r["status"] == "ok" else f"{form} {r['status']}"
        for form, r in forms.items()
    ]
    reasons = [r["reason"] for r in forms.values() if r["status"] == "cannot run"]
    quicker = ratio(*(forms.get(form, {}).get("step_s") for form in ("dense", "vtsum")))
    check = f"training step T {frames} x {next(iter(forms.values()))['shape']['B']}"
    return Line(check, "failed" if reasons else "ok", "; ".join(said + reasons), None, quicker)


def where_it_ends(known: Known) -> str:
    """The length at which each form runs out of memory."""
    said = []
    for form in FORMS:
        full = [t for (name, t), r in known.items() if name == form and r["status"] == "out of memory"]
        room = [t for (name, t), r in known.items() if name == form and r["status"] == "ok"]
        said.append(f"{form} at T {min(full)}" if full else f"{form} not up to T {max(room, default=0)}")
    return "; ".join(said)


def main() -> int:
    import torch

    chosen = parser(__doc__).parse_args()
    teller, path, tiny = Teller(chosen.tell), chosen.out / "training_step.jsonl", chosen.dry_run
    options = argparse.Namespace(
        device=chosen.device,
        dtype="bfloat16",
        size="small" if tiny else "base",
        budget=TINY_BUDGET if tiny else BUDGET,
        temporal_window=TINY_WINDOW if tiny else WINDOW,
        repeats=1 if tiny else 3,
        threads=torch.get_num_threads(),
    )
    facts = {**environment(chosen.device, PACKAGES), "run": chosen.run}
    models = make_models(options.size, options.temporal_window, options.device)
    apart = difference(models, chosen.device)
    if not apart < SAME:
        teller.line("training step: one model in every form", "failed", f"saliency differs by {apart:.1e}")
        return 0
    mine = [r for r in read(path) if r.get("run") == chosen.run and r["op"] == "training_step"]
    known: Known = {(r["form"], r["shape"]["T"]): r for r in mine}
    for frames in TINY_FRAMES if tiny else FRAMES:
        missing = [form for form in FORMS if (form, frames) not in known]
        if missing and not tiny and chosen.until - time.monotonic() < LEAST:
            teller.line(f"training step T {frames}", "skipped", "no time was left")
            continue
        for form in missing:
            full = [t for (name, t), r in known.items() if name == form and r["status"] == "out of memory"]
            if full and frames > min(full):
                result = {"status": "out of memory", "reason": f"as at {min(full)} frames"}
            else:
                result = measured(models[form], options, frames)
            known[form, frames] = {**facts, **facts_of(options, form, frames), "saliency_difference": apart, **result}
            append(path, known[form, frames])
            if gpu_is_broken():
                return BROKEN
            gc.collect()
            if chosen.device == "cuda":
                torch.cuda.empty_cache()
        if missing:
            teller.line(*vars(line_of(known, frames)).values())
    teller.line("training step: out of memory", "ok", where_it_ends(known))
    return 0


if __name__ == "__main__":
    sys.exit(main())
