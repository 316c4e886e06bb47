"""NaN and infinities reach what the mask lets them reach, in the Triton kernels.

See triton_windows.py for where they run.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.spoilt import hold_apart, seen_by
from tests.kernels.triton_reads import MARKS
from tests.kernels.triton_windows import FORMS, Form, Inputs, take

pytestmark = MARKS


@pytest.fixture
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Form:
    return take(FORMS[request.param], monkeypatch)


SPOILT: dict[str, dict[str, Any]] = {
    "plain": {},
    "dilated": {"dilation": 3, "dlse": True},
    "shifted": {"shift": True, "bias": True},
    "packed": {"ends": [0, 17, 44, 44, 100], "bias": True, "padding": True},
    "all": {"shift": True, "dilation": 2, "ends": [0, 44, 100], "p": 0.3, "sinks": True, "softcap": 0.8, "bias": True},
}


#: "tile" and "wide" are the same kernels: what each option alone lets a row see is tried with the one that is quick.
TRIED = [(form, name) for form in FORMS for name in SPOILT if form != "wide" or name not in ("dilated", "shifted")]


@pytest.mark.parametrize(
    ("form", "options"),
    [(form, SPOILT[name]) for form, name in TRIED],
    ids=["-".join(pair) for pair in TRIED],
    indirect=["form"],
)
def test_what_a_row_does_not_see_does_not_reach_it(form: Form, options: dict[str, Any]) -> None:
    """Nor do rows without a gradient, whatever they hold or see."""
    wide = form is FORMS["wide"]
    inputs = Inputs((1, 1, 1, 100, 16), form.window, torch.float32, **options)
    quiet = range(50, 100)
    of_rows = ("out", "lse", "dq", "dk", "dv", *["delta"] * (inputs.sinks is not None))
    if inputs.dlse is not None:
        inputs.dlse[..., 50:] = 0.0
    if inputs.mask is not None:
        inputs.mask = torch.arange(100)[None] % 7 != 2

    def compute(*qkvg: Tensor) -> list[Tensor]:
        inputs.q, inputs.k, inputs.v, inputs.dout = qkvg
        found = inputs.run()
        return [found[name] for name in of_rows]

    # What leaves some rows without any.
    spots = {"q": [60], "k": [80], "v": [1, 99]} if wide else {"q": [60], "k": [3, 42, 80], "v": [1, 20, 99]}
    window = {name: options[name] for name in ("dilation", "shift", "ends") if name in options}
    seen = seen_by(100, form.window, inputs.mask, **window)
    qkv = (inputs.q, inputs.k, inputs.v)
    hold_apart(compute, qkv, inputs.dout, seen, spots, quiet, reaches=inputs.seed is None, results=of_rows)


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
