"""What was predicted of the kernels on an H200 before any run, beside what the records of a GPU say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bench.kit.plot import seconds
from bench.kit.record import OURS, newest_comparisons
from bench.kit.tables import Records, Tables, any_of, best_rival, ratio, records, table, time_of

#: Bytes a second, read and written, that a copy moves on an H200, and bfloat16 operations a second of a product.
COPY, PRODUCT = 4.3e12, 790e12
NOT_YET = "not yet"
VIDEO = {"B": 8, "H": 12, "T": 8192, "D": 64}
BANK = {"N": 16384, "C": 768}
FORWARD, BACKWARD, BOTH = "fwd", "bwd", "fwd+bwd"
#: Frames' rows that the sparse retrieval reads, of a bank of so many.
BEST, SLOTS = 32, 65536


class Prediction(NamedTuple):
    """One comparison, and what is expected of it."""

    what: str
    op: str
    case: str
    direction: str
    shape: Mapping[str, int]
    floor_us: float | None
    """What the bytes, or the operations, take at the card's speed."""
    aim: float | None
    """The part of that speed that is aimed at; None where only the ratio is."""
    ahead: float | None
    """How many times as long the fastest rival should take at least; None where nothing is promised."""
    how: str
    """What makes it so."""

    @property
    def aim_us(self) -> float | None:
        return self.floor_us / self.aim if self.floor_us and self.aim else None


def _window(direction: str, window: int, aim: float | None, ahead: float | None, how: str) -> Prediction:
    moved = {FORWARD: 4, BACKWARD: 7, BOTH: 11}[direction] * VIDEO["B"] * VIDEO["H"] * VIDEO["T"] * VIDEO["D"] * 2
    what, shape = f"window {window}, {direction}", {**VIDEO, "window": window}
    return Prediction(what, "sliding_window_attention", "sweep", direction, shape, moved / COPY * 1e6, aim, ahead, how)


def _fuse(slots: int, heads: int, floor: float | None, ahead: float, how: str) -> Prediction:
    what = f"memory_fuse, {slots} slots, {heads} head{'s' * (heads > 1)}, {BOTH}"
    return Prediction(what, "memory_fuse", "fuse", BOTH, {**BANK, "S": slots, "H": heads}, floor, None, ahead, how)


def _sparse(what: str, case: str, frames: int, floor: float, aim: float | None, ahead: float, how: str) -> Prediction:
    shape = {"N": frames, "C": BANK["C"], "S": SLOTS, "k": BEST}
    return Prediction(f"{what}, {FORWARD}", "memory_attention", case, FORWARD, shape, floor, aim, ahead, how)


RING = "each row of k and v once a strip, in registers; no tensor cores, which score 50 to 76 times the keys"
OWNER = "one kernel, the owner computes; flash-style backward moves 2,192 bytes a row, this one 896"
STRIP = "16-row strips on tensor cores, 32 or 48 keys scored in one pass, no rescaling"
TILE = "64-row tiles as flash attention's, masks on edge tiles only"
FOLD = "one product of inner size C + S in place of 2C; what was retrieved is never formed"
EACH_ROW = "each row once, 16 bytes a lane, several in flight; EmbeddingBag is reported under 0.4 TB/s"
RUNNING = "scores in tiles, a running top-k; the scores of all slots are never stored"
#: Bytes of the gather: rows, indices and weights read, results written.
GATHERED = BANK["N"] * ((BEST + 1) * BANK["C"] * 2 + BEST * 8)
PREDICTIONS = (
    _window(FORWARD, 5, 0.85, 1.8, RING),
    _window(BACKWARD, 5, 0.85, 3.6, OWNER),
    _window(BOTH, 5, 0.85, 3.0, "the two above"),
    _window(FORWARD, 33, 0.85, 1.5, STRIP),
    _window(BOTH, 33, 0.85, 2.0, f"{STRIP}; the owner computes"),
    _window(FORWARD, 129, None, 1.0, TILE),
    _window(BOTH, 129, None, 1.0, f"{TILE}; backward from lse and delta"),
    _window(FORWARD, 257, None, None, "compute-bound from here on: torch's flash attention is the right tool"),
    _fuse(64, 1, 119.0, 2.0, f"{FOLD}: ideally 2.9 times"),
    _fuse(256, 1, None, 2.0, f"{FOLD}: ideally 2.4 times"),
    _fuse(1024, 1, None, 1.5, f"{FOLD}: ideally 1.8 times"),
    _fuse(4096, 1, None, 1.1, f"{FOLD}: ideally 1.3 times"),
    _fuse(64, 12, None, 1.2, "folds for as many heads as S < C / (H - 1) allows"),
    _sparse(
        f"gather of {BEST} of {SLOTS} rows", "gather", 16384, GATHERED / COPY * 1e6, 0.6, 0.6 * COPY / 0.4e12, EACH_ROW
    ),
    _sparse(
        f"top {BEST} of {SLOTS} slots, 4096 frames",
        "topk",
        4096,
        2 * 4096 * 768 * SLOTS / PRODUCT * 1e6,
        None,
        3.0,
        RUNNING,
    ),
)


def predictions(lines: Mapping[str, Records] | None = None) -> str:
    """A row a prediction, in bfloat16: floor, aim, how far ahead of the fastest rival; and what was measured."""
    rows = []
    for p in PREDICTIONS:
        ours, rival = _measured(p, records(p.op, None if lines is None else lines.get(p.op, [])))
        floor, aim, said = ("" if us is None else seconds(us / 1e6) for us in (p.floor_us, p.aim_us, ours))
        ahead = ratio(rival, ours)
        measured = NOT_YET if ours is None else "no rival" if ahead is None else f"{ahead:.2f}"
        rows.append([p.what, floor, aim, said or NOT_YET, "" if p.ahead is None else f"{p.ahead:.2g}", measured, p.how])
    return table(["bfloat16", "floor", "aim", "measured", "rival / ours, aim", "measured", "because"], rows)


def _measured(p: Prediction, lines: Records) -> tuple[float | None, float | None]:
    """Our time and the fastest rival's, where this was measured on a GPU."""
    found: tuple[float | None, float | None] = (None, None)
    for compared in newest_comparisons(lines, "cuda"):
        one = any_of(compared)
        facts = (one["case"], one["pass"], one["dtype"], one.get("layout", "bhtd"))
        if facts == (p.case, p.direction, "bfloat16", "bhtd") and p.shape.items() <= one["shape"].items():
            rival = best_rival(compared)
            found = time_of(compared, OURS), float(rival["time_us"]["p50"]) if rival else None
    return found


TABLES: Tables = {"gpu_predictions": predictions}
