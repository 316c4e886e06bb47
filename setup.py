"""Builds the compiled kernels; everything else about the distribution stands in pyproject.toml.

Two libraries, loaded by ``torch.ops.load_library`` and free of Python: ``vtsum_kernels/_cpu`` wherever a C++ compiler
is found, ``vtsum_kernels/_cuda`` where torch has CUDA and nvcc is there too. Without a compiler the installation
succeeds all the same, and the ops run in plain PyTorch. What happened is written to ``vtsum_kernels/_build.json``.

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
from pathlib import Path
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


def compiler_version() -> str:
    """The C++ compiler's first line, after it compiled and linked a program."""
    name = os.environ.get("CXX", "c++")
    if shutil.which(name.split()[0]) is None:
        raise CannotBuild(f"no C++ compiler: {name} was not found (install g++ or clang++, or set CXX)")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text(
            "#include <cstdint>\n#include <tuple>\nint main() { return std::get<0>(std::tuple<int>(0)); }\n"
        )
        done = subprocess.run(
            [*name.split(), "-std=c++17", str(source), "-o", str(source.with_suffix(""))],
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise CannotBuild(f"{name} cannot compile a program: {done.stderr.strip()[-300:]}")
    version = subprocess.run([*name.split(), "--version"], capture_output=True, text=True).stdout
    return version.splitlines()[0] if version else name


def cuda_architectures(nvcc: Path) -> str:
    release = re.search(
        r"release (\d+)\.(\d+)", subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    )
    known = (int(release[1]), int(release[2])) if release else (0, 0)
    return "8.0;9.0;10.0;12.0+PTX" if known >= (12, 8) else "8.0;9.0+PTX"


def cpu_extension() -> tuple[Extension, dict[str, Any]]:
    torch = import_torch()
    compiler = compiler_version()
    from torch.utils.cpp_extension import CppExtension

    levels = X86_LEVELS if platform.machine().lower() in ("x86_64", "amd64") else {}
    wide = {str(path) for level in X86_LEVELS for path in CSRC.glob(f"cpu/*_{level}.cpp")}
    sources = [str(path) for path in sorted(CSRC.glob("cpu/*.cpp")) if str(path) not in wide]
    sources += [str(path) for path in sorted(CSRC.glob("torch/*_cpu.cpp"))]
    flags = CXX_FLAGS + (STRICT_FLAGS if os.environ.get("VTSUM_WERROR") == "1" else [])
    flags += [f"-DTORCH_TARGET_VERSION={TARGET}"] + (["-DVTS_X86_LEVELS"] if levels else [])
    extension = CppExtension(
        "vtsum_kernels._cpu",
        sources,
        include_dirs=[str(ROOT / CSRC / "include")],
        extra_compile_args={"cxx": flags},
        py_limited_api=True,  # nothing of Python inside: no libtorch_python, one file for every Python
    )
    extension.vtsum_levels = [
        (sorted(str(path) for path in CSRC.glob(f"cpu/*_{level}.cpp")), [*flags, *wider])
        for level, wider in levels.items()
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
    from torch.utils.cpp_extension import CUDA_HOME, CUDAExtension

    nvcc = Path(CUDA_HOME or "", "bin", "nvcc")
    if CUDA_HOME is None or not nvcc.is_file():
        raise CannotBuild("nvcc was not found (install the CUDA toolkit, or set CUDA_HOME)")
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", cuda_architectures(nvcc))
    strict = os.environ.get("VTSUM_WERROR") == "1"
    flags = [*CXX_FLAGS, f"-DTORCH_TARGET_VERSION={TARGET}", "-DUSE_CUDA"] + (STRICT_FLAGS if strict else [])
    nvcc_flags = ["-O3", "--expt-relaxed-constexpr", "-Xcompiler", "-fvisibility=hidden"]
    nvcc_flags += ["-Werror", "all-warnings"] if strict else []
    sources = [str(path) for path in (*sorted(CSRC.glob("cuda/*.cu")), *sorted(CSRC.glob("torch/*_cuda.cpp")))]
    extension = CUDAExtension(
        "vtsum_kernels._cuda",
        sources,
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


class BuildKernels(build_ext):
    """Builds the libraries that can be built here, and writes down what became of each."""

    def run(self) -> None:
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
            except CannotBuild as error:
                entry["reason"] = str(error)
                if asked == "1":
                    raise SystemExit(f"setup.py: {variable}=1, but {error}") from error
        self.extensions = []
        for name, extension in plans.items():
            entry = record["libraries"][name]
            try:
                entry["file"] = Path(self._build(extension)).name
                entry["built"] = True
                self.extensions.append(extension)
            except Exception as error:  # a compiler fails in many ways; whoever insists sees it as it was
                words = str(error).strip()[-2000:]
                entry["reason"] = f"the compilation failed: {words} (pip install -v shows what the compiler said)"
                if wish(LIBRARIES[name][0]) == "1":
                    raise
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


setup(
    # A placeholder tells setuptools that this is a platform's wheel; BuildKernels replaces it.
    ext_modules=[Extension("vtsum_kernels._cpu", sources=[])],
    cmdclass={"build_ext": BuildKernels},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
