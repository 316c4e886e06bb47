"""Does to a layout for the Hugging Face kernels hub what the hub's builder does, as far as a CPU goes and without it.

The builder (kernel-builder of github.com/huggingface/kernels, editions up to 5 of build.toml) takes along the files
that build.toml lists and the package; adds registration.h and the package's `_ops.py`; compiles the sources of the
sections of one backend, each with its section's flags and include folders, as C++20 for Python's limited interface;
links them into one library whose name is the namespace of its ops; and lays the package out as a build variant.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.utils.cpp_extension import include_paths

#: What edition 5 knows of each table; all else is refused. True: it must be there.
GENERAL = {"name": True, "version": True, "edition": True, "license": True, "backends": True}
GENERAL |= dict.fromkeys(("upstream", "source", "minver", "cuda", "hub", "kernel-depends", "python-depends"), False)
TORCH = dict.fromkeys(("include", "minver", "maxver", "pyext", "src", "stable-abi", "cxx-flags"), False)
CPU = {"backend": True, "depends": True, "src": True, "include": False, "cxx-flags": False}
CUDA = CPU | dict.fromkeys(("cuda-capabilities", "cuda-flags", "cuda-minver"), False)

REGISTRATION = """\
#pragma once
#include <Python.h>
#define REGISTER_EXTENSION(NAME) REGISTER_EXTENSION_AS(NAME)
#define REGISTER_EXTENSION_AS(NAME)                                                   \\
    PyMODINIT_FUNC PyInit_##NAME() {                                                  \\
        static PyModuleDef module = {PyModuleDef_HEAD_INIT, #NAME, nullptr, 0, nullptr}; \\
        return PyModule_Create(&module);                                              \\
    }
"""
OPS = """\
import torch
from . import {name}
ops = torch.ops.{name}

def add_op_namespace_prefix(op_name):
    return f"{name}::{{op_name}}"
"""


def checked(layout: Path) -> dict[str, Any]:
    """build.toml, which must be as edition 5 has it and name files that are there."""
    plan = tomllib.loads((layout / "build.toml").read_text())
    tables = [("general", plan["general"], GENERAL), ("torch", plan["torch"], TORCH)]
    tables += [(name, table, {"cpu": CPU, "cuda": CUDA}[table["backend"]]) for name, table in plan["kernel"].items()]
    for name, table, keys in tables:
        assert set(table) <= set(keys), (name, set(table) - set(keys))
        assert {key for key, needed in keys.items() if needed} <= set(table), (name, table.keys())
    assert set(plan) == {"general", "torch", "kernel"}
    general = plan["general"]
    assert re.fullmatch(r"[a-z][-a-z0-9]*[a-z0-9]", general["name"])
    assert general["edition"] == 5
    assert type(general["version"]) is int
    assert {table["backend"] for table in plan["kernel"].values()} == set(general["backends"])
    for path in listed(plan):
        assert (layout / path).is_file(), path
    return plan


def listed(plan: dict[str, Any]) -> list[str]:
    return [*plan["torch"]["src"], *(path for table in plan["kernel"].values() for path in table["src"])]


def build(layout: Path, revision: str, folder: Path) -> Path:
    """Builds the variant for the CPU; the package lies in the folder given back, which has the namespace's name."""
    plan = checked(layout)
    package = plan["general"]["name"].replace("-", "_")
    name = f"_{package}_cpu_{revision}"
    source = folder / "source"
    for path in listed(plan):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(layout / path, source / path)
    (source / "torch-ext" / "registration.h").write_text(REGISTRATION)
    variant = folder / name
    python = tuple(f".{ending}" for ending in plan["torch"]["pyext"])
    kept = shutil.ignore_patterns("__pycache__")
    shutil.copytree(layout / "torch-ext" / package, variant, ignore=kept)
    for path in variant.rglob("*"):
        assert path.is_dir() or path.name.endswith(python), f"{path}: the builder takes no such file along"
    (variant / "_ops.py").write_text(OPS.format(name=name))
    _compile(plan, source, name, folder / "objects", variant / f"{name}.abi3.so")
    return variant


def _compile(plan: dict[str, Any], source: Path, name: str, objects: Path, library: Path) -> None:
    major, minor = map(int, plan["torch"]["stable-abi"]["cpu"].split("."))
    common = ["-std=c++20", "-fPIC", "-fno-gnu-unique", "-DNDEBUG", "-DPy_LIMITED_API=0x03090000", "-DCPU_KERNEL"]
    common += [f"-DTORCH_TARGET_VERSION={major << 56 | minor << 48:#x}", f"-DTORCH_EXTENSION_NAME={name}"]
    common += [f"-I{source / 'csrc'}", f"-I{sysconfig.get_path('include')}"]
    common += [flag for path in include_paths() for flag in ("-isystem", path)]
    jobs = []
    for table in [plan["torch"], *(table for table in plan["kernel"].values() if table["backend"] == "cpu")]:
        own = [*table.get("cxx-flags", []), *(f"-I{source / path}" for path in table.get("include", []))]
        for path in table["src"]:
            if path.endswith(".cpp"):
                # Not its -O3, which takes twice as long; the arithmetic is the same.
                made = objects / f"{path.replace('/', '_')}.o"
                jobs.append([*common, *own, "-O1", "-c", str(source / path), "-o", str(made)])
    objects.mkdir()
    compiler = os.environ.get("CXX") or "c++"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(lambda job: _run(compiler, *job), jobs):
            assert done.returncode == 0, done.stderr[-3000:]
    link = ["-shared", f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    done = _run(compiler, *map(str, sorted(objects.glob("*.o"))), *link, "-o", str(library))
    assert done.returncode == 0, done.stderr[-3000:]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


def symbols(library: Path, which: str) -> set[str]:
    """Names in a library's dynamic table, "--defined-only" or "--undefined-only"."""
    done = _run("nm", "-D", which, str(library))
    assert done.returncode == 0, done.stderr
    return {line.split()[-1].partition("@")[0] for line in done.stdout.splitlines()}
