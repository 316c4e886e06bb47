"""Which contests the GPU check holds, the most telling first: whatever the time allows is a beginning of this list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.kit.comparison import Contest
from bench.ops.memory_attention import cases as memory_retrieval
from bench.ops.memory_attention.plan import DIM, SPARSE, TOP_K
from bench.ops.memory_attention.rivals import RIVALS as MEMORY_RIVALS
from bench.ops.memory_attention.setting import Setting as MemorySetting
from bench.ops.sliding_window_attention import cases as sliding_window_attention
from bench.ops.sliding_window_attention.rivals import RIVALS as WINDOW_RIVALS
from bench.ops.sliding_window_attention.rivals import Setting as WindowSetting

WINDOW, MEMORY = "sliding_window_attention", "memory_retrieval"
PACKAGES = sliding_window_attention.PACKAGES


@dataclass(frozen=True)
class Planned:
    """A contest of the plan.

    Args:
        compiled: rivals through torch.compile take part; each costs seconds of the compiler's time.
        few: the only rivals; () stands for all.
    """

    op: str
    setting: WindowSetting | MemorySetting
    compiled: bool = True
    few: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        s = self.setting
        dtype = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[s.dtype]
        if isinstance(s, WindowSetting):
            layout = "" if s.layout == "bhtd" else f" {s.layout}"
            return f"window {s.direction} {dtype} B {s.batch} T {s.frames} w {s.window}{layout}"
        best = f" k {s.k}" if s.k else ""
        return f"memory {s.case} {s.direction} {dtype} N {s.tokens} S {s.slots} H {s.heads}{best}"

    @property
    def triton(self) -> bool:
        """Whether our Triton kernels take part by themselves."""
        return self.op == WINDOW or self.setting.case not in SPARSE

    def rivals(self) -> tuple[str, ...]:
        """Who takes part beside us and the yardstick; in the overhead case others than rivals do."""
        if self.setting.case == "overhead":
            return ()
        if isinstance(self.setting, WindowSetting):
            there = [(r.name, r.compiled) for r in WINDOW_RIVALS if self.setting.device in r.devices]
        else:
            case = self.setting.case
            there = [
                (r.name, r.compiled) for r in MEMORY_RIVALS if self.setting.device in r.devices and case in r.cases
            ]
        return tuple(
            name for name, compiled in there if (self.compiled or not compiled) and (not self.few or name in self.few)
        )

    def contest(self, rivals: tuple[str, ...] | None = None) -> Contest:
        names = self.rivals() if rivals is None else rivals
        if isinstance(self.setting, WindowSetting):
            return sliding_window_attention.contest_of(self.setting, names)
        return memory_retrieval.contest_of(self.setting, names)


def _window(direction: str, frames: int = 8192, window: int = 5, **others: object) -> Planned:
    facts: dict[str, object] = {"case": "sweep", "dtype": "bfloat16", "batch": 8, "layout": "bhtd", **others}
    compiled = bool(facts.pop("compiled", True))
    setting = WindowSetting(
        device="cuda",
        direction=direction,
        heads=sliding_window_attention.HEADS,
        dim=sliding_window_attention.DIM,
        frames=frames,
        window=window,
        **facts,  # type: ignore[arg-type]
    )
    return Planned(WINDOW, setting, compiled)


def _memory(
    case: str, direction: str, slots: int, heads: int = 1, tokens: int = 16384, compiled: bool = True
) -> Planned:
    k = TOP_K if case in SPARSE else 0
    setting = MemorySetting(case, "cuda", "bfloat16", direction, tokens, DIM, slots, heads, k)
    return Planned(MEMORY, setting, compiled)


BOTH = "fwd+bwd"


def _full() -> Iterator[Planned]:
    yield _window("fwd")
    yield _window(BOTH)
    yield _memory("fuse", BOTH, 256)
    yield _window("bwd", compiled=False)
    yield _window("fwd", window=33)
    yield _window(BOTH, window=33)
    yield _memory("fuse", BOTH, 64)
    yield _memory("fuse", BOTH, 1024)
    yield _memory("gather", "fwd", 65536, compiled=False)
    yield _memory("topk", "fwd", 65536, tokens=4096, compiled=False)
    yield _window("fwd", window=129)
    yield _window(BOTH, window=129)
    yield _memory("fuse", BOTH, 4096)
    yield _window("fwd", window=17, compiled=False)
    yield _window(BOTH, window=17, compiled=False)
    yield _memory("fuse", "fwd", 256)
    yield _memory("attention", BOTH, 1024, heads=12)
    yield _window("fwd", frames=300, batch=1, compiled=False)
    for direction in ("fwd", BOTH):
        frames = sliding_window_attention.OVERHEAD_FRAMES
        yield _window(direction, frames, case="overhead", batch=1, dtype="float32", compiled=False)
    yield _window(BOTH, layout="bthd", compiled=False)
    yield _memory("topk", BOTH, 65536, tokens=4096, compiled=False)
    yield _memory("gather", BOTH, 65536, compiled=False)
    yield _window(BOTH, dtype="float32", compiled=False)
    yield _memory("fuse", BOTH, 64, heads=12, compiled=False)
    yield _window("fwd", window=257, compiled=False)
    yield _window(BOTH, window=257, compiled=False)
    yield _memory("search", "fwd", 65536, compiled=False)
    yield _memory("projected", BOTH, 256, compiled=False)
    yield _window("fwd", frames=65536, compiled=False)
    yield _window(BOTH, frames=65536, compiled=False)
    yield _window(BOTH, window=9, compiled=False)


def _tiny() -> Iterator[Planned]:
    window: dict[str, object] = {
        "case": "sweep",
        "device": "cpu",
        "dtype": "bfloat16",
        "batch": 1,
        "heads": 1,
        "dim": 16,
    }
    for direction in ("fwd", BOTH):
        setting = WindowSetting(direction=direction, frames=24, window=5, **window)  # type: ignore[arg-type]
        yield Planned(WINDOW, setting, False, ("sdpa_masked", "unfold"))
    yield Planned(MEMORY, MemorySetting("fuse", "cpu", "bfloat16", BOTH, 16, 32, 16, 1), False)
    yield Planned(MEMORY, MemorySetting("gather", "cpu", "bfloat16", "fwd", 64, 32, 64, 1, 4), False)


def planned(dry_run: bool) -> list[Planned]:
    """The contests in the order in which they are held; for a dry run a few tiny ones for the CPU."""
    return list(_tiny() if dry_run else _full())
