"""The batches of an epoch, read by processes of their own."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from vtsum.data.collate import Batch, collate
from vtsum.data.videoxum import VideoXumDataset
from vtsum.errors import VTSumError
from vtsum.training.sampler import StepSampler
from vtsum.training.settings import TrainSettings
from vtsum.training.stopping import heed_only_the_rank


def steps(
    videos: VideoXumDataset, sampler: StepSampler, epoch: int, first: int, rank: int, settings: TrainSettings
) -> Iterator[list[Batch]]:
    """The forward passes of this rank, a list a step, from the epoch's step `first` on.

    Raises:
        VTSumError: a feature file that cannot be used.
    """
    passes = list(sampler.passes(epoch, first, rank))
    loader = DataLoader(
        videos,
        batch_sampler=passes,
        collate_fn=functools.partial(collate, packed=settings.packed),
        num_workers=min(settings.num_workers, len(passes)),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=heed_only_the_rank,
        generator=torch.Generator(),  # of its own: the global one is dropout's, and exact resuming counts its draws
    )
    batches = iter(loader)
    for _ in range(len(passes) // sampler.layout.accumulation):
        try:
            step = [next(batches) for _ in range(sampler.layout.accumulation)]
        except VTSumError as error:  # from another process it comes with that one's traceback before it
            raise VTSumError(str(error).rpartition("VTSumError: ")[2].strip()) from None
        yield step
