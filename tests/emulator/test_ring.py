"""The ring family (CUDA cores, at most 9 keys a row), on the emulator."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests.emulator.build import Unavailable
from tests.emulator.oracle import expected
from tests.emulator.run import Call, Library, library
from tests.kernels.comparisons import RMS_BOUND

WIDTHS = {torch.float32: (32, 64, 128), torch.float16: (32, 64, 128), torch.bfloat16: (32, 64, 128)}
# A row with one key has ds = p (dp - delta) = 0: what float32 leaves of the difference.
CANCELLED = 1e-5


class Given(NamedTuple):
    call: Call
    dout: Tensor
    dlse: Tensor | None


@pytest.fixture(scope="module")
def lib() -> Library:
    try:
        return library(("ring",))
    except Unavailable as why:
        pytest.skip(str(why))


def make(
    shape: tuple[int, int, int, int],
    window: tuple[int, int],
    dtype: torch.dtype = torch.bfloat16,
    *,
    key_heads: int | None = None,
    transposed: bool = False,
    amplitude: float = 1.0,
    mask: Tensor | None = None,
    bias: bool = False,
    dilation: int = 1,
    scale: float | None = None,
    lengths: list[int] | None = None,
) -> Given:
    """Random inputs [B, H, T, D]; `transposed`: views of [B, T, H, D] tensors; `lengths`: of packed sequences."""
    batch, heads, frames, width = shape
    generator = torch.Generator().manual_seed(frames * 1000 + width)

    def one(count: int, size: float = 1.0) -> Tensor:
        sizes = (batch, frames, count, width) if transposed else (batch, count, frames, width)
        x = (torch.randn(sizes, generator=generator) * size).to(dtype)
        return x.transpose(1, 2) if transposed else x

    q, k, v = one(heads, amplitude), one(key_heads or heads, amplitude), one(key_heads or heads)
    if mask is not None:
        for x in (k, v):
            x.transpose(1, 2)[~mask] = torch.nan
    per_head = torch.randn(heads, sum(window) + 1, generator=generator) if bias else None
    ends = None if lengths is None else torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    call = Call(q, k, v, *window, dilation=dilation, scale=scale, mask=mask, bias=per_head, cu_seqlens=ends)
    return Given(call, one(heads), torch.randn(batch, heads, frames, generator=generator))


def results(lib: Library, given: Given) -> dict[str, Tensor]:
    """Everything the family gives."""
    call, dout, dlse = given
    assert lib.takes("ring", call, backward=False)
    assert lib.takes("ring", call, backward=True)
    out, lse = lib.forward(call, "ring")
    assert lse is not None
    dq, dk, dv, dbias = lib.backward(call, dout, dlse, "ring")
    got = {"out": out, "lse": lse, "dq": dq, "dk": dk, "dv": dv}
    return got if dbias is None else got | {"dbias": dbias}


def check(got: dict[str, Tensor], given: Given) -> None:
    """Errors are at most twice eager's plus the rounding of the output, and RMS ratios within the house's bound."""
    call, dout, dlse = given
    oracle = expected(call, dout, dlse, torch.float64)
    eager = expected(call, dout, dlse, call.q.dtype)
    torch.testing.assert_close(got["lse"].double(), oracle["lse"], rtol=1e-5, atol=1e-5)
    epsilon, bound = torch.finfo(call.q.dtype).eps, RMS_BOUND[call.q.dtype]
    for name in got.keys() - {"lse"}:
        ours, right, theirs = got[name].double(), oracle[name], eager[name].double()
        assert ours.isfinite().all(), f"{name} is not finite everywhere"
        if ours.numel() == 0:
            continue
        size = right.abs().max()
        error, allowed = (ours - right).abs().max(), 2 * (theirs - right).abs().max() + epsilon * size + CANCELLED
        ratio = (ours - right).square().mean().sqrt() / right.square().mean().sqrt().clamp_min(1e-30)
        print(f"{name}: error {error:.2e} of {allowed:.2e} allowed, RMS ratio {ratio:.2e}")
        assert error <= allowed, f"{name}: error {error:.3e}, allowed {allowed:.3e}"
        assert ratio < bound or size < CANCELLED, f"{name}: RMS ratio {ratio:.3e}"


@pytest.mark.parametrize("keys", [3, 5, 7, 9])
@pytest.mark.parametrize(("dtype", "width"), [(dtype, width) for dtype, widths in WIDTHS.items() for width in widths])
def test_every_kernel(lib: Library, dtype: torch.dtype, width: int, keys: int) -> None:
    given = make((1, 2, 45, width), (keys // 2, keys // 2), dtype)
    check(results(lib, given), given)


@pytest.mark.parametrize(
    "window", [(left, right) for left, right in itertools.product(range(9), range(9)) if left + right < 9]
)
def test_every_window(lib: Library, window: tuple[int, int]) -> None:
    given = make((1, 1, 40, 64), window)
    check(results(lib, given), given)


@pytest.mark.parametrize("frames", [0, 1, 2, 7, 8, 9, 15, 16, 17, 130])
@pytest.mark.parametrize("window", [(1, 1), (4, 4), (3, 0), (0, 8)])
def test_lengths(lib: Library, frames: int, window: tuple[int, int]) -> None:
    given = make((2, 1, frames, 64), window, torch.float16)
    check(results(lib, given), given)


@pytest.mark.parametrize("window", [(2, 2), (4, 4), (8, 0), (1, 2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_strips_of_many_blocks(lib: Library, window: tuple[int, int], transposed: bool) -> None:
    """So many rows for the emulated device that a strip has several blocks, and their number suits no strip."""
    given = make((1, 3, 811, 64), window, transposed=transposed)
    check(results(lib, given), given)


@pytest.mark.parametrize("dilation", [2, 3, 50, 100])
@pytest.mark.parametrize("transposed", [False, True])
def test_dilation(lib: Library, dilation: int, transposed: bool) -> None:
    mask = torch.rand(2, 70, generator=torch.Generator().manual_seed(1)) > 0.2
    given = make((2, 2, 70, 64), (2, 3), dilation=dilation, mask=mask, transposed=transposed)
    check(results(lib, given), given)


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (4, 4), (2, 4), (1, 0)])
@pytest.mark.parametrize(
    ("dtype", "width"), [(torch.bfloat16, 64), (torch.float32, 64), (torch.float16, 32), (torch.float32, 128)]
)
def test_padding(lib: Library, dtype: torch.dtype, width: int, window: tuple[int, int]) -> None:
    """Padded frames hold NaN, some rows see nothing, and the mask is a strided view."""
    mask = torch.ones(300, 2, dtype=torch.bool).T
    mask[0, 20:85] = False
    mask[1, :3] = mask[1, 64] = mask[1, 100:200:3] = mask[1, 290:] = False
    given = make((2, 2, 300, width), window, dtype, mask=mask)
    got = results(lib, given)
    check(got, given)
    alone = got["lse"][0, 0] == -torch.inf
    assert alone.any()
    assert (got["out"][0, :, alone] == 0).all()
    assert (got["dq"][0, :, alone] == 0).all()
    for name in ("dk", "dv"):
        assert (got[name].transpose(1, 2)[~mask] == 0).all()


def test_nothing_to_see(lib: Library) -> None:
    given = make((1, 2, 30, 64), (2, 2), mask=torch.zeros(1, 30, dtype=torch.bool))
    for name, x in results(lib, given).items():
        assert (x == (-torch.inf if name == "lse" else 0)).all(), name


@pytest.mark.parametrize("window", [(2, 2), (1, 2), (0, 0), (1, 0), (4, 3)])
def test_nan_in_a_key_reaches_who_sees_it_and_no_other(lib: Library, window: tuple[int, int]) -> None:
    call, dout, _ = make((1, 1, 60, 64), window)
    call.k[0, 0, 30, 3] = torch.nan
    out, _ = lib.forward(call, "ring")
    dq, _, dv, _ = lib.backward(call, dout, None, "ring")
    left, right = window
    rows = list(range(30 - right, 30 + left + 1))
    assert out[0, 0].isnan().all(-1).nonzero().flatten().tolist() == rows
    assert out[0, 0].isnan().any(-1).sum() == dq[0, 0].isnan().any(-1).sum() == len(rows)
    keys = list(range(rows[0] - left, rows[-1] + right + 1))
    assert dv[0, 0].isnan().any(-1).nonzero().flatten().tolist() == keys


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (3, 3), (4, 4), (8, 0), (0, 3)])
@pytest.mark.parametrize(("dtype", "width"), [(torch.bfloat16, 64), (torch.float32, 64), (torch.float16, 64)])
def test_packed_sequences(lib: Library, dtype: torch.dtype, width: int, window: tuple[int, int]) -> None:
    lengths = [3, 0, 1, 8, 40, 2, 9, 100, 1, 1, 36]
    mask = torch.rand(1, sum(lengths), generator=torch.Generator().manual_seed(2)) > 0.1
    given = make((1, 2, sum(lengths), width), window, dtype, transposed=True, lengths=lengths, mask=mask)
    check(results(lib, given), given)


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (4, 4)])
def test_sequences_keep_their_nan(lib: Library, window: tuple[int, int]) -> None:
    call, dout, _ = make((1, 1, 60, 64), window, transposed=True, lengths=[20, 15, 25])
    for x in (call.q, call.k, call.v, dout):
        x[:, :, 20:35] = torch.nan
    for x in (lib.forward(call, "ring")[0], *lib.backward(call, dout, None, "ring")[:3]):
        assert x.isnan().any(-1)[0, 0].nonzero().flatten().tolist() == list(range(20, 35))


@pytest.mark.parametrize("amplitude", [0.05, 6.0])
def test_grouped_heads_and_scales(lib: Library, amplitude: float) -> None:
    given = make((2, 4, 50, 64), (2, 2), torch.float16, key_heads=2, transposed=True, amplitude=amplitude, scale=-0.2)
    check(results(lib, given), given)


@pytest.mark.parametrize(
    ("window", "width", "transposed"), [((2, 2), 64, True), ((1, 2), 32, False), ((4, 4), 128, False)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bias(lib: Library, dtype: torch.dtype, window: tuple[int, int], width: int, transposed: bool) -> None:
    mask = torch.rand(2, 150, generator=torch.Generator().manual_seed(3)) > 0.2
    given = make((2, 3, 150, width), window, dtype, bias=True, mask=mask, transposed=transposed)
    check(results(lib, given), given)


def test_bias_of_dilated_and_packed_rows(lib: Library) -> None:
    for given in (
        make((2, 2, 70, 64), (1, 1), torch.float32, bias=True, dilation=3),
        make((1, 2, 90, 64), (2, 1), torch.float32, bias=True, lengths=[20, 1, 69]),
    ):
        check(results(lib, given), given)


def test_bias_without_frames(lib: Library) -> None:
    call, dout, _ = make((1, 2, 0, 64), (1, 1), bias=True)
    dbias = lib.backward(call, dout, None, "ring")[3]
    assert dbias is not None
    assert (dbias == 0).all()


def test_without_statistics(lib: Library) -> None:
    call, dout, _ = make((1, 1, 40, 64), (2, 2), torch.float32)
    assert torch.equal(lib.forward(call, "ring", need_lse=False)[0], lib.forward(call, "ring")[0])
    given = Given(call, dout, None)
    got = dict(zip(("dq", "dk", "dv"), lib.backward(call, dout, None, "ring")[:3], strict=True))
    check(got | {"lse": expected(*given, torch.float64)["lse"]}, given)


@pytest.mark.parametrize("keys", [3, 5, 9])
@pytest.mark.parametrize(("dtype", "width"), [(torch.float16, 32), (torch.bfloat16, 128), (torch.float32, 128)])
def test_neither_races_nor_chance(lib: Library, dtype: torch.dtype, width: int, keys: int) -> None:
    """Threads run in falling order give the same bits as in rising order."""
    given = make((2, 2, 150, width), (keys // 2, keys // 2), dtype, bias=True)
    first = results(lib, given)
    lib.reverse(True)
    try:
        second = results(lib, given)
    finally:
        lib.reverse(False)
    for name, x in first.items():
        assert torch.equal(x, second[name]), name


def test_what_it_takes(lib: Library) -> None:
    q, k, v = (torch.randn(1, 2, 40, 64).bfloat16() for _ in range(3))
    assert lib.takes("ring", Call(q, k, v, 8, 0), backward=True)
    assert lib.takes("ring", Call(q, k, v, 4, 4, bias=torch.zeros(2, 9)), backward=True)
    refused = [
        Call(q, k, v, 5, 4),
        Call(q[..., :32], k[..., :32], v[..., :32], 5, 0),
        Call(q, k, v, -1, 4),
        Call(q, k, v, 4, -1),
        Call(q, k, v, 2, 2, shift=True),
        Call(q, k, v, 2, 2, dilation=2, cu_seqlens=torch.tensor([0, 40], dtype=torch.int32)),
        Call(q, k, v, 2, 2, seed=torch.zeros(1, dtype=torch.int64), dropout_p=0.1),
        Call(q[..., :48], k[..., :48], v[..., :48], 2, 2),
        Call(q[..., 1:33], k[..., :32], v[..., :32], 2, 2),
    ]
    for call in refused:
        assert not lib.takes("ring", call, backward=False), call
        assert not lib.takes("ring", call, backward=True), call
