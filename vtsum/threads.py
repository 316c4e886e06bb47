"""How threads share the cores and the interpreter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_switches() -> Iterator[None]:
    """Let threads take turns fifty times as often: an import holds the interpreter, the decoder asks for it often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 50)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def torch_threads(*, spare: int | None = None, count: int | None = None) -> Iterator[None]:
    """Run PyTorch with fewer threads for a while: `spare` less than it has, or `count`.

    Threads that wait for a core that others use spin, and small calls then take ten times as long as on one thread.
    """
    if "torch" not in sys.modules:
        yield
        return
    import torch  # where another thread is importing it, this waits until it is whole

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before - spare) if spare is not None else min(count or before, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
