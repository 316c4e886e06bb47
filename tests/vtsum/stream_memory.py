"""`python -m tests.vtsum.stream_memory FRAMES`: summarises drawn frames given as arrays, and prints the process's
memory (resident KiB) after each thousand of them, and after them all how many shots came and were kept."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import vtsum
from tests.vtsum.drawn_stream import drawn
from tests.vtsum.fakes import ColourModel


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def told(count: int) -> Iterator[tuple[float, np.ndarray]]:
    for number, item in enumerate(drawn(0, count)):
        if number and number % 1000 == 0:
            print(resident(), flush=True)
        yield item


if __name__ == "__main__":
    for summary in vtsum.stream(told(int(sys.argv[1])), model=ColourModel(), every=2.0):
        last = summary
    print(last.data["frames"], last.data["shots"]["settled"], last.data["shots"]["kept"])
