"""The CPU kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer, without Python around."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "csrc" / "cpu"
LEVELS = {
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
}


def compile_with(folder: Path, sanitizer: str, levels: dict[str, list[str]]) -> Path:
    """The driver with the portable kernels and those of `levels`."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("a C++ compiler is needed: c++ was not found")
    flags = ["-std=c++17", "-O1", "-g1", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-pthread"]
    flags += [f"-I{ROOT / 'csrc' / 'include'}", *(["-DVTS_X86_LEVELS"] if levels else [])]
    name = "sliding_window_attention"
    objects = []
    for source, extra in [
        (Path(__file__).with_name("sanitize_cpu.cpp"), []),
        (KERNELS / f"{name}.cpp", []),
        (KERNELS / "level.cpp", []),
        (KERNELS / f"{name}_portable.cpp", []),
        *((KERNELS / f"{name}_{level}.cpp", more) for level, more in levels.items()),
    ]:
        objects.append(folder / f"{source.stem}.o")
        subprocess.run([compiler, *flags, *extra, "-c", str(source), "-o", str(objects[-1])], check=True)
    program = folder / "sanitized"
    subprocess.run([compiler, *flags, *map(str, objects), "-o", str(program)], check=True)
    return program


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_the_kernels_run_clean(tmp_path: Path, sanitizer: str) -> None:
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    # What threads share is the same at every level.
    levels = LEVELS if x86 and sanitizer != "thread" else {}
    program = compile_with(tmp_path, sanitizer, levels)
    for level in (*levels, "portable"):
        done = subprocess.run(
            [str(program)],
            env={**os.environ, "VTSUM_KERNELS_CPU_LEVEL": level},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "calls" in done.stdout
