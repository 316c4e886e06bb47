"""The emulator itself: what its threads do together, and the mistakes it must find."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from tests.emulator.build import build, sanitizer_environment
from tests.emulator.run import Library, library

BARRIER_IN_BRANCH, TWO_BARRIERS, LANE_LEFT, UNNAMED, OTHER_MASK, ABSENT_LANE, PAST_SHARED = range(7)


def pointer(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


@pytest.fixture(params=[False, True], ids=["rising", "falling"])
def lib(request: pytest.FixtureRequest, emulator: None) -> Iterator[Library]:
    """The library with the emulator's own kernels alone, its threads running in either order."""
    found = library(kernels=False)
    found.reverse(request.param)
    yield found
    found.reverse(False)


def test_warps_reduce_and_blocks_add_up(lib: Library) -> None:
    x, to = torch.randint(-50, 50, (3, 160)).float(), torch.full((3,), torch.nan)
    lib.check(lib.c.selftest_sum(pointer(x), pointer(to), 3, 160))
    assert torch.equal(to, x.sum(1))


def test_a_barrier_shows_what_others_wrote_and_its_absence_does_not(lib: Library) -> None:
    threads = 70  # the last warp is not full
    to = torch.empty(2, threads, dtype=torch.int32)
    wanted = (torch.arange(threads, dtype=torch.int32).roll(-1) * 3).expand(2, -1) + torch.arange(2)[:, None]
    lib.check(lib.c.selftest_exchange(pointer(to), 2, threads, 1))
    assert torch.equal(to, wanted.int())
    lib.check(lib.c.selftest_exchange(pointer(to), 2, threads, 0))
    assert not torch.equal(to, wanted.int())


def test_shuffles_and_votes(lib: Library) -> None:
    to = torch.empty(32, 8, dtype=torch.int64)
    lib.check(lib.c.selftest_lanes(pointer(to)))
    for lane, row in enumerate(to.tolist()):
        segment = lane // 16 * 16
        votes = sum(1 << other for other in range(segment, segment + 16) if other % 3 == 0)
        up, down = lane - 3 if lane - 3 >= segment else lane, lane + 3 if lane + 3 < segment + 16 else lane
        assert row == [(lane // 8 * 8 + (lane + 3) % 8) << 40, lane ^ 5, up, down, votes, 2, 1, 16], lane


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows_of_b", [16, 11])
def test_a_product_by_tensor_cores(lib: Library, dtype: torch.dtype, rows_of_b: int) -> None:
    a, b, to = torch.randn(16, 16).to(dtype), torch.randn(16, 8).to(dtype), torch.full((16, 8), torch.nan)
    b[rows_of_b:] = torch.nan  # what the predicate leaves out is zero, whatever is there
    lib.check(lib.c.selftest_product(pointer(a), pointer(b), pointer(to), rows_of_b, int(dtype == torch.bfloat16)))
    exact = a[:, :rows_of_b].double() @ b[:rows_of_b].double()
    assert (to - exact).abs().max() <= exact.abs().max() * 2**-23


@pytest.mark.parametrize("every", [1, 2, 7, 100])
def test_a_tile_adds_up_what_those_before_it_have_said(lib: Library, every: int) -> None:
    """The sums of a scan whose tiles are at work all at once, which blocks one after another never show."""
    counts = torch.arange(3, 53, dtype=torch.int32)
    all_so_far = (torch.arange(50) % every == 0).int()
    to = torch.empty(50, dtype=torch.int32)
    lib.check(lib.c.selftest_look_back(pointer(counts), pointer(all_so_far), pointer(to), 50))
    assert torch.equal(to, (counts.cumsum(0) - counts).int())


def test_copies_have_not_arrived_before_the_wait(lib: Library) -> None:
    x, to = torch.arange(8.0), torch.zeros(8)
    lib.check(lib.c.selftest_early(pointer(x), pointer(to)))
    assert torch.equal(to[:4], x[:4])
    assert to[4:].isnan().all()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (BARRIER_IN_BRANCH, r"in __syncthreads at .*selftest.cu:\d+ for thread( .* which has ended|s that never come)"),
        (TWO_BARRIERS, r"is in __syncthreads at .* while thread .* waits for it in __syncthreads"),
        (LANE_LEFT, r"waits in __shfl_xor_sync .* for (thread \(5, 0, 0\), which has ended|lane \d+, which does not)"),
        (UNNAMED, "a shuffle reads a lane that its mask does not name"),
        (OTHER_MASK, "__ballot_sync .* (with another mask|for threads that never come)"),
        (ABSENT_LANE, r"waits in __syncwarp .* for lane \d+, which does not exist"),
    ],
)
def test_divergence_is_found(lib: Library, what: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        lib.check(lib.c.selftest_wrong(what, pointer(torch.empty(40))))


def test_a_run_after_a_failed_one_is_whole(lib: Library) -> None:
    assert lib.c.selftest_wrong(TWO_BARRIERS, pointer(torch.empty(40))) != 0
    test_warps_reduce_and_blocks_add_up(lib)


def test_a_launch_that_fails_is_named(lib: Library) -> None:
    """By its kernel, once; what is refused without a launch names none."""
    to = torch.empty(2, 2000, dtype=torch.int32)
    error = lib.c.selftest_exchange(pointer(to), 2, 2000, 1)  # more threads than a block has
    said = "the launch of exchange_kernel failed: refused (cudaErrorInvalidConfiguration)"
    assert lib.c.vts_cuda_error_text(error).decode() == said
    assert lib.c.vts_cuda_error_text(error).decode().startswith("a CUDA call failed: ")
    with pytest.raises(RuntimeError, match=r"^the launch of wrong_kernel failed: .* __syncthreads "):
        lib.check(lib.c.selftest_wrong(TWO_BARRIERS, pointer(torch.empty(40))))


def test_an_error_that_an_earlier_call_left_is_not_the_launchs(lib: Library) -> None:
    lib.c.vts_emulator_leave_error()
    test_warps_reduce_and_blocks_add_up(lib)


@pytest.fixture
def asked(lib: Library) -> Iterator[Callable[[int, int, int], int]]:
    """How often a kernel (0 or 1), a launch's bytes and a device make the launch ask for shared memory."""
    to = torch.empty(1, dtype=torch.int32)

    def launch(kernel: int, bytes_: int, device: int) -> int:
        before = lib.c.vts_emulator_asked()
        lib.c.vts_emulator_device(device)
        lib.check(lib.c.selftest_roomy(kernel, bytes_, pointer(to)))
        assert to == kernel
        return int(lib.c.vts_emulator_asked() - before)

    yield launch
    lib.c.vts_emulator_device(0)


DEVICES = iter(range(1, 60))  # a fresh one for each test: what was asked is remembered as long as the process


def test_shared_memory_is_asked_for_once_a_device_and_kernel(asked: Callable[[int, int, int], int]) -> None:
    one, other, much, more = next(DEVICES), next(DEVICES), 60 * 1024, 80 * 1024
    assert [asked(0, 48 * 1024, one), asked(0, much, one), asked(0, much, one), asked(0, 100, one)] == [0, 1, 0, 0]
    assert [asked(1, much, one), asked(1, much, one)] == [1, 0]
    assert [asked(0, much, other), asked(0, much, other), asked(0, much, one)] == [1, 0, 0]
    assert [asked(0, more, one), asked(0, much, one), asked(0, more, one)] == [1, 0, 0]
    assert [asked(0, much, 64), asked(0, much, 64)] == [1, 1]  # of more devices than are remembered


def test_threads_ask_for_shared_memory_once(lib: Library, asked: Callable[[int, int, int], int]) -> None:
    lib.c.vts_emulator_device(next(DEVICES))
    before = lib.c.vts_emulator_asked()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lib.c.selftest_allow, [60 * 1024] * 200)) == [0] * 200
    assert lib.c.vts_emulator_asked() - before == 1


def test_a_write_past_the_end_of_shared_memory_is_found(emulator: None) -> None:
    script = f"import ctypes, sys; ctypes.CDLL(sys.argv[1]).selftest_wrong({PAST_SHARED}, None)"
    command = [sys.executable, "-c", script, str(build(kernels=False, sanitized=True))]
    done = subprocess.run(command, env={**os.environ, **sanitizer_environment()}, capture_output=True, text=True)
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr, done.stderr
    assert "WRITE of size 4" in done.stderr
    assert "wrong_kernel" in done.stderr
