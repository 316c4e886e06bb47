"""What was predicted of the kernels on an H200 before any run, beside what the records of a GPU say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.kit.plot import seconds
from bench.kit.record import OURS, newest_comparisons
from bench.kit.tables import Records, Tables, any_of, best_rival, ratio, records, table, time_of

#: Bytes a second, read and written, that a copy moves on an H200.
COPY = 4.3e12
NOT_YET = "not yet"
WINDOW, ATTENTION, FUSE = "sliding_window_attention", "memory_attention", "memory_fuse"
VIDEO = {"B": 8, "H": 12, "T": 8192, "D": 64}
BANK = {"N": 16384, "C": 768}
FORWARD, BACKWARD, BOTH = "fwd", "bwd", "fwd+bwd"
#: Tensors of [B, H, T, D] that a pass of window attention reads or writes.
TENSORS = {FORWARD: 4, BACKWARD: 7, BOTH: 11}
#: Frames' rows that the sparse retrieval reads.
BEST = 32


@dataclass(frozen=True)
class Prediction:
    """One comparison, and what is expected of it.

    Args:
        floor_us: what the bytes, or the operations, take at the card's speed.
        aim_us: what we aim at; None where only the ratio is aimed at.
        ahead: how many times as long the fastest rival should take at least; None where nothing is promised.
        how: what makes it so.
    """

    what: str
    op: str
    case: str
    direction: str
    shape: Mapping[str, int]
    floor_us: float | None
    aim_us: float | None
    ahead: float | None
    how: str


def _window(direction: str, window: int, ahead: float | None, how: str, aim: float | None = 0.85) -> Prediction:
    elements = VIDEO["B"] * VIDEO["H"] * VIDEO["T"] * VIDEO["D"]
    floor = TENSORS[direction] * elements * 2 / COPY * 1e6
    shape = {**VIDEO, "window": window}
    what = f"window {window}, {direction}"
    return Prediction(what, WINDOW, "sweep", direction, shape, floor, floor / aim if aim else None, ahead, how)


def _fuse(slots: int, heads: int, ahead: float, how: str, floor: float | None = None) -> Prediction:
    shape = {**BANK, "S": slots, "H": heads}
    what = f"memory_fuse, {slots} slots, {heads} head{'s' * (heads > 1)}, {BOTH}"
    return Prediction(what, FUSE, "fuse", BOTH, shape, floor, None, ahead, how)


def _gather() -> Prediction:
    n, c = BANK["N"], BANK["C"]
    moved = (n * BEST * c + n * c) * 2 + n * BEST * 8
    floor = moved / COPY * 1e6
    how = "each row once, 16 bytes a lane, several in flight; EmbeddingBag is reported under 0.4 TB/s"
    what = f"gather of {BEST} of 65536 rows, {FORWARD}"
    shape = {**BANK, "S": 65536, "k": BEST}
    return Prediction(what, ATTENTION, "gather", FORWARD, shape, floor, floor / 0.6, 0.6 * COPY / 0.4e12, how)


def _topk() -> Prediction:
    how = "scores in tiles, a running top-k; the scores of all slots are never stored"
    shape = {"N": 4096, "C": BANK["C"], "S": 65536, "k": BEST}
    what = f"top {BEST} of 65536 slots, 4096 frames, {FORWARD}"
    return Prediction(what, ATTENTION, "topk", FORWARD, shape, 2 * 4096 * 768 * 65536 / 790e12 * 1e6, None, 3.0, how)


RING = "each row of k and v once a strip, in registers; no tensor cores, which score 50 to 76 times the keys"
OWNER = "one kernel, the owner computes; flash-style backward moves 2,192 bytes a row, this one 896"
STRIP = "16-row strips on tensor cores, 32 or 48 keys scored in one pass, no rescaling"
TILE = "64-row tiles as flash attention's, masks on edge tiles only"
FOLD = "one product of inner size C + S in place of 2C; what was retrieved is never formed"
PREDICTIONS = (
    _window(FORWARD, 5, 1.8, RING),
    _window(BACKWARD, 5, 3.6, OWNER),
    _window(BOTH, 5, 3.0, "the two above"),
    _window(FORWARD, 33, 1.5, STRIP),
    _window(BOTH, 33, 2.0, f"{STRIP}; the owner computes"),
    _window(FORWARD, 129, 1.0, TILE, aim=None),
    _window(BOTH, 129, 1.0, f"{TILE}; backward from lse and delta", aim=None),
    _window(FORWARD, 257, None, "compute-bound from here on: torch's flash attention is the right tool", aim=None),
    _fuse(64, 1, 2.0, f"{FOLD}: ideally 2.9 times", floor=119.0),
    _fuse(256, 1, 2.0, f"{FOLD}: ideally 2.4 times"),
    _fuse(1024, 1, 1.5, f"{FOLD}: ideally 1.8 times"),
    _fuse(4096, 1, 1.1, f"{FOLD}: ideally 1.3 times"),
    _fuse(64, 12, 1.2, "folds for as many heads as S < C / (H - 1) allows"),
    _gather(),
    _topk(),
)


def predictions(lines: Mapping[str, Records] | None = None) -> str:
    """A row a prediction, in bfloat16: floor, aim, how far ahead of the fastest rival; and what was measured."""
    rows = []
    for p in PREDICTIONS:
        ours, rival = _measured(p, records(p.op, None if lines is None else lines.get(p.op, [])))
        said = NOT_YET if ours is None else _time(ours)
        ahead = ratio(rival, ours)
        rows.append(
            [
                p.what,
                "" if p.floor_us is None else _time(p.floor_us),
                "" if p.aim_us is None else _time(p.aim_us),
                said,
                "" if p.ahead is None else f"{p.ahead:.2g}",
                NOT_YET if ours is None else "no rival" if ahead is None else f"{ahead:.2f}",
                p.how,
            ]
        )
    head = ["bfloat16", "floor", "aim", "measured", "rival / ours, aim", "measured", "because"]
    return table(head, rows)


def _measured(p: Prediction, lines: Records) -> tuple[float | None, float | None]:
    """Our time and the fastest rival's, where this was measured on a GPU."""
    found: tuple[float | None, float | None] = (None, None)
    for compared in newest_comparisons(lines, "cuda"):
        one = any_of(compared)
        facts = {"case": one["case"], "pass": one["pass"], "dtype": one["dtype"], "layout": one.get("layout", "bhtd")}
        wanted = {"case": p.case, "pass": p.direction, "dtype": "bfloat16", "layout": "bhtd"}
        if facts == wanted and p.shape.items() <= one["shape"].items():
            rival = best_rival(compared)
            found = time_of(compared, OURS), float(rival["time_us"]["p50"]) if rival else None
    return found


def _time(us: float) -> str:
    return seconds(us / 1e6)


TABLES: Tables = {"gpu_predictions": predictions}
