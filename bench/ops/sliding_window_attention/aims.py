"""What was aimed at for sliding-window attention, beside what its records say."""

from __future__ import annotations

from bench.kit.compared import NOTHING, Held, Records, aim_row, best_rival, ratio, time_of
from bench.kit.record import COPY, OURS, newest_contests
from bench.kit.tables import table
from bench.ops.sliding_window_attention.tables import WINDOW, records

#: At window 5 and the length at which all windows were measured.
FORWARD_TIMES_COPY, BOTH_TIMES_COPY, HALF_PRECISION, OVERHEAD, WIDEST_AHEAD = 1.15, 1.5, 1.6, 1.5, 65


def aims(device: str, lines: Records | None = None) -> str:
    """A row an aim: the figure, and whether it was reached."""
    contests = newest_contests(records() if lines is None else lines, device)
    found: dict[tuple[str, str, str, int, int], Held] = {}
    for held in contests:
        one = next(iter(held.values()))
        if one["layout"] == "bhtd":
            shape = one["shape"]
            found[one["case"], one["dtype"], one["pass"], shape["T"], shape["window"]] = held
    swept = [key for key in found if key[0] == "sweep"]
    if not swept:
        return NOTHING
    lengths = {t: len({key[4] for key in swept if key[3] == t}) for t in {key[3] for key in swept}}
    middle = max(lengths, key=lambda t: (lengths[t], -t))

    def at(dtype: str, direction: str) -> Held | None:
        return found.get(("sweep", dtype, direction, middle, WINDOW))

    rows = []
    for direction, limit in (("fwd", FORWARD_TIMES_COPY), ("fwd+bwd", BOTH_TIMES_COPY)):
        plain = at("float32", direction)
        measured = ratio(time_of(plain, OURS), time_of(plain, COPY))
        rows.append(
            aim_row(f"float32 {_said(direction)}: at most {limit} times copying the same bytes", measured, limit)
        )
    for direction in ("fwd", "fwd+bwd"):
        measured = ratio(time_of(at("float32", direction), OURS), time_of(at("bfloat16", direction), OURS))
        aim = f"bfloat16 {_said(direction)}: at least {HALF_PRECISION} times as fast as float32"
        rows.append(aim_row(aim, measured, HALF_PRECISION, least=True))
    for direction in ("fwd", "fwd_recorded", "fwd+bwd"):
        small = [held for key, held in found.items() if key[:3] == ("overhead", "float32", direction)]
        measured = ratio(time_of(small[0], OURS), time_of(small[0], "sdpa")) if small else None
        aim = f"a call at T 32, {_said(direction)}: at most {OVERHEAD} times SDPA's own"
        rows.append(aim_row(aim, measured, OVERHEAD))
    aim = f"ahead of every rival at every window up to {WIDEST_AHEAD}: the fastest rival takes at least 1 times as long"
    rows.append(aim_row(aim, _closest(found, middle), 1.0, least=True))
    return table([f"aim at window {WINDOW}, T {middle}", "measured", "reached"], rows)


def _closest(found: dict[tuple[str, str, str, int, int], Held], length: int) -> float | None:
    """The time of the fastest rival over ours where it comes nearest, over all windows that the aim names."""
    ratios = []
    for (case, _, _, frames, window), held in found.items():
        rival, ours = best_rival(held), time_of(held, OURS)
        if case == "sweep" and frames == length and window <= WIDEST_AHEAD and rival and ours:
            ratios.append(rival["time_us"]["p50"] / ours)
    return min(ratios, default=None)


def _said(direction: str) -> str:
    return {"fwd": "forward", "fwd_recorded": "forward that autograd records", "fwd+bwd": "forward and backward"}[
        direction
    ]
