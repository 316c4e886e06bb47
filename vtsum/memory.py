"""Memory: handed back to the system, and bounded for a process that reads what a stranger made."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path


def give_back() -> None:
    """Hand what was freed back to the system: libav's tables of a long file grow by being copied, and glibc keeps the
    places where they were, some 75 MiB for ten hours. Nothing where another C library is."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def limit(seconds: int, memory: int) -> None:
    """Have this process end after so many seconds of computing, and get so many bytes more than it has, or fewer."""
    import resource

    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
    )
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory + used),
        (resource.RLIMIT_CORE, 0),  # where it ends by a signal, nothing of it is to lie about
    ):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
