"""Who can be compared: baselines, networks of ours and others' reimplemented, and the user's own."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtsum import plugins
from vtsum.errors import VTSumError

if TYPE_CHECKING:
    from vtsum.protocols import Method

ON_TEST = "@test"
"""At the end of a method's name: it is given the test videos to select on, and all training videos to learn from, as
much of the published code does. A leak, shown to measure it."""

BASELINES = ("random", "uniform", "human", "ceiling")
"""Functions of `vtsum.benchmarks.baselines`."""
REFERENCE = "ridge"
ALWAYS = (*BASELINES, REFERENCE)

# Module of this folder, class, and what it is made with; imported where it is asked for: the command's help lists them.
_NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vasnet": ("vasnet", "VASNet", {}),
    "pgl-sum": ("pgl_sum", "PGLSum", {}),
    "dsnet": ("dsnet", "DSNet", {}),
    "vtsum": ("visual_path", "VisualPath", {}),
    **{f"vtsum-window-{size}": ("visual_path", "VisualPath", {"kernel_size": size}) for size in (3, 15, 33, 65)},
    "vtsum-no-local": ("visual_path", "VisualPath", {"kernel_size": None}),
    "vtsum-no-memory": ("visual_path", "VisualPath", {"memory_slots": 0}),
}
NETWORKS = tuple(_NETWORKS)
# In closed form, without seeds: class RidgeSpread of ridge_spread.py, and parts of it alone.
_RIDGES: dict[str, dict[str, bool]] = {
    "ridge-spread": {},
    "ridge-spread-as-is": {"reshape": False},
    "ridge-log-ranks": {"spread": False},
    "ridge-by-video": {"spread": False, "reshape": False},
}
RIDGES = tuple(_RIDGES)
_SEEDED = ("random",)


@dataclass(frozen=True)
class Entry:
    """A method that is to be compared.

    Attributes:
        name: with `ON_TEST`, where it is selected so.
        code: the SHA-256 of the file that its class stands in: a row of an older form is not to be taken for one of
            this. None: a baseline.
    """

    name: str
    code: str | None

    @property
    def on_test(self) -> bool:
        return self.name.endswith(ON_TEST)

    @property
    def seeded(self) -> bool:
        """Whether another seed may give another result."""
        return self.name in _SEEDED or self.name not in (*ALWAYS, *RIDGES)

    @property
    def is_network(self) -> bool:
        """Whether it is one of ours, which compute where they are told to."""
        return self.name.removesuffix(ON_TEST) in NETWORKS

    @property
    def is_users(self) -> bool:
        """Whether the class is none of ours."""
        return self.name.removesuffix(ON_TEST) not in (*ALWAYS, *RIDGES, *NETWORKS)

    @property
    def learns(self) -> bool:
        return self.name not in BASELINES

    def make(self, device: str) -> Method:
        """The method, new and untrained."""
        return _make(self.name.removesuffix(ON_TEST), device)


def entry_of(name: str, device: str) -> Entry:
    """The method that a name stands for, tried once.

    Raises:
        VTSumError: there is none of that name, or it is not as `vtsum.protocols.Method` asks.
    """
    plain = name.removesuffix(ON_TEST)
    if plain != name and plain in (*ALWAYS, *RIDGES):
        raise VTSumError(f"benchmark: method must be without {ON_TEST} where nothing is selected, got {name}")
    if plain in BASELINES:
        return Entry(name, None)
    source = inspect.getsourcefile(type(_make(plain, device)))
    return Entry(name, hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else None)


def _make(name: str, device: str) -> Any:
    if name == REFERENCE:
        return import_module("vtsum.benchmarks.ridge").Ridge()
    if name in _RIDGES:
        return import_module("vtsum.benchmarks.ridge_spread").RidgeSpread(**_RIDGES[name])
    if name in _NETWORKS:
        module, kind, settings = _NETWORKS[name]
        return getattr(import_module(f"vtsum.benchmarks.{module}"), kind)(device=device, **settings)
    made = plugins.find("method", name)
    if made is None:
        raise VTSumError(
            f"benchmark: method must be one of {', '.join((*ALWAYS, *RIDGES, *NETWORKS))}, module:Class or the name of "
            f"an entry point of {plugins.group('method')}, got {name!r:.60}"
        )
    return made
