"""The tables of summary refinement, from its records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.kit.plot import seconds
from bench.kit.record import RESULTS, read
from bench.kit.tables import table

SOURCES = {"ridge": "ridge, disjoint folds, 50 videos", "embedded": "embedded model, 10 held-out videos"}
KEYSHOTS = {
    "random": "random scores, knapsack",
    "knapsack": "plain knapsack",
    "repeats": "knapsack, repeats count less",
    "unlike": "DPP that finds nothing alike",
    "dpp": "**DPP**",
}
PLANS = {"none": "`none`", "knapsack": "`knapsack`", "dpp": "**`dpp`**"}
NOTHING = "Not measured yet."


def _records() -> list[dict[str, Any]]:
    return read(RESULTS / "summary_refinement.jsonl")


def newest_tvsum(source: str, protocol: str) -> list[dict[str, Any]]:
    """The newest record of each way to choose, in the order they were measured in."""
    newest = {
        (r["method"], r["strength"]): r
        for r in _records()
        if r["part"] == "tvsum" and (r["source"], r["protocol"]) == (source, protocol)
    }
    return list(newest.values())


def _ways(protocol: str, names: dict[str, str], versus: str) -> str:
    """F, diversity and their paired differences, for each source of scores."""
    from vtsum.enhance.summary_refinement import STRENGTH

    rows = []
    for source, title in SOURCES.items():
        found = {r["method"]: r for r in newest_tvsum(source, protocol) if r["strength"] in (None, STRENGTH)}
        for method, name in {**names, **{m: m for m in found if m not in names}}.items():
            if (r := found.get(method)) is None:
                continue
            cells = [title, name, f"{100 * r['f'][0]:.1f}", f"{r['diversity'][0]:.3f}"]
            if method == versus:
                cells += ["", ""]
            else:
                cells.append(f"{100 * r['f_difference'][0]:+.1f} ± {100 * r['f_difference'][1]:.1f}")
                cells.append(f"{r['diversity_difference'][0]:+.3f} ± {r['diversity_difference'][1]:.3f}")
            rows.append([*cells, f"{100 * r['budget_used']:.0f}%"])
    if not rows:
        return NOTHING
    label = names[versus].replace("*", "")
    head = ["scores", "choice", "F", "diversity", f"F against {label}", f"diversity against {label}", "budget used"]
    return table(head, rows)


def keyshots() -> str:
    """Whole shots at TVSum's change points, 15 % of the video."""
    return _ways("keyshots", KEYSHOTS, "knapsack")


def plans() -> str:
    """Our own shots and clips, as `vtsum summarize` makes them."""
    return _ways("plan", PLANS, "none")


def smoothing() -> str:
    """Rank correlations of smoothed scores; all strengths are in the records."""
    newest = {(r["source"], r["method"], r["strength"]): r for r in _records() if r["part"] == "smoothing"}
    rows = []
    for (source, method, strength), r in newest.items():
        if (method, strength) not in (("none", 0.0), ("tv", 0.1), ("gaussian", 2.0)):
            continue
        name = (
            "as they are"
            if method == "none"
            else f"{'total variation' if method == 'tv' else 'Gaussian'}, {strength:g}"
        )
        change = "" if method == "none" else f"{r['tau_difference'][0]:+.3f} ± {r['tau_difference'][1]:.3f}"
        rows.append([SOURCES[source], name, f"{r['tau'][0]:.3f}", f"{r['rho'][0]:.3f}", change])
    return table(["scores", "smoothed", "tau", "rho", "tau, paired difference"], rows) if rows else NOTHING


def procedural() -> str:
    """What plans of drawn videos show of their planted events."""
    newest = {r["method"]: r for r in _records() if r["part"] == "procedural"}
    rows = [
        [
            name,
            f"{r['shown_s']:.2f} s",
            f"{r['least_s']:.2f} s",
            f"{r['events_missed']} of {r['events']}",
            f"{100 * r['share_in_events']:.0f}%",
        ]
        for method, name in PLANS.items()
        if (r := newest.get(method)) is not None
    ]
    head = ["choice", "shown of an event, mean", "least", "events missed", "of the summary, in events"]
    return table(head, rows) if rows else NOTHING


def timing() -> str:
    """Seconds of greedy_map."""
    newest = {tuple(r["shape"].values()): r for r in _records() if r["part"] == "timing"}
    if not newest:
        return NOTHING
    rows = [
        [
            f"{r['shape']['k']} of {r['shape']['N']:,}, {r['shape']['C']} columns",
            seconds(r["processor_s"]["p50"]),
            seconds(r["wall_s"]["p50"]),
            str(r["picks_unlike_the_naive"]),
        ]
        for r in newest.values()
    ]
    last = list(newest.values())[-1]
    where = f"Medians. {last['device']}, NumPy {last['versions']['numpy']}, load before {last['load_before']:g}."
    return (
        table(["greedy_map, Gaussian", "processor time", "wall time", "picks unlike the naive search's"], rows)
        + f"\n\n{where}"
    )


TABLES: dict[str, Callable[[], str]] = {
    "summary_refinement_keyshots": keyshots,
    "summary_refinement_plans": plans,
    "summary_refinement_procedural": procedural,
    "summary_refinement_smoothing": smoothing,
    "summary_refinement_timing": timing,
}
