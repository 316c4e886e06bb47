"""Opening files with libav in bounded time and memory, whatever they have of tags, chapters and text beside pictures.

libav looks through all tags of a table for each further one, of any format, and through chapters and a picture's texts
too: a megabyte of them is minutes of one call, which neither heeds its own time limit nor lets a signal be answered.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from av.container import InputContainer
from av.packet import Packet

from vtsum.memory import resident

OPEN_TIMEOUT = 20.0  # seconds of opening, reading and computing together
OPEN_MEMORY = 4 << 30  # bytes more than before; the index of a file of days takes a tenth of it
_AT_WORK = 1.0  # seconds of computing; libav fills as much in four
_LOOK = 0.2  # seconds between looks at how long it has taken
_MOST_TAGS = 2_000  # of a file, a stream or a chapter; libav takes 0.1 s for as many, each time that it opens the file
_MOST_CHAPTERS = 10_000
_MOST_TEXTS = 1_000  # of one picture
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")  # W3C, "Portable Network Graphics", third edition, 11.3.3

Made = TypeVar("Made")


class EndlessError(Exception):
    """A file takes more to open than any should: its text says within what it could not be."""


def within(seconds: float, work: Callable[[], Made], computing: bool = False) -> Made:
    """What `work` returns or raises, in so long and so much memory (where a system tells, as Linux does). Meanwhile
    signals are answered.

    Args:
        computing: it is the computing alone that may not take longer: what comes from elsewhere comes when it comes.
    Raises:
        EndlessError: it takes more than that; what it does is left to itself.
    """
    made: list[Made] = []
    failed: list[BaseException] = []
    done = threading.Event()
    clock: list[int] = []  # of the thread, which alone may ask for it: of one that has ended it is a wild pointer

    def run() -> None:
        if hasattr(time, "pthread_getcpuclockid"):  # macOS has none
            clock.append(time.pthread_getcpuclockid(threading.get_ident()))
        try:
            made.append(work())
        except BaseException as error:  # it is the caller's
            failed.append(error)
        finally:
            done.set()

    def computed() -> float:
        with contextlib.suppress(OSError):  # the thread has just ended, and its clock with it
            return sum(map(time.clock_gettime, clock))
        return 0.0

    begun, before = time.monotonic(), resident()
    threading.Thread(target=run, name="opening", daemon=True).start()
    while not done.wait(_LOOK):
        used = computed()
        if (used if computing else time.monotonic() - begun) > seconds:
            raise EndlessError(f"within {seconds:.0f} s{' of computing' if computing else ''}")
        if resident() - before > OPEN_MEMORY and used > _AT_WORK:  # else it is others' memory
            raise EndlessError(f"in {OPEN_MEMORY >> 30} GiB of memory")
    if failed:
        raise failed.pop()
    return made.pop()


def excessive_tables(container: InputContainer) -> str | None:
    """What a file must do about its tags or chapters, which are more than are read again and again in no time, or
    None."""
    chapters = container.chapters()
    if len(chapters) > _MOST_CHAPTERS:
        return f"must hold at most {_MOST_CHAPTERS} chapters, got {len(chapters)}"
    tables = (each.metadata for each in (container, *container.streams))
    most = max(len(table) for table in (*tables, *(chapter["metadata"] for chapter in chapters)))
    return f"must hold at most {_MOST_TAGS} tags of one thing, got {most}" if most > _MOST_TAGS else None


def crowded(packet: Packet, codec: str) -> bool:
    """Whether a picture in PNG has more texts than its decoder sorts in no time."""
    if codec not in ("png", "apng") or packet.size < 12 * _MOST_TEXTS:  # a text takes 12 bytes or more
        return False
    data = bytes(packet)
    return sum(map(data.count, _TEXTS)) > _MOST_TEXTS
