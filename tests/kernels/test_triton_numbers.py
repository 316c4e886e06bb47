"""The Triton kernels' numbers against the definition in float64, each form of them with each option.

See triton_windows.py for where they run.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from vtsum_kernels.sliding_window_attention.triton import launch as sliding

from tests.kernels import definitions
from tests.kernels.comparisons import hold
from tests.kernels.triton_reads import DEVICE, INTERPRETED, MARKS
from tests.kernels.triton_windows import FORMS, SEED, Form, Inputs, take

pytestmark = MARKS
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
    return take(FORMS[request.param], monkeypatch)


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


@pytest.mark.parametrize("form", ["strip", "tile", "fused"], indirect=True)
def test_a_step_of_64_bits(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one frame of a phase to the next are 2^31 elements, of which hardly any is touched: nor poisoned."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    far = [
        torch.empty(2**31 + 16, dtype=torch.bfloat16, device=DEVICE).as_strided((1, 1, 3, 16), (0, 0, 2**30, 1))
        for _ in range(4)
    ]
    for x in far:
        x.copy_(torch.randn(1, 1, 3, 16))
    options = (None, None, None, None, 1, 1, 2, False, 0.25, 0.0, 0)
    results = []
    for q, k, v, dout in (far, [x.contiguous() for x in far]):
        out, lse = sliding.forward(q, k, v, *options, True)
        gradients = sliding.backward(dout, q, k, v, *options[:4], None, out, lse, *options[4:])
        results.append([out, lse, *gradients])
    for got, near in zip(*results, strict=True):
        assert torch.equal(got, near)


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
    check(Inputs((1, 1, 1, 21, 8), (9, 40), torch.float32, shift=True, dilation=2, ends=[0, 5, 21]))
    check(Inputs((1, 1, 1, 40, 8), (33, 33), torch.float32, shift=True))
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
