"""Builds both compiled libraries for this machine's GPU alone, side by side, and puts what was built into the tree.

A library that cannot be built is a failed line; one of an earlier build is taken away then, since it is not what is to
be measured. In a dry run the same steps leave both libraries out, and one small CUDA file is compiled where nvcc is.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.gpu.stage import Context, Done, Line, Program
from bench.kit.record import ROOT

VARIABLES = {"_cpu": "VTSUM_BUILD_CPP", "_cuda": "VTSUM_BUILD_CUDA"}
RECORD = "_build.json"
SMALL = "memory_gather.cu"
"""Of csrc/cuda; compiled in a dry run."""

_LOADED = """
import json, vtsum_kernels as vk
print("found", json.dumps(vk.build_info()["libraries"]))
"""


def run(context: Context, root: Path = ROOT) -> Iterator[Line]:
    """A line for each library built, then for each library loaded; and for the small CUDA file of a dry run."""
    entries: dict[str, Any] = {}
    with ExitStack() as stack:
        running = {name: stack.enter_context(start(context, name, root)) for name in VARIABLES}
        while running:
            for name, program in list(running.items()):
                if (done := program.done()) is not None:
                    del running[name]
                    context.log(f"--> building {name}\n{done.output}")
                    entries[name] = entry_of(context, name, done)
                    yield outcome(context, name, entries[name], done)
            time.sleep(0.1)
    target = context.scratch / "installed" if context.dry_run else root / "kernels" / "vtsum_kernels"
    install(context, {name: entries[name] for name in VARIABLES}, target)
    yield from loaded(context, root)
    if context.dry_run:
        yield small(context, root)


def folder(context: Context, name: str) -> Path:
    return context.scratch / "build" / name


def start(context: Context, name: str, root: Path) -> Program:
    """setup.py for one library, beside the tree."""
    place = folder(context, name)
    (place / "lib" / "vtsum_kernels" / RECORD).unlink(missing_ok=True)
    variables = dict.fromkeys(VARIABLES.values(), "0")
    if not context.dry_run:
        variables[VARIABLES[name]] = "auto"
    if capability := context.facts.get("capability"):
        variables["TORCH_CUDA_ARCH_LIST"] = capability
    variables["MAX_JOBS"] = str(os.cpu_count() or 1)
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(place / "lib")]
    command += ["--build-temp", str(place / "temp")]
    return Program(command, context.left(), {**context.environment, **variables}, root, context.log)


def entry_of(context: Context, name: str, done: Done) -> dict[str, Any]:
    """What setup.py wrote down of a library, or why it did not."""
    try:
        record = json.loads((folder(context, name) / "lib" / "vtsum_kernels" / RECORD).read_text())
        entry = dict(record["libraries"][name])
    except (OSError, ValueError, KeyError):
        return {"built": False, "reason": f"setup.py: {done.why()}"}
    return entry if done.ok else {**entry, "built": False, "reason": f"setup.py: {done.why()}"}


def first_error(output: str) -> str | None:
    """What a compiler complained of first: the rest tends to follow from it."""
    for line in output.splitlines():
        if re.search(r"(\berror\b|fatal error|Error:|undefined reference)", line) and "warning" not in line:
            return line.strip()
    return None


def outcome(context: Context, name: str, entry: dict[str, Any], done: Done) -> Line:
    check = f"build {name}"
    if entry["built"]:
        for_gpu = f" for {entry['architectures']}" if "architectures" in entry else ""
        return Line(check, "ok", f"{done.seconds:.0f} s{for_gpu}, {entry['compiler']}, torch {entry['torch']}")
    if context.dry_run:
        return Line(check, "skipped" if done.ok else "failed", entry["reason"])
    return Line(check, "failed", first_error(done.output) or entry["reason"].splitlines()[0])


def install(context: Context, entries: dict[str, dict[str, Any]], target: Path) -> None:
    """Puts libraries and their record where the package looks for them; what is not new does not stay."""
    target.mkdir(parents=True, exist_ok=True)
    head = {"python": platform.python_version(), "platform": platform.platform(), "libraries": entries}
    for name, entry in entries.items():
        old = {*target.glob(f"{name}.*so"), *target.glob(f"{name}.*pyd")}
        if entry["built"]:
            made = folder(context, name) / "lib" / "vtsum_kernels" / entry["file"]
            replace(made, target / entry["file"])
            old.discard(target / entry["file"])
        for path in old:
            path.unlink()
    with tempfile.NamedTemporaryFile("w", dir=target, suffix=".part", delete=False) as file:
        file.write(json.dumps(head, indent=2) + "\n")
    os.replace(file.name, target / RECORD)


def replace(source: Path, target: Path) -> None:
    """Copies a file whole: a process that has loaded the old one keeps it."""
    temporary = target.with_name(target.name + ".part")
    shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def loaded(context: Context, root: Path) -> Iterator[Line]:
    """Whether the package in the tree loads its libraries: a library may be built and miss a symbol."""
    path = [str(root), str(root / "kernels"), os.environ.get("PYTHONPATH", "")]
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    done = context.call([sys.executable, "-c", _LOADED], context.left(), variables, cwd=root)
    context.log(f"--> loading\n{done.output}")
    answer = [line for line in done.output.splitlines() if line.startswith("found ")]
    if not (done.ok and answer):
        yield Line("load vtsum_kernels", "failed", done.why())
        return
    for name, state in json.loads(answer[-1].removeprefix("found ")).items():
        if state["loaded"]:
            yield Line(f"load {name}", "ok")
        else:
            yield Line(f"load {name}", "absent" if context.dry_run else "failed", state["reason"])


def small(context: Context, root: Path) -> Line:
    """One CUDA file through nvcc, with what its kernels take."""
    check = f"nvcc {SMALL} for sm_90"
    nvcc = (context.facts.get("tools") or {}).get("nvcc")
    if nvcc is None:
        return Line(check, "absent", "nvcc was not found")
    command = [nvcc, "-std=c++17", "-O3", "--expt-relaxed-constexpr", "-arch=sm_90", "-cubin", "-Xptxas", "-v"]
    source, made = next((root / "csrc" / "cuda").rglob(SMALL)), context.scratch / "small.cubin"
    done = context.call([*command, "-Icsrc/include", str(source), "-o", str(made)], context.left(), cwd=root)
    if not done.ok or not made.is_file():
        return Line(check, "failed", first_error(done.output) or done.why())
    registers = max(map(int, re.findall(r"Used (\d+) registers", done.output)), default=0)
    return Line(check, "ok", f"{done.seconds:.0f} s, at most {registers} registers")
