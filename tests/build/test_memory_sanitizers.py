"""The CPU kernels of memory retrieval under the sanitizers, without Python around; every level of instructions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.build.test_cpu_sanitizers import KERNELS, LEVELS, ROOT

NAMES = ("memory_softmax", "memory_gather", "memory_search")


def compile_with(folder: Path, sanitizer: str, levels: dict[str, list[str]]) -> Path:
    """The driver with the portable kernels and those of `levels`."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("a C++ compiler is needed: c++ was not found")
    flags = ["-std=c++17", "-O1", "-g1", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-pthread"]
    flags += [f"-I{ROOT / 'csrc' / 'include'}", *(["-DVTS_X86_LEVELS"] if levels else [])]
    sources: list[tuple[Path, list[str]]] = [(Path(__file__).with_name("sanitize_memory.cpp"), [])]
    sources += [
        (KERNELS / f"{name}.cpp", []) for name in ("level", "memory_softmax", "memory_sparse", "memory_product")
    ]
    sources += [(KERNELS / f"{name}_portable.cpp", []) for name in NAMES]
    sources += [(KERNELS / f"{name}_{level}.cpp", more) for level, more in levels.items() for name in NAMES]
    if "avx512" in levels:
        sources.append((KERNELS / "memory_product_avx512.cpp", levels["avx512"]))
    objects = []
    for source, extra in sources:
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
        assert "130 calls" in done.stdout
