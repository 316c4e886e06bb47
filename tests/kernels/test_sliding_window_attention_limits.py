"""A million frames, numbers beyond every sequence, forked processes and many threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from vtsum_kernels import dispatch
from vtsum_kernels.sliding_window_attention.backends import BACKENDS
from vtsum_kernels.sliding_window_attention.call import Call

from tests.kernels.window_calls import BEYOND, says_nothing_more

MILLION = """
import torch, vtsum_kernels as vk

def peak():  # what resource says of it begins with that of the process that started this one
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024

q, k, v = (torch.randn(1, 1, 1_000_000, 8).requires_grad_() for _ in range(3))
vk.sliding_window_attention(q[:, :, :64], k[:, :, :64], v[:, :, :64], 5, backend="cpp").sum().backward()
before = peak()
out = vk.sliding_window_attention(q, k, v, 5, backend="cpp")
dq, dk, dv = torch.autograd.grad(out.square().sum(), (q, k, v))
print(peak() - before)
for middle in (500_000, 999_960):
    around = slice(middle - 30, middle + 40)
    part = [x[:, :, around].detach().requires_grad_() for x in (q, k, v)]
    alone = vk.sliding_window_attention(*part, 5, backend="reference")
    inside = slice(middle - 20, middle + 30)
    torch.testing.assert_close(out[:, :, inside], alone[:, :, 10:60])
    grads = torch.autograd.grad(alone.square().sum(), part)
    for got, wanted in zip((dq, dk, dv), grads):
        torch.testing.assert_close(got[:, :, inside], wanted[:, :, 10:60])
"""


def test_a_million_frames_in_bounded_memory(cpp: None) -> None:
    """out, its square's gradient, dq, dk and dv are 31 MiB each; a dense form would need 4 TB of scores."""
    done = subprocess.run(
        [sys.executable, "-c", MILLION],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300, f"{done.stdout.strip()} MiB beyond the inputs"


@pytest.mark.parametrize("case", BEYOND.values(), ids=BEYOND)
@pytest.mark.parametrize("compiled", [False, True], ids=["", "compiled"])
@pytest.mark.parametrize("name", ["reference", "cpp", "blockwise"])
def test_numbers_beyond_every_sequence_cost_and_say_nothing_more(
    cpp: None, name: str, compiled: bool, case: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    says_nothing_more(name, compiled, case)


@pytest.mark.parametrize(("border", "own"), [("truncate", 9000), ("shift", 16000)])
def test_a_bias_past_the_ends_gets_its_gradient(cpu_backend: str, border: str, own: int) -> None:
    """What belongs to no pair gets 0; the rest what the short bias gets."""
    q, k, v = (torch.randn(1, 2, 12, 8) for _ in range(3))
    entries = (2 if border == "shift" else 1) * 16000 + 1
    bias = torch.randn(2, entries, requires_grad=True)
    around = slice(own - 11, own + 12)
    short = bias.detach()[:, around]
    short = (torch.nn.functional.pad(short, (11, 11)) if border == "shift" else short.clone()).requires_grad_()
    out = vk.sliding_window_attention(q, k, v, (9000, 7000), bias=bias, border=border, backend=cpu_backend)
    alone = vk.sliding_window_attention(q, k, v, (11, 11), bias=short, border=border, backend=cpu_backend)
    torch.testing.assert_close(out, alone)
    (whole,), (part,) = (torch.autograd.grad(x.square().sum(), b) for x, b in ((out, bias), (alone, short)))
    assert whole.count_nonzero() == part.count_nonzero() > 0
    torch.testing.assert_close(whole[:, around], part[:, 11:34] if border == "shift" else part)


def test_many_short_sequences_with_a_long_dilation(cpp: None) -> None:
    """A phase without a frame is no task: 5,000 sequences of 20,000 phases would be a hundred million."""
    ends = torch.arange(0, 20_001, 4, dtype=torch.int32)
    q = torch.randn(1, 1, 20_000, 8)
    begin = time.perf_counter()
    out = torch.ops.vtsum_kernels.sliding_window_attention_fwd(
        q, q, q, None, ends, None, None, 2, 2, 20_000, False, 1.0, 0.0, 0, False
    )[0]
    assert time.perf_counter() - begin < 1
    assert torch.equal(out, q)


FORKED = """
import os, torch, vtsum_kernels as vk
torch.set_num_threads(2)
torch.manual_seed(0)
q, k, v = (torch.randn(1, 2, 3000, 32) for _ in range(3))
expected = vk.sliding_window_attention(q, k, v, 9, backend="cpp")  # starts the pool of threads
torch.set_num_threads(1)  # what torch asks of forked processes: its pool does not survive the fork
child = os.fork()
if child == 0:
    same = torch.equal(vk.sliding_window_attention(q, k, v, 9, backend="cpp"), expected)
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_computes_the_same(cpp: None) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_many_threads_at_once(cpp: None) -> None:
    inputs = [[torch.randn(1, 2, 700, 32, requires_grad=True) for _ in range(3)] for _ in range(8)]
    alone = []
    for qkv in inputs:
        out = vk.sliding_window_attention(*qkv, 9, backend="cpp")
        alone.append([out, *torch.autograd.grad(out.square().sum(), qkv)])
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(10):
            out = vk.sliding_window_attention(*inputs[n], 9, backend="cpp")
            results = [out, *torch.autograd.grad(out.square().sum(), inputs[n])]
            if not all(torch.equal(a, b) for a, b in zip(results, alone[n], strict=True)):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("backend", "shape", "reason"),
    [
        ("cuda", (1, 1, 2**30 - 2**12, 8), None),
        ("cuda", (1, 1, 2**30 - 2**12 + 1, 8), "T must be at most 1073737728, got 1073737729"),
        ("triton", (1, 1, 2**30 - 2**12 + 1, 8), "T must be at most 1073737728, got 1073737729"),
        ("cuda", (4, 2**31 - 1, 1, 8), None),
        ("cuda", (4, 2**31, 1, 8), "B * H * T must be at most 8589934588, got 8589934592"),
        ("triton", (1, 2**31 - 1, 1, 8), None),
        ("triton", (2, 2**10, 2**20, 8), "B * H * T must be at most 2147483647, got 2147483648"),
        ("triton", (1, 1, 9, 257), "D is 257, more than 256"),
    ],
)
def test_gpu_predicates_at_the_limits(
    backend: str, shape: tuple[int, ...], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What kernels on a GPU count in 32 bits, their predicates look at; all keys count where queries are fewer."""
    monkeypatch.setattr(dispatch, f"{backend}_can_run", lambda x: None)
    x = torch.empty(shape, device="meta")
    for q in (x, x[:, :, -1:]):
        options = 4, 4, 1, False, 1.0, 0.0, "window", False, False, backend, None, 0, shape[2], None, 0.0
        call = Call(q, x, x, None, None, None, *options)
        assert BACKENDS[backend](call) == reason
