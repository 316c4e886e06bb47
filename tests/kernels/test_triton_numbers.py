"""The Triton kernels' numbers against the definition in float64, each form of them with each option.

On the GPU where there is one; else in Triton's interpreter, in the process that test_triton.py starts for it.
"""

from __future__ import annotations

import itertools
import os
from typing import Any, NamedTuple

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.sliding_window_attention.reference import sliding_window_attention_reference

from tests.kernels import definitions
from tests.kernels.comparisons import hold
from tests.kernels.pretended_gpu import PRETENDED
from tests.kernels.spoilt import hold_apart, seen_by

pytest.importorskip("triton", reason="the package triton is not installed (pip install triton)")

from vtsum_kernels.sliding_window_attention.triton import launch as sliding
from vtsum_kernels.triton_kit.tuning import Config

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and not PRETENDED
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
DEVICE = "cpu" if INTERPRETED else "cuda"
SEED = (0x1234567 << 32) | 0x89ABCDEF


class Form(NamedTuple):
    forward: Config
    backward: Config
    window: tuple[int, int]


TILE = Config("tile", 32, 64, 4, 1)
FORMS = {
    "strip": Form(Config("strip", 32, 0, 4, 1), Config("strip", 32, 0, 4, 1), (2, 1)),
    "tile": Form(TILE, TILE, (3, 2)),
    "fused": Form(TILE, Config("fused", 32, 64, 4, 1), (1, 4)),
    "wide": Form(Config("tile", 16, 32, 4, 1), Config("tile", 32, 32, 4, 1), (18, 16)),
}
#: B, H, K, T, D and the options of a call. Sizes are no multiples of the tiles', and span several of them.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"shape": (1, 1, 1, 75, 16)},
    "padding": {"shape": (2, 1, 1, 37, 24), "padding": True, "dlse": True},
    "grouped": {"shape": (1, 4, 2, 33, 8), "transposed": True},
    "bias": {"shape": (1, 2, 2, 67, 16), "bias": True},
    "shift": {"shape": (1, 1, 1, 70, 16), "shift": True},
    "short": {"shape": (1, 1, 1, 4, 16), "shift": True, "bias": True},
    "packed": {"shape": (1, 1, 1, 71, 16), "ends": [0, 30, 30, 31, 38, 71], "transposed": True},
    "dilated": {"shape": (1, 1, 1, 61, 16), "dilation": 3},
    "dropout": {"shape": (1, 2, 2, 40, 16), "p": 0.3},
    "dropout of a part": {"shape": (1, 1, 1, 40, 16), "p": 0.3, "row_offset": 2**32 - 17},
    "sinks": {"shape": (2, 2, 1, 37, 24), "sinks": True, "padding": True, "dlse": True},
    "softcap": {"shape": (1, 1, 1, 61, 16), "softcap": 0.8},
    "all": {
        "sinks": True,
        "softcap": 1.0,
        "shape": (1, 2, 1, 75, 24),
        "ends": [0, 3, 70, 75],
        **{"padding": True, "dlse": True, "bias": True, "shift": True, "dilation": 2, "p": 0.6, "transposed": True},
    },
}


@pytest.fixture
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Form:
    """The forms' sizes, small here, in place of those for real GPUs."""
    chosen = FORMS[request.param]
    monkeypatch.setattr(sliding, "forward_candidates", lambda problem: [chosen.forward])
    monkeypatch.setattr(sliding, "backward_candidates", lambda problem: [chosen.backward])
    return chosen


class Inputs:
    """Random tensors for a call of the registered ops."""

    def __init__(
        self,
        shape: tuple[int, int, int, int, int],
        window: tuple[int, int],
        dtype: torch.dtype,
        *,
        padding: bool = False,
        dlse: bool = False,
        bias: bool = False,
        shift: bool = False,
        ends: list[int] | None = None,
        dilation: int = 1,
        p: float = 0.0,
        transposed: bool = False,
        row_offset: int = 0,
        sinks: bool = False,
        softcap: float = 0.0,
    ) -> None:
        batch, heads, key_heads, frames, dim = shape
        self.shape, self.dtype, self.ends = shape, dtype, ends

        def tensor(count: int) -> Tensor:
            if transposed:
                return torch.randn(batch, frames, count, dim).to(dtype).transpose(1, 2)
            return torch.randn(batch, count, frames, dim).to(dtype)

        self.q, self.k, self.v, self.dout = tensor(heads), tensor(key_heads), tensor(key_heads), tensor(heads)
        self.mask = torch.rand(batch, frames) > 0.3 if padding else None
        if self.mask is not None:
            self.mask[-1, frames // 2 :] = False  # rows that see nothing
        left, right = window
        self.bias = torch.randn(heads, (2 if shift else 1) * (left + right) + 1) if bias else None
        self.dlse = torch.randn(batch, heads, frames) if dlse else None
        self.seed = torch.tensor([SEED]) if p > 0 else None
        self.options = (left, right, dilation, shift, 0.3, p, row_offset)
        self.sinks = torch.linspace(-2.0, 2.0, heads) if sinks else None
        self.softcap = softcap

    def run(self, device: str = DEVICE) -> dict[str, Tensor]:
        """out, lse and all gradients by the Triton kernels; what padded frames hold is NaN."""
        k, v = self.k, self.v
        if self.mask is not None:
            k, v = (x.masked_fill(~self.mask[:, None, :, None], torch.nan) for x in (k, v))
        ends = None if self.ends is None else torch.tensor(self.ends, dtype=torch.int32)
        q, k, v, dout, mask, ends, bias, seed, dlse, sinks = (
            None if x is None else x.to(device)
            for x in (self.q, k, v, self.dout, self.mask, ends, self.bias, self.seed, self.dlse, self.sinks)
        )
        inputs = (q, k, v, mask, ends, bias, seed)
        out, lse = sliding.forward(*inputs, *self.options, True, sinks, self.softcap)
        dq, dk, dv, dbias = sliding.backward(dout, *inputs, dlse, out, lse, *self.options, sinks, self.softcap)
        found = {"out": out, "lse": lse, "dq": dq, "dk": dk, "dv": dv}
        if bias is None:
            assert dbias.shape == (0,)
        else:
            found["dbias"] = dbias
        return {name: x.cpu() for name, x in found.items()}

    def expect(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The same by dense attention in `dtype`: float64 is the definitions. dk and dv have the query's heads."""
        left, right, dilation, shift, scale, p, row_offset = self.options
        q, k, v = (x.to(dtype, copy=True) for x in (self.q, self.k, self.v))
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        bias = None if self.bias is None else self.bias.to(dtype, copy=True)
        leaves = [x.requires_grad_() for x in (q, k, v, bias) if x is not None]
        out, lse = definitions.sliding_window_attention(
            q, k, v, left, right, scale=scale, dilation=dilation, shift=shift, ends=self.ends, key_mask=self.mask,
            bias=bias, seed=SEED if p > 0 else None, dropout_p=p, row_offset=row_offset, sinks=self.sinks,
            softcap=self.softcap,
        )  # fmt: skip
        total = (out * self.dout.to(dtype)).sum()
        if self.dlse is not None:
            total = total + (lse.masked_fill(lse.isinf(), 0.0) * self.dlse.to(dtype)).sum()
        grads = torch.autograd.grad(total, leaves)
        names = ("out", "lse", "dq", "dk", "dv", "dbias")
        return dict(zip(names, (out.detach(), lse.detach(), *grads), strict=False))


def check(inputs: Inputs) -> None:
    found, exact, eager = inputs.run(), inputs.expect(torch.float64), inputs.expect(inputs.dtype)
    assert found.keys() == exact.keys()
    # The interpreter cuts off the bits that bfloat16 has no room for, where a GPU rounds: twice the error.
    cut = INTERPRETED and inputs.dtype == torch.bfloat16
    for name, got in found.items():
        # Gradients start from lse: where it is 8, its rounding to float32 is 5e-7 of every weight.
        of_lse = inputs.dtype == torch.float32 and name not in ("out", "lse")
        hold(name, got, exact[name], eager[name], 2.0 if cut or of_lse else 1.0, inputs.dtype)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("form", FORMS.keys(), indirect=True)
def test_each_form_with_each_option(form: Form, options: dict[str, Any]) -> None:
    check(Inputs(window=form.window, dtype=torch.float32, **options))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS.keys(), indirect=True)
def test_half_precision(form: Form, dtype: torch.dtype) -> None:
    check(Inputs((1, 2, 1, 50, 32), form.window, dtype, padding=True, bias=True))


@pytest.mark.parametrize(("dtype", "window"), [(torch.float32, 5), (torch.bfloat16, 33), (torch.float32, 67)])
def test_default_sizes(dtype: torch.dtype, window: int) -> None:
    check(Inputs((1, 1, 1, 70, 40), (window // 2, window // 2), dtype))


def test_one_side_unbounded_with_dilation() -> None:
    for window in ((-1, 3), (4, -1), (-1, -1)):
        check(Inputs((1, 1, 1, 90, 16), window, torch.float32, dilation=2, padding=True))


@pytest.mark.parametrize("form", FORMS.keys(), indirect=True)
def test_offsets_of_64_bits(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliding, "MAX_TILE", 1 << 31)
    check(Inputs((1, 1, 1, 61, 8), form.window, torch.float32, dilation=3, transposed=True))


def test_a_step_of_64_bits() -> None:
    """From one frame of a phase to the next are 2^31 elements, of which hardly any is touched."""
    q, k, v = (
        torch.empty(2**31 + 16, dtype=torch.bfloat16, device=DEVICE).as_strided((1, 1, 3, 16), (0, 0, 2**30, 1))
        for _ in range(3)
    )
    for x in (q, k, v):
        x.copy_(torch.randn(1, 1, 3, 16))
    options = (None, None, None, None, 1, 1, 2, False, 0.25, 0.0, 0, True)
    out, _ = sliding.forward(q, k, v, *options)
    near, _ = sliding.forward(q.contiguous(), k.contiguous(), v.contiguous(), *options)
    assert torch.equal(out, near)


@pytest.mark.parametrize("form", FORMS.keys(), indirect=True)
def test_very_large_and_very_small_values(form: Form) -> None:
    inputs = Inputs((1, 1, 1, 70, 16), form.window, torch.float32, bias=True)
    inputs.q *= 300.0
    inputs.v *= 1e18
    inputs.dout *= 1e-18
    found, exact, eager = inputs.run(), inputs.expect(torch.float64), inputs.expect(torch.float32)
    for name, got in found.items():
        if name in ("out", "lse"):
            hold(name, got, exact[name], eager[name], 10.0)
        else:  # lse is around 4,000, and its rounding to float32 2e-4 of every weight; what remains cancels out
            size = {"dq": 1.0, "dk": 300.0, "dv": 1e-18, "dbias": 1.0}[name]
            assert (got - exact[name]).abs().max() < 1e-3 * size, name
    inputs.q *= 1e-12
    inputs.v *= 1e-36
    check(inputs)


@pytest.mark.gpu  # the interpreter runs one program after the other
@pytest.mark.parametrize("form", FORMS.keys(), indirect=True)
def test_the_same_bits_each_time(form: Form) -> None:
    inputs = Inputs((1, 2, 1, 40, 16), form.window, torch.float32, bias=True, shift=True)
    first, second = inputs.run(), inputs.run()
    for name, x in first.items():
        assert torch.equal(x, second[name]), name


@pytest.mark.parametrize("form", FORMS.keys(), indirect=True)
def test_dropout_keeps_what_philox_says(form: Form) -> None:
    """Even weights and values of one each show which keys were kept."""
    frames, p = 21, 0.4
    inputs = Inputs((2, 2, 2, frames, 32), form.window, torch.float32, p=p)
    inputs.q.zero_()
    inputs.v.copy_(torch.eye(frames, 32).expand(2, 2, -1, -1))
    kept = inputs.run()["out"][..., :frames] > 0
    left, right = form.window
    seen = definitions.window_mask(frames, definitions.windows(frames, left, right))
    expected = (definitions.keep_mask(SEED, (2, 2, frames), p) > 0) & seen
    assert torch.equal(kept, expected)
    assert 0 < expected.sum() < 4 * seen.sum()


def test_strides_and_layouts_of_every_kind() -> None:
    """A view with gaps, one whose last dimension is not dense."""
    inputs = Inputs((1, 2, 2, 20, 12), (2, 2), torch.float32)
    expected = inputs.run()
    gaps = torch.zeros(1, 2, 40, 17)[:, :, ::2, 3:15]
    inputs.q = gaps.copy_(inputs.q)
    inputs.k = inputs.k.transpose(2, 3).contiguous().transpose(2, 3)
    inputs.v = inputs.v.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
    inputs.dout = inputs.dout[:, :, :, :1].expand_as(inputs.dout)
    dense = Inputs((1, 2, 2, 20, 12), (2, 2), torch.float32)
    dense.q, dense.k, dense.v, dense.dout = (x.contiguous() for x in (inputs.q, inputs.k, inputs.v, inputs.dout))
    found, contiguous = inputs.run(), dense.run()
    assert torch.equal(found["out"], expected["out"])
    for name, x in found.items():
        assert torch.equal(x, contiguous[name]), name
    assert found["dk"].is_contiguous()  # as its rows are not dense


def test_few_frames_or_none() -> None:
    check(Inputs((1, 2, 1, 1, 8), (2, 2), torch.float32, bias=True))
    check(Inputs((1, 1, 1, 2, 8), (40, 40), torch.float32, dilation=5))
    for shape in ((1, 2, 1, 0, 8), (0, 2, 1, 9, 8)):
        found = Inputs(shape, (2, 2), torch.float32, bias=True).run()
        assert found["out"].shape == (*shape[:2], *shape[3:])
        assert found["dk"].shape == (*shape[:2], *shape[3:])
        assert torch.equal(found["dbias"], torch.zeros(2, 5))


def test_wide_gradients_need_no_results_handed_over() -> None:
    inputs = Inputs((1, 1, 1, 60, 16), (20, 20), torch.float32)
    handed = inputs.run()
    q, k, v, dout = (x.to(DEVICE) for x in (inputs.q, inputs.k, inputs.v, inputs.dout))
    found = sliding.backward(dout, q, k, v, *(None,) * 7, *inputs.options)
    for name, x in zip(("dq", "dk", "dv"), found, strict=False):
        assert torch.equal(x.cpu(), handed[name]), name


def test_where_sequences_begin_and_end() -> None:
    """Frames before the first sequence and after the last belong to none, and see nothing."""
    ends = torch.tensor([2, 2, 5, 5, 5, 300, 301], dtype=torch.int32)
    bounds = sliding.sequence_bounds(ends.to(DEVICE), 310).cpu()
    expected = torch.zeros(2, 310, dtype=torch.int32)
    for first, last in itertools.pairwise(ends.tolist()):
        expected[0, first:last], expected[1, first:last] = first, last
    assert torch.equal(bounds, expected)
    assert torch.equal(sliding.sequence_bounds(ends[:1].to(DEVICE), 3).cpu(), torch.zeros(2, 3, dtype=torch.int32))
    x = torch.randn(1, 1, 10, 8, device=DEVICE)
    out, lse = sliding.forward(x, x, x, None, ends[:4].to(DEVICE), None, None, 2, 2, 1, False, 1.0, 0.0, 0, True)
    assert (lse[0, 0] == -torch.inf).tolist() == [True] * 2 + [False] * 3 + [True] * 5
    assert (out[0, 0, 5:] == 0).all()


def test_through_the_public_op() -> None:
    """The same seed drops the same weights as in the reference, and gradients of grouped heads are summed."""
    leaves = [torch.randn(2, 30, h, 16).transpose(1, 2).to(DEVICE).requires_grad_() for h in (2, 1, 1)]
    bias = torch.randn(2, 5, device=DEVICE, requires_grad=True)
    results = []
    for backend in ("triton", "reference"):
        torch.manual_seed(3)
        out, lse = vk.sliding_window_attention(
            *leaves, 5, bias=bias, dropout_p=0.25, return_lse=True, key_mask=torch.tensor([30, 20]).to(DEVICE),
            backend=backend,
        )  # fmt: skip
        loss = out.square().sum() + lse.masked_fill(lse.isinf(), 0.0).square().sum()
        results.append([out, *torch.autograd.grad(loss, [*leaves, bias])])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)
    reason = vk.explain("sliding_window_attention", *leaves, 5, backend="triton")
    assert "-> triton: serves this call (asked for)" in reason


def test_a_packed_call_through_the_public_op() -> None:
    q, k, v = (torch.randn(40, 2, 16, device=DEVICE) for _ in range(3))
    ends = torch.tensor([0, 13, 40], device=DEVICE)
    got = vk.sliding_window_attention(q, k, v, 7, cu_seqlens=ends, border="shift", backend="triton")
    for first, last in ((0, 13), (13, 40)):
        alone = [x[first:last].transpose(0, 1)[None].double() for x in (q, k, v)]
        expected, _ = sliding_window_attention_reference(*alone, 3, 3, scale=0.25, shift=True)
        torch.testing.assert_close(got[first:last].transpose(0, 1)[None].double(), expected, rtol=1e-5, atol=1e-5)


SPOILT: dict[str, dict[str, Any]] = {
    "plain": {},
    "dilated": {"dilation": 3, "dlse": True},
    "shifted": {"shift": True, "bias": True},
    "packed": {"ends": [0, 17, 44, 44, 100], "bias": True, "padding": True},
    "all": {"shift": True, "dilation": 2, "ends": [0, 44, 100], "p": 0.3, "sinks": True, "softcap": 0.8, "bias": True},
}


@pytest.mark.parametrize("options", SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("form", FORMS.keys(), indirect=True)
def test_what_a_row_does_not_see_does_not_reach_it(form: Form, options: dict[str, Any]) -> None:
    """Nor do rows without a gradient, whatever they hold or see."""
    wide = form is FORMS["wide"]
    inputs = Inputs((1, 1, 1, 100, 16), form.window, torch.float32, **options)
    quiet = range(50, 100)
    if inputs.dlse is not None:
        inputs.dlse[..., 50:] = 0.0
    if inputs.mask is not None:
        inputs.mask = torch.arange(100)[None] % 7 != 2

    def compute(*qkvg: Tensor) -> list[Tensor]:
        inputs.q, inputs.k, inputs.v, inputs.dout = qkvg
        found = inputs.run()
        return [found[name] for name in ("out", "lse", "dq", "dk", "dv")]

    # What leaves some rows without any.
    spots = {"q": [60], "k": [80], "v": [1, 99]} if wide else {"q": [60], "k": [3, 42, 80], "v": [1, 20, 99]}
    window = {name: options[name] for name in ("dilation", "shift", "ends") if name in options}
    seen = seen_by(100, form.window, inputs.mask, **window)
    hold_apart(compute, (inputs.q, inputs.k, inputs.v), inputs.dout, seen, spots, quiet, reaches=inputs.seed is None)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("form", FORMS.keys(), indirect=True)
def test_the_gradient_of_a_bias_beside_what_nobody_sees(form: Form, shift: bool) -> None:
    """Padding is zeroed as it is read; what another sequence holds is not, nor what a row without a gradient does."""
    inputs = Inputs((1, 1, 1, 100, 16), form.window, torch.float32, ends=[0, 45, 100], bias=True, shift=shift)
    inputs.dout[:, :, 45:] = 0.0
    clean = inputs.run()
    for x in (inputs.q, inputs.k, inputs.v):
        x[:, :, 47] = torch.nan
    found = inputs.run()
    for name, x in found.items():
        whole = x if name == "dbias" else x[:, :, :45]
        torch.testing.assert_close(whole, clean[name] if name == "dbias" else clean[name][:, :, :45])
    assert not found["dk"][:, :, 45:].any()
    assert not found["dv"][:, :, 45:].any()
