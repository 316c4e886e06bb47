"""Any call of sliding_window_attention, held to the definition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import vtsum_kernels as vk
from torch import Tensor

from tests.kernels import definitions
from tests.kernels.comparisons import RMS_BOUND, gradients, hold


def compare(
    backend: str,
    dtype: torch.dtype,
    *,
    shape: tuple[int, int, int, int] = (2, 2, 70, 32),
    key_heads: int | None = None,
    sides: tuple[int, int] = (2, 2),
    dilation: int = 1,
    border: str = "truncate",
    ends: Sequence[int] | None = None,
    padded: float = 0.0,
    with_bias: bool = False,
    dropout_p: float = 0.0,
    normalize: str = "window",
    scale: float | None = None,
    factor: float = 1.0,
    condition: float = 1.0,
    window: int | tuple[int, int] | None = None,
    causal: bool = False,
    queries: int | None = None,
    query_ends: Sequence[int] | None = None,
    row_offset: int = 0,
    sinks: Tensor | None = None,
    softcap: float | None = None,
) -> None:
    """One call against the definition in float64 and eager PyTorch: out, lse and the gradients of all inputs.

    `factor` multiplies the inputs; `condition` is that of `hold`; `window` and `causal` are how a caller says `sides`.
    `queries`: q has no more frames than that; packed, `query_ends` says of which sequences.
    """
    batch, heads, frames, dim = shape
    queries = query_ends[-1] if query_ends is not None else frames if queries is None else queries
    shift = border == "shift"
    sizes = ((heads, queries), *[(key_heads or heads, frames)] * 2)
    qkv = [torch.randn(batch, n, count, dim) * factor for n, count in sizes]
    inputs = [x.to(dtype).requires_grad_() for x in qkv]
    entries = (2 if shift else 1) * sum(sides) + 1
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    if with_bias:
        inputs.append(torch.randn(heads, entries, dtype=wide).requires_grad_())
    if sinks is not None:
        inputs.append(sinks.to(wide).requires_grad_())
    key_mask = torch.rand(batch, frames) >= padded if padded else None
    if key_mask is not None and batch > 2:
        key_mask[1, 20:] = False  # a long padded end: rows there see nothing
        key_mask[2] = False
    torch.manual_seed(3)
    seed = int(torch.randint(2**62, (1,))) if dropout_p else None
    torch.manual_seed(3)

    def dense(inputs: list[Tensor]) -> list[Tensor]:
        outputs = definitions.sliding_window_attention(
            *inputs[:3], *sides, scale=scale, dilation=dilation, shift=shift, ends=ends, key_mask=key_mask,
            bias=inputs[3] if with_bias else None, seed=seed, dropout_p=dropout_p, over_all=normalize == "global",
            query_ends=query_ends, row_offset=row_offset,
            sinks=None if sinks is None else inputs[-1], softcap=softcap or 0.0,
        )  # fmt: skip
        return [*outputs, *gradients(outputs, inputs, 1)]

    def packed(x: Tensor) -> Tensor:
        return x if ends is None else x.squeeze(0).transpose(0, 1)

    options: dict[str, Any] = {} if ends is None else {"cu_seqlens": torch.tensor(ends)}
    if query_ends is not None:
        options = {"cu_seqlens": torch.tensor(query_ends), "cu_seqlens_k": torch.tensor(ends)}
    if key_mask is not None:
        options["key_mask"] = key_mask if ends is None else key_mask[0]
    out, lse = vk.sliding_window_attention(
        *(packed(x) for x in inputs[:3]),
        sides if window is None else window,
        causal=causal,
        scale=scale,
        dilation=dilation,
        bias=inputs[3] if with_bias else None,
        border=border,
        normalize=normalize,
        dropout_p=dropout_p,
        row_offset=row_offset,
        sinks=None if sinks is None else inputs[-1],
        softcap=softcap,
        return_lse=True,
        backend=backend,
        **options,
    )
    assert lse.dtype == wide
    if ends is not None:
        assert out.shape == (queries, heads, dim)
        assert lse.shape == (heads, queries)
        out, lse = out.transpose(0, 1).unsqueeze(0), lse.unsqueeze(0)
    got = [out, lse, *gradients([out, lse], inputs, 1)]
    exact = dense([x.detach().double().requires_grad_() for x in inputs])
    names = ["out", "lse", "dq", "dk", "dv", *["dbias"] * with_bias, *["dsinks"] * (sinks is not None)]
    for name, *three in zip(names, got, exact, dense(inputs), strict=True):
        # In float32 the factor of the global softmax is a second rounding; 16 bits are rounded to at the end, once.
        twice = normalize == "global" and dtype == torch.float32
        if name != "dsinks":
            hold(name, *three, condition=2.0 if twice else condition, dtype=dtype)
            continue
        # A sum over all rows, of either sign: it cancels, and their rounding, which is the house's bound, adds up.
        leaves = [x.detach().double() for x in inputs]
        leaves[-1] = leaves[-1][:, None].expand_as(lse).clone()
        of_rows = dense([x.requires_grad_() for x in leaves])[-1]
        torch.testing.assert_close(three[1], of_rows.sum((0, 2)))
        error, size = (three[0].double() - three[1]).abs(), of_rows.square().sum((0, 2)).sqrt()
        assert (error <= 4 * RMS_BOUND[dtype] * condition * size).all(), f"dsinks: {error} of {size}"
