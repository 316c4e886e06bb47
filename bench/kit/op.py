"""What the benchmark of an op is asked for and made of. An op enters by one line in `bench.ops`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bench.kit.accuracy import RIVAL_SLACK, RMS_BOUND, Errors
from bench.kit.clock import Call
from bench.kit.comparison import Comparison, Entry


@dataclass(frozen=True)
class Options:
    """Empty choices leave the choice to the op's benchmark."""

    device: str
    cases: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """For each of the op's numbers."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each of the op's words."""
    quick: bool = False


@dataclass(frozen=True)
class Rival:
    """What else computes an op. `make` takes the op's setting; it raises Absent, LeftOut or NotImplementedError, with
    the reason."""

    name: str
    make: Callable[[Any], Any]
    cases: tuple[str, ...] = ()
    """() stands for all."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    compiled: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else its records say."""


@dataclass(frozen=True)
class Op:
    """A benchmark. A setting is one of its shapes: a frozen dataclass with case, device, dtype, direction and title."""

    name: str
    quick: str
    """What --quick measures, in words."""
    cases: tuple[str, ...]
    passes: tuple[str, ...]
    numbers: Mapping[str, str]
    """What else may be chosen on the command line: numbers, each with what it is, and words of a list."""
    words: Mapping[str, tuple[str, ...]]
    packages: tuple[str, ...]
    """Whose versions a record says."""
    rivals: Sequence[Rival]
    settings: Callable[[Options], list[Any]]
    """In the order in which they are measured: the small first, since who is slow there is not tried on the large."""
    comparison: Callable[[Any, Sequence[Rival]], Comparison]
    """Of us with these rivals."""
    gpu: Sequence[tuple[Any, bool]]
    """What the GPU check measures, the most telling first, and whether with rivals through torch.compile."""
    tiny: Sequence[tuple[Any, tuple[str, ...]]]
    """What its dry run measures, and against which rivals."""
    triton: tuple[str, ...]
    """The cases of which we have Triton kernels."""

    def against(self, setting: Any, names: Sequence[str] = ()) -> tuple[Rival, ...]:
        """The rivals of a setting, those of these names; () stands for all."""
        return tuple(
            rival
            for rival in self.rivals
            if setting.device in rival.devices
            and (not rival.cases or setting.case in rival.cases)
            and (not names or rival.name in names)
        )


def entry_of(
    rival: Rival,
    setting: Any,
    start: Callable[[], Call],
    check: Callable[[tuple[Tensor, ...]], Errors],
    longest: float = math.inf,
) -> Entry:
    """A rival in the comparison of a setting."""
    return Entry(
        rival.name,
        start,
        check,
        RIVAL_SLACK * RMS_BOUND[setting.dtype],
        longest=longest,
        compiled=rival.compiled,
        facts=dict(rival.facts),
    )
