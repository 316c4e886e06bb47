"""Tables and picture of event segmentation, from its records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.kit.plot import pyplot, save
from bench.kit.tables import Records, Tables, formatted, newest, records, table

NAMES = {
    "kts": "KTS",
    "learned": "boundary head",
    "joint": "joint",
    "cuts": "cuts and dissolves",
    "uniform": "uniform, 5 s",
}
SPEED = {
    "frames, 256-d, segments of 2 to 60": "{shape[T]:,}",
    "KTS": "{seconds:.2f} s",
    "of the processor": "{cpu_seconds:.2f} s",
    "peak memory": "{peak_mib:.0f} MiB",
    "segments found": "{segments:,}",
}
COLORS = {"cut": "#222222", "dissolve": "#2f7ebc", "event": "#d1772b"}


def _newest(case: str, lines: Records | None = None) -> list[dict[str, Any]]:
    """The newest record of each method of a case, in the order of their first."""
    return list(newest(records("event_segmentation", lines), "method", "fps", "shape", case=case).values())


def _where(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    record = rows[-1]
    return f"{record['device']}, load {record['load_before']} before, commit {record['commit']}."


def _best(rows: list[dict[str, Any]]) -> float:
    return max(record["f"] for record in rows)


def _rates(record: dict[str, Any], best: float) -> list[str]:
    precision, recall, f = (f"{100 * record[name]:.1f}" for name in ("precision", "recall", "f"))
    return [precision, recall, f"**{f}**" if record["f"] == best else f]


def planted() -> str:
    """Precision, recall and F on drawn videos, with the recall of each kind of boundary."""
    rows = _newest("planted")
    kinds = rows[0]["counts"] if rows else {}
    plural = {"cut": "hard cuts", "dissolve": "dissolves", "event": "events' edges"}
    head = ["method", "precision", "recall", "F", *(f"recall of {n} {plural[kind]}" for kind, n in kinds.items())]
    body = [
        [
            NAMES.get(record["method"], record["method"]),
            *_rates(record, _best(rows)),
            *(f"{100 * record['recall_of'][kind]:.0f}" for kind in kinds),
        ]
        for record in rows
    ]
    return table(head, body, _where(rows))


def published() -> str:
    """Agreement with the change points that come with TVSum and SumMe."""
    rows = []
    for case, title in (("tvsum", "TVSum, 10 held-out videos"), ("summe", "SumMe, 14 videos")):
        found = _newest(case)
        for rate in sorted({record.get("fps", 1.0) for record in found}):
            group = [record for record in found if record.get("fps", 1.0) == rate]
            where = f"{title}, {rate:g} fps"
            rows += [[where, NAMES[r["method"]], *_rates(r, _best(group))] for r in group]
    return table(["against the change points of", "method", "precision", "recall", "F"], rows)


def speed() -> str:
    """Time and memory of KTS."""
    rows = _newest("speed")
    return formatted(SPEED, sorted(rows, key=lambda record: record["shape"]["T"]), _where(rows))


def draw(path: Path, lines: Records) -> None:
    """One drawn video as every method sees it, and F on all of them; nothing without records."""
    rows = _newest("planted", lines)
    if not rows:
        return
    figure, (left, right) = pyplot().subplots(
        1, 2, figsize=(11, 4.2), width_ratios=(3, 1), layout="constrained", sharey=True
    )
    labels = [NAMES.get(record["method"], record["method"]) for record in rows]
    for time, kind in rows[0]["example_truth"]:
        left.axvline(time, color=COLORS[kind], lw=1.2, alpha=0.75)
    for kind, title in (("cut", "hard cut"), ("dissolve", "dissolve"), ("event", "an event begins or ends")):
        left.plot([], [], color=COLORS[kind], lw=1.2, label=title)
    for y, record in enumerate(rows):
        left.plot(record["example"], [y] * len(record["example"]), "v", color="#3c8c4a", ms=6)
    left.plot([], [], "v", color="#3c8c4a", label="found")
    left.set(xlabel="seconds of one of the drawn videos", yticks=range(len(rows)), yticklabels=labels)
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=4, frameon=False)
    right.barh(range(len(rows)), [100 * record["f"] for record in rows], color="#3c8c4a", height=0.6)
    for y, record in enumerate(rows):
        right.text(100 * record["f"] + 1, y, f"{100 * record['f']:.0f}", va="center")
    right.set(xlabel=f"F within 0.5 s, {rows[0]['videos']} videos", xlim=(0, 105))
    save(figure, path)


TABLES: Tables = {"event_planted": planted, "event_published": published, "event_speed": speed}
