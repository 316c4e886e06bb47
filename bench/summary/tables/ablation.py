"""The ablation tables, from their records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.kit.tables import Records, Tables, change, records, table

NAMES = {
    "everything on": "**everything on**",
    "sampler all": "frame sampling off (`--sampler all`)",
    "sampler uniform": "`--sampler uniform`",
    "segmenter kts": "`--segmenter kts`",
    "segmenter uniform": "event segmentation off (`--segmenter uniform`)",
    "refine knapsack": "`--refine knapsack`",
    "refine none": "refinement off (`--refine none`)",
    "smoothing off": "smoothing of the saliency off",
    "speech off": "speech off (`--no-speech`)",
    "speech known": "speech, with the planted pauses",
    "everything off": "everything off",
    "random saliency": "everything on, random frame scores",
}
TVSUM = {
    "ridge": "ridge, disjoint folds, 50 videos",
    "embedded": "embedded model, 10 held-out videos",
}
Column = tuple[str, str, float, int]  # key, head, scale, digits
ON_TVSUM: tuple[Column, ...] = (
    ("tau", "tau", 1, 3),
    ("rho", "rho", 1, 3),
    ("f", "F of the plan", 100, 1),
    ("diversity", "diversity", 1, 3),
)
ON_DRAWN: tuple[Column, ...] = (
    ("events_shown", "planted events shown, %", 100, 0),
    ("seconds_shown", "seconds shown of each", 1, 2),
    ("boundary_f", "boundary F, ± 0.5 s", 100, 1),
    ("cuts_in_words", "cuts in words, %", 100, 0),
    ("budget_used", "budget used, %", 100, 1),
)


def newest(part: str, lines: Records | None) -> list[dict[str, Any]]:
    """The records of the last run of a part; runs are never mixed, for differences are to the run's own first line."""
    found = [r for r in records("ablation", lines) if r["part"] == part]
    return [r for r in found if r["run"] == found[-1]["run"]]


def cell(record: dict[str, Any], column: Column) -> str:
    """A mean; in brackets its paired difference with the standard error, where anything changed."""
    key, _, scale, digits = column
    value, changed = f"{scale * record['values'][key][0]:.{digits}f}", record["differences"][key]
    return f"{value} ({change(changed, digits, scale)})" if any(changed) else value


def rows(found: list[dict[str, Any]], columns: Sequence[Column]) -> list[list[str]]:
    return [
        [
            NAMES.get(record["variant"], record["variant"]),
            *(cell(record, column) for column in columns),
            f"{100 * record['values']['encoded'][0]:.0f}%",
        ]
        for record in found
    ]


def where(record: dict[str, Any]) -> str:
    return (
        f"Means over videos; in brackets the difference to everything on, paired by video, ± its standard error, where "
        f"there is one. `python -m bench.summary.ablation`, commit {record['commit']}, {record['run'][:10]}."
    )


def said(record: dict[str, Any]) -> str:
    videos, understood = record["videos"], record["understood"]
    heard = "all of them" if understood == videos else f"{understood} of them: in the others listening changes nothing"
    return f"{videos} videos, {record['events']} events; the recogniser understood words in {heard}."


def tvsum(lines: Records | None = None) -> str:
    """Saliency, and plans of 15 %, on TVSum."""
    found = {title: newest(part, lines) for part, title in TVSUM.items()}
    body = [[title, *row] for title, records in found.items() for row in rows(records, ON_TVSUM)]
    last = [records[-1] for records in found.values() if records]
    head = ["scores", "pipeline", *(column[1] for column in ON_TVSUM), "frames encoded"]
    return table(head, body, where(last[-1]) if last else "")


def procedural(lines: Records | None = None) -> str:
    """Plans of 15 % of drawn videos."""
    found = newest("drawn", lines)
    head = ["pipeline", *(column[1] for column in ON_DRAWN), "frames encoded"]
    return table(head, rows(found, ON_DRAWN), f"{said(found[-1])} {where(found[-1])}" if found else "")


TABLES: Tables = {"ablation_tvsum": tvsum, "ablation_procedural": procedural}
