"""The modules: against torch's own layers, the published form, padding, and what a bank says of its use."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from vtsum_kernels.nn import MemoryBank, SlidingWindowAttention


def test_attention_is_multihead_attention_under_a_band_mask() -> None:
    layer = SlidingWindowAttention(24, 3, 5)
    theirs = nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": layer.qkv.weight,
            "in_proj_bias": layer.qkv.bias,
            "out_proj.weight": layer.proj.weight,
            "out_proj.bias": layer.proj.bias,
        }
    )
    x, lengths = torch.randn(2, 30, 24), torch.tensor([30, 19])
    position = torch.arange(30)
    hidden = (position[:, None] - position[None]).abs() > 2
    valid = position[None] < lengths[:, None]
    expected = theirs(x, x, x, attn_mask=hidden, key_padding_mask=~valid, need_weights=False)[0]
    got = layer(x, valid)
    torch.testing.assert_close(got[valid], expected[valid], rtol=1e-5, atol=1e-5)
    assert torch.equal(layer(x, lengths), got)
    assert SlidingWindowAttention(24, 3, 5, qkv_bias=False).qkv.bias is None


def test_a_group_and_its_lengths_come_together_and_without_packing() -> None:
    layer, x = SlidingWindowAttention(16, 2, 9), torch.randn(20, 16)
    with pytest.raises(ValueError, match="cu_seqlens must be None with a group, got Tensor"):
        layer(x, cu_seqlens=torch.tensor([0, 20]), group=object())
    with pytest.raises(ValueError, match=r"lengths must be None without a group, got \[20\]"):
        layer(x[None], lengths=[20])


def test_causal_attention_does_not_see_ahead() -> None:
    layer, x = SlidingWindowAttention(16, 2, 9, causal=True), torch.randn(1, 20, 16)
    changed = x.clone()
    changed[:, 10:] += 1
    before, after = layer(x), layer(changed)
    assert torch.equal(before[:, :10], after[:, :10])
    assert (before[:, 10:] != after[:, 10:]).any()


def test_attention_of_packed_sequences_is_that_of_each_alone() -> None:
    layer = SlidingWindowAttention(24, 3, 5, dilation=2, border="shift", relative_bias=True)
    assert layer.relative_bias is not None
    nn.init.normal_(layer.relative_bias)
    first, second = torch.randn(17, 24), torch.randn(9, 24)
    packed = layer(torch.cat([first, second]), cu_seqlens=torch.tensor([0, 17, 26]))
    torch.testing.assert_close(packed, torch.cat([layer(first[None])[0], layer(second[None])[0]]))
    packed.square().sum().backward()
    assert layer.relative_bias.grad is not None
    assert layer.relative_bias.grad.abs().sum() > 0


def test_attention_with_sinks() -> None:
    """Each row's weights are multiplied by 1 - that of its head's sink; at -inf nothing is left of one."""
    layer, x = SlidingWindowAttention(16, 2, 5, sinks=True), torch.randn(1, 40, 16)
    assert layer.sinks is not None
    assert torch.equal(layer.sinks, torch.zeros(2))
    plain = SlidingWindowAttention(16, 2, 5)
    plain.load_state_dict({name: weight for name, weight in layer.state_dict().items() if name != "sinks"})
    assert not torch.allclose(layer(x), plain(x))
    layer(x).square().sum().backward()
    assert layer.sinks.grad is not None
    assert (layer.sinks.grad != 0).all()
    nn.init.constant_(layer.sinks, -torch.inf)
    torch.testing.assert_close(layer(x), plain(x))
    assert SlidingWindowAttention(16, 2, 5).sinks is None


def test_attention_drops_weights_in_training_alone() -> None:
    layer, x = SlidingWindowAttention(16, 2, 5, dropout=0.5), torch.randn(1, 40, 16)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (SlidingWindowAttention, {"border": "wrap"}, "border must be"),
        (SlidingWindowAttention, {"border": "shift", "causal": True}, "causal must be False"),
        (SlidingWindowAttention, {"dilation": 0}, "dilation must be at least 1, got 0"),
        (SlidingWindowAttention, {"dropout": 1.0}, "dropout must be at least 0 and less than 1, got 1.0"),
        (SlidingWindowAttention, {"window_size": (-1, 2), "relative_bias": True}, "window_size must be finite on both"),
        (SlidingWindowAttention, {"num_heads": 5}, "dim must be divisible by num_heads = 5, got 24"),
        (SlidingWindowAttention, {"num_heads": 0}, "num_heads must be at least 1, got 0"),
        (SlidingWindowAttention, {"window_size": 4}, "window_size must be odd"),
        (MemoryBank, {"fuse": "sum"}, 'fuse must be "concat", "gate" or "add", got \'sum\''),
        (MemoryBank, {"temperature": "hot"}, "temperature must be \"learned\" or a finite float, got 'hot'"),
        (MemoryBank, {"num_heads": 5}, "dim must be divisible by num_heads = 5, got 24"),
        (MemoryBank, {"num_slots": 0}, "num_slots must be at least 1, got 0"),
        (MemoryBank, {"product_keys": True}, "top_k must be given where there are product_keys, got None"),
        (MemoryBank, {"product_keys": True, "top_k": 2, "num_slots": 8}, "num_slots must be a square number .*, got 8"),
        (MemoryBank, {"product_keys": True, "top_k": 2, "dim": 15}, "dim must be divisible by 2 .*, got 15"),
        (MemoryBank, {"top_k": 0}, "top_k must be .*, got 0"),
    ],
)
def test_messages(module: Any, options: dict[str, Any], message: str) -> None:
    plain = {"num_heads": 2, "window_size": 5} if module is SlidingWindowAttention else {"num_slots": 9}
    with pytest.raises(ValueError, match=f"{module.__name__}: {message}"):
        module(**{"dim": 24, **plain, **options})


def test_the_published_form() -> None:
    """q = x / |x|, k = M / |M|, m = softmax(q k^T / sqrt C) M, y = Linear([x, m])."""
    dim = 24
    bank = MemoryBank(10, dim, normalize=True, temperature=dim**-0.5, fuse="concat", residual=False, norm=False)
    assert [name for name, _ in bank.named_parameters()] == ["memory", "join_weight", "join_bias"]
    x = torch.randn(2, 7, dim)
    q, k = x / x.norm(dim=-1, keepdim=True), bank.memory / bank.memory.norm(dim=-1, keepdim=True)
    read = torch.softmax(q @ k.t() / math.sqrt(dim), -1) @ bank.memory
    expected = F.linear(torch.cat((x, read), -1), bank.join_weight, bank.join_bias)
    torch.testing.assert_close(bank(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fuse", ["concat", "gate", "add"])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("query_proj", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_default_form(fuse: str, heads: int, query_proj: bool, normalize: bool) -> None:
    bank, x = MemoryBank(10, 16, heads, query_proj, normalize, fuse=fuse), torch.randn(2, 7, 16)
    assert bank.norm is not None
    hidden = bank.norm(x)
    queries = hidden if bank.query_weight is None else F.linear(hidden, bank.query_weight)
    scale = 16.0 if normalize else (16 // heads) ** -0.5
    reads = []
    for q, k in zip(queries.chunk(heads, -1), bank.memory.chunk(heads, -1), strict=True):
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).t() if normalize else q @ k.t()
        reads.append(torch.softmax(scores * scale, -1) @ k)
    read = torch.cat(reads, -1)
    if fuse != "add":
        assert bank.join_weight is not None
        joined = F.linear(torch.cat((hidden, read), -1), bank.join_weight, bank.join_bias)
        read = joined if fuse == "concat" else torch.sigmoid(joined) * read
    torch.testing.assert_close(bank(x), x + read, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fuse", ["concat", "gate", "add"])
def test_every_parameter_learns_and_padding_neither_gives_nor_takes(fuse: str) -> None:
    bank = MemoryBank(10, 16, 2, query_proj=True, fuse=fuse)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 4:] = False
    x = torch.randn(2, 9, 16)
    clean = bank(x, mask)
    x[~mask] = torch.nan
    x.requires_grad_()
    y = bank(x, mask)
    balance = bank.balance_loss()
    assert torch.equal(y, clean)
    assert (y[~mask] == 0).all()
    (y.square().sum() + balance).backward()
    assert x.grad is not None
    assert (x.grad[~mask] == 0).all()
    assert x.grad[mask].abs().sum() > 0
    for name, parameter in bank.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_usage_counts_valid_frames_and_sees_a_collapse() -> None:
    bank = MemoryBank(8, 16, norm=False, temperature=100.0)
    assert bank.usage().perplexity == 0
    with torch.no_grad():
        bank.memory.copy_(torch.eye(16)[:8])
    mask = torch.ones(1, 8, dtype=torch.bool)
    mask[:, 6:] = False
    spread, spread_loss = bank(torch.eye(16)[None, :8], mask), bank.balance_loss()
    assert spread.shape == (1, 8, 16)
    use = bank.usage()
    torch.testing.assert_close(use.mass.sum(), torch.tensor(6.0))
    assert use.dead == 2  # the two slots only padded frames would have read
    assert use.perplexity == pytest.approx(6, rel=1e-3)
    bank(torch.eye(16)[None, :1].expand(1, 8, 16))
    collapsed_loss = bank.balance_loss()
    assert bank.usage().dead == 7
    assert bank.usage().perplexity == pytest.approx(1, rel=1e-3)
    assert collapsed_loss.item() == pytest.approx(7, rel=1e-3)
    assert spread_loss.item() == pytest.approx(8 / 6 - 1, rel=1e-3)
    bank(torch.randn(1, 8, 16), torch.zeros(1, 8, dtype=torch.bool))
    nobody = bank.balance_loss()
    assert nobody.item() == 0


def test_a_step_against_the_balance_loss_evens_the_use() -> None:
    bank = MemoryBank(8, 16, norm=False)
    x = torch.randn(4, 20, 16) + 3 * bank.memory[0].detach()
    optimizer = torch.optim.SGD(bank.parameters(), 0.05)
    losses = []
    for _ in range(20):
        bank(x)
        loss = bank.balance_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_learned_temperature_starts_at_16_and_ends_at_100() -> None:
    bank = MemoryBank(8, 16)
    assert bank.log_scale is not None
    assert bank.log_scale.exp().item() == pytest.approx(16)
    x = torch.randn(1, 5, 16)
    with torch.no_grad():
        bank.log_scale.fill_(math.log(100))
        capped = bank(x)
        bank.log_scale.fill_(50.0)
        assert torch.equal(bank(x), capped)


def test_state_holds_what_is_learned_and_nothing_else() -> None:
    bank = MemoryBank(8, 16, query_proj=True)
    bank(torch.randn(1, 5, 16))
    names = {"memory", "query_weight", "join_weight", "join_bias", "log_scale", "norm.weight", "norm.bias"}
    assert set(bank.state_dict()) == names
