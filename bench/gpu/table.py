"""The table at the end of the GPU check, in Markdown, of under 60 lines whatever happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.gpu.stage import Line
from bench.kit.tables import table

LIMIT = 59
#: What gives way first, from the end, where there are too many rows.
ORDER = ("failed", "measured", "absent", "skipped", "ok")


def shorter(text: str, width: int = 160) -> str:
    """For a row; the whole of it stands in check.jsonl."""
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) <= width else text[: width - 3] + "..."


def rank(line: Line) -> int:
    measured = line.result == "ok" and (line.share_of_roofline, line.ratio_to_best_rival) != (None, None)
    return ORDER.index("measured" if measured else line.result)


def row(part: str, line: Line) -> list[str]:
    result = line.result if not line.detail else f"{line.result}: {shorter(line.detail)}"
    share = "" if line.share_of_roofline is None else f"{line.share_of_roofline:.0%}"
    ratio = "" if line.ratio_to_best_rival is None else f"{line.ratio_to_best_rival:.2f}"
    return [shorter(f"{part}: {line.check}", 100), share, ratio, result]


def final(head: Sequence[str], lines: Sequence[tuple[str, Line]], steps: Sequence[str] = ()) -> str:
    """The facts, one row a line as far as there is room, the sum of it, and what to do next.

    Where the lines are too many, those that passed without a number are left out first, then those that were skipped or
    absent; how many is said.
    """
    counts = Counter(line.result for _, line in lines)
    # Blank lines around the table, its own head, what is left out, the total.
    room = LIMIT - len(head) - 2 - 2 - 2 - len(steps)
    first = sorted(range(len(lines)), key=lambda i: (rank(lines[i][1]), i))
    rows = [row(*lines[i]) for i in sorted(first[:room])]
    said = [*(shorter(line, 400) for line in head), ""]
    said += [*table(["check", "share of roofline", "ratio to best rival", "result"], rows).splitlines(), ""]
    if left_out := Counter(lines[i][1].result for i in first[room:]):
        said.append("not shown: " + ", ".join(f"{count} {result}" for result, count in left_out.items()))
    total = ", ".join(f"{counts[result]} {result}" for result in ("ok", "failed", "absent", "skipped"))
    return "\n".join([*said, f"total: {total}", *(f"next: {shorter(step, 300)}" for step in steps)]) + "\n"
