"""Any call of sliding_window_attention, held to the definition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
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
        inputs.append(sinks.to(qkv[0].device, wide).requires_grad_())
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
    # Sums over rows in float32, of what was never rounded to 16 bits: but a GPU's wide windows read out as it was.
    of_out = backend in ("cuda", "triton") and sum(sides) >= 33
    of_sums = dtype if of_out else wide
    for name, *three in zip(names, got, exact, dense(inputs), strict=True):
        # In float32 the factor of the global softmax is a second rounding; 16 bits are rounded to at the end, once.
        twice = normalize == "global" and dtype == torch.float32
        if name != "dsinks":
            of = of_sums if name == "dbias" else dtype
            hold(name, *three, condition=2.0 if twice else condition, dtype=of)
            continue
        # A sum over all rows, of either sign: it cancels, and their rounding, which is the house's bound, adds up.
        leaves = [x.detach().double() for x in inputs]
        leaves[-1] = leaves[-1][:, None].expand_as(lse).clone()
        of_rows = dense([x.requires_grad_() for x in leaves])[-1]
        torch.testing.assert_close(three[1], of_rows.sum((0, 2)))
        error, size = (three[0].double() - three[1]).abs(), of_rows.square().sum((0, 2)).sqrt()
        assert (error <= 4 * RMS_BOUND[of_sums] * condition * size).all(), f"dsinks: {error} of {size}"


#: Numbers beyond every sequence, and ordinary ones that say the same.
BEYOND: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dilation": ({"dilation": 2**62}, {"dilation": 60}),
    "dilation of a wide window": ({"dilation": 10**12, "window_size": (10**12, 0)}, {"dilation": 60}),
    "window": ({"window_size": (2**62, 2**62)}, {"window_size": (-1, -1)}),
    "one side": ({"window_size": (10**12, 3)}, {"window_size": (-1, 3)}),
    "shift": ({"window_size": (2**62, 2**62), "border": "shift"}, {"window_size": (-1, -1)}),
    "shift, one side": ({"window_size": (10**12, 1), "border": "shift"}, {"window_size": (-1, -1)}),
    "shift, dilated": (
        {"window_size": (10**12, 10**12), "border": "shift", "dilation": 7}, {"window_size": (-1, -1), "dilation": 7},
    ),
    "packed": (
        {"window_size": (10**12, 2**62), "border": "shift", "cu_seqlens": [0, 8, 11, 24]},
        {"window_size": (-1, -1), "cu_seqlens": [0, 8, 11, 24]},
    ),
}  # fmt: skip


def says_nothing_more(backend: str, compiled: bool, case: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """A case of BEYOND, forward and backward, by both. compiled: as under torch.compile, where the public call does not
    cut the numbers, and the op itself has to."""
    results = []
    for options in case:
        options = {"window_size": (2, 2), **options}
        packed = "cu_seqlens" in options
        leaves = [torch.linspace(-1, n, 384).sin().view(1, 2, 24, 8).requires_grad_() for n in range(3, 6)]
        given = [x[0].transpose(0, 1) for x in leaves] if packed else leaves
        if packed:
            options["cu_seqlens"] = torch.tensor(options["cu_seqlens"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: compiled)
            out, lse = vk.sliding_window_attention(*given, return_lse=True, backend=backend, **options)
        results.append([out, lse, *torch.autograd.grad(out.square().sum() + lse.sum(), leaves)])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted)


#: Calls of `compare` whose queries are the last of more keys.
FEWER_QUERIES: dict[str, dict[str, Any]] = {
    "one": {"queries": 1, "sides": (9, 0)},
    "all before them": {"queries": 5, "sides": (-1, 0), "key_heads": 1},
    "padded": {"queries": 20, "sides": (3, 1), "padded": 0.3},
    "dilated": {"queries": 9, "dilation": 3, "with_bias": True},
    "shifted": {"queries": 9, "border": "shift", "dilation": 2, "with_bias": True, "padded": 0.2},
    "global": {"queries": 9, "normalize": "global", "padded": 0.2},
    "dropout": {"queries": 9, "dropout_p": 0.3, "row_offset": 2**32 - 30},
    "sinks": {"queries": 9, "sinks": torch.tensor([0.5, -1.0]), "softcap": 1.5},
    "packed": {"ends": [0, 20, 27, 27, 34, 50], "query_ends": [0, 1, 8, 8, 8, 20], "padded": 0.2},
    "packed, dropout": {"ends": [0, 20, 27, 27, 34, 50], "query_ends": [0, 1, 8, 8, 8, 20], "dropout_p": 0.3},
}
for _options in FEWER_QUERIES.values():
    _options["shape"] = (1 if "ends" in _options else 2, 2, 50, 16)


def global_is_as_exact_as_windowed(backend: str, dtype: torch.dtype) -> None:
    """Gradients of the softmax over the whole sequence beside those of the window's, in which nearly all weight lies:
    the two parts that they are made of cancel."""
    q = 6.0 * torch.nn.functional.normalize(torch.randn(2, 2, 64, 16), dim=-1)
    v, dout = 1.0 + torch.randn(2, 2, 64, 16), 1.0 + torch.randn(2, 2, 64, 16)
    qkv, dout = [x.to(dtype) for x in (q, q, v)], dout.to(dtype)

    def errors(normalize: str) -> list[Tensor]:
        found = []
        for kind, by in ((dtype, backend), (torch.float64, "reference")):
            leaves = [x.to(kind).requires_grad_() for x in qkv]
            out = vk.sliding_window_attention(*leaves, 9, scale=0.25, normalize=normalize, backend=by)
            found.append(torch.autograd.grad(out, leaves, dout.to(kind)))
        pairs = zip(*found, strict=True)
        return [(got.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt() for got, exact in pairs]

    for name, over_all, windowed in zip(("dq", "dk", "dv"), errors("global"), errors("window"), strict=True):
        print(f"{name} {dtype}: RMS {over_all:.1e}, window {windowed:.1e}")
        assert over_all <= 2 * windowed, name
