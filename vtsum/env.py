"""What `vtsum env` prints: the machine, PyTorch, the kernels and why, and the optional packages; and what of it a bug
report may carry to strangers."""

from __future__ import annotations

import getpass
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path

from vtsum.extras import extras, version_of
from vtsum.version import __version__


def report() -> str:
    """The whole report, one fact a line."""
    lines = [
        f"vtsum       {__version__} ({os.path.dirname(os.path.abspath(__file__))})",
        f"python      {platform.python_version()} ({sys.executable})",
        f"platform    {platform.platform()}, {os.cpu_count()} cores",
        *_torch(),
        "",
        "kernels",
        *_kernels(),
        "",
        "optional packages",
    ]
    for extra, names in extras().items():
        found = {name: version_of(name) for name in names}
        lines.append(f"  vtsum[{extra}]".ljust(18) + ", ".join(f"{n} {v or 'missing'}" for n, v in found.items()))
    lines += ["", "models", *_models()]
    return "\n".join(lines)


def public_report() -> str:
    """What a bug report needs, one fact a line: versions, the kernels' state, FFmpeg, the hardware. Names of files, of
    users and of the machine are left out, also where an error's words have them."""
    lines = [
        f"vtsum: {__version__}",
        f"python: {platform.python_implementation()} {platform.python_version()}",
        f"system: {platform.system()} {platform.release()}, {' '.join(platform.libc_ver()) or 'no glibc'}",
        f"processor: {_processor()}, {platform.machine()}, {_cores()} cores, {_memory()}",
        *_torch_in_full(),
        *(f"kernels.{line}" for line in _kernels_in_full()),
        *_ffmpeg(),
    ]
    for extra, names in extras().items():
        if extra not in ("dev", "bench"):
            lines.append(f"vtsum[{extra}]: " + ", ".join(f"{n} {version_of(n) or 'missing'}" for n in names))
    lines += [f"model {line.strip()}" for line in _models()]
    told = sorted(name for name in os.environ if name.startswith("VTSUM_"))
    lines.append(f"variables that are set: {', '.join(told) or 'none'}")
    return "\n".join(_anonymous(line) for line in lines)


def _anonymous(line: str) -> str:
    """A line without paths, this user's name and this machine's. A path may hold spaces: all up to the next closing
    mark, colon or bracket goes."""
    line = _without_paths(line)
    for name, kind in ((_user(), "<user>"), (platform.node(), "<host>"), (platform.node().split(".")[0], "<host>")):
        if name:
            line = _renamed(line, name, kind)
    return line


def _without_paths(line: str) -> str:
    made, at = "", 0
    while (slash := min((i for i in (line.find("/", at), line.find("\\", at)) if i >= 0), default=-1)) >= 0:
        start = slash
        while start > at and line[start - 1] not in " \t'\"(=,:":
            start -= 1
        if start - at >= 2 and line[start - 1] == ":" and line[start - 2].isalpha():  # a drive's letter
            start -= 2
        made += line[at:start] + "<path>"
        at = min(
            (i for i in (line.find(mark, slash) for mark in (" (", ": ", ")", "'", '"')) if i >= 0), default=len(line)
        )
    return made + line[at:]


def _renamed(line: str, name: str, kind: str) -> str:
    """The line with `kind` wherever `name` stands by itself, and is no part of a longer word."""
    made, *rest = line.split(name)
    for after in rest:
        beside = made[-1:] + after[:1]
        made += (name if any(letter.isalnum() or letter == "_" for letter in beside) else kind) + after
    return made


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return ""


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "unknown processor"


def _cores() -> str:
    """The cores that this process may use, of those there are."""
    there = os.cpu_count() or 0
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return str(there) if mine == there else f"{mine} of {there}"


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return "memory unknown"


def _torch_in_full() -> list[str]:
    if util.find_spec("torch") is None:
        return ["torch: missing"]
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    lines = [f"torch: {torch.__version__}, {cuda}, {torch.get_num_threads()} threads, {capability}"]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        gpu = torch.cuda.get_device_properties(index)
        lines.append(f"gpu: {gpu.name}, sm_{gpu.major}{gpu.minor}, {gpu.total_memory / 2**30:.1f} GiB")
    return lines if count else [*lines, "gpu: none that this torch can use"]


def _kernels_in_full() -> list[str]:
    if util.find_spec("vtsum_kernels") is None or util.find_spec("torch") is None:
        return ["libraries: none without torch and vtsum_kernels"]
    import vtsum_kernels

    return _flat(vtsum_kernels.build_info())


def _ffmpeg() -> list[str]:
    """The libraries that PyAV brings, and the program, which a test or a user may hold results against."""
    lines = ["libav: missing"]
    if util.find_spec("av") is not None:
        import av

        versions = (f"{name} {'.'.join(map(str, version))}" for name, version in av.library_versions.items())
        lines = [f"libav: PyAV {av.__version__}, {', '.join(versions)}"]
    program = shutil.which("ffmpeg")
    if program is None:
        return [*lines, "ffmpeg: none on the path"]
    try:
        said = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return [*lines, f"ffmpeg: does not run: {type(error).__name__}"]
    found = re.match(r"ffmpeg version (\S+)", said)
    return [*lines, f"ffmpeg: {found[1] if found else 'says no version'}"]


def _torch() -> list[str]:
    if util.find_spec("torch") is None:
        return ["torch       missing: pip install torch"]
    import torch

    lines = [f"torch       {torch.__version__}, {torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        lines += [f"gpu         {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    else:
        lines.append("gpu         none that this torch can use")
    return lines


def _kernels() -> list[str]:
    if util.find_spec("vtsum_kernels") is None:
        return ["  vtsum_kernels is not installed"]
    if util.find_spec("torch") is None:
        return ["  without torch there are none"]
    import vtsum_kernels

    info = vtsum_kernels.build_info()
    return [f"  {line}" for line in _flat(info)]


def _flat(value: object, name: str = "") -> list[str]:
    """Nested facts as `name: value` lines."""
    if isinstance(value, dict):
        return [line for key, inner in value.items() for line in _flat(inner, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value) or "none"
    parts = str(value).splitlines() or [""]
    return [f"{name}: {parts[0]}" if name else parts[0], *(f"    {part}" for part in parts[1:])]


def _models() -> list[str]:
    try:
        from vtsum.model import load

        model = load("embedded")
    except (ValueError, ImportError) as error:  # VTSumError; settings that a library cannot be imported with
        return [f"  embedded: cannot be loaded: {error}"]
    return [f"  embedded: sha256 {model.weights_sha256[:16]}"]
