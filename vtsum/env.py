"""What `vtsum env` prints: the machine, PyTorch, the kernels and why, and the optional packages."""

from __future__ import annotations

import os
import platform
import sys
from importlib import util

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
        lines.append(f"  vtsum[{extra}]".ljust(16) + ", ".join(f"{n} {v or 'missing'}" for n, v in found.items()))
    lines += ["", "models", *_models()]
    return "\n".join(lines)


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
