"""A batch of sequences of which every rank of a group has a stretch, as a network sees it that is called on each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .agreement import Value, agree
from .exchange import with_halo
from .group import OPTIONS, Group, everyones, group_of
from .sums import sum_shared, sum_value


class Stretch(NamedTuple):
    """This rank's frames of sequences [B, T], from `first` to before `end` of the `total`.

    A network's losses are shares: each rank's loss is a part of one sum, and the gradients of what all ranks hold, its
    parameters, are to be summed over the ranks. What is computed alike on all ranks counts 1 / ranks on each.

    Attributes:
        lengths: frames of each rank. mask (Tensor | None): bool [B, total], the same on all ranks; None: all are valid.
    """

    group: Group
    lengths: list[int]
    mask: Tensor | None

    @property
    def handle(self) -> Any:
        return self.group.handle

    @property
    def rank(self) -> int:
        return self.group.rank

    @property
    def ranks(self) -> int:
        return self.group.ranks

    @property
    def first(self) -> int:
        return sum(self.lengths[: self.group.rank])

    @property
    def end(self) -> int:
        return self.first + self.lengths[self.group.rank]

    @property
    def total(self) -> int:
        return sum(self.lengths)

    @property
    def own_mask(self) -> Tensor | None:
        return None if self.mask is None else self.mask[:, self.first : self.end]

    def sum(self, x: Tensor) -> Tensor:
        """The sum of all ranks' x, of which each may make something else."""
        return sum_shared(self.group, x)

    def whole(self, x: Tensor) -> Tensor:
        """The sum of all ranks' shares; its gradient is that of the own share."""
        return sum_value(self.group, x)

    def same(self, x: Tensor) -> Tensor:
        """The first rank's x, on all of them: a small one."""
        return everyones(self.group, x, OPTIONS)[0]

    def agree(self, alike: Mapping[str, Value], device: torch.device) -> None:
        """Refuse what ranks say differently.

        Raises:
            ValueError: on all of them.
        """
        agree(self.group, {}, alike, {}, device)

    def with_halo(self, x: Tensor, y: Tensor, mask: Tensor, reach: int) -> tuple[Tensor, Tensor, Tensor, int]:
        """See `exchange.with_halo`."""
        return with_halo(self.group, self.lengths, x, y, mask, reach)


@torch.compiler.disable
def stretch_of(op: str, group: Any, x: Tensor, mask: Tensor | None, alike: Mapping[str, Value]) -> Stretch:
    """Of frames x [B, T, ...] with mask bool [B, T] or None, after all ranks have said the same of `alike`.

    Args:
        op: whose name messages begin with. group: as `distributed.sliding_window_attention` takes it.
    Raises:
        ValueError: ranks differ; on all of them. RuntimeError: a rank does not answer.
    """
    members = group_of(op, group)
    said = {"B": x.shape[0], "mask (given or not)": mask is not None, **alike}
    found = agree(members, {"length": x.shape[1]}, said, {}, x.device)
    lengths = [one["length"] for one in found]
    if mask is None:
        return Stretch(members, lengths, None)
    # All of one length, as messages of everyone's want it.
    padded = mask.new_zeros(mask.shape[0], max(lengths))
    padded[:, : mask.shape[1]] = mask
    masks = everyones(members, padded, OPTIONS)
    whole = torch.cat([one[:, :length] for one, length in zip(masks, lengths, strict=True)], 1)
    return Stretch(members, lengths, None if bool(whole.all()) else whole)
