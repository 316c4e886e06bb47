"""Compiling the CUDA sources without torch's build of an extension, with its options: for reading, not for loading."""

from __future__ import annotations

import os
import runpy
import shutil
from pathlib import Path

from bench.kit.record import ROOT

CSRC = ROOT / "csrc"


def find_nvcc() -> str | None:
    """The compiler of CUDA_HOME, else the one on the path; None where there is none."""
    if (home := os.environ.get("CUDA_HOME")) and Path(home, "bin", "nvcc").is_file():
        return str(Path(home, "bin", "nvcc"))
    return shutil.which("nvcc")


def nvcc_flags() -> list[str]:
    """setup.py's options and those that torch's builder adds to them, by the oldest standard that torch builds with."""
    from torch.utils.cpp_extension import COMMON_NVCC_FLAGS

    own = runpy.run_path(str(ROOT / "setup.py"), run_name="lists")["NVCC_FLAGS"]
    return ["-std=c++17", *dict.fromkeys([*COMMON_NVCC_FLAGS, *own]), f"-I{CSRC / 'include'}"]
