"""The table of docs/protocols.md: one saliency under every protocol."""

from __future__ import annotations

from bench.kit.tables import NOTHING, Records, Tables, records, table


def protocols(lines: Records | None = None) -> str:
    """F1 of the same scores, a column a protocol, and the share of frames that each takes for the summary."""
    found = records("protocols", lines)
    if not found:
        return NOTHING
    last = found[-1]
    names = list(last["revisions"])
    head = ["scores", *(f"F1, {name}" for name in names), *(f"frames chosen, {name}" for name in names)]
    rows = []
    for one in last["rows"]:
        f1 = [f"{100 * value:.1f} ± {100 * error:.1f}" for value, error in (one["f1"][name] for name in names)]
        chosen = [f"{100 * one['chosen'][name][0]:.0f}%" for name in names]
        rows.append([one["name"], *f1, *chosen])
    numbered = ", ".join(f"{name} {revision}" for name, revision in last["revisions"].items())
    below = (
        f"Split {last['split']} of {last['data']}, {last['videos']} videos; F1 times 100, the mean over videos ± its "
        f"standard error; revisions: {numbered}. `python -m bench.summary.walkthrough`, commit {last['commit']}."
    )
    return table(head, rows, below)


TABLES: Tables = {"protocols": protocols}
