"""Memory: handed back to the system, and bounded for a process that reads what a stranger made."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")  # pages: of the address space, in memory ... (proc(5))


def give_back() -> None:
    """Hand what was freed back to the system: libav's tables of a long file grow by being copied, and glibc keeps the
    places where they were, some 75 MiB for ten hours. Nothing where another C library is."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident() -> int:
    """Bytes of this process that lie in memory; 0 where the system does not tell, as Linux does."""
    return _pages(1)


def _pages(column: int) -> int:
    return int(_STATM.read_text().split()[column]) * os.sysconf("SC_PAGE_SIZE") if sys.platform == "linux" else 0


def limit(seconds: int, memory: int) -> None:
    """Have this process end after so many seconds of computing, and get so many bytes more than it has, or fewer."""
    import resource

    used = _pages(0)
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory + used),
        (resource.RLIMIT_CORE, 0),  # where it ends by a signal, nothing of it is to lie about
    ):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
