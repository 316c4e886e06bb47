"""The names that modules had before: they work, and say where the module is now."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vtsum
from vtsum.moved import MOVED

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_module_that_took_its_place(old):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]}"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(MOVED[old])
    assert not (ROOT / f"{old.replace('.', '/')}.py").exists()


def test_an_old_name_runs_as_a_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "vtsum.data.film", "--help"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m vtsum.recipes.film")
    assert done.stderr == "vtsum.data.film is now vtsum.recipes.film; the old name goes with the next release\n"


def test_summarize_is_the_function_whatever_was_imported_before():
    for _ in range(2):
        with pytest.raises(vtsum.VTSumError, match="no such file"):
            vtsum.summarize("/nowhere/at/all.mp4")
        importlib.import_module("vtsum.summary.pipeline")
    with pytest.raises(ModuleNotFoundError, match="from vtsum import summarize"):
        importlib.import_module("vtsum.summarize")
