"""The learning rate as a function of the step alone, so that a resumed run needs no state of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from vtsum.errors import VTSumError, first_line
from vtsum.training.settings import OWN_SCHEDULES, TrainSettings


def rates(settings: TrainSettings, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate of each step, counted from 0, by the schedule that the settings name.

    Raises:
        VTSumError: options that it does not have.
    """
    if settings.schedule in OWN_SCHEDULES:
        if settings.schedule_options:
            raise VTSumError(
                f"train: schedule_options must be left out with schedule {settings.schedule}, which has none, got "
                f"{settings.schedule_options}"
            )
        return partial(learning_rate, settings, steps_per_epoch=steps_per_epoch)
    import torch
    from transformers import get_scheduler

    if settings.min_lr:
        raise VTSumError(
            f"train: min_lr must be 0 with schedule {settings.schedule}, which ends as its schedule_options say, got "
            f"{settings.min_lr}"
        )
    total, own = settings.max_epoch * steps_per_epoch, settings.init_lr
    unused = torch.optim.SGD([torch.zeros(())], lr=own)  # transformers multiplies an optimizer's rate by a function
    try:
        options = dict(settings.schedule_options or {})
        scheduler = get_scheduler(settings.schedule, unused, settings.warmup_steps, total, options)
        factor: Callable[[int], float] = scheduler.lr_lambdas[0]
        if not all(math.isfinite(factor(step)) and factor(step) >= 0 for step in (0, total // 2, total - 1)):
            raise ValueError("a learning rate below 0")
    except (TypeError, ValueError, ArithmeticError) as error:
        raise VTSumError(
            f"train: schedule_options must be what transformers' schedule {settings.schedule} takes, got "
            f"{settings.schedule_options}: {first_line(error)}"
        ) from None
    return lambda step: own * factor(step)


def learning_rate(settings: TrainSettings, step: int, steps_per_epoch: int) -> float:
    """The rate of `step` by a schedule of our own.

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
