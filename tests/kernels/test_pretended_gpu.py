"""The GPU's tests, tried on a pretended GPU: what is wrong with a test itself should not wait for a GPU to be found."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: A part that takes little of the interpreter; all of them: VTSUM_PRETENDED_GPU=1 TRITON_INTERPRET=1 pytest -m gpu
FILES = [
    "test_gpu_graphs.py",
    "test_memory_sparse.py",
    "test_memory_fuse.py",
    "test_gpu_window.py",
    "test_contracts.py",
]
FEW = "cuda and (narrow or packed or masked or fold or step or bits or stream or threads) and not float16"
FEW += " or test_a_large or adversaries or mixed or chosen_slots or which_backend or flash_attention"


def test_some_tests_of_a_gpu_without_one(cpp: None) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("the package triton is not installed (pip install triton)")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "gpu", "-k", FEW]
    done = subprocess.run(
        [*command, *(f"tests/kernels/{name}" for name in FILES)],
        cwd=ROOT,
        env={**os.environ, "VTSUM_PRETENDED_GPU": "1", "TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"\b(\d+) passed", done.stdout)
    assert passed is not None, done.stdout[-2000:]
    assert int(passed[1]) > 60, done.stdout[-2000:]
