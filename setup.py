"""Builds the compiled kernels; everything else about the distribution stands in pyproject.toml.

Two libraries, loaded by ``torch.ops.load_library`` and free of Python: ``vtsum_kernels/_cpu`` wherever a C++ compiler
is found, ``vtsum_kernels/_cuda`` where torch has CUDA and nvcc is there too. Without a compiler the installation
succeeds all the same, and the ops run in plain PyTorch. What happened is written to ``vtsum_kernels/_build.json``.

The lists of sources and flags here are the only ones: kernels/hub_layout.py reads them, too.

Environment variables:
    VTSUM_BUILD_CPP   auto (default), 0 (leave it out), 1 (fail if it cannot be built)
    VTSUM_BUILD_CUDA  the same, for the CUDA library
    VTSUM_WERROR      1: warnings are errors
    TORCH_CUDA_ARCH_LIST  as torch reads it; default: 8.0, 9.0, 10.0 and 12.0 as far as nvcc knows them
    CXX, MAX_JOBS     as torch's build helper reads them
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = Path("csrc")
TARGET = "0x020b000000000000"  # LibTorch stable ABI of 2.11: the library loads on that version and every later one
_AVX2 = ["-mavx2", "-mfma", "-mf16c"]
_AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", *_AVX2, "-mprefer-vector-width=512"]
X86_LEVELS = {"avx512bf16": [*_AVX512, "-mavx512bf16"], "avx512": _AVX512, "avx2": _AVX2}
# No -march=native: the library must run on machines older than this one. Wider instructions are chosen at run time.
CXX_FLAGS = ["-O3", "-g0", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"]
STRICT_FLAGS = ["-Werror", "-Wno-error=unused-parameter"]  # torch's own headers leave parameters unused
LEVELS_FLAG = "-DVTS_X86_LEVELS"
NVCC_FLAGS = ["-O3", "--expt-relaxed-constexpr", "-Xcompiler=-fvisibility=hidden"]
CUDA_ARCHITECTURES = ["8.0", "9.0", "10.0", "12.0+PTX"]  # of nvcc 12.8 and newer


class CannotBuild(RuntimeError):
    """A library cannot be built here; the message says why."""


def wish(variable: str) -> str:
    value = os.environ.get(variable, "auto")
    if value not in ("auto", "0", "1"):
        raise SystemExit(f"setup.py: {variable} must be auto, 0 or 1, got {value}")
    return value


def import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise CannotBuild(f"torch cannot be imported: {error}") from error
    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < (2, 11):
        raise CannotBuild(f"torch must be 2.11 or later, got {torch.__version__}")
    return torch


ERROR = re.compile(r"\berror(?: #[\w-]+)?:|\bfatal\s*:|cannot find|undefined (?:reference|symbol)")


def first_error(said: str) -> str:
    """The first line of a compiler's or linker's words that says what is wrong; else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if ERROR.search(line)), lines[-1] if lines else "it said nothing")


def compiler_version() -> str:
    """The first line of what the C++ compiler says of itself."""
    name = os.environ.get("CXX", "c++")
    if shutil.which(name.split()[0]) is None:
        raise CannotBuild(f"no C++ compiler: {name} was not found (install g++ or clang++, or set CXX)")
    version = subprocess.run([*name.split(), "--version"], capture_output=True, text=True).stdout
    return version.splitlines()[0] if version else name


def try_to_link(extension: Extension) -> None:
    """Compiles a few lines and links them as the library will be: minutes of compiling may hang on a missing file."""
    name = os.environ.get("CXX", "c++")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("#include <cstdint>\n#include <tuple>\nint probe() { return std::get<0>(std::tuple(0)); }\n")
        command = [*name.split(), "-std=c++17", "-fPIC", "-shared", str(source), "-o", str(source.with_suffix(".so"))]
        command += [f"-L{path}" for path in extension.library_dirs]
        command += [f"-l{library}" for library in extension.libraries]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotBuild(f"{name} cannot link a library: {first_error(done.stderr)}")


def cuda_home() -> Path:
    """The toolkit's folder: as the environment has it, else where the nvcc that is found says it comes from.

    What is found may be a script or a link that starts the toolkit's, so that its own folder tells nothing.
    """
    if told := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        home = Path(told)
    elif (nvcc := shutil.which("nvcc")) is not None:
        asked = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True)
        top = re.search(r"^#\$ TOP=(.+)$", asked.stderr + asked.stdout, re.MULTILINE)
        home = Path(top[1].strip()).resolve() if top else Path(nvcc).resolve().parents[1]
    else:
        home = Path("/usr/local/cuda")
    if not (home / "bin" / "nvcc").is_file():
        raise CannotBuild(f"nvcc was not found in {home}/bin (install the CUDA toolkit, or set CUDA_HOME)")
    return home


def cuda_architectures(nvcc: Path) -> str:
    release = re.search(
        r"release (\d+)\.(\d+)", subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    )
    known = (int(release[1]), int(release[2])) if release else (0, 0)
    return ";".join(CUDA_ARCHITECTURES) if known >= (12, 8) else "8.0;9.0+PTX"


def nvcc_threads(units: int, architectures: str) -> int:
    """How many architectures of a unit nvcc compiles at once: where cores are left over beside the other units.

    MAX_JOBS is what somebody allows whose memory is small: then one.
    """
    if "MAX_JOBS" in os.environ:
        return 1
    return max(1, min(len(re.split(r"[; ]+", architectures.strip("; "))), (os.cpu_count() or 1) // max(units, 1)))


def cpu_sources() -> list[Path]:
    """Those of the CPU library that any processor of the kind runs."""
    kernels = [path for path in sorted(CSRC.glob("cpu/**/*.cpp")) if path.stem not in X86_LEVELS]
    return [*kernels, *sorted(CSRC.glob("torch/*/*cpu.cpp"))]


def level_sources(level: str) -> list[Path]:
    """A file named after a level holds an op's kernels compiled for it: cpu/<op>/avx2.cpp."""
    return sorted(CSRC.glob(f"cpu/*/{level}.cpp"))


def cuda_sources() -> list[Path]:
    return [*sorted(CSRC.glob("cuda/**/*.cu")), *sorted(CSRC.glob("torch/*/*cuda.cpp"))]


def cpu_extension() -> tuple[Extension, dict[str, Any]]:
    torch = import_torch()
    compiler = compiler_version()
    from torch.utils.cpp_extension import CppExtension

    levels = X86_LEVELS if platform.machine().lower() in ("x86_64", "amd64") else {}
    flags = CXX_FLAGS + (STRICT_FLAGS if os.environ.get("VTSUM_WERROR") == "1" else [])
    flags += [f"-DTORCH_TARGET_VERSION={TARGET}"] + ([LEVELS_FLAG] if levels else [])
    extension = CppExtension(
        "vtsum_kernels._cpu",
        [str(path) for path in cpu_sources()],
        include_dirs=[str(ROOT / CSRC / "include")],
        extra_compile_args={"cxx": flags},
        py_limited_api=True,  # nothing of Python inside: no libtorch_python, one file for every Python
    )
    extension.vtsum_levels = [
        ([str(path) for path in level_sources(level)], [*flags, *wider]) for level, wider in levels.items()
    ]
    record = {
        "compiler": compiler,
        "torch": torch.__version__,
        "flags": flags,
        "levels": ["portable", *reversed(levels)],
        "stable_abi": TARGET,
    }
    return extension, record


def cuda_extension() -> tuple[Extension, dict[str, Any]]:
    torch = import_torch()
    if torch.version.cuda is None:
        raise CannotBuild(f"this torch ({torch.__version__}) has no CUDA; install a CUDA build of torch first")
    compiler = compiler_version()
    from torch.utils import cpp_extension

    home = cuda_home()
    cpp_extension.CUDA_HOME = str(home)  # torch's own guess is the folder above the first nvcc on the path
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", cuda_architectures(home / "bin" / "nvcc"))
    strict = os.environ.get("VTSUM_WERROR") == "1"
    flags = [*CXX_FLAGS, f"-DTORCH_TARGET_VERSION={TARGET}", "-DUSE_CUDA"] + (STRICT_FLAGS if strict else [])
    threads = nvcc_threads(len(cuda_sources()), os.environ["TORCH_CUDA_ARCH_LIST"])
    nvcc_flags = [*NVCC_FLAGS, f"--threads={threads}", *(["-Werror", "all-warnings"] if strict else [])]
    extension = cpp_extension.CUDAExtension(
        "vtsum_kernels._cuda",
        [str(path) for path in cuda_sources()],
        include_dirs=[str(ROOT / CSRC / "include")],
        extra_compile_args={"cxx": flags, "nvcc": nvcc_flags},
        py_limited_api=True,
    )
    record = {
        "compiler": compiler,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "flags": flags,
        "architectures": os.environ["TORCH_CUDA_ARCH_LIST"],
        "stable_abi": TARGET,
    }
    return extension, record


LIBRARIES = {"_cpu": ("VTSUM_BUILD_CPP", cpu_extension), "_cuda": ("VTSUM_BUILD_CUDA", cuda_extension)}


@contextmanager
def recorded() -> Iterator[list[str]]:
    """What this process and those it starts write meanwhile: it goes where it would, and into the list, too."""
    said: list[str] = []
    sys.stdout.flush(), sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    read, write = os.pipe()

    def copy() -> None:
        with os.fdopen(read, "rb") as source, os.fdopen(os.dup(before[0]), "wb") as target:
            for line in source:
                target.write(line)
                target.flush()
                said.append(line.decode(errors="replace"))

    reader = Thread(target=copy, daemon=True)
    reader.start()
    for stream in (1, 2):
        os.dup2(write, stream)
    os.close(write)
    try:
        yield said
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for stream, kept in zip((1, 2), before, strict=True):
            os.dup2(kept, stream)
            os.close(kept)
        reader.join(timeout=10)  # a compiler's server that lives on holds the pipe open


class BuildKernels(build_ext):
    """Builds the libraries that can be built here, and writes down what became of each."""

    def run(self) -> None:
        if not (ROOT / CSRC / "include").is_dir():
            raise SystemExit(f"setup.py: {CSRC} must lie beside setup.py: these sources are not whole")
        plans: dict[str, Extension] = {}
        record: dict[str, Any] = {"python": sys.version.split()[0], "platform": platform.platform(), "libraries": {}}
        for name, (variable, plan) in LIBRARIES.items():
            asked = wish(variable)
            entry: dict[str, Any] = {"built": False}
            record["libraries"][name] = entry
            if asked == "0":
                entry["reason"] = f"left out: {variable}=0"
                continue
            try:
                plans[name], details = plan()
                entry.update(details)
                try_to_link(plans[name])
            except CannotBuild as error:
                plans.pop(name, None)
                entry["reason"] = str(error)
                if asked == "1":
                    raise SystemExit(f"setup.py: {variable}=1, but {error}") from error
        self.extensions = []
        for name, extension in plans.items():
            entry, variable = record["libraries"][name], LIBRARIES[name][0]
            said: list[str] = []
            try:
                with recorded() as said:
                    entry["file"] = Path(self._build(extension)).name
                entry["built"] = True
                self.extensions.append(extension)
            except Exception as error:  # a compiler fails in many ways
                words = first_error("\n".join([*said, str(error)]))
                entry["reason"] = f"the compilation failed: {words} (pip install -v shows all of it)"
                if wish(variable) == "1":
                    raise SystemExit(f"setup.py: {variable}=1, but {entry['reason']}") from error
        for name, entry in record["libraries"].items():
            outcome = "built" if entry["built"] else f"not built: {entry['reason'].splitlines()[0]}"
            print(f"vtsum_kernels.{name}: {outcome}", flush=True)
        if not record["libraries"]["_cpu"]["built"]:
            print("vtsum_kernels: the ops will run in plain PyTorch, correct but slower", flush=True)
        target = Path(self._target("vtsum_kernels._build")).parent / "_build.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".json.part")
        temporary.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(temporary, target)

    def _target(self, name: str) -> str:
        """Where a library goes: beside the sources for an editable installation, else into the build folder."""
        self.ext_map = {**getattr(self, "ext_map", {})}
        inplace, self.inplace = self.inplace, self.inplace or self.editable_mode
        try:
            return self.get_ext_fullpath(name)
        finally:
            self.inplace = inplace

    def _build(self, extension: Extension) -> str:
        """Builds one library; returns its path."""
        from torch.utils.cpp_extension import BuildExtension

        extension._needs_stub = False
        builder = type("Builder", (_Builder, BuildExtension), {})(self.distribution, use_ninja=True)
        builder.initialize_options()
        builder.use_ninja = builder.use_ninja and shutil.which("ninja") is not None
        builder.build_lib, builder.build_temp = self.build_lib, self.build_temp
        builder.inplace = self.inplace or self.editable_mode
        builder.force, builder.parallel, builder.debug = self.force, self.parallel, self.debug
        self.distribution.ext_modules, before = [extension], self.distribution.ext_modules
        try:
            builder.ensure_finalized()
            builder.run()
            return builder.get_ext_fullpath(extension.name)
        finally:
            self.distribution.ext_modules = before

    def get_outputs(self) -> list[str]:
        files = [self._target(extension.name) for extension in self.extensions]
        return [*files, str(Path(self._target("vtsum_kernels._build")).parent / "_build.json")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class _Builder:
    """Compiles each instruction set's sources with its own flags before the rest."""

    compiler: Any
    build_temp: str

    def build_extension(self, extension: Any) -> None:
        extension.extra_objects = [
            made
            for paths, flags in getattr(extension, "vtsum_levels", [])
            if paths
            for made in self.compiler.compile(
                paths,  # all of a level's at once, so that ninja compiles them side by side
                output_dir=self.build_temp,
                include_dirs=extension.include_dirs,
                extra_postargs={"cxx": [*flags, "-std=c++17"]},
                depends=extension.depends,
            )
        ]
        super().build_extension(extension)  # type: ignore[misc]


if __name__ == "__main__":
    setup(
        # A placeholder tells setuptools that this is a platform's wheel; BuildKernels replaces it.
        ext_modules=[Extension("vtsum_kernels._cpu", sources=[])],
        cmdclass={"build_ext": BuildKernels},
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
