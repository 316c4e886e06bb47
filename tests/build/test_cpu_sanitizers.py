"""The CPU kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer, without Python around."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "csrc" / "cpu"
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", *AVX2]
LEVELS = {"avx512": AVX512, "avx2": AVX2}


class Driver(NamedTuple):
    """A program that calls an op's kernels, how often, and their sources: one form for all levels, and one a level."""

    program: str
    calls: int
    common: tuple[str, ...]
    by_level: tuple[str, ...]
    alone: tuple[tuple[str, list[str]], ...] = ()  # files of one level, and their flags


DRIVERS = {
    "sliding_window": Driver(
        "sanitize_cpu.cpp", 513, ("level", "sliding_window_attention"), ("sliding_window_attention",)
    ),
    "memory": Driver(
        "sanitize_memory.cpp",
        184,
        ("level", "memory_softmax", "memory_sparse", "memory_product"),
        ("memory_softmax", "memory_gather", "memory_search"),
        (("memory_product_avx512", AVX512), ("memory_product_avx512bf16", [*AVX512, "-mavx512bf16"])),
    ),
}


def compile_with(folder: Path, driver: Driver, sanitizer: str, levels: dict[str, list[str]]) -> Path:
    """The driver with the portable kernels and those of `levels`."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("a C++ compiler is needed: c++ was not found")
    flags = ["-std=c++17", "-O1", "-g1", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-pthread"]
    flags += [f"-I{ROOT / 'csrc' / 'include'}", *(["-DVTS_X86_LEVELS"] if levels else [])]
    sources: list[tuple[Path, list[str]]] = [(Path(__file__).with_name(driver.program), [])]
    sources += [(KERNELS / f"{name}.cpp", []) for name in driver.common]
    sources += [(KERNELS / f"{name}_portable.cpp", []) for name in driver.by_level]
    sources += [(KERNELS / f"{name}_{level}.cpp", more) for level, more in levels.items() for name in driver.by_level]
    sources += [(KERNELS / f"{name}.cpp", more) for name, more in driver.alone if levels]
    objects = []
    for source, extra in sources:
        objects.append(folder / f"{source.stem}.o")
        subprocess.run([compiler, *flags, *extra, "-c", str(source), "-o", str(objects[-1])], check=True)
    program = folder / "sanitized"
    subprocess.run([compiler, *flags, *map(str, objects), "-o", str(program)], check=True)
    return program


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
@pytest.mark.parametrize("op", DRIVERS)
def test_the_kernels_run_clean(tmp_path: Path, op: str, sanitizer: str) -> None:
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    # What threads share is the same at every level.
    levels = LEVELS if x86 and sanitizer != "thread" else {}
    program = compile_with(tmp_path, DRIVERS[op], sanitizer, levels)
    for level in (*levels, "portable"):
        done = subprocess.run(
            [str(program)],
            env={**os.environ, "VTSUM_KERNELS_CPU_LEVEL": level},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(rf"\b{DRIVERS[op].calls} calls$", done.stdout.strip()), done.stdout
