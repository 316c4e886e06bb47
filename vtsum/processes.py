"""The processes of a distributed run, as torchrun and DeepSpeed's launcher start them: which one is this, and what have
the others found."""

from __future__ import annotations

import contextlib
import datetime
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from vtsum.errors import VTSumError

_PATIENCE = datetime.timedelta(hours=24)
"""How long to wait for the slowest process; one that died is noticed at once."""


@dataclass(frozen=True)
class Place:
    """This process among all: its rank, their number, and its rank on this machine."""

    rank: int
    ranks: int
    local_rank: int

    @staticmethod
    def here() -> Place:
        """Of this process, as the environment says; (0, 1, 0) where no launcher started it.

        Raises:
            VTSumError: the environment holds something else than numbers.
        """
        names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        found = [os.environ.get(name, default) for name, default in names.items()]
        try:
            return Place(*map(int, found))
        except ValueError:
            raise VTSumError(
                f"processes: {', '.join(names)} must be numbers, as torchrun sets them, got {', '.join(found)}"
            ) from None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes and talks."""
        return self.rank == 0


def load_collectives() -> None:
    """Import what keeps the group that there is when it is first imported, as defaults of its functions; to be called
    before a group is made.

    Of a group that is kept the threads outlive `destroy_process_group`, and one that is still at work while the
    interpreter goes down aborts the process. PyTorch's compiler, too, imports it, at its first use.
    """
    import torch.distributed.nn  # noqa: F401


class Group:
    """The processes of an evaluation; only results travel between them, as objects, so gloo serves on every device."""

    def __init__(self) -> None:
        self.place = Place.here()

    def __enter__(self) -> Group:
        if self.place.ranks > 1:
            import torch.distributed as dist

            load_collectives()
            with _told():
                dist.init_process_group("gloo", timeout=_PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.place.ranks > 1:
            import torch.distributed as dist

            with contextlib.suppress(RuntimeError, ValueError):
                dist.destroy_process_group()

    def everyone(self, value: Any) -> list[Any]:
        """Each process's value, in the order of ranks, on all of them.

        Raises:
            VTSumError: another process has ended.
        """
        if self.place.ranks == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.place.ranks
        with _told():
            dist.all_gather_object(found, value)
        return found


@contextlib.contextmanager
def _told() -> Any:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise VTSumError(
            f"evaluate: all processes of the run must be there, one has ended (see its own message): {reason:.120}"
        ) from None
