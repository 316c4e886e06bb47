"""Builds the CPU's kernels for AArch64 and has their tests run there, emulated, as `make check-aarch64` does.

    python tests/build/check_aarch64.py FOLDER [pytest's words ...]

Linux, as root, with debootstrap, qemu-user-static, binfmt-support (which has Linux run AArch64 programs by qemu) and
g++-aarch64-linux-gnu installed. FOLDER gets a small Debian of that architecture with PyTorch's wheel for it, once
(some 9 GB: that wheel brings CUDA); the library is cross-compiled from this tree with setup.py's flags. Without words
it is the tests of the window's and memory's numbers that run. Emulated code tells right from wrong and nothing about
speed.
"""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPILER = "aarch64-linux-gnu-g++"
MIRROR = "http://deb.debian.org/debian"
RELEASE, PYTHON = "bookworm", "3.11"
PACKAGES = ["torch", "numpy", "pytest", "hypothesis", "pytest-xdist", "setuptools"]
GLIBC = range(17, 37)  # 2.17 to the release's 2.36: pip takes wheels of the names that it is given
#: Of a processor that PyTorch's own reader of it knows; /proc tells of the real one, which is none of that kind.
PROCESSOR = """processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""
APART = ["unshare", "--mount"]
"""Begins a command whose mounts are gone when it ends."""
INSIDE = """
mount -t proc proc "$1/proc" && mount --bind /sys "$1/sys" && mount --bind /dev "$1/dev" &&
mount --bind "$1/processor" "$1/proc/cpuinfo" && exec chroot "$1" sh -c "$2"
"""
TESTS = ["sliding_window_attention", "sliding_window_attention_options", "sinks_and_softcap", "more_keys"]
TESTS += ["memory_attention", "memory_sparse", "memory_fuse"]
#: What asks for a compiler inside, or for another machine.
NOT = "not compile and not triton and not cuda and not gpu"


def run(*words: object) -> None:
    subprocess.run([*map(str, words)], check=True)


def system(folder: Path) -> None:
    """The Debian, with what the tests need."""
    if not (folder / "usr" / "bin" / "python3").exists():
        made = ["debootstrap", "--arch=arm64", "--variant=minbase", "--include=python3,python3-pip"]
        run(*APART, *made, RELEASE, folder, MIRROR)
    (folder / "processor").write_text(PROCESSOR)
    if not torch_of(folder).exists():
        named = [f"manylinux_2_{minor}_aarch64" for minor in GLIBC] + ["manylinux2014_aarch64"]
        platforms = [word for name in named for word in ("--platform", name)]
        get = [sys.executable, "-m", "pip", "download", "--only-binary", ":all:", "--python-version", PYTHON]
        run(*get, *platforms, "--constraint", ROOT / "constraints.txt", "-d", folder / "wheels", *PACKAGES)
        if inside(folder, f"pip install --break-system-packages --no-index --find-links /wheels {' '.join(PACKAGES)}"):
            raise SystemExit("check_aarch64: PyTorch must be installed, was not")
        shutil.rmtree(folder / "wheels")


def torch_of(folder: Path) -> Path:
    return folder / "usr" / "local" / "lib" / f"python{PYTHON}" / "dist-packages" / "torch"


def inside(folder: Path, command: str) -> int:
    """Run a command there, and its exit status; what is mounted for it goes with it."""
    return subprocess.run([*APART, "sh", "-c", INSIDE, "sh", str(folder), command]).returncode


def library(folder: Path, out: Path) -> None:
    """The CPU's library, from the sources and by the flags that setup.py has for a processor without levels."""
    setup = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
    torch = torch_of(folder)
    flags = [
        "-std=c++17",
        "-fPIC",
        *setup["CXX_FLAGS"],
        "-Wno-unused-parameter",
        f"-DTORCH_TARGET_VERSION={setup['TARGET']}",
    ]
    flags += [f"-I{path}" for path in (ROOT / "csrc" / "include", torch / "include")]
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(os.cpu_count()) as pool:
        sources = [ROOT / path for path in setup["cpu_sources"]()]
        objects = [Path(work, f"{number}.o") for number in range(len(sources))]
        jobs = [[COMPILER, *flags, "-c", s, "-o", o] for s, o in zip(sources, objects, strict=True)]
        list(pool.map(lambda job: run(*job), jobs))
        link = ["-Wl,--allow-shlib-undefined", f"-L{torch / 'lib'}", "-lc10", "-ltorch", "-ltorch_cpu"]
        run(COMPILER, "-shared", *objects, "-o", out, *link)


def main() -> int:
    folder, words = Path(sys.argv[1]).resolve(), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        system(folder)
        return tested(folder, words)
    except subprocess.CalledProcessError as error:
        print(f"check_aarch64: {error.cmd[0]} ended with {error.returncode}", file=sys.stderr)
        return 1


def tested(folder: Path, words: list[str]) -> int:
    """Build the library, and have pytest run there; its exit status."""
    tree = folder / "work"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("kernels", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    library(folder, tree / "kernels" / "vtsum_kernels" / "_cpu.abi3.so")
    words = words or ["-k", NOT, *(f"tests/kernels/test_{name}.py" for name in TESTS)]
    pytest = ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow and not gpu", *words]
    return inside(folder, f"cd /work && PYTHONPATH=.:kernels OMP_NUM_THREADS=1 {shlex.join(pytest)}")


if __name__ == "__main__":
    sys.exit(main())
