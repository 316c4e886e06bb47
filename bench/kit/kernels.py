"""The inner parts of vtsum_kernels that benchmarks use, in one place: references, tuned sizes, launches of Triton.

The package is imported where it is used: who only plans a measurement loads none of its libraries.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

TUNED_VARIABLE = "VTSUM_KERNELS_TUNED"


def sliding_window_attention_reference(*tensors: Any, **options: Any) -> Any:
    from vtsum_kernels.sliding_window_attention.reference import sliding_window_attention_reference

    return sliding_window_attention_reference(*tensors, **options)


def memory_attention_reference(*tensors: Any, **options: Any) -> Any:
    from vtsum_kernels.memory_attention.reference import memory_attention_reference

    return memory_attention_reference(*tensors, **options)


def memory_fuse_reference(*tensors: Any, **options: Any) -> Any:
    from vtsum_kernels.memory_fuse.reference import memory_fuse_reference

    return memory_fuse_reference(*tensors, **options)


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


def use_tuner(tuner: Any) -> None:
    """Puts another tuner, with `choose`, into the place of the kernels' own."""
    from vtsum_kernels.triton_kit import launch

    launch.TUNER = tuner


@contextlib.contextmanager
def launched() -> Iterator[dict[str, list[Used]]]:
    """Within it, what each Triton kernel that is launched takes; nothing for those that the interpreter runs."""
    from vtsum_kernels.triton_kit import launch

    found: dict[str, list[Used]] = {}
    before = launch.start

    def start(kernel: Any, grid: tuple[int], arguments: dict[str, Any], config: Any) -> None:
        made = kernel[grid](**arguments, num_warps=config.warps, num_stages=config.stages)
        if made is not None:
            used = Used(int(made.n_regs), 4 * int(made.n_spills), int(made.metadata.shared))  # spills of 32 bits each
            found.setdefault(kernel.__name__, []).append(used)

    launch.start = start
    try:
        yield found
    finally:
        launch.start = before


def read_tuned(path: Path) -> dict[str, Any]:
    """The Triton kernels' choices in a file; none where there is no file."""
    from vtsum_kernels.triton_kit.tuning import read

    return dict(read(path).configs)


def write_tuned(path: Path, choices: dict[str, Any], made_with: str) -> None:
    from vtsum_kernels.triton_kit.tuning import Choices, write

    write(path, Choices(made_with, choices))
