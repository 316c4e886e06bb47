"""The batches of a training, read by processes of their own."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator

import torch
from torch.utils.data import DataLoader

from vtsum.data.collate import Batch, collate
from vtsum.data.videoxum import VideoXumDataset
from vtsum.errors import VTSumError
from vtsum.training.sampler import StepSampler
from vtsum.training.settings import TrainSettings
from vtsum.training.stopping import heed_only_the_rank


def _passes(sampler: StepSampler, done: int, rank: int, epochs: int) -> Iterator[list[int]]:
    first, begin = divmod(done, sampler.steps_per_epoch)
    for epoch in range(first, epochs):
        yield from sampler.passes(epoch, begin if epoch == first else 0, rank)


def steps(
    videos: VideoXumDataset,
    sampler: StepSampler,
    done: int,
    rank: int,
    settings: TrainSettings,
    part: tuple[int, int] = (0, 1),
) -> Generator[list[Batch], None, None]:
    """The forward passes of this rank, a list a step, from the step after `done` to the end of the training: the
    readers do not stop between epochs. `part`: of which frames, as `collate` takes it; `rank` is then the sampler's.

    Raises:
        VTSumError: a feature file that cannot be used.
    """
    left = settings.max_epoch * sampler.steps_per_epoch - done
    loader = DataLoader(
        videos,
        batch_sampler=_passes(sampler, done, rank, settings.max_epoch),
        collate_fn=functools.partial(collate, packed=settings.packed, part=part),
        num_workers=min(settings.num_workers, left * sampler.layout.accumulation),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=heed_only_the_rank,
        generator=torch.Generator(),  # of its own: the global one is dropout's, and exact resuming counts its draws
    )
    batches = iter(loader)
    for _ in range(left):
        try:
            step = [next(batches) for _ in range(sampler.layout.accumulation)]
        except VTSumError as error:  # from another process it comes with that one's traceback before it
            raise VTSumError(str(error).rpartition("VTSumError: ")[2].strip()) from None
        yield step
