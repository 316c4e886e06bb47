"""The inner parts of vtsum_kernels that benchmarks use, in one place: references, tuned sizes, launches of Triton.

The package is imported where it is used: who only plans a measurement loads none of its libraries.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

TUNED_VARIABLE = "VTSUM_KERNELS_TUNED"


def reference(op: str, *tensors: Any, **options: Any) -> Any:
    """An op's reference in plain PyTorch."""
    module = importlib.import_module(f"vtsum_kernels.{op}.reference")
    return getattr(module, f"{op}_reference")(*tensors, **options)


def served(op: str, backend: str, *arguments: Any, **options: Any) -> str:
    """The backend that serves a call which asks for one."""
    from vtsum_kernels import explain

    try:
        found = re.search(r"-> (\w+)", explain(op, *arguments, backend=backend, **options))
    except (TypeError, ValueError, NotImplementedError):  # the call itself will say why it cannot run
        return backend
    return found[1] if found else backend


class Used(NamedTuple):
    """What a kernel takes: registers of a thread; bytes of stack, spills among them; bytes of shared memory known to
    the compiler."""

    registers: int
    stack: int
    shared: int


def tune_into(path: Path) -> Any:
    """Has the Triton kernels measure their sizes and write them to a file; returns their tuner."""
    from vtsum_kernels.triton_kit import launch, tuning

    launch.TUNER = tuning.Tuner(launch.TUNER.version, lambda: path)
    return launch.TUNER


@contextlib.contextmanager
def launched(found: dict[str, set[Used]]) -> Iterator[None]:
    """Within it, `found` gets what each Triton kernel that is launched takes; nothing of those that the interpreter
    runs. A launch takes some microseconds longer."""
    from vtsum_kernels.triton_kit import launch

    before = launch.start

    def start(kernel: Any, grid: tuple[int], arguments: dict[str, Any], config: Any) -> None:
        made = kernel[grid](**arguments, **launch.options(config))
        if made is not None:
            used = Used(int(made.n_regs), 4 * int(made.n_spills), int(made.metadata.shared))  # spills of 32 bits each
            found.setdefault(kernel.__name__, set()).add(used)

    launch.start = start
    try:
        yield
    finally:
        launch.start = before
