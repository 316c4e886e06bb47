"""Seconds a call takes, on the CPU and on a GPU, and the memory it takes meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

#: Computes with the inputs of that number (they rotate) and returns the results.
Call = Callable[[int], tuple[Tensor, ...]]


class Sampler(NamedTuple):
    """`sample` measures once: seconds a call, over `calls` calls."""

    sample: Callable[[], float]
    calls: int
    method: str


class Clock(Protocol):
    def once(self, call: Call) -> tuple[tuple[Tensor, ...], float]:
        """What one call returns, and its seconds with everything that comes with it."""

    def sampler(self, call: Call, estimate: float) -> Sampler:
        """A way to measure a call that takes about `estimate` seconds."""

    def peak(self, call: Call) -> int | None:
        """The most bytes that one call holds beyond what was there, its results included; None where nobody knows."""


class WallClock:
    """The time that passes: of a computation on the CPU, or, on any device, of starting one.

    A sample lasts at least `fill` seconds. A call short enough to live on what lies in the caches is made once untimed
    before each sample, since the calls in between were other implementations'.
    """

    def __init__(self, sets: int = 1, fill: float = 2e-4, device: str = "cpu") -> None:
        self.sets, self.fill, self.device = sets, fill, device

    def _finish(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def once(self, call: Call) -> tuple[tuple[Tensor, ...], float]:
        self._finish()
        began = time.perf_counter()
        outputs = call(0)
        self._finish()
        return outputs, time.perf_counter() - began

    def sampler(self, call: Call, estimate: float) -> Sampler:
        calls = min(max(math.ceil(self.fill / max(estimate, 1e-7)), 1), 1000)

        def sample() -> float:
            if estimate < 5e-3:
                call(0)
            self._finish()
            began = time.perf_counter()
            for i in range(calls):
                call(i % self.sets)
            took = time.perf_counter() - began
            self._finish()
            return took / calls

        return Sampler(sample, calls, "wall")

    def peak(self, call: Call) -> int | None:
        return peak_of_process(call) if self.device == "cpu" else None


class CudaClock:
    """CUDA events around calls that were captured in a graph, so that launching them costs nothing.

    Inputs rotate through `sets`, and each set's results stay until it comes round again: with sets that are together
    larger than the L2 cache, every call reads from memory and writes to it. What cannot be captured is launched one by
    one between the events, and the record says so. Without `graphs` everything is: a backward pass runs on the stream
    of its forward pass, which cannot be captured afterwards.
    """

    def __init__(self, sets: int, fill: float = 1e-3, graphs: bool = True, cuda: Any = torch.cuda) -> None:
        self.sets, self.fill, self.graphs, self.cuda = sets, fill, graphs, cuda

    def once(self, call: Call) -> tuple[tuple[Tensor, ...], float]:
        self.cuda.synchronize()
        began = time.perf_counter()
        outputs = call(0)
        self.cuda.synchronize()
        return outputs, time.perf_counter() - began

    def sampler(self, call: Call, estimate: float) -> Sampler:
        calls = min(max(math.ceil(self.fill / max(estimate, 1e-7)), self.sets), 256)

        def run() -> None:
            kept: list[Any] = [None] * self.sets
            for i in range(calls):
                kept[i % self.sets] = call(i % self.sets)

        replay, method = run, "events"
        if self.graphs:
            try:
                replay, method = self._captured(run, call), "graph"
            except RuntimeError:  # a synchronisation or a copy to the host: it cannot be captured
                self.cuda.synchronize()
        replay()

        def sample() -> float:
            start, end = self.cuda.Event(enable_timing=True), self.cuda.Event(enable_timing=True)
            start.record()
            replay()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end)) / 1e3 / calls

        return Sampler(sample, calls, method)

    def _captured(self, run: Callable[[], None], call: Call) -> Callable[[], None]:
        side = self.cuda.Stream()
        side.wait_stream(self.cuda.current_stream())
        with self.cuda.stream(side):  # what is allocated or chosen on the first calls must not be captured
            for _ in range(3):
                call(0)
        self.cuda.current_stream().wait_stream(side)
        self.cuda.synchronize()
        graph = self.cuda.CUDAGraph()
        with self.cuda.graph(graph):
            run()
        return graph.replay

    def peak(self, call: Call) -> int | None:
        self.cuda.synchronize()
        self.cuda.reset_peak_memory_stats()
        before = self.cuda.memory_allocated()
        call(0)
        self.cuda.synchronize()
        return int(self.cuda.max_memory_allocated() - before)


def gpu_is_broken() -> bool:
    """Whether an error stays with this process: every call that follows on the GPU is refused then."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def peak_of_process(call: Call) -> int | None:
    """How far the process's resident memory rises during a call. The kernel keeps the highest mark and can reset it."""
    status, marks = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not sys.platform.startswith("linux") or not marks.exists():
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # memory that was freed but not given back would hide what the call takes
        trim(0)
    try:
        marks.write_text("5")
    except OSError:
        return None
    before = _kib(status, "VmRSS")
    call(0)
    return max(_kib(status, "VmHWM") - before, 0) * 1024


def _kib(status: Path, name: str) -> int:
    for line in status.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def keep_memory() -> None:
    """Asks glibc to keep the memory that tensors free, as the allocators do that PyTorch's guide for CPUs recommends.

    Without it every large result is paged in anew, which takes longer than the computation, falls on some and not on
    others, and differs from run to run. Copying, which writes into memory that is there, is the roofline. One arena: a
    thread that once was refused memory would go to another, and of those no piece as large is kept.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_ARENA_MAX, 1)


def page_in(amount: int) -> None:
    """Has so many bytes of memory ready, at most half of what is free, for calls that are to be measured.

    `keep_memory` keeps what is freed, but until a process has held all that it needs at its worst, in pieces as large,
    results are paged in: of the longest sequences in every call that there is time for.
    """
    available = Path("/proc/meminfo")
    if available.exists():
        with contextlib.suppress(RuntimeError):  # a limit on the process's memory: then as it comes
            torch.empty(min(amount, _kib(available, "MemAvailable") * 512), dtype=torch.uint8).zero_()


#: From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
