"""Python programs in processes of their own that import PyTorch no more: copies of one process that did only that.

To start Python and import PyTorch takes two to four seconds of a processor, and transformers' text models four more:
more than most commands on a small input take for the rest. What is tested before or while PyTorch is imported, by
signals, or on a disk that is full (what is printed goes to files), starts with subprocess as ever; so does, of itself,
what has other variables that libraries read when they are imported.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

FIRST = dict(os.environ)

#: Of variables that they read then.
READ = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TORCH", "XDG_", "HOME", "USE_", "DISABLE_", "TOKENIZERS_")


def run(
    words: Sequence[object],
    *,
    env: Mapping[str, str],
    cwd: Path | str | None = None,
    input: str = "",
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run(words, capture_output=True, text=True)` does for `[sys.executable, FILE or -m MODULE or
    -c CODE, ...]`."""
    interpreter, *command = map(str, words)
    assert interpreter == sys.executable, words
    if _read(env) != _read(FIRST):
        return subprocess.run(
            list(map(str, words)), env=env, cwd=cwd, input=input, timeout=timeout, capture_output=True, text=True
        )
    _start()
    context = multiprocessing.get_context("forkserver")
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{name}" for name in ("in", "out", "err")]
        Path(files[0]).write_text(input, encoding="utf-8")
        process = context.Process(target=_begin, args=(command, dict(env), str(cwd or os.getcwd()), files))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(map(str, words)), timeout or 0.0)
        printed = [Path(file).read_text(encoding="utf-8", errors="replace") for file in files[1:]]
        return subprocess.CompletedProcess(list(map(str, words)), process.exitcode, *printed)


def _read(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ)}


@functools.cache
def _start() -> None:
    """Begin the process that is copied, with the variables that were there before any test set others."""
    now = dict(os.environ)
    os.environ.clear()
    os.environ.update(FIRST)
    try:
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
        forkserver.set_forkserver_preload(["tests.preloaded"])
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(now)


def _begin(command: list[str], env: dict[str, str], cwd: str, files: list[str]) -> None:
    """Run in the new process: what the interpreter does for its command line."""
    flags = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_TRUNC] * 2)
    for number, (file, how) in enumerate(zip(files, flags, strict=True)):
        opened = os.open(file, how, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path.remove(str(Path(__file__).resolve().parent.parent))
    sys.path[:0] = [folder for folder in env.get("PYTHONPATH", "").split(os.pathsep) if folder]
    try:
        _execute(command, cwd)
        code: object = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    # Only now, when nothing holds on to what the command had: a loader's processes end with it, and are waited for.
    atexit._run_exitfuncs()  # which a child of multiprocessing leaves out
    sys.exit(code)  # type: ignore[arg-type]


def _execute(command: list[str], cwd: str) -> None:
    kind, *rest = command
    if kind == "-m":
        sys.path.insert(0, cwd)
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(kind).parent))
        sys.argv = command
        runpy.run_path(kind, run_name="__main__")
