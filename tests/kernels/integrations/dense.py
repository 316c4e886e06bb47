"""Dense attention under a mask written out, in the dtype of its inputs: what the adapters are held to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tests.kernels.comparisons import gradients


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    *,
    scale: float | None = None,
    bias: Tensor | float = 0.0,
    softcap: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """q [B, H, Tq, D], k and v [B, K, Tk, D]; `seen` (bool) and `bias` broadcast over [B, H, Tq, Tk].

    Returns out and lse. A row that sees nothing gives 0 and -inf.
    """
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = (softcap * torch.tanh(scores / softcap) if softcap else scores) + bias
    seen = seen.expand(scores.shape)
    lowest = torch.finfo(scores.dtype).min
    weights = torch.softmax(scores.masked_fill(~seen, lowest), -1).masked_fill(~seen, 0.0)
    blind = ~seen.any(-1)
    lse = torch.logsumexp(scores.masked_fill(~seen, lowest), -1).masked_fill(blind, -math.inf)
    return weights @ v, lse


def rows_and_keys(queries: int, keys: int) -> tuple[Tensor, Tensor]:
    return torch.arange(queries)[:, None], torch.arange(keys)[None, :]


def random(*shapes: Sequence[int], seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def close(name: str, got: Tensor | None, wanted: Tensor | None, bound: float, least: float = 1e-3) -> None:
    """Off by at most `bound` of the wanted's largest entry, or of `least`; a gradient that is None is one of zeros."""
    if got is None or wanted is None:
        other = wanted if got is None else got
        assert other is None or not other.any(), f"{name}: one is missing, the other not zero"
        return
    assert got.shape == wanted.shape, f"{name}: shape {list(got.shape)}, not {list(wanted.shape)}"
    assert got.isfinite().equal(wanted.isfinite()), f"{name}: infinities or NaN differ"
    finite = wanted.isfinite()
    error = (got[finite].double() - wanted[finite].double()).abs()
    if error.numel() == 0:
        return
    size = wanted[finite].double().abs().max().clamp_min(least)
    print(f"{name}: max error {error.max():.2e} of {size:.2e}")
    assert error.max() <= bound * size, f"{name}: max error {error.max():.3e}, allowed {bound * size:.3e}"


def same(
    name: str, got: Sequence[Tensor], wanted: Sequence[Tensor], inputs: Sequence[Tensor], bound: float = 1e-11
) -> None:
    """Outputs, and lse where there is one, and the gradients of both."""
    for part, a, b in zip(("out", "lse"), got, wanted, strict=False):
        close(f"{name} {part}", a, b, bound)
    for part, a, b in zip("qkv", gradients(got, inputs, 1), gradients(wanted, inputs, 1), strict=True):
        close(f"{name} d{part}", a, b, bound)
