"""How threads share the cores and the interpreter."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_importing = threading.Lock()


def import_whole(package: str) -> None:
    """Import a package before its parts are, by one thread at a time. Who imports a part holds it and waits for the
    whole; where another thread imports that meanwhile and comes to the part, Python has them take what is half made."""
    with _importing:
        importlib.import_module(package)


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
