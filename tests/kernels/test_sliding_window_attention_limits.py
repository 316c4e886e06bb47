"""A million frames, forked processes and many threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
import vtsum_kernels as vk

MILLION = """
import resource, torch, vtsum_kernels as vk
q, k, v = (torch.randn(1, 1, 1_000_000, 8).requires_grad_() for _ in range(3))
vk.sliding_window_attention(q[:, :, :64], k[:, :, :64], v[:, :, :64], 5, backend="cpp").sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out = vk.sliding_window_attention(q, k, v, 5, backend="cpp")
dq, dk, dv = torch.autograd.grad(out.square().sum(), (q, k, v))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
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
