"""Any read from a memory, as hypothesis draws it, and what every backend has to make of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from hypothesis import strategies as st
from torch import Tensor
from vtsum_kernels.memory_attention import plan

from tests.kernels.comparisons import TOLERANCE


@st.composite
def reads(draw: st.DrawFn, sparse: bool = True) -> dict[str, Any]:
    """Shapes, options and a seed for the numbers; `sparse`: also reads of the k best slots."""
    heads, normalize, own_banks = draw(st.integers(1, 3)), draw(st.booleans()), draw(st.booleans())
    # Of few features a norm may be next to 0, and magnifies rounding.
    dim = draw(st.sampled_from([8, 16, 33, 64] if normalize else [1, 3, 8, 16, 33, 64]))
    return {
        "batch": draw(st.integers(1, 3)),
        "own_banks": own_banks,
        "frames": draw(st.integers(0, 120)),
        "slots": draw(st.integers(0, 100)),
        "heads": heads,
        "dim": heads * dim,
        "width": heads * draw(st.sampled_from([1, 8, 20])),
        "normalize": normalize,
        "scale": draw(st.sampled_from([None, 0.0, 1.0, -2.0])),
        "top_k": draw(st.sampled_from([None, None, 1, 7, 200])) if sparse else None,
        "slot_mask": draw(st.booleans()),
        "slot_bias": draw(st.booleans()),
        "query_mask": draw(st.booleans()),
        "flash": draw(st.booleans()),
        "out_dim": draw(st.sampled_from([None, 1, 24])),
        "fold": draw(st.sampled_from(["auto", True, False])),
        "dtype": draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16])),
        "seed": draw(st.integers(0, 2**31)),
    }


def read_agrees_with_the_reference(call: dict[str, Any], backend: str, device: str) -> None:
    """memory_attention, or memory_fuse where there is an out_dim, against the reference in float64 on the CPU."""
    generator = torch.Generator().manual_seed(call["seed"])
    batch, frames, slots, heads = call["batch"], call["frames"], call["slots"], call["heads"]
    dtype, banks = call["dtype"], (batch,) if call["own_banks"] else ()

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    spread = 0.1 if call["top_k"] is not None and not call["normalize"] else 1.0
    x, keys = random(batch, frames, call["dim"]) * spread, random(*banks, slots, call["dim"]) * spread
    leaves = [x.to(dtype), keys.to(dtype), random(*banks, slots, call["width"]).to(dtype)]
    if call["out_dim"] is not None:
        leaves.append(random(call["out_dim"], call["dim"] + call["width"]).to(dtype) * 0.2)
    bias = random(*banks, heads, slots) if call["slot_bias"] else None
    if call["top_k"] is not None:  # so far apart that rounding cannot change which slots are the best
        order = torch.randperm(slots, generator=generator).float() * 4.0
        bias = order.expand(*banks, heads, slots).contiguous()
    if bias is not None:
        leaves.append(bias)
    slot_mask = torch.rand(*banks, slots, generator=generator) > 0.3 if call["slot_mask"] else None
    query_mask = torch.rand(batch, frames, generator=generator) > 0.3 if call["query_mask"] else None
    directions: list[Tensor] = []

    def results(backend: str, device: str, wide: bool) -> list[Tensor]:
        inputs = [t.to(device, torch.float64 if wide else t.dtype).detach().requires_grad_() for t in leaves]
        own = [t.unflatten(2, (heads, -1)).transpose(1, 2) if banks else t for t in inputs[1:3]]
        options: dict[str, Any] = {
            "num_heads": heads,
            "scale": call["scale"],
            "normalize": call["normalize"],
            "slot_mask": None if slot_mask is None else slot_mask.to(device),
            "slot_bias": None if bias is None else inputs[-1],
            "query_mask": None if query_mask is None else query_mask.to(device),
            "top_k": call["top_k"],
            "return_usage": True,
            "backend": backend,
        }
        if call["out_dim"] is None:
            outputs = vk.memory_attention(inputs[0], *own, return_lse=True, **options)
        else:
            outputs = vk.memory_fuse(inputs[0], *own, inputs[3], fold=call["fold"], **options)
        if not directions:
            directions.extend(random(*output.shape).to(dtype) for output in outputs)
        total = inputs[0].new_zeros((), dtype=torch.float64)
        for output, along in zip(outputs, directions, strict=True):
            total = total + (torch.where(output.isinf(), 0.0, output).double() * along.to(device).double()).sum()
        found = torch.autograd.grad(total, inputs, allow_unused=True)
        gradients = [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, found, strict=True)]
        return [t.detach().cpu().double() for t in (*outputs, *gradients)]

    exact = results("reference", "cpu", True)
    with pytest.MonkeyPatch.context() as patch:
        if call["flash"]:
            patch.setattr(plan, "keeps_weights", lambda *_: False)
        found = results(backend, device, False)
    for n, (got, wanted) in enumerate(zip(found, exact, strict=True)):
        assert got.shape == wanted.shape, n
        assert torch.equal(got.isinf(), wanted.isinf()), n
        if wanted.numel():
            error = torch.where(wanted.isinf(), 0.0, got - wanted).abs().max()
            largest = torch.where(wanted.isinf(), 0.0, wanted).abs().max().clamp_min(1.0)
            assert error <= 2 * TOLERANCE[dtype] * largest, (n, error.item(), largest.item())
