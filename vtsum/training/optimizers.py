"""Optimizers of torch.optim by name, groups of weights with a learning rate or weight decay of their own, and what a
checkpoint may bring back of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vtsum.config import Range
from vtsum.errors import VTSumError, first_line
from vtsum.training.settings import TrainSettings
from vtsum.training.values import nearest

SCALE = "lr_scale"
"""Of a group: its learning rate over the run's."""
_OF_GROUP = {"lr": Range(0, 100), "weight_decay": Range(0, 100)}
_OURS = {"params": "the model", "lr": "--init_lr", "weight_decay": "--weight_decay"}
_NEVER = {"maximize", "capturable", "differentiable"}  # climbs, or is of no use in a loop like ours


def optimizer_class(settings: TrainSettings) -> Callable[..., torch.optim.Optimizer]:
    """The class that the settings name, once its options were found to be its own.

    Raises:
        VTSumError: an option that it does not have, or that is another setting's.
    """
    kind: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, settings.optimizer)
    known = sorted(set(inspect.signature(kind).parameters) - set(_OURS) - _NEVER)
    for name in settings.optimizer_options or {}:
        if name in _OURS:
            raise VTSumError(f"train: optimizer_options must leave {name} out, it is set by {_OURS[name]}")
        if name not in known:
            raise VTSumError(
                f"train: optimizer_options must be those of torch.optim.{settings.optimizer} ({', '.join(known)}), "
                f"got {name!r}{nearest(name, known)}"
            )
    return kind


def groups_of(model: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """The weights as an optimizer takes them, one group for each learning rate and weight decay.

    Raises:
        VTSumError: a pattern finds no weight, or two give one weight different values.
    """
    patterns = _patterns(settings)
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    unused = set(patterns)
    for name, weight in model.named_parameters():
        own: dict[str, float] = {}
        by: dict[str, str] = {}
        for pattern, options in patterns.items():
            if not re.search(pattern, name):
                continue
            unused.discard(pattern)
            for option, value in options.items():
                if own.setdefault(option, value) != value:
                    raise VTSumError(
                        f"train: parameter_groups must give {name} one {option}, got {own[option]} by "
                        f"{by[option]!r} and {value} by {pattern!r}"
                    )
                by.setdefault(option, pattern)
        key = own.get("lr", settings.init_lr), own.get("weight_decay", settings.weight_decay)
        found.setdefault(key, []).append(weight)
    if unused:
        raise VTSumError(
            f"train: parameter_groups must each find weights of the model, such as "
            f"{next(name for name, _ in model.named_parameters())}, got none for {min(unused)!r}"
        )
    return [
        {"params": weights, "lr": rate, "weight_decay": decay, SCALE: rate / settings.init_lr}
        for (rate, decay), weights in found.items()
    ]


def _patterns(settings: TrainSettings) -> Mapping[str, dict[str, float]]:
    """`parameter_groups`, checked."""
    for pattern, options in (settings.parameter_groups or {}).items():
        where = f"train: parameter_groups: {pattern!r:.200}"
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise VTSumError(f"{where} must be a regular expression, got: {error}") from None
        if not isinstance(options, dict) or not options or set(options) - set(_OF_GROUP):
            raise VTSumError(f"{where} must set lr, weight_decay or both, got {options!r:.200}")
        for name, value in options.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not _OF_GROUP[name].holds(value):
                raise VTSumError(f"{where}: {name} must be {_OF_GROUP[name]}, got {value!r:.200}")
    return settings.parameter_groups or {}


def make_optimizer(
    model: nn.Module, settings: TrainSettings, kind: Callable[..., Any] | None = None
) -> torch.optim.Optimizer:
    """The optimizer of the settings over all weights; `kind`: another one of the same options.

    Raises:
        VTSumError: options or groups that the settings must not have.
    """
    own, groups = optimizer_class(settings), groups_of(model, settings)
    try:
        return (kind or own)(groups, lr=settings.init_lr, weight_decay=settings.weight_decay, **_options(settings))
    except (TypeError, ValueError, RuntimeError) as error:
        raise VTSumError(
            f"train: optimizer_options must be values that torch.optim.{settings.optimizer} takes, got "
            f"{settings.optimizer_options}: {first_line(error)}"
        ) from None


def _options(settings: TrainSettings) -> dict[str, Any]:
    given = settings.optimizer_options or {}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def set_rate(optimizer: Any, rate: float) -> None:
    """The learning rate of a step, in each group by its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[SCALE]


@contextmanager
def moments_alone(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, an optimizer is loaded: what it keeps of each weight is checked, its options stay, for they are the
    settings'.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: what was loaded is not what it keeps of these weights.
    """
    options = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    yield
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)
    kept: dict[torch.Size, dict[str, Any]] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if not optimizer.state and _kept(optimizer, weights[0].shape):
        raise ValueError("no moments of the weights")
    for weight, held in optimizer.state.items():
        if weight.shape not in kept:
            kept[weight.shape] = _kept(optimizer, weight.shape)
        for name, own in kept[weight.shape].items():
            if not isinstance(own, Tensor) or own.ndim == 0:
                _check_number(held[name], name)
            elif not isinstance(held[name], Tensor) or held[name].is_complex():
                raise ValueError(f"{name} that is no tensor of real numbers")
            elif held[name].shape != own.shape:
                raise ValueError(f"{name} {list(held[name].shape)} of weights {list(weight.shape)}")


def _check_number(value: Any, name: str) -> None:
    one = value.numel() == 1 and not value.is_complex() if isinstance(value, Tensor) else isinstance(value, int | float)
    if not one:
        raise ValueError(f"{name} that is no number")


def _kept(optimizer: torch.optim.Optimizer, shape: torch.Size) -> dict[str, Any]:
    """What an optimizer keeps of a weight of this shape: found by a step of another one like it. DeepSpeed's own keep
    what AdamW does."""
    kind = type(optimizer) if type(optimizer).__module__.startswith("torch.") else torch.optim.AdamW
    takes = set(inspect.signature(kind).parameters) - {"foreach", "fused", *_NEVER}
    probe = nn.Parameter(torch.zeros(shape))
    probe.grad = torch.zeros(shape)
    like = kind([probe], **{name: value for name, value in optimizer.defaults.items() if name in takes})
    like.step()
    return dict(like.state.get(probe, {}))
