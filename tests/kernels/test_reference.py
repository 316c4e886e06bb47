"""Holds the references to the definitions, in float64 and for any options; and these to torch's own attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import vtsum_kernels as vk
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels import definitions
from tests.kernels.comparisons import gradients

TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def same(results: list[Any], leaves: list[Tensor]) -> None:
    """Outputs and all gradients of both."""
    found, exact = ([*outputs, *gradients(outputs, leaves, 1)] for outputs in results)
    for number, (got, wanted) in enumerate(zip(found, exact, strict=True)):
        torch.testing.assert_close(got, wanted, **TIGHT, msg=lambda text, n=number: f"result {n}: {text}")


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    shift, with_bias, packed = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    frames, side = draw(st.integers(1, 24)), st.integers(0 if shift or with_bias else -1, 9)
    return {
        "batch": 1 if packed else draw(st.integers(1, 2)),
        "heads": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "frames": frames,
        "sides": (draw(side), draw(side)),
        "dilation": draw(st.integers(1, 4)),
        "shift": shift,
        "bias": with_bias,
        "mask": draw(st.booleans()),
        "ends": sorted([0, frames, *draw(st.lists(st.integers(0, frames), max_size=3))]) if packed else None,
        "p": draw(st.sampled_from([0.0, 0.0, 0.3])),
        "over_all": draw(st.booleans()),
        "sinks": draw(st.booleans()),
        "softcap": draw(st.sampled_from([0.0, 0.7])),
        "scale": draw(st.sampled_from([None, -0.7, 0.0])),
        "seed": draw(st.integers(0, 2**31)),
    }


@settings(max_examples=80, deadline=None)
@given(call=windows())
def test_windows(call: dict[str, Any]) -> None:
    torch.manual_seed(call["seed"])
    (key_heads, group), frames, sides, ends = call["heads"], call["frames"], call["sides"], call["ends"]
    heads, batch, shift = key_heads * group, call["batch"], call["shift"]
    q, k, v = (random(batch, n, frames, 5).requires_grad_() for n in (heads, key_heads, key_heads))
    bias = random(heads, (2 if shift else 1) * sum(sides) + 1).requires_grad_() if call["bias"] else None
    sinks = random(heads).requires_grad_() if call["sinks"] else None
    softcap = 0.0 if call["over_all"] else call["softcap"]
    mask = torch.rand(batch, frames) > 0.3 if call["mask"] else None
    torch.manual_seed(call["seed"])
    seed = int(torch.randint(2**62, (1,))) if call["p"] else None
    torch.manual_seed(call["seed"])
    packed = (lambda x: x) if ends is None else (lambda x: x.squeeze(0).transpose(0, 1))
    out, lse = vk.sliding_window_attention(
        packed(q), packed(k), packed(v), sides, scale=call["scale"], dilation=call["dilation"],
        key_mask=mask if mask is None or ends is None else mask[0],
        cu_seqlens=None if ends is None else torch.tensor(ends), bias=bias, border="shift" if shift else "truncate",
        normalize="global" if call["over_all"] else "window", dropout_p=call["p"], sinks=sinks, softcap=softcap,
        return_lse=True, backend="reference",
    )  # fmt: skip
    if ends is not None:
        out, lse = out.transpose(0, 1)[None], lse[None]
    exact = definitions.sliding_window_attention(
        q, k, v, *sides, scale=call["scale"], dilation=call["dilation"], shift=shift, ends=ends, key_mask=mask,
        bias=bias, seed=seed, dropout_p=call["p"], over_all=call["over_all"], sinks=sinks, softcap=softcap,
    )  # fmt: skip
    same([[out, lse], exact], [x for x in (q, k, v, bias, sinks) if x is not None])


@st.composite
def reads(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "frames": draw(st.integers(1, 20)),
        "slots": draw(st.integers(1, 12)),
        "heads": draw(st.integers(1, 3)),
        "normalize": draw(st.booleans()),
        "masked": draw(st.booleans()),
        "biased": draw(st.booleans()),
        "top_k": draw(st.sampled_from([None, 1, 3, 20])),
        "projected": draw(st.booleans()),
        "residual": draw(st.booleans()),
        "norm": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**31)),
    }


@settings(max_examples=80, deadline=None)
@given(call=reads())
def test_reads_and_what_is_made_of_them(call: dict[str, Any]) -> None:
    torch.manual_seed(call["seed"])
    frames, slots, heads = call["frames"], call["slots"], call["heads"]
    dim, width = 4 * heads, 3 * heads
    x, keys, values = random(frames, dim), random(slots, dim), random(slots, width)
    scale = torch.tensor(1.7, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, keys, values, scale)]
    options: dict[str, Any] = {"normalize": call["normalize"], "top_k": call["top_k"]}
    if call["masked"]:
        options |= {"slot_mask": torch.rand(slots) > 0.3, "query_mask": torch.rand(frames) > 0.3}
    if call["biased"]:
        options["slot_bias"] = random(heads, slots).requires_grad_()
        leaves.append(options["slot_bias"])
    got = vk.memory_attention(
        x,
        keys,
        values,
        num_heads=heads,
        scale=scale,
        return_lse=True,
        return_usage=True,
        backend="reference",
        **options,
    )
    same([got, definitions.memory_attention(x, keys, values, heads, scale, **options)], leaves)

    weight, bias = random(5, dim + width).requires_grad_(), random(5).requires_grad_()
    leaves += [weight, bias]
    if call["projected"]:
        options["query_weight"] = random(dim, dim).requires_grad_()
        leaves.append(options["query_weight"])
    if call["residual"]:
        options["residual"] = random(frames, 5).requires_grad_()
        leaves.append(options["residual"])
    if call["norm"]:
        options["norm"] = (random(width).requires_grad_(), random(width).requires_grad_(), 1e-5)
        leaves += options["norm"][:2]
    got = vk.memory_fuse(
        x, keys, values, weight, bias, num_heads=heads, scale=scale, return_usage=True, backend="reference", **options
    )
    same([got, definitions.memory_fuse(x, keys, values, weight, bias, heads, scale, **options)], leaves)


@pytest.mark.parametrize("heads", [1, 2])
def test_the_definitions_are_torchs_attention_where_that_serves(heads: int) -> None:
    """A causal band, by a mask written as an inequality; and a bank as keys and values that all frames share."""
    q, k, v = (random(2, heads, 11, 6).requires_grad_() for _ in range(3))
    steps = torch.arange(11)[None] - torch.arange(11)[:, None]
    exact = F.scaled_dot_product_attention(q, k, v, attn_mask=(steps >= -4) & (steps <= 1))
    same([[definitions.sliding_window_attention(q, k, v, 4, 1)[0]], [exact]], [q, k, v])

    x, keys, values = (random(n, 6 * heads).requires_grad_() for n in (11, 7, 7))
    by_head = [t.unflatten(1, (heads, 6)).transpose(0, 1) for t in (x, keys, values)]
    exact = F.scaled_dot_product_attention(*by_head, scale=0.3).transpose(0, 1).flatten(1)
    same([[definitions.memory_attention(x, keys, values, heads, 0.3)[0]], [exact]], [x, keys, values])
