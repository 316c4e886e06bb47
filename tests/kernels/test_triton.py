"""Runs the Triton kernels' numbers in Triton's interpreter, which needs no GPU but a process of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


#: Processes that run beside each other, of about the same time each.
FILES = {
    "spoilt": ["test_triton_spoilt_numbers.py"],
    "window": ["test_triton_numbers.py", "test_triton_layouts_numbers.py", "test_triton_public_numbers.py"],
    "memory": ["test_memory_triton_numbers.py", "test_memory_triton_join_numbers.py"],
}


@pytest.mark.parametrize("names", FILES.values(), ids=FILES)
def test_numbers_in_the_interpreter(names: list[str]) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("the package triton is not installed (pip install triton)")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not gpu"]
    done = subprocess.run(
        [*command, *(f"tests/kernels/{name}" for name in names)],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"\b\d+ passed", done.stdout), done.stdout[-2000:]
    assert "skipped" not in done.stdout, done.stdout[-2000:]
