"""What carries out a training step: plain PyTorch over any number of processes, here, or DeepSpeed.

Both take the gradient of the mean of the losses of a step's forward passes, over all ranks, as DistributedDataParallel
does in the original. What the losses of a pass are divided by is its share of the step's frames and words, so that this
mean is the loss of the step's videos, whichever of them share a pass; with model.loss_mean "released", and for the
memory's balance loss and a loss of the user's own, a pass's own mean. See `StepSampler` for which videos share one.

Where ranks share out the frames of a pass (`--sequence_parallel_size`), each has the pass's whole loss and a share of
its gradient: times their number, the mean over all ranks is their sum within a pass, and the mean over passes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vtsum.data.collate import Batch
from vtsum.errors import VTSumError, first_line
from vtsum.model.files import check_floats, read_pt, weights_misfit, write_pt
from vtsum.model.losses import LossCounts, VTSumOutput
from vtsum.model.vtsum import VTSum
from vtsum.processes import Place, load_collectives
from vtsum.reading import quoted
from vtsum.training.optimizers import make_optimizer, moments_alone, set_rate
from vtsum.training.settings import TrainSettings

ALONE = Place(0, 1, 0)
LOSSES = 5
"""Losses that a step reports: the sum, and its parts of `StepResult`."""


@dataclass(frozen=True)
class StepResult:
    """Means over a step's forward passes on all ranks; `grad_norm` before clipping, `flags` summed over ranks."""

    loss: float
    loss_vsum: float
    loss_tsum: float
    loss_balance: float
    loss_boundary: float
    grad_norm: float
    flags: tuple[float, ...] = ()

    @property
    def losses(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if name.startswith("loss")}


class Engine(Protocol):
    """One training step at a time, and all that a checkpoint needs. Every rank calls every method."""

    model: VTSum
    """Its own weights may be scattered or of lower precision; see `weights`."""
    facts: dict[str, Any]
    """What a checkpoint says about the engine that wrote it."""

    def step(self, batches: Sequence[Batch], rate: float, flags: Sequence[float] = ()) -> StepResult:
        """One optimizer step on this rank's forward passes; `flags` are summed over the ranks on the way."""

    def save(self, folder: Path) -> None:
        """Write weights and optimizer into an empty folder; OSError or RuntimeError where it cannot be written."""

    def load(self, folder: Path) -> None:
        """The reverse, from a folder that `prepare` may have converted."""

    def total(self, value: float) -> float:
        """The sum of a number over all ranks."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def weights(self) -> dict[str, Tensor] | None:
        """The full float32 weights and buffers on the first rank; None on the others."""

    def close(self) -> None:
        """Leave the group of processes."""


def add(sums: Tensor, losses: Sequence[Tensor | None]) -> None:
    """Add a pass's losses to a step's."""
    for i, value in enumerate(losses):
        if value is not None:
            sums[i] += value.detach().double()


def step_counts(
    model: VTSum, batches: Sequence[Batch], ranks: int, device: torch.device, sharing: int = 1
) -> LossCounts | None:
    """A pass's share of the annotated frames and words of a whole step, of which this rank has `batches`, or stretches
    where `sharing` ranks have a pass together: the mean of the passes' losses is then the loss of all their videos at
    once, however they are dealt out. None with loss_mean "released", where each pass counts its own."""
    if model.config.loss_mean == "released":
        return None
    found = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        inputs = batch.model_inputs()
        own = model.loss_counts(inputs.get("video_mask"), inputs.get("vsum_labels"), inputs["tsum_labels"])
        found += torch.tensor(own, dtype=torch.float64)
    if ranks > 1:
        found = found.to(device)
        torch.distributed.all_reduce(found)
    frames, words = found.tolist()
    passes = len(batches) * ranks / sharing
    # Each of those that share a pass has other frames, and the same words.
    return LossCounts(max(1.0, frames) / passes, max(1.0, words / sharing) / passes)


def result_of(means: Tensor, norm: float, flags: Sequence[float], ranks: int) -> StepResult:
    """A step's result from the means of this rank's losses, [LOSSES], over all ranks."""
    sums = torch.cat([means / ranks, means.new_tensor(list(flags))])
    if ranks > 1:
        torch.distributed.all_reduce(sums)
    total, vsum, tsum, balance, boundary, *flagged = sums.tolist()
    return StepResult(total, vsum, tsum, balance, boundary, norm, tuple(flagged))


def total_of(value: float, device: torch.device) -> float:
    """The sum of a number over all ranks."""
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(tensor)
    return float(tensor)


def sharing_group(place: Place, size: int, minutes: float) -> Any:
    """The group of the `size` ranks, one after the other, that share out the frames of a pass with this one; None where
    each has whole videos.

    Args:
        minutes: that they wait for one that is silent.
    """
    if size == 1:
        return None
    own = None
    for first in range(0, place.ranks, size):  # every rank makes every group
        members = list(range(first, first + size))
        group = torch.distributed.new_group(members, timeout=timedelta(minutes=minutes))
        own = group if place.rank in members else own
    return own


def join(place: Place, minutes: float) -> None:
    """Join the group of processes that torchrun started.

    Args:
        minutes: that ranks wait for one that is silent.
    Raises:
        VTSumError: it started none.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank)
    load_collectives()
    try:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend, timeout=timedelta(minutes=minutes))
    except (RuntimeError, ValueError) as error:
        raise VTSumError(
            f"train: {place.ranks} processes must find each other, as torchrun has them do, got: {first_line(error)}"
        ) from None


def _losses(out: VTSumOutput) -> tuple[Tensor | None, ...]:
    return out.loss, out.loss_vsum, out.loss_tsum, out.loss_balance, out.loss_boundary


class Losses(nn.Module):
    """The model as DistributedDataParallel and DeepSpeed see it: stage 3 hooks every tensor that a module returns, so
    it returns the losses alone, and the model, called by `forward`, is passed over."""

    def __init__(self, model: VTSum) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> tuple[Tensor | None, ...]:
        return _losses(self.model.forward(**inputs))


def _part(state: Any, name: str) -> dict[str, Any]:
    """One of the dictionaries that `PlainEngine.save` writes."""
    if not isinstance(state, dict) or name not in state:
        raise ValueError(f"no {quoted(name)}")
    found = state[name]
    if not isinstance(found, dict):
        raise ValueError(f"{quoted(name)} that is no dictionary")
    return found


class PlainEngine:
    """An optimizer of PyTorch's; on a GPU where there is one. bf16: autocast over float32 weights.

    Several processes that torchrun started share the passes of a step by DistributedDataParallel; all have the same
    weights, and the first one writes.
    """

    def __init__(self, model: VTSum, settings: TrainSettings, accumulation: int, place: Place = ALONE) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device).train()
        self.settings, self.place, self.accumulation = settings, place, accumulation
        self.optimizer = make_optimizer(model, settings)
        self.facts: dict[str, Any] = {"engine": "plain"}
        self.passes: nn.Module = Losses(model)
        self.sharing = settings.sequence_parallel_size
        self.group = sharing_group(place, self.sharing, settings.rank_timeout)
        if place.ranks > 1:
            # A model of the user's own may have weights that a step does not use.
            unused = settings.architecture is not None
            self.passes = DistributedDataParallel(self.passes, find_unused_parameters=unused)

    def step(self, batches: Sequence[Batch], rate: float, flags: Sequence[float] = ()) -> StepResult:
        sums = torch.zeros(LOSSES, dtype=torch.float64, device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        counts = step_counts(self.model, batches, self.place.ranks, self.device, self.sharing)
        # A model of the user's own need not know of groups.
        where: dict[str, Any] = {} if self.group is None else {"group": self.group}
        for batch in batches:
            with self._apart(batch is not batches[-1]):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
                    losses = self.passes(**batch.to(self.device).model_inputs(), counts=counts, **where)
                (losses[0] * self.sharing / self.accumulation).backward()
            add(sums, losses)
        clip = self.settings.gradient_clipping
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip if clip > 0 else math.inf)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        return result_of(sums / len(batches), float(norm), flags, self.place.ranks)

    def _apart(self, more: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients travel once a step, in the last pass."""
        if more and isinstance(self.passes, DistributedDataParallel):
            return self.passes.no_sync()
        return contextlib.nullcontext()

    def save(self, folder: Path) -> None:
        if self.place.first:
            state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            write_pt(state, folder / "state.pt")

    def load(self, folder: Path) -> None:
        path = folder / "state.pt"
        state = read_pt(path, "train")
        try:
            weights, kept = (_part(state, name) for name in ("model", "optimizer"))
            if odd := [name for name, value in weights.items() if not isinstance(value, Tensor)]:
                raise ValueError(f"{quoted(odd[0])} that is no tensor")
            check_floats(self.model, weights, "its weights")
            self.model.load_state_dict(weights)
            with moments_alone(self.optimizer):
                self.optimizer.load_state_dict(kept)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise VTSumError(
                f"train: {path} must hold this model and its optimizer, got: {weights_misfit(error)}"
            ) from None

    def total(self, value: float) -> float:
        return value if self.place.ranks == 1 else total_of(value, self.device)

    def barrier(self) -> None:
        if self.place.ranks > 1:
            torch.distributed.barrier()

    def weights(self) -> dict[str, Tensor] | None:
        return self.model.state_dict() if self.place.first else None

    def close(self) -> None:
        if self.place.ranks > 1:
            torch.distributed.destroy_process_group()
