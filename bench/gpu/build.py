"""Builds both compiled libraries for this machine's GPU alone, side by side, and puts what was built into the tree.

A library that cannot be built is a failed line; one of an earlier build is taken away then, since it is not what is to
be measured. In a dry run the same steps leave both libraries out.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from bench.gpu.stage import Context, Done, Line, Program, Result
from bench.kit.record import ROOT

VARIABLES = {"_cpu": "VTSUM_BUILD_CPP", "_cuda": "VTSUM_BUILD_CUDA"}
RECORD = "_build.json"
_LOADED = 'import json, vtsum_kernels as vk; print("found", json.dumps(vk.build_info()["libraries"]))'


def run(context: Context, root: Path = ROOT) -> Iterator[Line]:
    """A line for each library built, then for each library loaded."""
    entries: dict[str, dict[str, Any]] = {}
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
    install(context, entries, context.scratch / "installed" if context.dry_run else root / "kernels" / "vtsum_kernels")
    yield from loaded(context, root)


def made(context: Context, name: str) -> Path:
    """Where setup.py puts a library."""
    return context.scratch / "build" / name / "lib" / "vtsum_kernels"


def start(context: Context, name: str, root: Path) -> Program:
    """setup.py for one library, beside the tree."""
    (made(context, name) / RECORD).unlink(missing_ok=True)
    variables = dict.fromkeys(VARIABLES.values(), "0") | {"MAX_JOBS": str(os.cpu_count() or 1)}
    if not context.dry_run:
        variables[VARIABLES[name]] = "auto"
    if capability := context.facts.get("capability"):
        variables["TORCH_CUDA_ARCH_LIST"] = capability
    lib = made(context, name).parent
    command = [sys.executable, "setup.py", "build_ext", f"--build-lib={lib}", f"--build-temp={lib.with_name('temp')}"]
    return context.start(command, context.left(), variables, root)


def entry_of(context: Context, name: str, done: Done) -> dict[str, Any]:
    """What setup.py wrote down of a library, or why it did not."""
    entry: dict[str, Any] = {}
    with suppress(OSError, ValueError, KeyError):
        entry = json.loads((made(context, name) / RECORD).read_text())["libraries"][name]
    return entry if entry and done.ok else {**entry, "built": False, "reason": f"setup.py: {done.why()}"}


def outcome(context: Context, name: str, entry: dict[str, Any], done: Done) -> Line:
    check = f"build {name}"
    if entry["built"]:
        for_gpu = f" for {entry['architectures']}" if "architectures" in entry else ""
        return Line(check, "ok", f"{done.seconds:.0f} s{for_gpu}, {entry['compiler']}, torch {entry['torch']}")
    return Line(check, "skipped" if context.dry_run and done.ok else "failed", entry["reason"].splitlines()[0])


def install(context: Context, entries: dict[str, dict[str, Any]], target: Path) -> None:
    """Puts libraries and their record where the package looks for them; what is not new does not stay."""
    target.mkdir(parents=True, exist_ok=True)
    for name, entry in entries.items():
        for old in (*target.glob(f"{name}.*so"), *target.glob(f"{name}.*pyd")):
            old.unlink()  # and not written over: a process that has loaded it keeps it
        if entry["built"]:
            shutil.copyfile(made(context, name) / entry["file"], target / entry["file"])
    head = {"python": platform.python_version(), "platform": platform.platform(), "libraries": entries}
    part = target / f"{RECORD}.part"
    part.write_text(json.dumps(head, indent=2) + "\n")
    os.replace(part, target / RECORD)


def loaded(context: Context, root: Path) -> Iterator[Line]:
    """Whether the package in the tree loads its libraries: a library may be built and miss a symbol."""
    path = os.pathsep.join([str(root / "kernels"), os.environ.get("PYTHONPATH", "")])
    done = context.call([sys.executable, "-c", _LOADED], context.left(), {"PYTHONPATH": path}, root)
    context.log(f"--> loading\n{done.output}")
    answer = re.search(r"^found (.*)$", done.output, re.MULTILINE)
    if not (done.ok and answer):
        yield Line("load vtsum_kernels", "failed", done.why())
        return
    for name, state in json.loads(answer[1]).items():
        result: Result = "ok" if state["loaded"] else "absent" if context.dry_run else "failed"
        yield Line(f"load {name}", result, state["reason"] or "")
