"""Where the work of a batch is done: in processes of this machine, or on a cluster."""

from __future__ import annotations

from pathlib import Path

from vtsum.batches.local import LocalExecutor, check_workers
from vtsum.batches.ray_cluster import RayExecutor
from vtsum.errors import VTSumError
from vtsum.extras import require

EXECUTORS = ("local", "ray")


def check_executor(op: str, executor: str, workers: int, limit: float | None, gpus_per_worker: float) -> None:
    """Raises:
    VTSumError: an executor, or what is asked of it, that cannot be.
    """
    check_workers(op, workers, limit)
    if executor not in EXECUTORS:
        raise VTSumError(f"{op}: executor must be {' or '.join(EXECUTORS)}, got {executor!r}")
    if not (0 < gpus_per_worker < 1 or gpus_per_worker in range(65)):
        raise VTSumError(f"{op}: gpus_per_worker must be a part of one or a whole number, got {gpus_per_worker:g}")
    if executor == "ray":
        require("cluster", op)
    elif gpus_per_worker:
        raise VTSumError(f"{op}: gpus_per_worker must be left out but with executor ray, got {gpus_per_worker:g}")


def executor_of(
    op: str, executor: str, workers: int, limit: float | None, gpus_per_worker: float, held: Path | None
) -> LocalExecutor | RayExecutor:
    """The executor of that name. Args: checked ones; held: a file that workers lock (shared) as long as they live."""
    if executor == "ray":
        return RayExecutor(op, workers, limit, gpus_per_worker, held)
    return LocalExecutor(workers, limit, held)
