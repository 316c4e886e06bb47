"""The CPU kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer, without Python around."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "csrc" / "cpu"
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", *AVX2]
LEVELS = {"avx512bf16": [*AVX512, "-mavx512bf16"], "avx512": AVX512, "avx2": AVX2}


class Driver(NamedTuple):
    """A program that calls an op's kernels, and how often."""

    program: str
    calls: int


DRIVERS = {
    "sliding_window_attention": Driver("sanitize_window.cpp", 129),
    "memory_attention": Driver("sanitize_memory.cpp", 112),
}


def compile_with(op: str, sanitizer: str, levels: Sequence[str]) -> Path:
    """The op's driver with the portable kernels and those of `levels`; where there are any, the dispatcher asks for the
    other ones too, which are linked as they are. It is kept in build/sanitizers under a name made from what it was
    compiled from."""
    driver = DRIVERS[op]
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("a C++ compiler is needed: c++ was not found")
    compiler_says = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    flags = ["-std=c++17", "-O1", "-g1", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-pthread"]
    if "address" in sanitizer and "clang" not in compiler_says:  # calls in place of checks: half the time of compiling
        flags += ["--param", "asan-instrumentation-with-call-threshold=0"]
    flags += [f"-I{ROOT / 'csrc' / 'include'}", *(["-DVTS_X86_LEVELS"] if levels else [])]
    sources: list[tuple[Path, list[str]]] = [(Path(__file__).with_name(driver.program), [])]
    for source in [KERNELS / "level.cpp", *sorted((KERNELS / op).glob("*.cpp"))]:
        if source.stem not in LEVELS or levels:
            plain = ["-O0", "-fno-sanitize=all"] if source.stem in LEVELS and source.stem not in levels else []
            sources.append((source, LEVELS.get(source.stem, []) + plain))
    headers = sorted(path for folder in (KERNELS, ROOT / "csrc" / "include") for path in folder.rglob("*.h"))
    content = [path.read_bytes() for path in (*headers, *(source for source, _ in sources))]
    key = hashlib.sha256(b"".join([compiler_says.encode(), *content, repr((flags, sources)).encode()])).hexdigest()[:16]
    program = ROOT / "build" / "sanitizers" / f"{op}-{key}"
    if not program.is_file():
        with tempfile.TemporaryDirectory() as folder:
            objects = [Path(folder, f"{source.stem}.o") for source, _ in sources]
            jobs = [
                [compiler, *flags, *extra, "-c", str(source), "-o", str(made)]
                for (source, extra), made in zip(sources, objects, strict=True)
            ]
            with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
                list(pool.map(lambda job: subprocess.run(job, check=True), jobs))
            whole = Path(folder, "sanitized")
            subprocess.run([compiler, *flags, *map(str, objects), "-o", str(whole)], check=True)
            program.parent.mkdir(parents=True, exist_ok=True)
            partial = program.with_suffix(f".{os.getpid()}")
            shutil.copy(whole, partial)
            partial.replace(program)
    return program


def run_clean(op: str, sanitizer: str, *levels: str) -> None:
    """Run the op's driver at the portable level and at those of `levels` that this machine's architecture has."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    compiled = levels if x86 else ()
    program = compile_with(op, sanitizer, compiled)
    for level in ("portable", *(name for name in compiled if name != "avx512bf16")):
        done = subprocess.run(
            [str(program)],
            env={**os.environ, "VTSUM_KERNELS_CPU_LEVEL": level},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(rf"\b{DRIVERS[op].calls} calls$", done.stdout.strip()), done.stdout


@pytest.mark.parametrize("op", DRIVERS)
def test_no_kernel_leaves_its_tensors(op: str) -> None:
    run_clean(op, "address", "avx2")


@pytest.mark.parametrize("op", DRIVERS)
def test_threads_share_nothing_that_one_writes(op: str) -> None:
    run_clean(op, "thread")  # what threads share is the same at every level


@pytest.mark.slow
@pytest.mark.parametrize("op", DRIVERS)
def test_no_kernel_does_what_is_undefined_at_any_level(op: str) -> None:
    """Minutes of compiling."""
    run_clean(op, "address,undefined", *LEVELS)
