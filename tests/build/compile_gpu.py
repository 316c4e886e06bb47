"""Compiles everything meant for a GPU, on a machine that needs none: ``python -m tests.build.compile_gpu``.

Every .cu file through nvcc for each architecture, warnings as errors and no register spilled; the CUDA glue through the
C++ compiler, against torch's headers; every Triton kernel to a cubin for each of its architectures, no register
spilled. Prints a line a kernel file and leaves with status 1 if anything failed, 0 if all is well. What cannot be
checked here (no nvcc, no Triton) is said and counts as left out, not as passed; ``--require`` makes that a failure.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from bench.gpu.nvcc import CSRC, find_nvcc, nvcc_flags

CUDA_ARCHITECTURES = (80, 90, 100, 120)
SPILL = re.compile(
    r"Function properties for (\S+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)
REGISTERS = re.compile(r"Used (\d+) registers")


class Report:
    """What passed, what failed and what was left out."""

    def __init__(self) -> None:
        self.failed = 0
        self.left_out: list[str] = []

    def add(self, name: str, problem: str | None, detail: str = "") -> None:
        print(f"{'FAILED' if problem else 'ok':7} {name}{': ' + detail if detail else ''}", flush=True)
        if problem:
            self.failed += 1
            print(problem.rstrip(), flush=True)

    def skip(self, what: str, why: str) -> None:
        self.left_out.append(what)
        print(f"left out {what}: {why}", flush=True)


def spills(ptxas: str) -> str | None:
    """None if no kernel keeps anything in local memory, else the lines that say it does."""
    reports = SPILL.findall(ptxas)
    if not reports:
        return "ptxas reported on no kernel"
    # A call of the 64-bit division keeps its return address: 8 bytes of stack that are no spill.
    bad = [report for report in reports if int(report[1]) > 8 or report[2:] != ("0", "0")]
    lines = [f"  {name}: stack frame {frame}, stores {stores}, loads {loads}" for name, frame, stores, loads in bad]
    return "\n".join([f"{len(bad)} of {len(reports)} kernels spill (bytes):", *lines]) if bad else None


def has_kernels(source: Path) -> bool:
    """Whether a file, or one of ours that it includes, defines a kernel."""
    text = source.read_text()
    included = (source.parent / name for name in re.findall(r'^#include "(.+)"$', text, re.MULTILINE))
    return "__global__" in text or any(has_kernels(path) for path in included if path.is_file())


STRICT = ["-Werror", "all-warnings", "-Xptxas", "-v", "-Xcompiler", "-Wall,-Wextra,-Werror"]


def compile_cuda(nvcc: str, report: Report, folder: Path) -> None:
    flags = [*nvcc_flags(), *STRICT]

    def compile_one(job: tuple[Path, int]) -> tuple[subprocess.CompletedProcess[str], float]:
        source, architecture = job
        start = time.monotonic()
        # The code for the host is the same for each architecture: once will do.
        form = "-c" if architecture == CUDA_ARCHITECTURES[0] else "-cubin"
        command = [nvcc, *flags, f"-arch=sm_{architecture}", form, str(source)]
        command += ["-o", str(folder / f"{source.parent.name}_{source.stem}_{architecture}.o")]
        return subprocess.run(command, capture_output=True, text=True), time.monotonic() - start

    jobs = list(product(sorted(CSRC.glob("cuda/**/*.cu")), CUDA_ARCHITECTURES))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (source, architecture), (done, seconds) in zip(jobs, pool.map(compile_one, jobs), strict=True):
            output = done.stdout + done.stderr
            problem = output[-4000:] if done.returncode else None
            if problem is None and has_kernels(source):
                problem = spills(output)
            registers = max(map(int, REGISTERS.findall(output)), default=0)
            detail = f"{len(SPILL.findall(output))} kernels, at most {registers} registers, {seconds:.0f} s"
            report.add(f"{source.relative_to(CSRC)} sm_{architecture}", problem, detail)


def compile_glue(report: Report, folder: Path) -> None:
    from torch.utils.cpp_extension import include_paths

    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        report.skip("the CUDA glue", "no C++ compiler was found")
        return
    flags = ["-std=c++20", "-fsyntax-only", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-DUSE_CUDA"]
    flags += ["-DTORCH_TARGET_VERSION=0x020b000000000000", f"-I{CSRC / 'include'}"]
    flags += [flag for path in include_paths() for flag in ("-isystem", path)]
    for source in sorted(CSRC.glob("torch/*/*cuda.cpp")):
        done = subprocess.run([compiler, *flags, str(source)], capture_output=True, text=True, cwd=folder)
        report.add(str(source.relative_to(CSRC)), done.stderr[-4000:] if done.returncode else None)


def compile_triton(report: Report) -> None:
    try:
        import triton  # noqa: F401
    except ImportError:
        report.skip("the Triton kernels", "triton is not installed (pip install triton)")
        return
    from tests.build.compile_triton import compile_all

    for name, problem, detail in compile_all():
        report.add(name, problem, detail)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compiles everything meant for a GPU, on a machine that needs none.")
    parser.add_argument("--require", action="store_true", help="fail where nvcc or Triton is missing")
    require = parser.parse_args().require
    report = Report()
    nvcc = find_nvcc()
    with tempfile.TemporaryDirectory() as folder:
        compile_glue(report, Path(folder))
        if nvcc is None:
            report.skip("the CUDA kernels", "nvcc was not found (install the CUDA toolkit, or set CUDA_HOME)")
        else:
            compile_cuda(nvcc, report, Path(folder))
    compile_triton(report)
    return 1 if report.failed or (require and report.left_out) else 0


if __name__ == "__main__":
    sys.exit(main())
