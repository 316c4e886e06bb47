"""Compiles CUDA sources as host C++ with the emulator into a shared library, once for all processes.

Objects are kept in build/emulator under a name made from what they were compiled from, behind a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
CUDA = CSRC / "cuda"
FAMILIES = ("ring", "strip", "tile", "general")
SELFTEST = HERE / "selftest.cu"
WINDOW, MEMORY = "sliding_window_attention", "memory_attention"  # folders of csrc/cuda

FLAGS = ["-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fno-strict-aliasing"]
OPTIMISED = ["-O1"]
SANITIZED = [
    "-O0",
    "-g1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
]  # -O1 compiles four times as long


class Unavailable(Exception):
    """What the emulator needs and this machine has not."""


@cache
def compiler() -> str:
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if found is None:
        raise Unavailable("no C++ compiler was found (install g++)")
    return found


@cache
def cuda_include() -> Path:
    """CUDA's headers: the toolkit's, or the copy that Triton's wheel brings."""
    folders = [Path(home, "include") for name in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(name))]
    if nvcc := shutil.which("nvcc"):
        folders.append(Path(nvcc).resolve().parents[1] / "include")
    folders.append(Path("/usr/local/cuda/include"))
    try:
        import triton
    except ImportError:
        pass
    else:
        folders.append(Path(triton.__file__).parent / "backends" / "nvidia" / "include")
    for folder in folders:
        if (folder / "cuda_runtime.h").is_file() and (folder / "cuda_bf16.h").is_file():
            return folder
    raise Unavailable("CUDA's headers were not found (install the CUDA toolkit or triton, or set CUDA_HOME)")


def sanitizer_environment() -> dict[str, str]:
    """Variables of the environment for a Python process that loads a sanitized library."""
    runtimes = [
        subprocess.run([compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
        for name in ("libasan.so", "libubsan.so")
    ]
    options = "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=0"
    return {
        "LD_PRELOAD": " ".join(map(str.strip, runtimes)),
        "ASAN_OPTIONS": options,
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def build(*, kernels: bool = True, sanitized: bool = False) -> Path:
    """The library with the kernels of sliding-window attention and their dispatcher, beside the emulator's own test
    kernels; or with those alone."""
    sources = [*sorted((CUDA / WINDOW).glob("*.cu")), HERE / "families.cpp"] if kernels else []
    return _build([SELFTEST, *sources], WINDOW, sanitized)


def build_memory(*, sanitized: bool = False) -> Path:
    """The library with the kernels of memory attention."""
    return _build(sorted((CUDA / MEMORY).glob("*.cu")), MEMORY, sanitized)


def build_glue() -> Path:
    """The CUDA glue of all ops for tensors on the CPU: ops vtsum_emulated::* over emulated kernels."""
    import torch
    from torch.utils.cpp_extension import include_paths

    kernels, glue = (build(), build_memory()), CSRC / "torch"
    sources = sorted(glue.glob("*/*cuda.cpp"))
    flags = ["-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
    flags += ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-DVTS_NAMESPACE=vtsum_emulated"]
    flags += ["-include", str(HERE / "glue.h")]
    flags += [f"-I{glue}", f"-I{CSRC / 'include'}"]
    flags += [flag for path in include_paths() for flag in ("-isystem", path)]
    torch_libraries = Path(torch.__file__).parent / "lib"
    link = [*map(str, kernels), f"-L{torch_libraries}", "-ltorch_cpu", "-lc10"]
    link += [f"-Wl,-rpath,{folder}" for folder in (torch_libraries, kernels[0].parent)]
    headers = [*sorted(glue.rglob("*.h")), *sorted((CSRC / "include").rglob("*.h")), HERE / "glue.h"]
    content = b"".join(path.read_bytes() for path in [*headers, *sources])
    key = hashlib.sha256(content + " ".join([torch.__version__, *flags, *link]).encode()).hexdigest()[:16]
    library = kernels[0].parent / f"glue-{key}.so"
    with (kernels[0].parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.is_file():
            _run([compiler(), *flags, "-shared", *map(str, sources), *link], library)
        _forget_old(kernels[0].parent, {library, *kernels})
    return library


def _build(sources: Sequence[Path], op: str, sanitized: bool) -> Path:
    """Compiles an op's sources, what all ops share, and the emulator. Headers of other ops
    are not read: they make nothing stale."""
    command = [compiler(), *FLAGS, *(SANITIZED if sanitized else OPTIMISED), "-isystem", str(cuda_include())]
    command += [f"-I{CSRC / 'include'}", f"-I{CUDA}", f"-I{HERE}", "-idirafter", str(HERE / "standin")]
    folder = ROOT / "build" / "emulator"
    folder.mkdir(parents=True, exist_ok=True)
    interface = CSRC / "include" / "vtsum"
    headers = [interface / "common.h", interface / f"{op}.h"]
    headers += [path for folder in (CUDA, CUDA / op, HERE) for path in sorted(folder.glob("*.h"))]
    common = b"".join(header.read_bytes() for header in headers)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prefix = _precompiled(command, common, folder)
        command += ["-include", str(prefix)]
        with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
            every = [*sources, CUDA / "error.cu", HERE / "emulator.cpp"]
            jobs = [pool.submit(_compile, command, common, source, folder) for source in every]
            objects = [job.result() for job in jobs]
        key = hashlib.sha256(" ".join(path.name for path in objects).encode()).hexdigest()[:16]
        library = folder / f"emulator-{key}.so"
        if not library.is_file():
            sanitize = [flag for flag in SANITIZED if flag.startswith("-fsanitize")] if sanitized else []
            _run([compiler(), "-shared", *sanitize, *map(str, objects)], library)
        _forget_old(folder, {library, prefix, prefix.with_suffix(".h.gch"), *objects})
    return library


def _precompiled(command: list[str], common: bytes, folder: Path) -> Path:
    """A header for all sources: CUDA's headers take longer to read than most of our files."""
    key = hashlib.sha256(common + " ".join(command).encode()).hexdigest()[:16]
    header = folder / f"prefix-{key}.h"
    if not header.with_suffix(".h.gch").is_file():
        header.write_text('#include "device.h"\n')
        _run([*command, "-x", "c++-header", str(header)], header.with_suffix(".h.gch"))
    return header


def _forget_old(folder: Path, in_use: set[Path]) -> None:
    """Removes what no build has used for a day."""
    for path in in_use:
        path.touch()
    for path in folder.iterdir():
        if path.name != "lock" and time.time() - path.stat().st_mtime > 86400:
            path.unlink()


def _compile(command: list[str], common: bytes, source: Path, folder: Path) -> Path:
    key = hashlib.sha256(common + source.read_bytes() + " ".join(command).encode()).hexdigest()[:16]
    target = folder / f"{source.stem}-{key}.o"
    if not target.is_file():
        _run([*command, "-x", "c++", "-c", str(source)], target)
    return target


def _run(command: list[str], target: Path) -> None:
    """Runs a compiler; its product appears under its name only when it is whole."""
    partial = target.with_suffix(".partial")
    done = subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr[-8000:]}")
    partial.replace(target)
