"""The program that makes training steps through DeepSpeed at ZeRO 1 and 3: ``bench.gpu.model`` starts it.

One process, one rank: what it shows is that the engine runs on this machine, and what sharding costs where it saves
nothing.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.gpu.child import Teller, parser
from bench.kit.record import ROOT, append, environment

STAGES = (1, 3)
FRAMES, VIDEOS, STEPS = 2048, 8, 3
TINY_FRAMES, TINY_VIDEOS, TINY_STEPS = 32, 2, 1
#: Seconds that a stage takes, about.
LEAST = 8.0


def measured(stage: int, device: str, tiny: bool) -> dict[str, Any]:
    """Median seconds of a step at a stage, after one that sets up; peak memory on a GPU; the last loss."""
    import torch

    from bench.summary.training_step import SENTENCE, make_model
    from vtsum.data.collate import Batch
    from vtsum.processes import Place
    from vtsum.training import deepspeed_config
    from vtsum.training.deepspeed_engine import DeepSpeedEngine
    from vtsum.training.sampler import Layout
    from vtsum.training.settings import TrainSettings

    videos, frames = (TINY_VIDEOS, TINY_FRAMES) if tiny else (VIDEOS, FRAMES)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = make_model("vtsum", "small" if tiny else "base", 0, Path(folder))
    batch = Batch(
        [f"video{i}" for i in range(videos)],
        torch.randn(videos, frames, model.config.width),
        torch.ones(videos, frames, dtype=torch.bool),
        (torch.rand(videos, 10, frames) < 0.15).float(),
        [SENTENCE] * videos,
    )
    settings = TrainSettings(model=model.config, batch_size=videos, bf16=True)
    config = deepspeed_config.read(ROOT / "configs" / f"ds_zero{stage}.json")
    config = deepspeed_config.complete(config, settings, Layout(videos, 1, 1))
    engine = DeepSpeedEngine(model, settings, config, Place.here())
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken, loss = [], float("nan")
    for _ in range(1 + (TINY_STEPS if tiny else STEPS)):
        began = time.perf_counter()
        loss = engine.step([batch], 2e-5).loss
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    peak = round(torch.cuda.max_memory_allocated() / 2**20, 1) if device == "cuda" else None
    engine.engine.destroy()
    if loss != loss:
        raise RuntimeError("the loss must be a number, got nan")
    step_s = round(statistics.median(taken[1:]), 4)
    return {"step_s": step_s, "peak_mib": peak, "loss": round(loss, 4), "shape": {"T": frames, "B": videos}}


def main() -> int:
    chosen = parser(__doc__).parse_args()
    teller = Teller(chosen.tell)
    if importlib.util.find_spec("deepspeed") is None:
        teller.line("DeepSpeed step", "absent", "the package deepspeed is not installed")
        return 0
    from vtsum.errors import VTSumError

    facts = environment(chosen.device, ("torch", "deepspeed", "transformers"))
    for stage in STAGES:
        check = f"DeepSpeed step, ZeRO {stage}"
        if not chosen.dry_run and chosen.until - time.monotonic() < LEAST:
            teller.line(check, "skipped", "no time was left")
            continue
        try:
            found = measured(stage, chosen.device, chosen.dry_run)
        except VTSumError as error:  # what it needs is not installed
            teller.line(check, "absent", str(error))
            return 0
        except Exception as error:
            teller.failed(check, error)
            continue
        record = {"op": "deepspeed_step", "run": chosen.run, "size": f"ZeRO {stage}", "dtype": "bfloat16"}
        record |= {"status": "ok", "device_type": chosen.device}
        append(chosen.out / "training_step.jsonl", {**record, **found, **facts})
        memory = "" if found["peak_mib"] is None else f", {found['peak_mib']:,.0f} MiB in all"
        shape = f"T {found['shape']['T']} x {found['shape']['B']}"
        teller.line(check, "ok", f"{found['step_s']:.4g} s{memory}, {shape}, loss {found['loss']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
