"""Parts of the user's own: found by `module:Class`, or by the name under which an installed package offers them.

What is named here is code that runs. So a name is taken from the user alone (the command line, a function's argument,
a configuration of their own), never from a file that a stranger may have made, such as a model's config.json.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from importlib import metadata
from typing import Any

from vtsum import protocols
from vtsum.errors import VTSumError

KINDS: dict[str, type] = {
    "recogniser": protocols.Recogniser,
    "segmenter": protocols.Segmenter,
    "model": protocols.Summarizer,
    "captioner": protocols.Captioner,
    "writer": protocols.Writer,
    "encoder": protocols.FrameEncoder,
    "loss": protocols.Loss,
    "metric": protocols.Metric,
    "tracker": protocols.Tracker,
    "callback": protocols.Callback,
    "method": protocols.Method,
}
_CLASS = re.compile(r"(?<![\w.])[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def group(kind: str) -> str:
    """The entry-point group of a kind: "loss" -> "vtsum.losses"."""
    return f"vtsum.{kind}{'es' if kind.endswith('s') else 's'}"


def find(kind: str, name: str) -> Any | None:
    """The part of a kind that `name` stands for, made anew; None where it is no plug-in's name.

    Args:
        kind: one of KINDS.
        name: "module:Class", the module in the current folder or wherever Python finds it, or an entry point's name.
    Raises:
        VTSumError: the module or its class cannot be had or made, or it lacks what `vtsum.protocols` asks for.
    """
    if _CLASS.fullmatch(name):
        module, _, attribute = name.partition(":")
        part = _made(kind, name, lambda: getattr(_module(module), attribute))
    else:
        offered = [point for point in metadata.entry_points(group=group(kind)) if point.name == name]
        if not offered:
            return None
        part = _made(kind, name, offered[0].load)
    lacking = [member for member in _members(KINDS[kind]) if not hasattr(part, member)]
    if lacking:
        raise VTSumError(
            f"{kind}: {name} must have what vtsum.protocols.{KINDS[kind].__name__} lists, got none of its "
            f"{', '.join(lacking)}"
        )
    return part


def find_class(kind: str, name: str, base: type) -> type:
    """The class that `name` stands for, not made: of a kind whose parts are made with arguments.

    Args:
        kind: begins messages and names the entry-point group. name: as for `find`. base: what it derives from.
    Raises:
        VTSumError: it cannot be had, or derives from something else.
    """
    try:
        if _CLASS.fullmatch(name):
            module, _, attribute = name.partition(":")
            found = getattr(_module(module), attribute)
        else:
            offered = [point for point in metadata.entry_points(group=group(kind)) if point.name == name]
            found = offered[0].load() if offered else None
    except VTSumError:
        raise
    except Exception as error:  # whatever a stranger's module raises while it is imported
        raise VTSumError(
            f"{kind}: {name} must be a class that can be imported, got {type(error).__name__}: {error}"
        ) from error
    if found is None:
        raise VTSumError(f"{kind}: must be module:Class or the name of an entry point of {group(kind)}, got {name!r}")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise VTSumError(f"{kind}: {name} must derive from {base.__module__}.{base.__name__}, got {found!r:.80}")
    return found


def check_vouched(kind: str, name: str, where: str) -> None:
    """Refuse a class that only a file names: that of a stranger would have code run. `where` names the file.

    Raises:
        VTSumError: it is "module:Class", and no installed package offers it.
    """
    if _CLASS.fullmatch(name) and not is_installed(kind, name):
        raise VTSumError(
            f"{where}: {kind} must not be a class that neither you name nor an installed package offers as an entry "
            f"point of {group(kind)}, got {name!r:.80}"
        )


def is_installed(kind: str, name: str) -> bool:
    """Whether an installed package offers "module:Class" under some name: whoever installed it lets it run."""
    return any(point.value == name for point in metadata.entry_points(group=group(kind)))


def make(kind: str, name: str) -> Any:
    """`find`, where nothing else than the user's own is of this kind."""
    part = find(kind, name)
    if part is None:
        raise VTSumError(f"{kind}: must be module:Class or the name of an entry point of {group(kind)}, got {name!r}")
    return part


def _made(kind: str, name: str, load: Any) -> Any:
    try:
        return load()()
    except VTSumError:
        raise
    except Exception as error:  # whatever a stranger's module raises while it is imported or made
        raise VTSumError(
            f"{kind}: {name} must be a class that can be imported and made without arguments, got "
            f"{type(error).__name__}: {error}"
        ) from error


def _module(name: str) -> Any:
    # A console script's path begins with the folder of the script. Last: it hides no module of another's.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    return importlib.import_module(name)


def _members(protocol: type) -> list[str]:
    return [*protocol.__annotations__, *(name for name in vars(protocol) if not name.startswith("_"))]
