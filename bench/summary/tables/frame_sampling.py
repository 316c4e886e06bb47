"""Tables and picture of frame sampling, from its records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.kit.plot import pyplot, save
from bench.kit.tables import Records, Tables, change, formatted, newest, records, table

HEAD = ["frames encoded", "which", "tau", "rho", "F", "rho, difference", "F, difference", "cosine", "events"]
SHOWN: dict[float, set[str] | None] = {1.0: {"all"}, 0.25: None, 0.1: {"uniform", "top-k", "coverage"}}
"""The shares, and of each the methods (None: all of them), that the tables have; the picture has the other shares."""
STYLES = {"uniform": ("#4c78a8", "s"), "top-k": ("#e45756", "^"), "coverage": ("#54a24b", "o")}


PLANTED = {
    "sampler": "{method}",
    "frames encoded": "{encoded_share:.0%}",
    "events shown": "{events_shown} of {events}",
    "of their seconds": "{seconds_shown:.0%}",
}
COST = {"one thread": "{what}", "processor time, ms a frame": "{ms_a_frame[p50]:.2f}"}


def _newest(part: str, lines: Records | None = None) -> list[dict[str, Any]]:
    """The last line of each measurement of a part."""
    return list(newest(records("frame_sampling", lines), "method", "what", "share", part=part).values())


def quality(part: str) -> str:
    """tau, rho, F and what the features lose, by share and method."""
    rows = []
    for r in sorted(filter(_shown, _newest(part)), key=lambda r: -r["share"]):
        figures = [f"{r['tau']:.3f}", f"{r['rho']:.3f}", f"{r['f']:.1f}"]
        rest = [
            change(r["rho_difference"], 4),
            change(r["f_difference"], 1),
            f"{r['cosine']:.3f}",
            f"{r['events_f']:.2f}",
        ]
        if r["method"] == "all":
            rows.append(["all", "", *figures, *[""] * len(rest)])
        else:
            rows.append([f"{r['encoded_share']:.1%}", r["method"], *figures, *rest])
    return table(HEAD, rows)


def _shown(r: dict[str, Any]) -> bool:
    methods = SHOWN.get(r["share"], set())
    return methods is None or r["method"] in methods


def planted() -> str:
    """Events shown in a tenth, by sampler."""
    found = {r["method"]: r for r in _newest("planted")}
    return formatted(PLANTED, [found[name] for name in ("all", "uniform", "coverage") if name in found])


def cost() -> str:
    """Milliseconds a frame."""
    return formatted(COST, _newest("cost"))


TABLES: Tables = {
    "frame_sampling_ridge": lambda: quality("ridge"),
    "frame_sampling_embedded": lambda: quality("embedded"),
    "frame_sampling_planted": planted,
    "frame_sampling_cost": cost,
}


def draw(path: Path, lines: Records) -> None:
    """What is lost by share and method, and where the frames are that were chosen of the film."""
    ridge = sorted(_newest("ridge", lines), key=lambda r: r["share"])
    figure = pyplot().figure(figsize=(12, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    panels = (("rho_difference", "rho, difference to all frames"), ("cosine", "cosine to the frame's own features"))
    for column, (name, title) in enumerate((*panels, ("events_f", "events as in all frames, F"))):
        axis = figure.add_subplot(grid[0, column])
        for method, (colour, marker) in STYLES.items():
            found = [r for r in ridge if r["method"] == method]
            across = [100 * r["encoded_share"] for r in found]
            if name == "rho_difference":
                means, errors = [r[name][0] for r in found], [r[name][1] for r in found]
                axis.errorbar(across, means, errors, color=colour, marker=marker, capsize=3, label=method)
            else:
                axis.plot(across, [r[name] for r in found], color=colour, marker=marker, label=method)
        axis.set(title=title, xlabel="frames encoded, %", xscale="log")
        ticks = sorted({100 * r["share"] for r in ridge if r["share"] < 1})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        if column == 0:
            axis.axhline(0, color="#888", linewidth=0.8)
            axis.legend()
    (film,) = _newest("film", lines)
    axis = figure.add_subplot(grid[1, :])
    times = [i / film["fps"] for i in range(len(film["change"]))]
    axis.fill_between(times, film["change"], color="#bbb", linewidth=0, label="change of the thumbnail")
    top = max(film["change"])
    for row, (method, (colour, _)) in enumerate(STYLES.items()):
        picks = [i / film["fps"] for i in film["chosen"][method]]
        axis.eventplot(
            picks, lineoffsets=-top * (0.09 + 0.14 * row), linelengths=0.11 * top, colors=colour, label=method
        )
    axis.set(
        title="the film that comes along: a quarter of its frames", xlabel="seconds", xlim=(0, times[-1]), yticks=[]
    )
    axis.legend(loc="upper right", ncols=4, framealpha=0.95)
    save(figure, path, 100)
