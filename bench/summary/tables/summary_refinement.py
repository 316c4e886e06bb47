"""The tables of summary refinement, from its records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.kit.plot import pyplot, save, seconds
from bench.kit.tables import Records, Tables, change, formatted, newest, records, table

SOURCES = {"ridge": "ridge, disjoint folds, 50 videos", "embedded": "embedded model, 10 held-out videos"}
KEYSHOTS = {
    "random": "random frame scores, plain knapsack",
    "knapsack": "plain knapsack",
    "repeats": "knapsack, repeats count less",
    "unlike": "DPP that finds nothing alike",
    "dpp": "**DPP**",
}
PLANS = {"none": "`none`", "knapsack": "`knapsack`", "dpp": "**`dpp`**"}
SMOOTHED = {("none", 0.0): "as they are", ("tv", 0.1): "total variation, 0.1", ("gaussian", 1.0): "Gaussian, 1"}
TIMING = {
    "greedy_map, Gaussian": "{shape[k]} of {shape[N]:,}, {shape[C]} columns",
    "processor time": "{processor_s}",
    "wall time": "{wall_s}",
    "picks unlike the naive search's": "{picks_unlike_the_naive}",
}


def _newest(part: str, *keys: str, **wanted: Any) -> dict[tuple[Any, ...], dict[str, Any]]:
    return newest(records("summary_refinement"), *keys, part=part, **wanted)


def _tvsum(source: str, protocol: str, lines: Records | None = None) -> list[dict[str, Any]]:
    """The newest record of each way to choose, in the order they were measured in."""
    found = records("summary_refinement", lines)
    return list(newest(found, "method", "strength", part="tvsum", source=source, protocol=protocol).values())


def _ways(protocol: str, names: dict[str, str], versus: str) -> str:
    """F, diversity and their paired differences, for each source of scores."""
    from vtsum.enhance.summary_refinement import STRENGTH

    rows = []
    for source, title in SOURCES.items():
        found = {r["method"]: r for r in _tvsum(source, protocol) if r["strength"] in (None, STRENGTH)}
        for method, name in {**names, **{m: m for m in found if m not in names}}.items():
            if (r := found.get(method)) is None:
                continue
            cells = [title, name, f"{100 * r['f'][0]:.1f}", f"{r['diversity'][0]:.3f}"]
            changes = [change(r["f_difference"], 1, 100), change(r["diversity_difference"], 3)]
            cells += ["", ""] if method == versus else changes
            rows.append([*cells, f"{100 * r['budget_used']:.0f}%"])
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
    rows = []
    for (source, method, strength), r in _newest("smoothing", "source", "method", "strength").items():
        if (name := SMOOTHED.get((method, strength))) is None:
            continue
        changed = "" if method == "none" else change(r["tau_difference"], 3)
        rows.append([SOURCES[source], name, f"{r['tau'][0]:.3f}", f"{r['rho'][0]:.3f}", changed])
    return table(["scores", "smoothed", "tau", "rho", "tau, paired difference"], rows)


def timing() -> str:
    """Seconds of greedy_map."""
    found = list(_newest("timing", "shape").values())
    shown = [{**r, **{name: seconds(r[name]["p50"]) for name in ("processor_s", "wall_s")}} for r in found]
    where = "Medians. {device}, NumPy {versions[numpy]}, load before {load_before:g}."
    return formatted(TIMING, shown, where.format_map(found[-1]) if found else "")


def draw(path: Path, lines: Records) -> None:
    """F against diversity, along the strength of the DPP, beside the knapsack."""
    from vtsum.enhance.summary_refinement import STRENGTH

    figure, panels = pyplot().subplots(1, 2, figsize=(9, 3.9), layout="constrained")
    for panel, (source, title) in zip(panels, SOURCES.items(), strict=True):
        rows = _tvsum(source, "keyshots", lines)
        line = sorted((r for r in rows if r["method"] == "dpp"), key=lambda r: r["strength"])
        xs, ys = [r["diversity"][0] for r in line], [100 * r["f"][0] for r in line]
        panel.plot(xs, ys, "-o", color="#1f6fb4", markersize=4, label="DPP, strength 0.001 to 1,000", zorder=2)
        own = next(r for r in line if r["strength"] == STRENGTH)
        panel.plot(own["diversity"][0], 100 * own["f"][0], "o", color="#1f6fb4", markersize=10, zorder=3)
        place = {"textcoords": "offset points", "xytext": (-8, 7), "ha": "right"}
        panel.annotate(f"default, {STRENGTH:g}", (own["diversity"][0], 100 * own["f"][0]), **place)
        marks = {
            "knapsack": ("plain knapsack", "s", "#c0392b"),
            "repeats": ("knapsack, repeats count less", "D", "#d98e04"),
            "unlike": ("DPP that finds nothing alike", "^", "#5b8c3a"),
        }
        for method, (label, mark, color) in marks.items():
            row = next(r for r in rows if r["method"] == method)
            panel.plot(row["diversity"][0], 100 * row["f"][0], mark, color=color, markersize=8, label=label)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("diversity of the shown frames: mean of 1 - cosine")
        panel.grid(color="#dddddd", linewidth=0.6)
    panels[0].set_ylabel("keyshot F on TVSum, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    save(figure, path)


TABLES: Tables = {
    "summary_refinement_keyshots": keyshots,
    "summary_refinement_plans": plans,
    "summary_refinement_smoothing": smoothing,
    "summary_refinement_timing": timing,
}
