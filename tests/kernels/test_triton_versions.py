"""What older versions of Triton ask of a kernel's source, and newer ones no longer do."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import vtsum_kernels

pytest.importorskip("triton", reason="the package triton is not installed (pip install triton)")


def test_no_default_is_plain_text() -> None:
    """Triton 3.6 makes constants of numbers alone: text that a caller left out would reach the compiler as it is."""
    folder = Path(vtsum_kernels.__file__).parent
    seen = 0
    for path in folder.rglob("triton*/*.py"):
        module = importlib.import_module(".".join(("vtsum_kernels", *path.relative_to(folder).with_suffix("").parts)))
        for name, jitted in vars(module).items():
            plain = getattr(jitted, "fn", None)
            if type(jitted).__module__.startswith("triton.") and inspect.isfunction(plain):
                seen += 1
                for parameter in inspect.signature(plain).parameters.values():
                    assert not isinstance(parameter.default, str) or parameter.default is parameter.empty, name
    assert seen > 30
