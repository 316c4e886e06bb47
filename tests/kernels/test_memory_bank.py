"""MemoryBank: what is written to it, product keys, the balance loss under checkpointing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from vtsum_kernels.nn import MemoryBank


def plain(slots: int = 4, dim: int = 6, **options: Any) -> MemoryBank:
    return MemoryBank(slots, dim, **({"norm": False} | options))


def test_fifo_replaces_the_oldest_slot() -> None:
    bank = plain()
    learned = bank.memory.detach().clone()
    frames = torch.randn(11, 6)
    bank.write(frames[:3])
    assert torch.equal(bank.memory.detach(), torch.cat((frames[:3], learned[3:])))
    bank.write(frames[3:5])
    assert torch.equal(bank.memory.detach(), torch.stack((frames[4], frames[1], frames[2], frames[3])))
    one_by_one, at_once = copy.deepcopy(bank), copy.deepcopy(bank)
    for frame in frames[5:]:
        one_by_one.write(frame)
    at_once.write(frames[5:])  # more than there are slots
    assert torch.equal(one_by_one.memory, at_once.memory)
    one_by_one.write(frames[0])
    at_once.write(frames[0])
    assert torch.equal(one_by_one.memory, at_once.memory)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_bank_of_16_bits_counts_as_any(dtype: torch.dtype) -> None:
    """bfloat16 holds no 257, float16 no 70,000 and no 1e-8: where slots go, and what they got, is not kept in them."""
    bank = plain(600, 2).to(dtype)
    frames = torch.arange(600, dtype=torch.float32)[:, None].expand(-1, 2).remainder(128).to(dtype) + 1
    for frame in frames:
        bank.write(frame)
    assert torch.equal(bank.memory.detach(), frames)
    merging = plain(1, 2).to(dtype)
    for n in (500, 300):
        merging.write(torch.full((n, 2), 1.0 + (n == 300)).to(dtype), rule="merge")
    assert merging.counts[0] == 800
    reads = plain(3, 2, temperature=16.0).to(dtype)
    with torch.no_grad():
        reads.memory.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        reads(torch.tensor([1.0, 0.0]).to(dtype).expand(1, 70_000, 2))
    mass, perplexity, dead = reads.usage()
    shares = torch.softmax(torch.tensor([16.0, 0.0, -16.0]).double(), 0)
    torch.testing.assert_close(mass[0].double(), 70_000 * shares, rtol=1e-4, atol=0.0)
    assert perplexity == pytest.approx(float((-(shares * shares.log()).sum()).exp()), rel=1e-4)
    assert dead == 2


def test_the_moving_average_goes_to_the_most_similar_slot() -> None:
    bank = plain()
    with torch.no_grad():
        bank.memory.copy_(torch.eye(6)[:4])
    bank.write(torch.tensor([0.0, 5.0, 0.1, 0.0, 0.0, 0.0]), rule="ema", momentum=0.75)
    expected = torch.eye(6)[:4]
    expected[1] = torch.tensor([0.0, 0.75 + 0.25 * 5.0, 0.025, 0.0, 0.0, 0.0])
    torch.testing.assert_close(bank.memory.detach(), expected)


def merged(frames: list[Tensor], slots: int) -> list[Tensor]:
    """The rule as it is said, with lists."""
    rows: list[tuple[Tensor, float]] = []
    for frame in frames:
        rows.append((frame, 1.0))
        if len(rows) > slots:
            likeness = [F.cosine_similarity(a, b, dim=0).item() for (a, _), (b, _) in pairwise(rows)]
            at = likeness.index(max(likeness))
            (a, n), (b, m) = rows[at : at + 2]
            rows[at : at + 2] = [((n * a + m * b) / (n + m), n + m)]
    return [row for row, _ in rows]


def test_merging_keeps_what_differs() -> None:
    frames = list(torch.randn(3, 6).repeat_interleave(5, 0) + 0.01 * torch.randn(15, 6))
    bank = plain()
    bank.write(torch.stack(frames[:9]), rule="merge")
    bank.write(torch.stack(frames[9:]), rule="merge")
    torch.testing.assert_close(bank.memory.detach(), torch.stack(merged(frames, 4)))
    centres = torch.stack([torch.stack(frames[i : i + 5]).mean(0) for i in (0, 5, 10)])
    nearest = torch.cdist(centres, bank.memory.detach()).amin(1)
    assert (nearest < 0.05).all()


def test_written_frames_are_found_again() -> None:
    """What was written is normed as queries are: a frame then reads itself."""
    bank = MemoryBank(8, 16, fuse="add", residual=False, temperature=100.0)
    frames = torch.randn(1, 8, 16) + 3
    bank.write(frames)
    assert bank.norm is not None
    torch.testing.assert_close(bank(frames), bank.norm(frames), atol=0.02, rtol=0.02)


def test_write_heeds_the_mask_and_refuses_what_it_cannot_do() -> None:
    bank = plain()
    frames, mask = torch.randn(2, 3, 6), torch.tensor([[True, False, True], [False, False, True]])
    bank.write(frames, mask=mask)
    assert torch.equal(bank.memory.detach()[:3], frames[mask])
    with pytest.raises(ValueError, match='rule must be "fifo" or "ema" or "merge", got \'lru\''):
        bank.write(frames, rule="lru")
    with pytest.raises(ValueError, match=r"x must be of shape \[..., 6\], got \[2, 5\]"):
        bank.write(torch.randn(2, 5))
    with pytest.raises(ValueError, match=r"mask must be of x's shape \[2, 3\], got \[3, 2\]"):
        bank.write(frames, mask=mask.t())
    with pytest.raises(ValueError, match=r"momentum must be 0 to 1, got 1\.5"):
        bank.write(frames, rule="ema", momentum=1.5)
    bank.memory.ds_id = 7  # type: ignore[attr-defined]  # as DeepSpeed marks what it shards
    with pytest.raises(RuntimeError, match="must be used on a whole bank"):
        bank.write(frames)


@pytest.mark.parametrize("run", [lambda f, x: f(x), lambda f, x: checkpoint(f, x, use_reentrant=False)])
def test_the_balance_loss_keeps_its_gradient_under_checkpointing(run: Callable[..., Tensor]) -> None:
    bank, x = plain(8, 6), torch.randn(2, 5, 6)
    y = run(bank, x)
    loss = bank.balance_loss()
    (y.sum() * 0 + loss).backward()
    share = torch.softmax(bank.log_scale.exp() * F.normalize(x, dim=-1) @ F.normalize(bank.memory, dim=-1).t(), -1)  # type: ignore[union-attr]
    mean = share.mean((0, 1))
    expected = 8 * mean.square().sum() - 1
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(expected, bank.memory)
    assert bank.memory.grad is not None
    torch.testing.assert_close(bank.memory.grad, gradient, rtol=1e-4, atol=1e-6)


def test_a_balance_loss_that_would_be_lost_is_refused() -> None:
    bank, x = plain(), torch.randn(1, 5, 6, requires_grad=True)
    with torch.no_grad():
        bank(x)
    with pytest.raises(RuntimeError, match="balance_loss must follow a forward that records gradients"):
        bank.balance_loss()
    bank(x)
    bank.balance_loss()
    with pytest.raises(RuntimeError, match="balance_loss must follow"):
        bank.balance_loss()


def test_a_copy_can_be_made_after_a_forward() -> None:
    bank = plain()
    bank(torch.randn(1, 5, 6))
    twin = copy.deepcopy(bank)
    assert torch.equal(twin.memory, bank.memory)
    bank.balance_loss()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("fuse", ["concat", "gate", "add"])
@pytest.mark.parametrize("query_proj", [True, False])
def test_product_keys_read_the_best_pairs(normalize: bool, fuse: str, query_proj: bool) -> None:
    bank = MemoryBank(25, 16, 2, query_proj, normalize, top_k=3, product_keys=True, fuse=fuse, norm=False)
    x = torch.randn(2, 7, 16)
    queries = x if bank.query_weight is None else F.linear(x, bank.query_weight)
    assert bank.half_keys is not None
    reads = []
    for h, (q, v) in enumerate(zip(queries.chunk(2, -1), bank.memory.chunk(2, -1), strict=True)):
        a, b = bank.half_keys[:, h]
        keys = torch.cat((a.repeat_interleave(5, 0), b.repeat(5, 1)), -1)
        scale = 8**-0.5
        if normalize:
            halves = keys.unflatten(-1, (2, 4))
            keys, q, scale = (F.normalize(halves, dim=-1) * 0.5**0.5).flatten(-2), F.normalize(q, dim=-1), 16.0
        top = (scale * q @ keys.t()).topk(3, -1)
        reads.append((top.values.softmax(-1)[..., None] * v[top.indices]).sum(-2))
    read = torch.cat(reads, -1)
    expected = read
    if bank.join_weight is not None:
        joined = F.linear(torch.cat((x, read), -1), bank.join_weight, bank.join_bias)
        expected = joined if fuse == "concat" else torch.sigmoid(joined) * read
    torch.testing.assert_close(bank(x), x + expected, rtol=1e-4, atol=1e-5)
    bank(x).square().sum().backward()
    for name, parameter in bank.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    torch.testing.assert_close(bank.usage().mass.sum(), torch.tensor(28.0))


@pytest.mark.parametrize("product_keys", [True, False])
@pytest.mark.parametrize("fuse", ["concat", "gate", "add"])
def test_frames_and_keys_of_zeros_in_float16(fuse: str, product_keys: bool) -> None:
    """They have no direction; 0 / 0 would be NaN, and 1e12, the slope at 0, is more than float16 holds."""
    bank = MemoryBank(25, 16, 2, top_k=3, product_keys=product_keys, fuse=fuse, norm=False).half()
    with torch.no_grad():
        bank.memory[3] = 0.0
        if bank.half_keys is not None:
            bank.half_keys[:, :, 1] = 0.0
    x = torch.randn(2, 7, 16).half()
    x[0, 2], x[1] = 0.0, 0.0
    x.requires_grad_()
    y = bank(x)
    found = torch.autograd.grad(y.square().sum(), [x, *bank.parameters()])
    assert all(tensor.isfinite().all() for tensor in (y, *found))
    wide, exact = bank.double(), x.detach().double().requires_grad_()
    wanted = torch.autograd.grad(wide(exact).square().sum(), [exact, *wide.parameters()])
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.double() - theirs).abs().max() <= 2e-2 * theirs.abs().max()


@pytest.mark.parametrize("rule", ["ema", "merge"])
def test_a_slot_of_zeros_is_like_no_frame(rule: str) -> None:
    """In float16 its cosine, 0 / 0, would be NaN, which argmax takes for the most alike."""
    bank = plain(3, 4).half()
    with torch.no_grad():
        bank.memory.copy_(torch.tensor([[0.0, 0, 0, 0], [1.0, 0, 0, 0], [0.0, 1.0, 0, 0]]))
        bank.counts[:3] = 1.0
    bank.write(torch.tensor([[0.0, 3.0, 0.0, 0.0]]).half(), rule=rule, momentum=0.5)
    wanted = {1: [1.0, 0, 0, 0], 2: [0.0, 2.0, 0, 0]}  # "merge": of slot 2 and the frame, "ema": of slot 2 half way
    for slot, row in wanted.items():
        assert bank.memory[slot].tolist() == row
    assert bank.memory[0].tolist() == [0.0] * 4


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("product_keys", [True, False])
@pytest.mark.parametrize("fuse", ["concat", "gate", "add"])
def test_padded_frames_give_nothing_and_take_nothing(fuse: str, product_keys: bool, norm: bool) -> None:
    bank = MemoryBank(25, 16, 2, True, top_k=3, product_keys=product_keys, fuse=fuse, norm=norm)
    for parameter in bank.parameters():
        nn.init.normal_(parameter)
    x, mask = torch.randn(2, 7, 16), torch.rand(2, 7) > 0.4
    x[~mask] = math.nan
    x.requires_grad_()
    y = bank(x, mask)
    assert (y[~mask] == 0).all()
    torch.testing.assert_close(y[mask], bank(x[mask]))
    weights = torch.randn(2, 7, 16)
    found = torch.autograd.grad((y * weights).sum(), [x, *bank.parameters()])
    alone = torch.autograd.grad((bank(x[mask]) * weights[mask]).sum(), [x, *bank.parameters()])
    assert (found[0][~mask] == 0).all()
    for ours, theirs in zip(found, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_best_slots_alone_are_read() -> None:
    bank = plain(10, 6, top_k=1, fuse="add", residual=False, temperature=math.pi)
    x = torch.randn(1, 5, 6)
    best = (F.normalize(x, dim=-1) @ F.normalize(bank.memory, dim=-1).t()).argmax(-1)
    torch.testing.assert_close(bank(x), bank.memory[best])
