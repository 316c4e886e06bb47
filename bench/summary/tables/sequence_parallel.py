"""The tables of attention over several ranks, within windows and to all frames, from their records."""

from __future__ import annotations

from bench.kit.plot import seconds
from bench.kit.tables import Records, Tables, newest, records, table

WAYS = {"halo": "halo (ours)", "ulysses": "Ulysses", "gather": "k and v gathered"}
ALL = {"heads": "frames for heads (ours)", "ring": "ring", "gather": "k and v gathered"}


def sequence_parallel(lines: Records | None = None) -> str:
    """The newest record of each number of ranks, length and way: time and what a rank hands over."""
    windows = [line for line in records("sequence_parallel", lines) if line["window"] is not None]
    return _table(windows, WAYS)


def full_attention(lines: Records | None = None) -> str:
    """The same of attention to all frames."""
    whole = [line for line in records("sequence_parallel", lines) if line["window"] is None]
    return _table(whole, ALL)


def _table(lines: Records, names: dict[str, str]) -> str:
    found = newest(lines, "ranks", "shape", "way")
    rows = []
    for ranks, shape in sorted({(ranks, shape) for ranks, shape, _ in found}):
        ways = {way: found.get((ranks, shape, way)) for way in (*names, "alone")}
        cells = []
        for way in names:
            line = ways[way]
            if line is None or line["s"] is None:
                cells.append("" if line is None else "wrong numbers")
            else:
                cells.append(f"{seconds(line['s'])} · {line['sent_bytes'] / 2**20:.2f} MiB")
        bare = ways["alone"]
        rows.append([f"{ranks} x {shape[2] // ranks:,} frames", *cells, "" if bare is None else seconds(bare["s"])])
    last = next(reversed(found.values()), None)
    below = last and (
        f"{last['device']}, {last['threads']} cores, a rank a thread, gloo, torch {last['versions']['torch']}, "
        f"{last['dtype']}, commit {last['commit']}; B 1, H 12, D 64"
        + (f", window {last['window']}." if last["window"] else ".")
    )
    return table(["ranks", *names.values(), "no exchange"], rows, below or "")


TABLES: Tables = {"sequence_parallel": sequence_parallel, "sequence_parallel_all": full_attention}
