"""The kernels of memory attention under AddressSanitizer and UndefinedBehaviorSanitizer, on the emulator."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.emulator.build import ROOT, build_memory, sanitizer_environment


def test_no_kernel_leaves_its_tensors_or_does_what_is_undefined(emulator: None) -> None:
    command = [sys.executable, "-m", "tests.emulator.sanitized_memory", str(build_memory(sanitized=True))]
    environment = {**os.environ, **sanitizer_environment(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-6000:]
    assert done.stdout.endswith("all is well\n")
