"""The learning rate as a function of the step alone, so that a resumed run needs no state of it."""

from __future__ import annotations

import math

from vtsum.training.settings import TrainSettings


def learning_rate(settings: TrainSettings, step: int, steps_per_epoch: int) -> float:
    """The rate of `step`, counted from 0.

    "cosine": a rise from 0 over `warmup_steps`, then half a cosine down to `min_lr` at the last step of the last epoch.
    "cosine_epoch": the released VTSum-BLIP's, the same cosine taken at the start of each epoch and held through it.
    "constant": `init_lr` after the rise.
    """
    high, low, warmup = settings.init_lr, settings.min_lr, settings.warmup_steps
    if step < warmup:
        return high * (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return high
    if settings.schedule == "cosine_epoch":
        share = (step // steps_per_epoch) / settings.max_epoch
    else:
        share = (step - warmup) / max(1, settings.max_epoch * steps_per_epoch - warmup)
    return low + (high - low) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
