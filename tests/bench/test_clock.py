"""Clocks: how often a call is made for a sample, what a sample means, and the memory a call takes."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.kit.clock import CudaClock, WallClock, peak_of_process
from tests import forked


def test_a_short_call_is_made_often_for_a_sample_and_a_long_one_once() -> None:
    made: list[int] = []

    def call(i: int) -> tuple[Tensor, ...]:
        made.append(i)
        return ()

    sampler = WallClock(sets=3, fill=1e-3).sampler(call, estimate=1e-4)
    assert sampler.calls == 10
    sampler.sample()
    assert made == [0, *(i % 3 for i in range(10))]  # the first is not timed
    made.clear()
    assert WallClock(fill=1e-3).sampler(call, estimate=0.5).calls == 1


def test_a_sample_is_the_seconds_of_one_call() -> None:
    def call(i: int) -> tuple[Tensor, ...]:
        time.sleep(0.002)
        return ()

    sampler = WallClock(fill=0.02).sampler(call, estimate=0.002)
    assert sampler.calls == 10
    assert 0.002 <= min(sampler.sample() for _ in range(3)) < 0.01


def test_peak_is_the_memory_that_a_call_holds_at_its_worst() -> None:
    def call(i: int) -> tuple[Tensor, ...]:
        scratch = torch.ones(25_000_000)  # 100 MB, gone when the call returns
        return (scratch[:10].clone(),)

    peak = peak_of_process(call)
    assert peak is not None
    assert 95e6 < peak < 130e6
    assert peak_of_process(lambda i: ()) == pytest.approx(0, abs=4e6)


COUNTED = """
import contextlib, resource, sys, threading, torch
from bench.kit.clock import keep_memory, page_in
keep_memory()
waiting = threading.Event()
threading.Thread(target=waiting.wait, daemon=True).start()
with contextlib.suppress(RuntimeError):
    torch.empty(2**46)  # as a rival may ask for: what is refused changes nothing for the others
page_in(int(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
results = [torch.empty(25_000_000).zero_() for _ in range(3)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is asked to keep memory")
def test_memory_that_was_paged_in_is_there_for_the_calls_to_come() -> None:
    def faults(prepared: int) -> int:
        done = forked.run([sys.executable, "-c", COUNTED, prepared], env=os.environ, timeout=120)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert faults(0) > 10_000  # of 4 KiB, in 300 MB
    assert faults(400_000_000) < 100


class FakeCuda:
    """Stands in for torch.cuda: a call takes a millisecond, a launch outside a graph half of one more."""

    def __init__(self, capturable: bool) -> None:
        self.capturable, self.capturing, self.now, self.replays = capturable, False, 0.0, 0
        self.captured = 0

    def work(self) -> None:
        if self.capturing:
            if not self.capturable:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.captured += 1
        else:
            self.now += 1.5

    def synchronize(self) -> None: ...

    def current_stream(self) -> Any:
        return self

    def wait_stream(self, other: Any) -> None: ...

    Stream = current_stream

    @contextmanager
    def stream(self, which: Any) -> Any:
        yield

    @contextmanager
    def graph(self, which: Any) -> Any:
        self.capturing = True
        try:
            yield
        finally:
            self.capturing = False

    def CUDAGraph(self) -> Any:
        return self

    def replay(self) -> None:
        self.replays += 1
        self.now += self.captured

    def Event(self, enable_timing: bool) -> Any:
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.at = cuda, 0.0

    def record(self) -> None:
        self.at = self.cuda.now

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: FakeEvent) -> float:
        return end.at - self.at


@pytest.mark.parametrize(
    ("capturable", "graphs", "method", "seconds"),
    [(True, True, "graph", 1e-3), (False, True, "events", 1.5e-3), (True, False, "events", 1.5e-3)],
)
def test_cuda_samples_rotate_through_the_inputs(capturable: bool, graphs: bool, method: str, seconds: float) -> None:
    cuda, made = FakeCuda(capturable), []

    def call(i: int) -> tuple[Tensor, ...]:
        made.append(i)
        cuda.work()
        return ()

    sampler = CudaClock(sets=4, fill=1e-2, graphs=graphs, cuda=cuda).sampler(call, estimate=1e-3)
    assert (sampler.calls, sampler.method) == (10, method)
    assert sampler.sample() == pytest.approx(seconds)
    assert made[-10:] == [i % 4 for i in range(10)]
    assert cuda.replays == (2 if method == "graph" else 0)


def test_cuda_samples_use_every_set_of_inputs() -> None:
    cuda = FakeCuda(True)
    assert CudaClock(sets=40, cuda=cuda).sampler(lambda i: (), estimate=1.0).calls == 40


def test_a_gpu_result_stays_until_its_inputs_come_round_again() -> None:
    """Or else every call would write to the same memory, which then never leaves the cache."""
    cuda, alive, most = FakeCuda(False), 0, 0

    class Result:
        def __init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def call(i: int) -> Any:
        return (Result(),)

    CudaClock(sets=5, fill=2e-2, graphs=False, cuda=cuda).sampler(call, estimate=1e-3).sample()
    assert 5 <= most <= 6
