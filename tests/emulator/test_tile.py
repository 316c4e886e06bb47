"""The tile family (tensor cores, any window), on the emulator."""

from __future__ import annotations

import pytest
import torch

from tests.emulator.build import Unavailable
from tests.emulator.dense import check, make, run
from tests.emulator.run import Call, Library, library


@pytest.fixture(scope="module")
def lib() -> Library:
    try:
        return library(("tile",))
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_every_kernel(lib: Library, dtype: torch.dtype, width: int) -> None:
    q, k, v, dout = make(1, 1, 210, width, dtype)
    call = Call(q, k, v, 40, 33)
    dlse = torch.randn(1, 1, 210)
    check(run(lib, "tile", call, dout, dlse, hand_on=True), call, dout, dlse)


@pytest.mark.parametrize(
    ("left", "right"), [(0, 0), (17, 17), (64, 64), (100, 0), (0, 70), (3, 130), (-1, 0), (0, -1), (-1, -1), (500, 500)]
)
@pytest.mark.parametrize("width", [32, 128])
def test_windows(lib: Library, left: int, right: int, width: int) -> None:
    """Width 128 has blocks of another size in the backward."""
    q, k, v, dout = make(1, 1, 200, width, torch.bfloat16)
    call = Call(q, k, v, left, right)
    check(run(lib, "tile", call, dout, hand_on=True), call, dout)


@pytest.mark.parametrize("frames", [0, 1, 2, 16, 63, 64, 65, 129])
@pytest.mark.parametrize(("left", "right"), [(20, 25), (-1, 40)])
def test_lengths(lib: Library, frames: int, left: int, right: int) -> None:
    q, k, v, dout = make(1, 1, frames, 32, torch.float16)
    call = Call(q, k, v, left, right)
    check(run(lib, "tile", call, dout, hand_on=True), call, dout)


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize(("left", "right"), [(20, 20), (70, 60), (-1, 0)])
def test_padding(lib: Library, left: int, right: int, width: int) -> None:
    """Padded frames hold NaN, some rows see nothing, and the mask is a strided view."""
    q, k, v, dout = make(2, 1, 250, width, torch.bfloat16)
    mask = torch.ones(250, 2, dtype=torch.bool).T
    mask[0, :30] = mask[0, 50:200] = False
    mask[1, 64] = mask[1, 101:104] = mask[1, 240:] = False
    for x in (k, v):
        x.transpose(1, 2)[~mask] = torch.nan
    call = Call(q, k, v, left, right, mask=mask)
    dlse = torch.randn(2, 1, 250)
    got = run(lib, "tile", call, dout, dlse, hand_on=True)
    check(got, call, dout, dlse)
    alone = got.lse[0, 0] == -torch.inf
    assert alone.any()
    assert (got.out[0, :, alone] == 0).all()
    assert (got.dq[0, :, alone] == 0).all()
    for x in (got.dk, got.dv):
        assert (x.transpose(1, 2)[~mask] == 0).all()


@pytest.mark.parametrize(("scale", "amplitude"), [(0.2, 0.05), (-0.2, 4.0), (0.0, 1.0)])
def test_transposed_grouped_heads_and_scales(lib: Library, scale: float, amplitude: float) -> None:
    q, k, v, dout = make(2, 4, 80, 32, torch.float16, key_heads=2, transposed=True, amplitude=amplitude)
    call = Call(q, k, v, 30, 30, scale=scale)
    check(run(lib, "tile", call, dout, hand_on=True), call, dout)


def test_growing_scores(lib: Library) -> None:
    """Later keys are larger, so that nearly every block holds a row's greatest score so far: the sums are rescaled."""
    q, k, v, dout = make(1, 1, 220, 32, torch.bfloat16)
    k *= (1 + torch.arange(220.0) / 20)[:, None].to(k.dtype)
    call = Call(q, k, v, 110, 100)
    check(run(lib, "tile", call, dout, hand_on=True), call, dout)


def test_neither_races_nor_chance(lib: Library) -> None:
    q, k, v, dout = make(1, 2, 200, 64, torch.bfloat16)
    call = Call(q, k, v, 50, 50)
    first = run(lib, "tile", call, dout, hand_on=True)
    lib.reverse(True)
    try:
        second = run(lib, "tile", call, dout, hand_on=True)
    finally:
        lib.reverse(False)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_without_lse(lib: Library) -> None:
    q, k, v, _ = make(1, 1, 70, 64, torch.bfloat16)
    call = Call(q, k, v, 30, 30)
    assert torch.equal(lib.forward(call, "tile", need_lse=False)[0], lib.forward(call, "tile")[0])


def test_what_it_takes(lib: Library) -> None:
    q, k, v, _ = make(1, 2, 80, 64, torch.bfloat16)
    assert lib.takes("tile", Call(q, k, v, 40, -1), backward=False)
    assert lib.takes("tile", Call(q, k, v, 40, -1), backward=True)
    assert not lib.takes("tile", Call(q, k, v, 40, -1), backward=True, handed_on=False)
    refused = [
        Call(q, k, v, 40, 40, dilation=2),
        Call(q, k, v, 40, 40, shift=True),
        Call(q, k, v, 40, 40, bias=torch.zeros(2, 81)),
        Call(q, k, v, 40, 40, cu_seqlens=torch.tensor([0, 80], dtype=torch.int32)),
        Call(q, k, v, 40, 40, seed=torch.zeros(1, dtype=torch.int64), dropout_p=0.1),
        Call(q.float(), k.float(), v.float(), 40, 40),
        Call(q[..., :48], k[..., :48], v[..., :48], 40, 40),
        Call(q[..., 1:33], k[..., :32], v[..., :32], 40, 40),
    ]
    for call in refused:
        assert not lib.takes("tile", call, backward=False), call
