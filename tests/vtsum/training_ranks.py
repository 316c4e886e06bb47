"""Run under a launcher: trains the same small model for some steps in several ways and writes what came out.

deepspeed --num_accelerators 2 --module tests.vtsum.training_ranks --data DIR --out FILE --cases JSON
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from vtsum_kernels.nn import MemoryBank

from tests.vtsum.training_corpus import SMALL
from vtsum.config import VTSumConfig
from vtsum.data.collate import Batch, collate
from vtsum.data.videoxum import VideoXumDataset
from vtsum.model import VTSum
from vtsum.model.tokenizer import load_tokenizer
from vtsum.processes import Place
from vtsum.training import deepspeed_config
from vtsum.training.checkpoints import seed_everything
from vtsum.training.deepspeed_engine import DeepSpeedEngine, join
from vtsum.training.sampler import Layout, StepSampler
from vtsum.training.schedule import learning_rate
from vtsum.training.settings import TrainSettings, build

LOSSES = ("loss", "loss_vsum", "loss_tsum", "loss_balance", "loss_boundary")
STEPS, MICRO, ACCUMULATION, RANKS = 6, 2, 2, 2


def prepare(data: Path, **changes: Any) -> tuple[VTSum, TrainSettings, VideoXumDataset, StepSampler]:
    """The same start everywhere: model, settings, videos and the order in which they are taken. No dropout.

    Ranks that share the frames of a pass take all passes one after the other.
    """
    tokenizer = load_tokenizer(data / "vocab.txt")
    text = {**SMALL["text"], "dropout": 0.0, "vocab_size": len(tokenizer)}
    asked = {**SMALL, "lambda_balance": 2.0, "boundary_head": True, "text": text}
    model_config: VTSumConfig = build(VTSumConfig, asked)
    settings = TrainSettings(model=model_config, init_lr=2e-3, max_epoch=4, batch_size=MICRO, **changes)
    seed_everything(7)
    videos = VideoXumDataset(data)
    sharing = settings.sequence_parallel_size
    layout = Layout(MICRO, ACCUMULATION * sharing, RANKS // sharing)
    return VTSum(model_config, tokenizer), settings, videos, StepSampler(len(videos), layout, 7)


def passes(
    videos: VideoXumDataset, sampler: StepSampler, rank: int, frames: tuple[int, int] = (0, 1)
) -> list[list[Batch]]:
    """The forward passes of `rank`, a list a step; `frames` as `collate` takes them."""
    out: list[Batch] = []
    epoch, each = 0, sampler.layout.accumulation
    while len(out) < STEPS * each:
        out += [collate([videos[i] for i in part], part=frames) for part in sampler.passes(epoch, 0, rank)]
        epoch += 1
    return [out[i * each : (i + 1) * each] for i in range(STEPS)]


def around(step: Callable[[], None], bank: Any) -> dict[str, Any]:
    """Read a bank and fold it, take an optimiser's step, and read it again: how far the second read is from that of a
    bank which read nothing before, how far from the first, and whether `fold_check` finds the step."""
    frames = torch.linspace(-2, 2, 9 * SMALL["width"]).view(1, 9, -1).sin().to(bank.memory)
    with torch.no_grad():
        first = bank(frames)
        bank.fold_()
        bank.fold_check()
        step()
        try:
            bank.fold_check()
            told = False
        except RuntimeError:
            told = True
        bank.train()
        second, fresh = bank(frames), copy.deepcopy(bank)
        fresh.load_state_dict({name: value.clone() for name, value in bank.state_dict().items()})
        stale = (second - fresh(frames)).abs().max()
    return {"stale": float(stale), "moved": float((second - first).abs().max()), "told": told}


def bank_alone(stage: int) -> dict[str, Any]:
    """A bank in an engine of DeepSpeed's as anyone makes one, in bfloat16; at stage 0 too, which `vtsum train` refuses,
    since the first step is without a gradient there: so it is the second that is looked at."""
    import deepspeed

    torch.manual_seed(7)
    bank = MemoryBank(16, SMALL["width"], query_proj=True)
    config = {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}, "zero_optimization": {"stage": stage}}
    config["zero_allow_untested_optimizer"] = True
    engine, *_ = deepspeed.initialize(
        model=bank, optimizer=torch.optim.AdamW(bank.parameters(), lr=0.05), config=config
    )
    folds = {}
    for taken in range(2):
        frames = torch.linspace(-1, 1, 9 * SMALL["width"]).view(1, 9, -1).to(bank.memory.dtype)
        engine.backward(engine(frames).float().square().mean())
        folds = around(engine.step, bank) if taken else engine.step()
    engine.destroy()
    return {"folds": folds}


def train(data: Path, case: dict[str, Any], place: Place) -> dict[str, Any]:
    """Train one way; the losses and gradient norms of each step, the first step's gradients, the last weights."""
    from deepspeed.utils import safe_get_full_grad

    model, settings, videos, sampler = prepare(data, **case.get("settings", {}))
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    config = deepspeed_config.complete(deepspeed_config.read(case["config"]), settings, sampler.layout)
    zero = config["zero_optimization"]
    if zero["stage"] == 3:
        zero["stage3_param_persistence_threshold"] = 0  # so small a model would not be partitioned at all
    engine = DeepSpeedEngine(model, settings, config, place)
    gradients: dict[str, torch.Tensor] = {}
    folds: dict[str, Any] = {}
    calls = 0
    plain_step = engine.engine.step

    def step() -> None:
        nonlocal calls
        calls += 1
        if calls == sampler.layout.accumulation:
            for name, parameter in model.named_parameters():
                gradient = safe_get_full_grad(parameter)
                if gradient is not None:
                    gradients[name] = gradient.detach().float().clone()
            if zero["stage"] < 3:
                folds.update(around(plain_step, model.memory))
                return
        plain_step()

    engine.engine.step = step
    results = []
    sharing = settings.sequence_parallel_size
    own = passes(videos, sampler, place.rank // sharing, (place.rank % sharing, sharing))
    for number, batches in enumerate(own):
        rate = learning_rate(settings, number, sampler.steps_per_epoch)
        results.append(engine.step(batches, rate, [float(place.rank)]))
    weights = engine.weights()
    engine.engine.destroy()
    return {
        **{name: [getattr(result, name) for result in results] for name in (*LOSSES, "grad_norm")},
        "flags": [r.flags[0] for r in results],
        "gradients": gradients,
        "folds": folds,
        "weights": weights,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("data", "out", "cases", "local_rank"):
        parser.add_argument(f"--{name}")
    arguments = parser.parse_args()
    place = Place.here()
    join(place, 10.0)
    found = {}
    for case in json.loads(arguments.cases):
        found[case["name"]] = train(Path(arguments.data), case, place)
        if place.first:
            print(case["name"], found[case["name"]]["loss"], flush=True)
    found |= {f"bank_{stage}": bank_alone(stage) for stage in (0, 1, 2)}
    if place.first:
        torch.save(found, arguments.out)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
