"""Write the tables of README.md and docs/*.md, and the plots, from the newest records in bench/results.

    python -m bench.report [--check]

A table stands between `<!-- bench:NAME -->` and `<!-- /bench -->`; nobody edits it by hand. Plots go to bench/results.
`--check` changes nothing and ends with status 1 where a page or a plot is not what the records say. A plot says so
itself: its file holds a digest of what it shows.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from bench.gpu import cost, predictions
from bench.kit import record
from bench.kit.plot import Picture
from bench.kit.tables import Tables
from bench.ops import OPS, tables
from bench.summary.tables import (
    ablation,
    event_segmentation,
    frame_sampling,
    memory_liveness,
    pipeline,
    protocols,
    scale,
    screen_text,
    sequence_parallel,
    speech,
    summary_refinement,
    text_sources,
    topics,
    training_data,
    training_step,
)

README = record.ROOT / "README.md"
SUMMARY = (
    pipeline,
    protocols,
    memory_liveness,
    ablation,
    event_segmentation,
    summary_refinement,
    speech,
    screen_text,
    frame_sampling,
    text_sources,
    topics,
    training_data,
    training_step,
    sequence_parallel,
    scale,
)
PARTS = (*SUMMARY, *(tables(op) for op in OPS), predictions, cost)
TABLES: Tables = {name: make for part in PARTS for name, make in part.TABLES.items()}


def filled(text: str) -> str:
    """The text with every table between its marks made anew."""

    def fill(match: re.Match[str]) -> str:
        if match[1] not in TABLES:
            raise SystemExit(f"bench.report: a table must be one of {', '.join(TABLES)}, got {match[1]}")
        return f"<!-- bench:{match[1]} -->\n{TABLES[match[1]]()}\n<!-- /bench -->"

    return re.sub(r"<!-- bench:(\w+) -->\n.*?<!-- /bench -->", fill, text, flags=re.DOTALL)


def pictures() -> dict[Path, Picture]:
    return {record.RESULTS / name: one for op in OPS for name, one in tables(op).pictures().items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    paths = (README, *sorted((README.parent / "docs").glob("*.md")))
    pages = {page: page.read_text(encoding="utf-8") for page in paths}
    stale: dict[Path, str | Picture] = {
        page: wanted for page, text in pages.items() if (wanted := filled(text)) != text
    }
    stale |= {
        path: picture
        for path, picture in pictures().items()
        if not path.exists() or picture.digest not in path.read_text(encoding="utf-8")
    }
    for path, what in stale.items():
        if options.check:
            print(f"bench.report: {path.name} is not what the records say; run python -m bench.report", file=sys.stderr)
        else:
            path.write_text(what.svg() if isinstance(what, Picture) else what, encoding="utf-8")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
