"""The strip family (tensor cores, at most 33 keys a row), on the emulator; test_kernels.py adds the general cases."""

from __future__ import annotations

import pytest
import torch

from tests.emulator.cases import Case
from tests.emulator.checks import FLOATS, check, run
from tests.emulator.run import Call, Library, library


@pytest.fixture(scope="module")
def lib(emulator: None) -> Library:
    return library()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [32, 64, 128])
@pytest.mark.parametrize("side", [8, 16])
def test_every_kernel(lib: Library, dtype: torch.dtype, width: int, side: int) -> None:
    check(lib, "strip", Case(left=side, right=side, width=width, frames=75, batch=1), dtype)


@pytest.mark.parametrize(("left", "right"), [(0, 0), (4, 4), (16, 0), (0, 16), (32, 0), (0, 32), (3, 20), (17, 0)])
def test_windows(lib: Library, left: int, right: int) -> None:
    check(lib, "strip", Case(left=left, right=right, frames=90, batch=1, heads=1, dlse=False))


@pytest.mark.parametrize("frames", [0, 1, 2, 15, 16, 17, 33, 300])
@pytest.mark.parametrize(("left", "right"), [(6, 5), (16, 16)])
def test_lengths(lib: Library, frames: int, left: int, right: int) -> None:
    check(lib, "strip", Case(left=left, right=right, frames=frames, batch=1, heads=1), torch.float16)


@pytest.mark.parametrize("side", [8, 16])
def test_walks_that_meet(lib: Library, side: int) -> None:
    """More strips than the emulated device takes at once: walks go over several. How they are cut changes no bit."""
    case = Case(left=side, right=side, frames=200, heads=3, dlse=False)
    call, got = check(lib, "strip", case)
    torch.manual_seed(0)
    case.call(torch.bfloat16)
    dout, _ = case.gradients(torch.bfloat16)  # as check() drew it
    alone = Call(call.q[:1, :1], call.k[:1, :1], call.v[:1, :1], side, side)
    for name, x in run(lib, "strip", alone, dout[:1, :1], None).items():
        assert torch.equal(x, got[name][:1, :1]), name


@pytest.mark.parametrize("side", [5, 16])
def test_padding(lib: Library, side: int) -> None:
    case = Case(left=side, right=side, width=64, frames=130, mask=True)
    call, got = check(lib, "strip", case)
    assert call.mask is not None
    alone = got["lse"] == -torch.inf
    assert alone.any()
    assert (got["out"][alone] == 0).all()
    assert (got["dq"][alone] == 0).all()
    for name in ("dk", "dv"):
        assert (got[name].transpose(1, 2)[~call.mask] == 0).all()


@pytest.mark.parametrize(("scale", "amplitude"), [(0.2, 0.05), (-0.2, 4.0), (0.0, 1.0)])
def test_transposed_grouped_heads_and_scales(lib: Library, scale: float, amplitude: float) -> None:
    case = Case(left=10, right=12, width=64, frames=50, heads=4, key_heads=2, transposed=True)
    case.scale, case.amplitude = scale, amplitude
    check(lib, "strip", case, torch.float16)


def test_a_strided_mask(lib: Library) -> None:
    case = Case(left=8, right=8, frames=60, mask=True)
    call, (dout, dlse) = case.call(torch.bfloat16), case.gradients(torch.bfloat16)
    assert call.mask is not None
    plain = run(lib, "strip", call, dout, dlse)
    call.mask = call.mask.repeat_interleave(3, 1).T.contiguous().T[:, ::3]
    strided = run(lib, "strip", call, dout, dlse)
    assert all(torch.equal(plain[name], strided[name]) for name in plain)


def test_what_it_takes(lib: Library) -> None:
    def takes(dtype: torch.dtype = torch.bfloat16, **options: object) -> bool:
        call = Case(**{"left": 16, "right": 16, "width": 64, **options}).call(dtype)  # type: ignore[arg-type]
        forward, backward = (lib.takes("strip", call, backward=b, handed_on=False) for b in (False, True))
        assert forward == backward
        return forward

    assert takes()
    assert takes(key_heads=1, mask=True, transposed=True)
    assert not takes(left=17)
    assert not takes(left=-1)
    assert not takes(dilation=2)
    assert not takes(shift=True)
    assert not takes(bias=True)
    assert not takes(dropout_p=0.1)
    assert not takes(batch=1, frames=40, lengths=(10, 30))
    assert not takes(width=48)
    assert not takes(offset=1)
    assert not takes(torch.float32)
