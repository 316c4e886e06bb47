"""The processes of a distributed evaluation, as torchrun starts them: who am I, and what have the others found."""

from __future__ import annotations

import contextlib
import datetime
import os
from types import TracebackType
from typing import Any

from vtsum.errors import VTSumError

_PATIENCE = datetime.timedelta(hours=24)
"""How long to wait for the slowest process; one that died is noticed at once."""


class Ranks:
    """This process among those of the run; alone where torchrun did not start it.

    Only results travel between processes, as objects, so gloo serves on every device.

    Attributes:
        rank: 0 is the one that writes. world: number of processes. local: number on this machine.
    """

    def __init__(self) -> None:
        try:
            self.rank, self.world, self.local = (
                int(os.environ.get(name, default))
                for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
            )
        except ValueError:
            raise VTSumError(
                "evaluate: RANK, WORLD_SIZE and LOCAL_RANK must be numbers, as torchrun sets them"
            ) from None

    def __enter__(self) -> Ranks:
        if self.world > 1:
            import torch.distributed as dist

            with _told():
                dist.init_process_group("gloo", timeout=_PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world > 1:
            import torch.distributed as dist

            with contextlib.suppress(RuntimeError, ValueError):
                dist.destroy_process_group()

    def everyone(self, value: Any) -> list[Any]:
        """Each process's value, in the order of ranks, on all of them.

        Raises:
            VTSumError: another process has ended.
        """
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.world
        with _told():
            dist.all_gather_object(found, value)
        return found

    def device(self, wanted: str) -> str:
        """ "auto": this process's GPU where there is one, else the CPU."""
        import torch

        if wanted == "auto":
            return f"cuda:{self.local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
        try:
            torch.zeros(1, device=wanted)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0]
            raise VTSumError(f"evaluate: device must be there, got {wanted!r}: {reason}") from None
        return wanted


@contextlib.contextmanager
def _told() -> Any:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise VTSumError(
            f"evaluate: all processes of the run must be there, one has ended (see its own message): {reason:.120}"
        ) from None
