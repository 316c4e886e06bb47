"""The tile family (tensor cores, any window), on the emulator; test_kernels.py adds the general cases."""

from __future__ import annotations

import pytest
import torch

from tests.emulator.cases import Case
from tests.emulator.checks import FLOATS, check, check_call
from tests.emulator.run import Library, library


@pytest.fixture(scope="module")
def lib(emulator: None) -> Library:
    return library()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [32, 64, 128])
def test_every_kernel(lib: Library, dtype: torch.dtype, width: int) -> None:
    check(lib, "tile", Case(left=40, right=33, width=width, frames=210, batch=1, heads=1, hand_on=True), dtype)


@pytest.mark.parametrize(
    ("left", "right"), [(17, 17), (64, 64), (100, 0), (0, 70), (3, 130), (-1, 0), (0, -1), (-1, -1), (500, 500)]
)
@pytest.mark.parametrize("width", [32, 128])
def test_windows(lib: Library, left: int, right: int, width: int) -> None:
    """Width 128 has blocks of another size in the backward."""
    case = Case(left=left, right=right, width=width, frames=200, batch=1, heads=1, dlse=False, hand_on=True)
    check(lib, "tile", case)


@pytest.mark.parametrize("frames", [1, 2, 16, 63, 64, 65, 129])
@pytest.mark.parametrize(("left", "right"), [(20, 25), (-1, 40)])
def test_lengths(lib: Library, frames: int, left: int, right: int) -> None:
    case = Case(left=left, right=right, frames=frames, batch=1, heads=1, hand_on=True)
    check(lib, "tile", case, torch.float16)


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize(("left", "right"), [(20, 20), (70, 60), (-1, 0)])
def test_padding(lib: Library, left: int, right: int, width: int) -> None:
    """Long stretches of padding, whole blocks and the beginning and the end among them."""
    case = Case(left=left, right=right, width=width, frames=250, heads=1, hand_on=True)
    call = case.call(torch.bfloat16)
    call.mask = torch.ones(2, 250, dtype=torch.bool)
    call.mask[0, :30] = call.mask[0, 50:200] = False
    call.mask[1, 64] = call.mask[1, 101:104] = call.mask[1, 240:] = False
    for x in (call.k, call.v):
        x.transpose(1, 2)[~call.mask] = torch.nan
    got = check_call(lib, "tile", call, *case.gradients(torch.bfloat16), hand_on=True)
    alone = got["lse"] == -torch.inf
    assert alone.any()
    assert (got["out"][alone] == 0).all()
    assert (got["dq"][alone] == 0).all()
    for name in ("dk", "dv"):
        assert (got[name].transpose(1, 2)[~call.mask] == 0).all()


@pytest.mark.parametrize(("scale", "amplitude"), [(0.2, 0.05), (-0.2, 4.0), (0.0, 1.0)])
def test_transposed_grouped_heads_and_scales(lib: Library, scale: float, amplitude: float) -> None:
    case = Case(left=30, right=30, frames=80, heads=4, key_heads=2, transposed=True, hand_on=True)
    case.scale, case.amplitude = scale, amplitude
    check(lib, "tile", case, torch.float16)


def test_growing_scores(lib: Library) -> None:
    """Later keys are larger, so that nearly every block holds a row's greatest score so far: the sums are rescaled."""
    case = Case(left=110, right=100, frames=220, batch=1, heads=1, hand_on=True)
    call = case.call(torch.bfloat16)
    call.k *= (1 + torch.arange(220.0) / 20)[:, None].to(call.k.dtype)
    check_call(lib, "tile", call, *case.gradients(torch.bfloat16), hand_on=True)


def test_what_it_takes(lib: Library) -> None:
    def takes(dtype: torch.dtype = torch.bfloat16, **options: object) -> bool:
        call = Case(**{"left": 40, "right": -1, "width": 64, **options}).call(dtype)  # type: ignore[arg-type]
        forward, backward = (lib.takes("tile", call, backward=b) for b in (False, True))
        assert forward == backward
        assert not lib.takes("tile", call, backward=True, handed_on=False), "the backward needs the forward's lse"
        return forward

    assert takes()
    assert takes(key_heads=1, mask=True, transposed=True)
    assert not takes(dilation=2)
    assert not takes(shift=True, right=40)
    assert not takes(bias=True, right=40)
    assert not takes(dropout_p=0.1)
    assert not takes(batch=1, frames=40, lengths=(10, 30))
    assert not takes(width=48)
    assert not takes(offset=1)
    assert not takes(torch.float32)
