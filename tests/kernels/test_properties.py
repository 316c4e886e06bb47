"""Properties that hold for any shape, window and mask, with examples that hypothesis looks for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vtsum_kernels.sliding_window_attention import backends

SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """Any call of the window op: shapes, layouts, window, options and a seed for the numbers."""
    key_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shift, with_bias = draw(st.booleans()), draw(st.booleans())
    side = st.integers(0 if shift or with_bias else -1, 12)
    frames, packed = draw(st.integers(0, 180)), draw(st.booleans())
    return {
        "batch": 1 if packed else draw(st.integers(0, 3)),
        "heads": key_heads * group,
        "key_heads": key_heads,
        "frames": frames,
        "dim": draw(st.sampled_from([1, 7, 8, 16, 24, 32, 64, 72, 128])),
        "left": draw(side),
        "right": draw(side),
        "dilation": draw(st.integers(1, 6)),
        "shift": shift,
        "with_bias": with_bias,
        "masked": draw(st.booleans()),
        "ends": sorted([0, frames, *draw(st.lists(st.integers(0, frames), max_size=4))]) if packed else None,
        "dropout_p": draw(st.sampled_from([0.0, 0.0, 0.3])),
        "layouts": draw(st.lists(st.sampled_from(["bhtd", "bthd", "strided", "expanded"]), min_size=3, max_size=3)),
        "dtype": draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64])),
        "seed": draw(st.integers(0, 2**31)),
    }


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same numbers with other strides."""
    if layout == "bthd":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "strided":
        return torch.stack([x, x + 1], -1).flatten(-2)[..., ::2]
    if layout == "expanded" and x.shape[1]:
        x = x[:, :1].expand_as(x)
    return x


#: How far a result may be off relative to its largest number: some roundings of the dtype, and of sums in float32.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-5, torch.float16: 8e-3, torch.bfloat16: 6e-2}


@settings(SETTINGS, max_examples=150)
@given(call=calls())
def test_every_backend_agrees_with_the_reference_in_float64(cpp: None, call: dict[str, Any]) -> None:
    agrees_with_the_reference(call, "cpp", "cpu")


def agrees_with_the_reference(call: dict[str, Any], backend: str, device: str) -> None:
    """The call by a backend on a device, against the reference in float64 on the CPU: results and gradients."""
    generator = torch.Generator().manual_seed(call["seed"])
    batch, frames, dim, dtype = call["batch"], call["frames"], call["dim"], call["dtype"]
    heads, key_heads = call["heads"], call["key_heads"]
    numbers = [torch.randn(batch, n, frames, dim, generator=generator).to(dtype) for n in (heads, key_heads, key_heads)]
    entries = (2 if call["shift"] else 1) * (call["left"] + call["right"]) + 1
    if call["with_bias"]:
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        numbers.append(torch.randn(heads, entries, generator=generator).to(wide))
    mask = torch.rand(batch, frames, generator=generator) > 0.3 if call["masked"] else None
    along = torch.randn(batch, heads, frames, dim, generator=generator).to(dtype)
    along_lse = torch.randn(batch, heads, frames, generator=generator)
    cu_seqlens = None if call["ends"] is None else torch.tensor(call["ends"])

    def results(backend: str, device: str, wide: bool) -> list[torch.Tensor]:
        moved = [x.to(device, torch.float64 if wide else x.dtype) for x in numbers]
        moved[:3] = [laid_out(x, layout) for x, layout in zip(moved, call["layouts"], strict=False)]
        inputs = [x.detach().requires_grad_() for x in moved]
        pack = (lambda x: x) if cu_seqlens is None else (lambda x: x.squeeze(0).transpose(0, 1))
        some_mask = mask if mask is None or cu_seqlens is None else mask[0]
        if call["dropout_p"]:
            monkeyed = torch.tensor([call["seed"]], device=device)
        with pytest.MonkeyPatch.context() as patch:
            if call["dropout_p"]:  # generators differ between devices, the choice made from a seed does not
                patch.setattr(backends, "draw_seed", lambda _: monkeyed)
            out, lse = vk.sliding_window_attention(
                *(pack(x) for x in inputs[:3]),
                (call["left"], call["right"]),
                dilation=call["dilation"],
                key_padding_mask=None if some_mask is None else some_mask.to(device),
                cu_seqlens=None if cu_seqlens is None else cu_seqlens.to(device),
                bias=inputs[3] if call["with_bias"] else None,
                border="shift" if call["shift"] else "truncate",
                dropout_p=call["dropout_p"],
                return_lse=True,
                backend=backend,
            )
        if cu_seqlens is not None:
            out, lse = out.transpose(0, 1)[None], lse[None]
        total = (out.double() * along.to(device).double()).sum()
        total = total + (torch.where(lse.isinf(), 0.0, lse).double() * along_lse.to(device)).sum()
        return [x.detach().cpu().double() for x in (out, lse, *torch.autograd.grad(total, inputs))]

    exact = results("reference", "cpu", True)
    names = ("out", "lse", "dq", "dk", "dv", "dbias")
    for name, got, wanted in zip(names, results(backend, device, False), exact, strict=False):
        assert got.shape == wanted.shape, (backend, name)
        assert torch.equal(got.isinf(), wanted.isinf()), (backend, name)
        if wanted.numel():
            error = torch.where(wanted.isinf(), 0.0, got - wanted).abs().max()
            largest = torch.where(wanted.isinf(), 0.0, wanted).abs().max().clamp_min(1.0)
            assert error <= TOLERANCE[dtype] * largest, (backend, name, error.item(), largest.item())


@SETTINGS
@given(
    frames=st.integers(1, 90),
    shift=st.integers(1, 20),
    window=st.sampled_from([1, 3, 5, 9]),
    seed=st.integers(0, 2**31),
)
def test_padding_on_either_side_changes_nothing(cpp: None, frames: int, shift: int, window: int, seed: int) -> None:
    """A video between padded frames gives what it gives alone."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, 1, frames + 2 * shift, 16, generator=generator) for _ in range(3))
    mask = torch.zeros(1, frames + 2 * shift, dtype=torch.bool)
    inside = slice(shift, shift + frames)
    mask[:, inside] = True
    padded = vk.sliding_window_attention(q, k, v, window, key_padding_mask=mask)[:, :, inside]
    alone = vk.sliding_window_attention(q[:, :, inside], k[:, :, inside], v[:, :, inside], window)
    torch.testing.assert_close(padded, alone)


@SETTINGS
@given(frames=st.integers(1, 200), slots=st.integers(1, 90), seed=st.integers(0, 2**31))
def test_weights_sum_to_one_and_ignore_the_order_of_slots(cpp: None, frames: int, slots: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, bank = torch.randn(frames, 8, generator=generator), torch.randn(slots, 8, generator=generator)
    ones = torch.ones(slots, 1)
    out, usage = vk.memory_attention(x, bank, ones, return_usage=True, backend="cpp")
    torch.testing.assert_close(out, torch.ones(frames, 1))
    order = torch.randperm(slots, generator=generator)
    shuffled = vk.memory_attention(x, bank[order], ones, return_usage=True, backend="cpp")[1]
    torch.testing.assert_close(shuffled, usage[:, order], rtol=1e-4, atol=1e-5)
