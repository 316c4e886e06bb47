"""What the GPU check compares, the ops in turns and of each the most telling first: whatever the time allows is a
beginning of this list."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

from bench.kit.comparison import Comparison, Entry
from bench.kit.op import Op, Rival
from bench.kit.record import OURS
from bench.ops import OPS, benchmark

TRITON = f"{OURS}_triton"


@dataclass(frozen=True)
class Planned:
    """A comparison of the plan.

    Args:
        compiled: rivals through torch.compile take part; each costs seconds of the compiler's time.
        few: the only rivals; () stands for all.
    """

    op: Op
    setting: Any
    compiled: bool = True
    few: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return str(self.setting.title)

    @property
    def triton(self) -> bool:
        """Whether our Triton kernels take part by themselves."""
        return self.setting.case in self.op.triton

    def rivals(self) -> tuple[Rival, ...]:
        return tuple(r for r in self.op.against(self.setting, self.few) if self.compiled or not r.compiled)

    def compiling(self) -> list[str]:
        """Those whose first call compiles."""
        return [TRITON] * self.triton + [rival.name for rival in self.rivals() if rival.compiled]

    def comparison(self) -> Comparison:
        return self.op.comparison(self.setting, self.rivals())

    def entry(self, name: str) -> Entry:
        """One of ours, or one rival, alone."""
        rivals = () if name.startswith(OURS) else self.op.against(self.setting, (name,))
        return next(entry for entry in self.op.comparison(self.setting, rivals).entries() if entry.name == name)


def planned(dry_run: bool) -> list[Planned]:
    """The comparisons in the order in which they are made; for a dry run a few tiny ones for the CPU."""
    ops = [benchmark(op) for op in OPS]
    if dry_run:
        return [Planned(op, setting, False, few) for op in ops for setting, few in op.tiny]
    turns = itertools.zip_longest(*([Planned(op, *one) for one in op.gpu] for op in ops))
    return [plan for turn in turns for plan in turn if plan is not None]


def tunable(dry_run: bool) -> list[Planned]:
    """Those that have anything to choose, each kind of call once: both passes of those with two."""
    made: dict[Any, Planned] = {}
    for plan in planned(dry_run):
        kind = dataclasses.replace(plan.setting, direction="")
        if plan.triton and (kind not in made or plan.setting.direction == "fwd+bwd"):
            made[kind] = plan
    return list(made.values())
