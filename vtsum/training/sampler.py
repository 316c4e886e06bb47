"""Which videos make up which step: fixed by the seed and the epoch, whoever computes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vtsum.errors import VTSumError

MIXED = 50
"""Steps whose videos are sorted together, by their lengths: as many as transformers' Trainer takes."""


@dataclass(frozen=True)
class Layout:
    """How a step's videos are spread: `micro_batch` videos a forward pass, `accumulation` passes, `ranks` processes."""

    micro_batch: int
    accumulation: int
    ranks: int

    @property
    def global_batch(self) -> int:
        """Videos a step."""
        return self.micro_batch * self.accumulation * self.ranks


def spread(global_batch: int, batch_size: int, ranks: int) -> Layout:
    """Spread the same steps over another number of ranks.

    Forward passes of `batch_size` videos are kept where their number divides by the ranks (fewer ranks then accumulate
    more), because dropout, and with loss_mean "released" the losses, depend on which videos share a pass. Else the
    passes become smaller, by as little as will do.

    Raises:
        VTSumError: `global_batch` does not divide by `ranks`.
    """
    for micro in range(batch_size, 0, -1):
        if batch_size % micro == 0 and global_batch % micro == 0 and (global_batch // micro) % ranks == 0:
            return Layout(micro, global_batch // micro // ranks, ranks)
    raise VTSumError(
        f"train: ranks must divide the {global_batch} videos a step of the checkpoint to resume, got {ranks} ranks"
    )


class StepSampler:
    """The videos of every step, as lists of indices a forward pass.

    The order of an epoch is a random permutation of the videos, drawn from (seed, epoch) alone. A step takes the next
    `global_batch` of them; forward pass m of a step (of accumulation * ranks) takes its m-th part and belongs to rank
    m % ranks. Other ranks with the same global batch thus see the same steps. What is left at the end of an epoch and
    fills no step is left out of that epoch (other videos each time), as the original does: every rank then steps
    equally often.

    With `lengths`, the steps are made of videos of like lengths: of each MIXED steps' worth of the random order, sorted
    by length, and then taken in random order.

    Args:
        videos: their number.
        layout: see `Layout`.
        seed: of the order.
        lengths: frames of each video, or None.
    Raises:
        VTSumError: fewer videos than one step takes.
    """

    def __init__(self, videos: int, layout: Layout, seed: int, lengths: Sequence[int] | None = None) -> None:
        self.videos = videos
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.layout = layout
        self.seed = seed
        self.steps_per_epoch = videos // layout.global_batch
        if not self.steps_per_epoch:
            raise VTSumError(
                f"train: batch_size x gradient_accumulation_steps x ranks must be at most the {videos} training "
                f"videos, got {layout.micro_batch} x {layout.accumulation} x {layout.ranks}"
            )

    def epoch(self, epoch: int) -> np.ndarray:
        """[steps_per_epoch, accumulation * ranks, micro_batch] indices of videos."""
        draw = np.random.default_rng([self.seed, epoch])
        layout = self.layout
        used = draw.permutation(self.videos)[: self.steps_per_epoch * layout.global_batch]
        if self.lengths is not None:
            size = MIXED * layout.global_batch
            parts = [used[at : at + size] for at in range(0, len(used), size)]
            alike = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in parts])
            used = draw.permutation(alike.reshape(self.steps_per_epoch, layout.global_batch))
        return used.reshape(self.steps_per_epoch, layout.accumulation * layout.ranks, layout.micro_batch)

    def passes(self, epoch: int, first_step: int, rank: int) -> Iterator[list[int]]:
        """The forward passes of `rank` in `epoch` from its step `first_step` on, in order."""
        for step in self.epoch(epoch)[first_step:]:
            for part in step[rank :: self.layout.ranks]:
                yield part.tolist()
