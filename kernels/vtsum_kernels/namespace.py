"""The ops' namespace, and what is compiled for them: all that depends on how the package came, in one place.

From pip it comes under its own name, which is the namespace too; setup.py has built its libraries beside this file and
written down what became of them. From the Hugging Face kernels hub it is one of several builds that a process may
hold, each imported under a name of the loader's choice. The hub's builder adds a module `_ops`: it loads the build's
one library, for the CPU or for CUDA, and says which namespace was compiled into it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

try:
    from ._ops import add_op_namespace_prefix
except ModuleNotFoundError as missing:
    if missing.name != f"{__package__}._ops":
        raise
    FROM_HUB = False

    def add_op_namespace_prefix(op_name: str) -> str:
        """An op's name with its namespace."""
        return f"vtsum_kernels::{op_name}"
else:
    FROM_HUB = True

NAMESPACE = add_op_namespace_prefix("").removesuffix("::")
#: The registered ops: `torch.ops` of the namespace.
OPS: Any = getattr(torch.ops, NAMESPACE)
LIBRARIES = {"_cpu": "CPU", "_cuda": "CUDA"}
"""Each compiled library, and the device that it is for."""

_FOLDER = Path(__file__).resolve().parent


def read_record() -> dict[str, Any]:
    """What setup.py wrote down of the build; nothing where it has not run."""
    try:
        record = json.loads((_FOLDER / "_build.json").read_text())
        return record if isinstance(record, dict) else {}
    except (OSError, ValueError):
        return {}


def load(name: str) -> str | None:
    """Loads the compiled library `name`, "_cpu" or "_cuda": None, or why it is not loaded."""
    return _held(name) if FROM_HUB else _load(name)


def _held(name: str) -> str | None:
    device = LIBRARIES[name]
    known = torch._C._dispatch_get_registrations_for_dispatch_key(device)
    if add_op_namespace_prefix("sliding_window_attention_fwd") in known:
        return None
    return f"this build from the hub has no kernels for {device}"


def _load(name: str) -> str | None:
    entry = read_record().get("libraries", {}).get(name, {})
    if name == "_cuda" and torch.version.cuda is None:
        return entry.get("reason") or "this torch has no CUDA"
    files = sorted([*_FOLDER.glob(f"{name}.*so"), *_FOLDER.glob(f"{name}.*pyd")])
    if not files:
        reason = entry.get("reason", "the package was not installed (pip install .), or not built")
        return f"not built: {reason}"
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 11):
        return f"built for torch 2.11 or later, this is {torch.__version__}"
    try:
        torch.ops.load_library(str(files[0]))
    except OSError as error:
        return f"{files[0].name} does not load: {error}"
    return None
