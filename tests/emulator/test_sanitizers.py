"""The CUDA kernels under AddressSanitizer and UndefinedBehaviorSanitizer, on the emulator."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from tests.emulator.build import ROOT, build, build_memory, sanitizer_environment


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tests.emulator.{module}", *arguments]
    environment = {**os.environ, **sanitizer_environment(), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow  # minutes of compiling
@pytest.mark.parametrize(("module", "library"), [("sanitized", build), ("sanitized_memory", build_memory)])
def test_no_kernel_leaves_its_tensors_or_does_what_is_undefined(emulator: None, module: str, library: Any) -> None:
    done = run(module, str(library(sanitized=True)))
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-6000:]
    assert done.stdout.endswith("all is well\n")


def test_a_write_past_the_end_of_a_tensor_is_found(emulator: None) -> None:
    done = run("sanitized", str(build(kernels=False, sanitized=True)), "--wrong")
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert "WRITE of size 4" in done.stderr
    assert "wrong_kernel" in done.stderr
