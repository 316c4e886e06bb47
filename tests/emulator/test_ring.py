"""The ring family (CUDA cores, at most 9 keys a row), on the emulator; test_kernels.py adds the general cases."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.emulator.cases import Case
from tests.emulator.checks import check, check_call, run
from tests.emulator.run import Call, Library, library

FLOATS = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def lib(emulator: None) -> Library:
    return library()


def one(left: int, right: int, frames: int, width: int = 64, **options: Any) -> Case:
    """One batch entry and head, if not said otherwise."""
    return Case(**{"left": left, "right": right, "frames": frames, "width": width, "batch": 1, "heads": 1} | options)


def padded(case: Case, dtype: torch.dtype, mask: Tensor) -> tuple[Call, Tensor, Tensor | None]:
    """A call with a mask [B, T], NaN where it leaves frames out, and its dout and dlse."""
    torch.manual_seed(0)
    call = case.call(dtype)
    call.mask = mask
    for x in (call.k, call.v):
        x.transpose(1, 2)[~mask] = torch.nan
    return call, *case.gradients(dtype)


@pytest.mark.parametrize("keys", [3, 5, 7, 9])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [32, 64, 128])
def test_every_kernel(lib: Library, dtype: torch.dtype, width: int, keys: int) -> None:
    check(lib, "ring", one(keys // 2, keys // 2, 45, width, heads=2), dtype)


@pytest.mark.parametrize(
    "window", [(left, right) for left, right in itertools.product(range(9), range(9)) if left + right < 9]
)
def test_every_window(lib: Library, window: tuple[int, int]) -> None:
    check(lib, "ring", one(*window, 40))


@pytest.mark.parametrize("frames", [0, 1, 2, 7, 8, 9, 15, 16, 17, 130])
@pytest.mark.parametrize("window", [(1, 1), (4, 4), (3, 0), (0, 8)])
def test_lengths(lib: Library, frames: int, window: tuple[int, int]) -> None:
    check(lib, "ring", one(*window, frames, batch=2), torch.float16)


@pytest.mark.parametrize("window", [(2, 2), (4, 4), (8, 0), (1, 2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_strips_of_many_blocks(lib: Library, window: tuple[int, int], transposed: bool) -> None:
    """So many rows for the emulated device that a strip has several blocks, and their number suits no strip."""
    check(lib, "ring", one(*window, 811, heads=3, transposed=transposed))


@pytest.mark.parametrize("dilation", [2, 3, 50, 100])
@pytest.mark.parametrize("transposed", [False, True])
def test_dilation(lib: Library, dilation: int, transposed: bool) -> None:
    check(lib, "ring", one(2, 3, 70, batch=2, heads=2, dilation=dilation, mask=True, transposed=transposed))


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (4, 4), (2, 4), (1, 0)])
@pytest.mark.parametrize(
    ("dtype", "width"), [(torch.bfloat16, 64), (torch.float32, 64), (torch.float16, 32), (torch.float32, 128)]
)
def test_padding(lib: Library, dtype: torch.dtype, width: int, window: tuple[int, int]) -> None:
    """Padded frames hold NaN, some rows see nothing, and the mask is a strided view."""
    mask = torch.ones(300, 2, dtype=torch.bool).T
    mask[0, 20:85] = False
    mask[1, :3] = mask[1, 64] = mask[1, 100:200:3] = mask[1, 290:] = False
    got = check_call(lib, "ring", *padded(one(*window, 300, width, batch=2, heads=2), dtype, mask))
    alone = got["lse"][0, 0] == -torch.inf
    assert alone.any()
    assert (got["out"][0, :, alone] == 0).all()
    assert (got["dq"][0, :, alone] == 0).all()
    for name in ("dk", "dv"):
        assert (got[name].transpose(1, 2)[~mask] == 0).all()


def test_nothing_to_see(lib: Library) -> None:
    given = padded(one(2, 2, 30, heads=2), torch.bfloat16, torch.zeros(1, 30, dtype=torch.bool))
    for name, x in run(lib, "ring", *given).items():
        assert (x == (-torch.inf if name == "lse" else 0)).all(), name


@pytest.mark.parametrize("window", [(2, 2), (1, 2), (0, 0), (1, 0), (4, 3)])
def test_nan_in_a_key_reaches_who_sees_it_and_no_other(lib: Library, window: tuple[int, int]) -> None:
    case = one(*window, 60)
    call, dout = case.call(torch.bfloat16), case.gradients(torch.bfloat16)[0]
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
    lengths = (3, 0, 1, 8, 40, 2, 9, 100, 1, 1, 36)
    mask = torch.rand(1, sum(lengths), generator=torch.Generator().manual_seed(2)) > 0.1
    case = one(*window, sum(lengths), width, heads=2, transposed=True, lengths=lengths)
    check_call(lib, "ring", *padded(case, dtype, mask))


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (4, 4)])
def test_sequences_keep_their_nan(lib: Library, window: tuple[int, int]) -> None:
    case = one(*window, 60, transposed=True, lengths=(20, 15, 25))
    call, dout = case.call(torch.bfloat16), case.gradients(torch.bfloat16)[0]
    for x in (call.q, call.k, call.v, dout):
        x[:, :, 20:35] = torch.nan
    for x in (lib.forward(call, "ring")[0], *lib.backward(call, dout, None, "ring")[:3]):
        assert x.isnan().any(-1)[0, 0].nonzero().flatten().tolist() == list(range(20, 35))


@pytest.mark.parametrize("amplitude", [0.05, 6.0])
def test_grouped_heads_and_scales(lib: Library, amplitude: float) -> None:
    case = one(2, 2, 50, batch=2, heads=4, key_heads=2, transposed=True, amplitude=amplitude, scale=-0.2)
    check(lib, "ring", case, torch.float16)


@pytest.mark.parametrize(
    ("window", "width", "transposed"), [((2, 2), 64, True), ((1, 2), 32, False), ((4, 4), 128, False)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bias(lib: Library, dtype: torch.dtype, window: tuple[int, int], width: int, transposed: bool) -> None:
    check(lib, "ring", one(*window, 150, width, batch=2, heads=3, bias=True, mask=True, transposed=transposed), dtype)


def test_bias_of_dilated_and_packed_rows(lib: Library) -> None:
    check(lib, "ring", one(1, 1, 70, batch=2, heads=2, bias=True, dilation=3), torch.float32)
    check(lib, "ring", one(2, 1, 90, heads=2, bias=True, lengths=(20, 1, 69)), torch.float32)


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
