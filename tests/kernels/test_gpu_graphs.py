"""CUDA graphs of every backend, replayed with new inputs; streams; the same bits in every run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.nn import MemoryBank, SlidingWindowAttention

from tests.kernels.pretended_gpu import PRETENDED, large, pretending

pytestmark = pytest.mark.gpu
Run = Callable[[], list[Tensor]]


def capture(run: Run) -> tuple[Any, list[Tensor]]:
    """A graph of what `run` does, and its results, which a replay fills."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles what is to be compiled, and lets the BLAS take its workspace
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    return graph, results


@pytest.fixture(autouse=True)
def quiet_memory(gpu_settings: None, poison: None) -> None:
    """Filling new memory with NaN would be a part of every graph."""
    torch.use_deterministic_algorithms(False)


def window_call(backend: str, options: dict[str, Any]) -> tuple[list[Tensor], Run]:
    packed = "cu_seqlens" in options
    shape = (300, 4, 64) if packed else (2, 4, 150, 64)
    dtype = torch.bfloat16
    leaves = [torch.randn(shape).to(dtype).requires_grad_() for _ in range(3)]
    if options.get("bias"):
        leaves.append(torch.randn(4, 5, requires_grad=True))
    rest = {key: value for key, value in options.items() if key not in ("bias", "window")}
    along = torch.randn(shape).to(dtype)

    def run() -> list[Tensor]:
        out, lse = vk.sliding_window_attention(
            *leaves[:3], options.get("window", 5), bias=leaves[3] if len(leaves) > 3 else None, return_lse=True,
            backend=backend, **rest,
        )  # fmt: skip
        total = (out.float() * along.float()).sum() + lse.masked_fill(lse.isinf(), 0.0).sum()
        return [out, lse, *torch.autograd.grad(total, leaves)]

    return leaves, run


WINDOWS: dict[str, dict[str, Any]] = {
    "narrow": {},
    "strip": {"window": 17},
    "wide": {"window": 65},
    "options": {"bias": True, "dilation": 2, "key_mask": [150, 90]},
    "packed": {"cu_seqlens": [0, 100, 101, 300], "border": "shift"},
}


@pytest.mark.parametrize("name", WINDOWS)
def test_a_graph_of_windows(gpu_backend: str, name: str) -> None:
    made = {key: torch.tensor(value) if isinstance(value, list) else value for key, value in WINDOWS[name].items()}
    replay_gives_what_a_call_gives(*window_call(gpu_backend, made))


def test_a_graph_of_the_global_softmax(gpu_backend: str) -> None:
    replay_gives_what_a_call_gives(*window_call(gpu_backend, {"normalize": "global"}))


def test_a_graph_of_torchs_flash_attention() -> None:
    with torch.device("cuda"):
        leaves = [torch.randn(1, 2, 400, 64).bfloat16().requires_grad_() for _ in range(3)]

        def run() -> list[Tensor]:
            out = vk.sliding_window_attention(*leaves, 301, backend="flash")
            return [out, *torch.autograd.grad(out.float().square().sum(), leaves)]

        replay_gives_what_a_call_gives(leaves, run)


def replay_gives_what_a_call_gives(leaves: list[Tensor], run: Run) -> None:
    graph, results = capture(run)
    for _ in range(2):
        with torch.no_grad():
            for leaf in leaves:
                leaf.copy_(torch.randn(leaf.shape).to(leaf.dtype))
        graph.replay()
        got = [result.clone() for result in results]
        for mine, wanted in zip(got, run(), strict=True):
            # The same kernels: equal but for what a BLAS may choose otherwise while it is captured.
            torch.testing.assert_close(mine, wanted, rtol=1e-3 if mine.dtype == torch.float32 else 2e-2, atol=1e-4)
            assert mine.float().masked_fill(mine.isinf(), 0.0).abs().sum() > 0


READS: dict[str, dict[str, Any]] = {
    "attention": {},
    "masked": {"query_mask": True, "normalize": True, "num_heads": 2},
    "flash": {"slots": 1100},
    "sparse": {"top_k": 5},
    "folded": {"fold": True},
    "unfolded": {"fold": False, "num_heads": 2},
}


@pytest.mark.parametrize("name", READS)
def test_a_graph_of_reads(gpu_backend: str, name: str) -> None:
    options = dict(READS[name])
    if gpu_backend == "triton" and "top_k" in options:
        pytest.skip("Triton has no form of top_k")
    slots = large(options.pop("slots", 40))
    leaves = [torch.randn(rows, 32).bfloat16().requires_grad_() for rows in (130, slots, slots)]
    weight = (0.2 * torch.randn(24, 64)).bfloat16().requires_grad_()
    if "query_mask" in options:
        options["query_mask"] = torch.rand(130) > 0.3
    if "fold" in options:
        leaves.append(weight)

    def run() -> list[Tensor]:
        op = vk.memory_fuse if "fold" in options else vk.memory_attention
        out, usage = op(*leaves, **options, return_usage=True, backend=gpu_backend)
        total = out.float().square().sum() + usage.square().sum()
        return [out, usage, *torch.autograd.grad(total, leaves)]

    replay_gives_what_a_call_gives(leaves, run)


def test_a_graph_folds_anew_in_every_replay(gpu_backend: str) -> None:
    x, bank, weight = torch.randn(50, 16), torch.randn(7, 16), torch.randn(8, 32)

    def run() -> list[Tensor]:
        with torch.no_grad():
            return [vk.memory_fuse(x, bank, None, weight, fold=True, backend=gpu_backend)]

    graph, (result,) = capture(run)
    for _ in range(2):
        bank.mul_(-2.0)
        graph.replay()
        torch.testing.assert_close(result, vk.memory_fuse(x, bank, None, weight, backend="reference"))


def test_dropout_in_a_graph_drops_others_in_each_replay(gpu_backend: str) -> None:
    q, v = torch.zeros(1, 4, 500, 16), torch.ones(1, 4, 500, 16)

    def run() -> list[Tensor]:
        return [vk.sliding_window_attention(q, q, v, 1, dropout_p=0.25, backend=gpu_backend)]

    graph, (result,) = capture(run)
    kept = []
    for _ in range(2):
        graph.replay()
        kept.append(result[..., 0] > 0)
    assert not torch.equal(*kept)
    assert all(abs(x.float().mean().item() - 0.75) < 0.05 for x in kept)


def training_losses(in_graph: bool) -> list[float]:
    """Of four steps of both modules, by autocast to bfloat16, with the balance loss and AdamW."""
    torch.manual_seed(0)
    window, bank = SlidingWindowAttention(32, 2, 5), MemoryBank(16, 32)
    x, mask = torch.randn(2, 70, 32), torch.arange(70) < torch.tensor([[70], [41]])
    parameters = [*window.parameters(), *bank.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-2, capturable=True)

    def step() -> list[Tensor]:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
            y = bank(window(x, mask), mask)
            loss = (y.float() - x).square().mean() + 0.1 * bank.balance_loss()
        loss.backward()
        optimizer.step()
        return [loss.detach()]

    if not in_graph:
        return [step()[0].item() for _ in range(4)]
    before = [p.detach().clone() for p in parameters]
    graph, (loss,) = capture(step)
    with torch.no_grad():  # as if the steps that warmed it up had never been
        for p, old in zip(parameters, before, strict=True):
            p.copy_(old)
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()
    losses = []
    for _ in range(4):
        graph.replay()
        losses.append(loss.item())
    return losses


@pytest.mark.usefixtures("cuda")
def test_a_graph_of_a_training_step() -> None:
    plain, replayed = training_losses(False), training_losses(True)
    assert plain[3] < plain[0]
    assert replayed == pytest.approx(plain, rel=2e-2)


@pytest.fixture
def work(gpu_backend: str) -> Run:
    """A forward and backward pass of both ops over `x`, which is the first leaf."""
    x = torch.randn(2, 900, 64, requires_grad=True)
    keys = torch.randn(96, 64, requires_grad=True)

    def run() -> list[Tensor]:
        heads = x.unflatten(2, (2, 32)).transpose(1, 2)
        out = vk.sliding_window_attention(heads, heads, heads, 9, backend=gpu_backend)
        out = out + vk.sliding_window_attention(heads, heads, heads, 49, backend=gpu_backend)
        read = vk.memory_attention(out.transpose(1, 2).flatten(2), keys, normalize=True, backend=gpu_backend)
        return [x.detach(), read, *torch.autograd.grad(read.square().sum(), (x, keys))]

    return run


def test_the_same_bits_each_time(work: Run) -> None:
    first, second = work(), work()
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_kernels_run_on_the_current_stream(work: Run) -> None:
    """What waits on another stream for its input must not begin before that is there."""
    x = work()[0]
    new = torch.randn_like(x)
    old = x.clone()
    x.copy_(new)
    wanted = [t.clone() for t in work()[1:]]
    x.copy_(old)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)  # about 50 ms
        x.copy_(new)
        got = work()[1:]
    side.synchronize()
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_many_threads_each_on_a_stream(work: Run) -> None:
    wanted = [t.clone() for t in work()]
    torch.cuda.synchronize()
    wrong: list[str] = []

    def run() -> None:
        try:
            with pretending(), torch.device("cuda"), torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(5):
                    found = work()
                    torch.cuda.current_stream().synchronize()
                    if not all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(found, wanted, strict=True)):
                        wrong.append("other numbers")
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=run) for _ in range(1 if PRETENDED else 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
