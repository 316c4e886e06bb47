"""Properties that hold for any shape, window and mask, with examples that hypothesis looks for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from vtsum_kernels.sliding_window_attention import backends

from tests.kernels.comparisons import TOLERANCE
from tests.kernels.conftest import needs_library
from tests.kernels.memory_calls import read_agrees_with_the_reference, reads
from tests.kernels.pretended_gpu import PRETENDED


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """Any call of the window op: shapes, layouts, window, options and a seed for the numbers."""
    key_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shift, with_bias = draw(st.booleans()), draw(st.booleans())
    side = st.integers(0 if shift or with_bias else -1, 12)
    frames, packed = draw(st.integers(0, 180)), draw(st.booleans())
    ends = sorted([0, frames, *draw(st.lists(st.integers(0, frames), max_size=4))]) if packed else None
    more = (
        draw(st.lists(st.integers(0, 90), min_size=1, max_size=len(ends or [0, 1]) - 1)) if draw(st.booleans()) else []
    )
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
        "ends": ends,
        "more": more,  # keys than queries, of each sequence
        "dropout_p": draw(st.sampled_from([0.0, 0.0, 0.3])),
        "row_offset": draw(st.sampled_from([0, 0, 7, -20, 2**32 - 50])),
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


def agrees_with_the_reference(call: dict[str, Any], backend: str, device: str) -> None:
    """The call by a backend on a device, against the reference in float64 on the CPU: results and gradients."""
    generator = torch.Generator().manual_seed(call["seed"])
    batch, frames, dim, dtype = call["batch"], call["frames"], call["dim"], call["dtype"]
    heads, key_heads = call["heads"], call["key_heads"]
    more, ends = call["more"], call["ends"]
    key_ends = [] if ends is None else [end + sum(more[:n]) for n, end in enumerate(ends)]
    keys = frames + sum(more)
    sizes = ((heads, frames), (key_heads, keys), (key_heads, keys))
    numbers = [torch.randn(batch, n, count, dim, generator=generator).to(dtype) for n, count in sizes]
    entries = (2 if call["shift"] else 1) * (call["left"] + call["right"]) + 1
    if call["with_bias"]:
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        numbers.append(torch.randn(heads, entries, generator=generator).to(wide))
    mask = torch.rand(batch, keys, generator=generator) > 0.3 if call["masked"] else None
    along = torch.randn(batch, heads, frames, dim, generator=generator).to(dtype)
    along_lse = torch.randn(batch, heads, frames, generator=generator)
    cu_seqlens = None if ends is None else torch.tensor(ends)
    cu_seqlens_k = torch.tensor(key_ends) if key_ends and more else None

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
                key_mask=None if some_mask is None else some_mask.to(device),
                cu_seqlens=None if cu_seqlens is None else cu_seqlens.to(device),
                cu_seqlens_k=None if cu_seqlens_k is None else cu_seqlens_k.to(device),
                bias=inputs[3] if call["with_bias"] else None,
                border="shift" if call["shift"] else "truncate",
                dropout_p=call["dropout_p"],
                row_offset=call["row_offset"],
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


EXAMPLES = settings(max_examples=100, suppress_health_check=list(HealthCheck))
#: On a GPU the same examples in every run: the machine is there for minutes. Each of Triton's compiles three kernels or
#: four; smaller ones of a failure would do so by the hundred.
ON_A_GPU = settings(EXAMPLES, derandomize=True, print_blob=True, max_examples=20 if PRETENDED else 150)
OF_TRITON = settings(ON_A_GPU, max_examples=6, phases=(Phase.explicit, Phase.generate))
GPU = pytest.mark.gpu
ON_GPUS = calls().filter(lambda call: call["dtype"] != torch.float64)


@EXAMPLES
@given(call=calls())
def test_windows_by_cpp(cpp: None, call: dict[str, Any]) -> None:
    agrees_with_the_reference(call, "cpp", "cpu")


@EXAMPLES
@given(call=calls())
def test_windows_by_blocks(call: dict[str, Any]) -> None:
    agrees_with_the_reference(call, "blockwise", "cpu")


@GPU
@ON_A_GPU
@given(call=ON_GPUS)
def test_windows_by_cuda(call: dict[str, Any]) -> None:
    needs_library("cuda")
    agrees_with_the_reference(call, "cuda", "cuda")


@GPU
@OF_TRITON
@given(call=ON_GPUS)
def test_windows_by_triton(call: dict[str, Any]) -> None:
    agrees_with_the_reference(call, "triton", "cuda")


@EXAMPLES
@given(call=reads())
def test_reads_by_cpp(cpp: None, call: dict[str, Any]) -> None:
    read_agrees_with_the_reference(call, "cpp", "cpu")


@GPU
@ON_A_GPU
@given(call=reads())
def test_reads_by_cuda(call: dict[str, Any]) -> None:
    needs_library("cuda")
    read_agrees_with_the_reference(call, "cuda", "cuda")


@GPU
@OF_TRITON
@given(call=reads(sparse=False))
def test_reads_by_triton(call: dict[str, Any]) -> None:
    read_agrees_with_the_reference(call, "triton", "cuda")


@settings(EXAMPLES, max_examples=30)
@given(
    frames=st.integers(1, 90),
    shift=st.integers(1, 20),
    window=st.sampled_from([1, 3, 5, 9, 17, 65]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_padding_on_either_side_changes_nothing(
    native: str, frames: int, shift: int, window: int, dtype: torch.dtype, seed: int
) -> None:
    """A video between padded frames gives what it gives alone."""
    torch.manual_seed(seed)
    q, k, v = (torch.randn(1, 1, frames + 2 * shift, 16).to(dtype) for _ in range(3))
    mask = torch.zeros(1, frames + 2 * shift, dtype=torch.bool)
    inside = slice(shift, shift + frames)
    mask[:, inside] = True
    padded = vk.sliding_window_attention(q, k, v, window, key_mask=mask, backend=native)[:, :, inside]
    alone = vk.sliding_window_attention(q[:, :, inside], k[:, :, inside], v[:, :, inside], window, backend=native)
    torch.testing.assert_close(padded, alone)


@settings(EXAMPLES, max_examples=30)
@given(frames=st.integers(1, 200), slots=st.integers(1, 90), seed=st.integers(0, 2**31))
def test_weights_sum_to_one_and_ignore_the_order_of_slots(native: str, frames: int, slots: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, bank = torch.randn(frames, 8), torch.randn(slots, 8)
    ones = torch.ones(slots, 1)
    out, usage = vk.memory_attention(x, bank, ones, return_usage=True, backend=native)
    torch.testing.assert_close(out, torch.ones(frames, 1))
    order = torch.randperm(slots)
    shuffled = vk.memory_attention(x, bank[order], ones, return_usage=True, backend=native)[1]
    torch.testing.assert_close(shuffled, usage[:, order], rtol=1e-4, atol=1e-5)
