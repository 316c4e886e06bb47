"""compute-sanitizer over small calls of every kernel, where it works: reads and writes outside of memory, and races.

Its work is proven first by a kernel that is wrong on purpose.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu.nvcc import find_nvcc

ROOT = Path(__file__).resolve().parents[2]
FOUND = 9
"""The exit status of a run in which something was found."""
WRONG = """
#include <cstdio>
#include <cstdlib>
__global__ void past_the_end(int *x, int n) { x[threadIdx.x + n] = 1; }
__global__ void race(int *x) {
    __shared__ int y[64];
    y[threadIdx.x] = threadIdx.x;
    x[threadIdx.x] = y[63 - threadIdx.x];
}
int main(int count, char **words) {
    int *x = nullptr;
    if (cudaMalloc(&x, 64 * sizeof(int)) != cudaSuccess) return 3;
    if (count > 1 && std::atoi(words[1]) == 1)
        past_the_end<<<1, 64>>>(x, 1 << 12);
    else
        race<<<1, 64>>>(x);
    std::printf("%s\\n", cudaGetErrorString(cudaDeviceSynchronize()));
    return 0;
}
"""
TOOLS = {"memcheck": "1", "racecheck": "2"}


def find_sanitizer() -> str | None:
    nvcc = find_nvcc()
    beside = None if nvcc is None else Path(nvcc).resolve().parent / "compute-sanitizer"
    return str(beside) if beside is not None and beside.is_file() else shutil.which("compute-sanitizer")


def sanitized(tool: str, command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    sanitizer = find_sanitizer()
    assert sanitizer is not None
    words = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), "--print-limit", "20"]
    if tool == "racecheck":
        words += ["--racecheck-report", "all"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*words, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )


@pytest.fixture(scope="module", params=TOOLS)
def tool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tool that finds what it has to; the test is skipped where there is none or it does not work."""
    if find_sanitizer() is None:
        pytest.skip("compute-sanitizer was not found (it is a part of the CUDA toolkit)")
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("nvcc was not found, by which to prove that compute-sanitizer works")
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "wrong.cu").write_text(WRONG)
    subprocess.run([nvcc, "-arch=native", "wrong.cu", "-o", "wrong"], cwd=folder, check=True, capture_output=True)
    name = str(request.param)
    done = sanitized(name, [str(folder / "wrong"), TOOLS[name]], 60)
    if done.returncode != FOUND:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        pytest.skip(f"compute-sanitizer's {name} does not work here: {' '.join(last)[:200]}")
    return name


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_kernels_under_compute_sanitizer(tool: str, backend: str) -> None:
    if backend == "triton" and tool == "racecheck":
        pytest.skip("Triton's compiler orders what its programs share; its barriers are not ours to check")
    done = sanitized(tool, [sys.executable, "-m", "tests.build.gpu_sanitizer_cases", backend], 140)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    assert "all is well" in done.stdout, said[-2000:]
    assert "ERROR SUMMARY: 0 errors" in said or "RACECHECK SUMMARY: 0 hazards" in said, said[-2000:]


def test_the_calls_themselves_are_right_ones() -> None:
    """The program that a GPU runs, by the compiled CPU kernels."""
    import vtsum_kernels

    library = vtsum_kernels.build_info()["libraries"]["_cpu"]
    if not library["loaded"]:
        pytest.skip(f"compiled CPU kernels: {library['reason']}")
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.build.gpu_sanitizer_cases", "cuda", "--device", "cpu", "--as", "cpp"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[-1] == "all is well"
    assert len(lines) == 20
