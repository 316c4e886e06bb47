"""The strip family (tensor cores, at most 33 keys a row), on the emulator."""

from __future__ import annotations

import pytest
import torch

from tests.emulator.build import Unavailable
from tests.emulator.dense import check, make, run
from tests.emulator.run import Call, Library, library


@pytest.fixture(scope="module")
def lib() -> Library:
    try:
        return library(("strip",))
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [32, 64, 128])
@pytest.mark.parametrize(("left", "right"), [(8, 8), (16, 16)])
def test_every_kernel(lib: Library, dtype: torch.dtype, width: int, left: int, right: int) -> None:
    q, k, v, dout = make(1, 2, 75, width, dtype)
    call = Call(q, k, v, left, right)
    dlse = torch.randn(1, 2, 75)
    check(run(lib, "strip", call, dout, dlse), call, dout, dlse)


@pytest.mark.parametrize(("left", "right"), [(0, 0), (4, 4), (16, 0), (0, 16), (32, 0), (0, 32), (3, 20), (17, 0)])
def test_windows(lib: Library, left: int, right: int) -> None:
    q, k, v, dout = make(1, 1, 90, 32, torch.bfloat16)
    call = Call(q, k, v, left, right)
    check(run(lib, "strip", call, dout), call, dout)


@pytest.mark.parametrize("frames", [0, 1, 2, 15, 16, 17, 33, 300])
@pytest.mark.parametrize(("left", "right"), [(6, 5), (16, 16)])
def test_lengths(lib: Library, frames: int, left: int, right: int) -> None:
    q, k, v, dout = make(1, 1, frames, 32, torch.float16)
    call = Call(q, k, v, left, right)
    check(run(lib, "strip", call, dout), call, dout)


def test_long_walks(lib: Library) -> None:
    """More strips than the emulated device takes at once, so that walks go over several and meet."""
    q, k, v, dout = make(2, 3, 200, 32, torch.bfloat16)
    call = Call(q, k, v, 12, 20)
    check(run(lib, "strip", call, dout), call, dout)


@pytest.mark.parametrize(("left", "right"), [(5, 5), (16, 16)])
def test_padding(lib: Library, left: int, right: int) -> None:
    """Padded frames hold NaN, some rows see nothing, and the mask is a strided view."""
    q, k, v, dout = make(2, 2, 130, 64, torch.bfloat16)
    mask = torch.ones(130, 2, dtype=torch.bool).T
    mask[0, 20:85] = False
    mask[1, :3] = mask[1, 64] = mask[1, 100:] = False
    for x in (k, v):
        x.transpose(1, 2)[~mask] = torch.nan
    call = Call(q, k, v, left, right, mask=mask)
    dlse = torch.randn(2, 2, 130)
    got = run(lib, "strip", call, dout, dlse)
    check(got, call, dout, dlse)
    alone = got.lse[0, 0] == -torch.inf
    assert alone.any()
    assert (got.out[0, :, alone] == 0).all()
    assert (got.dq[0, :, alone] == 0).all()
    for x in (got.dk, got.dv):
        assert (x.transpose(1, 2)[~mask] == 0).all()


@pytest.mark.parametrize("amplitude", [0.05, 6.0])
def test_transposed_grouped_heads_and_scales(lib: Library, amplitude: float) -> None:
    q, k, v, dout = make(2, 4, 50, 64, torch.float16, key_heads=2, transposed=True, amplitude=amplitude)
    call = Call(q, k, v, 10, 12, scale=-0.2)
    check(run(lib, "strip", call, dout), call, dout)


def test_neither_races_nor_chance(lib: Library) -> None:
    q, k, v, dout = make(1, 2, 100, 64, torch.bfloat16)
    call = Call(q, k, v, 16, 16)
    first = run(lib, "strip", call, dout)
    lib.reverse(True)
    try:
        second = run(lib, "strip", call, dout)
    finally:
        lib.reverse(False)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_without_lse(lib: Library) -> None:
    q, k, v, _ = make(1, 1, 40, 64, torch.bfloat16)
    call = Call(q, k, v, 4, 4)
    assert torch.equal(lib.forward(call, "strip", need_lse=False)[0], lib.forward(call, "strip")[0])


def test_what_it_takes(lib: Library) -> None:
    q, k, v, _ = make(1, 2, 40, 64, torch.bfloat16)
    assert lib.takes("strip", Call(q, k, v, 16, 16), backward=True)
    refused = [
        Call(q, k, v, 17, 16),
        Call(q, k, v, -1, 4),
        Call(q, k, v, 4, 4, dilation=2),
        Call(q, k, v, 4, 4, shift=True),
        Call(q, k, v, 4, 4, bias=torch.zeros(2, 9)),
        Call(q, k, v, 4, 4, cu_seqlens=torch.tensor([0, 40], dtype=torch.int32)),
        Call(q, k, v, 4, 4, seed=torch.zeros(1, dtype=torch.int64), dropout_p=0.1),
        Call(q.float(), k.float(), v.float(), 4, 4),
        Call(q[..., :48], k[..., :48], v[..., :48], 4, 4),
        Call(q[..., 1:33], k[..., :32], v[..., :32], 4, 4),
    ]
    for call in refused:
        assert not lib.takes("strip", call, backward=False), call
        assert not lib.takes("strip", call, backward=True), call
