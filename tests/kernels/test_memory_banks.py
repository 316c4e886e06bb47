"""Banks a batch entry, biases, dropout, blocks of rows, and the published scale in bfloat16."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.memory_attention import plan, read

from tests.kernels import definitions
from tests.kernels.comparisons import gradients


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    # Every pair of choices.
    ("heads", "batch", "normalize", "top_k", "blocks"),
    [
        (1, 3, False, None, False),
        (1, 1, True, 4, True),
        (2, 3, True, 4, False),
        (2, 1, False, None, True),
        (1, 3, True, None, True),
        (2, 1, True, None, False),
        (2, 3, False, 4, True),
        (1, 1, False, 4, False),
    ],
)
def test_a_bank_a_batch_entry(
    cpu_backend: str,
    monkeypatch: pytest.MonkeyPatch,
    heads: int,
    batch: int,
    normalize: bool,
    top_k: int | None,
    blocks: bool,
) -> None:
    if blocks:  # read without keeping weights, a few rows at a time
        monkeypatch.setattr(plan, "KEPT_WEIGHTS", 0)
        monkeypatch.setattr(plan, "BLOCK_SCORES", 60)
    frames, slots, dim, value_dim = 40, 11, 12, 10
    x, keys, values = randn(batch, frames, dim), randn(batch, slots, dim), randn(batch, slots, value_dim)
    slot_mask, query_mask = torch.rand(batch, slots) > 0.3, torch.rand(batch, frames) > 0.3
    slot_mask[-1] = batch == 1  # or nothing to read
    bias, scale = randn(batch, heads, slots), torch.tensor(2.0, dtype=torch.float64)
    weight, residual = randn(7, dim + value_dim), randn(batch, frames, 7)
    leaves = [t.requires_grad_() for t in (x, keys, values, bias, scale, weight, residual)]

    def of_heads(bank: Tensor) -> Tensor:
        return bank.unflatten(2, (heads, -1)).transpose(1, 2)

    options: dict[str, Any] = {
        "num_heads": heads,
        "scale": scale,
        "normalize": normalize,
        "slot_mask": slot_mask,
        "slot_bias": bias,
        "query_mask": query_mask,
        "top_k": top_k,
        "return_usage": True,
        "backend": cpu_backend,
    }
    banks = of_heads(keys), of_heads(values)
    got = [*vk.memory_attention(x, *banks, return_lse=True, **options)]
    got += vk.memory_fuse(x, *banks, weight, residual=residual, fold=True, **options)
    got += vk.memory_fuse(x, *banks, weight, residual=residual, fold=False, **options)
    apart = [
        definitions.memory_attention(
            x[b], keys[b], values[b], heads, scale, normalize, slot_mask[b], query_mask[b], bias[b], top_k
        )
        for b in range(batch)
    ]
    out, lse, usage = (torch.stack(parts) for parts in zip(*apart, strict=True))
    joined = torch.cat((x, out), -1) @ weight.t()
    y = joined.masked_fill(~query_mask[..., None], 0.0) + residual
    exact = [out, lse, usage, y, usage, y, usage]
    for ours, theirs in zip([*got, *gradients(got, leaves, 3)], [*exact, *gradients(exact, leaves, 3)], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_dimensions_say_whose_a_bank_is(cpu_backend: str) -> None:
    """Also where sizes would do for either: one head and a batch of one."""
    x, bank = randn(1, 5, 8), randn(1, 6, 8)
    options: dict[str, Any] = {"return_usage": True, "return_lse": True, "backend": cpu_backend}
    shared = vk.memory_attention(x, bank, slot_mask=torch.ones(6, dtype=torch.bool), **options)
    own = vk.memory_attention(x, bank[None], slot_mask=torch.ones(1, 6, dtype=torch.bool), **options)
    assert (shared[2].shape, own[2].shape) == ((1, 6), (1, 1, 6))
    for ours, theirs in zip(shared, own, strict=True):
        torch.testing.assert_close(ours, theirs.view(ours.shape))
    with pytest.raises(ValueError, match=r"keys must be \[H, S, d\] .* or \[B, H, S, d\] where each batch entry has"):
        vk.memory_attention(randn(2, 5, 8), randn(2, 6, 8), backend=cpu_backend)


@pytest.mark.parametrize("path", ["dense", "sparse", "joined", "batched"])
def test_dropout_multiplies_the_weights_by_what_torch_draws(cpu_backend: str, path: str) -> None:
    x, keys, values, weight = randn(3, 50, 8), randn(9, 8), randn(9, 5), randn(4, 13)
    options: dict[str, Any] = {"dropout_p": 0.4, "return_usage": True, "backend": cpu_backend}
    if path == "batched":
        keys, values = keys.expand(3, 1, -1, -1), values.expand(3, 1, -1, -1)
    if path == "sparse":
        options["top_k"] = 3
    joined = path in ("joined", "batched")
    torch.manual_seed(5)
    got, usage = (
        vk.memory_fuse(x, keys, values, weight, **options)
        if joined
        else vk.memory_attention(x, keys, values, **options)
    )
    plain, before = (
        vk.memory_fuse(x, keys, values, weight, **(options | {"dropout_p": 0.0}))
        if joined
        else (vk.memory_attention(x, keys, values, **(options | {"dropout_p": 0.0})))
    )
    torch.testing.assert_close(usage, before)  # before dropout
    assert not torch.allclose(got, plain)
    torch.manual_seed(5)
    groups, rows = (3, 50) if path == "batched" else (1, 150)
    few = cpu_backend == "cpp" and path == "sparse"
    kept = torch.nn.functional.dropout(torch.ones(groups, 1, rows, 3 if few else 9, dtype=x.dtype), 0.4)
    flat, bank, worth = (t.reshape(groups, -1, t.shape[-1]) for t in (x, keys, values))
    scores = flat @ bank.transpose(1, 2) * 8**-0.5
    if path == "sparse":
        best, index = scores.topk(3)
        weights = torch.softmax(best, -1)
        share = (
            torch.zeros_like(scores).scatter(2, index, weights * kept[:, 0])
            if few
            else (torch.zeros_like(scores).scatter(2, index, weights) * kept[:, 0])
        )
    else:
        share = torch.softmax(scores, -1) * kept[:, 0]
    found = share @ worth
    expected = torch.cat((flat, found), -1) @ weight.t() if joined else found
    torch.testing.assert_close(got, expected.reshape(got.shape))


@pytest.mark.gpu
@pytest.mark.parametrize("path", ["dense", "sparse", "joined", "batched"])
def test_dropout_drops_its_share_and_repeats(cuda: None, path: str) -> None:
    """What is left is multiplied by 1 / (1 - p): with values of one the mean stays; usage is that before dropout."""
    x, keys, values = torch.randn(3, 400, 16), torch.randn(50, 16), torch.ones(50, 4)
    options: dict[str, Any] = {"dropout_p": 0.4, "return_usage": True, "top_k": 40 if path == "sparse" else None}
    if path == "batched":
        keys, values = keys.expand(3, 1, -1, -1), values.expand(3, 1, -1, -1)

    def call(seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        if path == "joined":
            weight = torch.cat((torch.zeros(4, 16), torch.eye(4)), 1)
            return vk.memory_fuse(x, keys, values, weight, backend="cuda", **options)
        return vk.memory_attention(x, keys, values, backend="cuda", **options)

    (first, usage), (again, _), (other, _) = call(1), call(1), call(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(usage.sum(), torch.tensor(1200.0), rtol=1e-4, atol=0)
    assert first.mean().item() == pytest.approx(1.0, abs=0.03)
    assert first.std().item() > 0.05


def test_a_frame_that_may_hold_anything_reaches_nothing(cpu_backend: str) -> None:
    x, keys, values = randn(12, 6), randn(9, 6), randn(9, 6)
    weight, residual, bias = randn(6, 12), randn(12, 6), randn(9)
    mask = torch.rand(12) > 0.4
    x[~mask] = math.nan
    leaves = [t.requires_grad_() for t in (x, keys, values, weight, bias)]
    for options in ({"fold": True}, {"fold": False}, {"top_k": 3}, {"normalize": True}, {"norm": (None, None, 1e-5)}):
        y, usage = vk.memory_fuse(
            x, keys, values, weight, residual=residual, slot_bias=bias, query_mask=mask, return_usage=True,
            backend=cpu_backend, **options,  # type: ignore[arg-type]
        )  # fmt: skip
        assert torch.equal(y[~mask], residual[~mask])
        torch.testing.assert_close(usage.sum(), mask.sum().double())
        found = torch.autograd.grad((y * y).sum() + usage.square().sum(), leaves)
        assert all(gradient.isfinite().all() for gradient in found)
        assert (found[0][~mask] == 0).all()


def test_extreme_scores_and_a_scale_of_0(cpu_backend: str) -> None:
    x, keys = torch.randn(5, 16), torch.randn(7, 16)
    sharp = vk.memory_attention(x, keys, scale=1e6, backend=cpu_backend)
    torch.testing.assert_close(sharp, keys[(x @ keys.t()).argmax(-1)])
    scale = torch.zeros(1, requires_grad=True)
    for op in (
        vk.memory_attention,
        lambda x, keys, **o: vk.memory_fuse(x, keys, None, torch.eye(16).repeat(1, 2), **o),
    ):
        for normalize in (False, True):
            outs = []
            for with_backend in (cpu_backend, "reference"):
                y = op(x, keys, scale=scale, normalize=normalize, backend=with_backend)
                outs.append([y, torch.autograd.grad(y.square().sum(), scale)[0]])
            for a, b in zip(*outs, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    even = vk.memory_attention(x * 1e-30, keys * 1e-30, keys, backend=cpu_backend)
    torch.testing.assert_close(even, keys.mean(0).expand(5, 16))


@pytest.mark.parametrize("op", ["attention", "fuse"])
def test_the_published_scale_in_bfloat16(backend: str, op: str) -> None:
    """512 slots, 768 features, cosine over sqrt(768): P is uniform to a perplexity of 512.00 of 512, and what depends
    on the frame is 0.2% of what is read. The error beside the definition, rounded once, is under 10% of that signal.

    For the layer x's own part is made small: rounding y once would otherwise lose the signal whoever computes it.
    """
    if op == "fuse" and backend in ("cuda", "triton"):
        pytest.skip("a GPU rounds what is joined to 16 bits")
    frames, slots, dim = 200, 512, 768
    x, bank = torch.randn(frames, dim).bfloat16(), torch.randn(slots, dim).bfloat16()
    wide = x.double(), bank.double()
    if op == "attention":
        got = vk.memory_attention(x, bank, scale=dim**-0.5, normalize=True, backend=backend)
        exact = definitions.memory_attention(*wide, wide[1], 1, dim**-0.5, True)[0]
    else:
        weight = torch.cat((torch.zeros(96, dim), torch.randn(96, dim) * dim**-0.5), 1).bfloat16()
        got = vk.memory_fuse(x, bank, None, weight, scale=dim**-0.5, normalize=True, backend=backend)
        found = definitions.memory_attention(*wide, wide[1], 1, dim**-0.5, True)[0]
        exact = torch.cat((wide[0], found), 1) @ weight.double().t()
    signal = (exact - exact.mean(0)).square().mean().sqrt()
    error = (got.double() - exact.bfloat16().double()).square().mean().sqrt()
    print(f"{op} {backend}: error {error / signal:.4f} of the signal")
    assert error < 0.1 * signal


def test_nearly_even_weights_times_values_by_products_in_bfloat16() -> None:
    """What a GPU does at the published scale, in the very steps; and rows that see nothing stay 0."""
    values = torch.randn(1, 2, 512, 96).bfloat16()
    weights = torch.softmax(0.0013 * torch.randn(1, 2, 50, 512), -1)
    seen = torch.ones(1, 2, 50, dtype=torch.bool)
    seen[:, :, 7] = False
    weights = weights * seen[..., None]
    exact = (weights.double() @ values.double()).transpose(1, 2)
    got = read.centred_product(weights, values, seen)
    rough = (weights.bfloat16() @ values).transpose(1, 2)
    of_seen = [y.double()[:, torch.arange(50) != 7] for y in (exact, got, rough)]
    signal = (of_seen[0] - of_seen[0].mean(1, keepdim=True)).square().mean().sqrt()
    errors = [(y - of_seen[0]).square().mean().sqrt() / signal for y in of_seen[1:]]
    print(f"centred: {errors[0]:.4f} of the signal, plain: {errors[1]:.4f}")
    assert errors[0] < 0.02
    assert errors[1] > 0.1
    assert (got[:, 7] == 0).all()
