"""Write the README's tables from the newest records in bench/results.

    python bench/report.py [--check]

A table stands between `<!-- bench:NAME -->` and `<!-- /bench -->`; nobody edits it by hand. `--check` changes nothing
and ends with status 1 where the README is not what the records say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).resolve().parents[1] / "README.md"


def newest(name: str, key: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    """The last record of each `key` in results/NAME.jsonl, in order of the key."""
    path = RESULTS / f"{name}.jsonl"
    last: dict[Any, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        record = json.loads(line)
        last[key(record)] = record
    return [last[k] for k in sorted(last)]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def summarize() -> str:
    """The whole job against decoding the same file."""
    rows = []
    for r in newest("summarize", lambda r: r["shape"]["minutes"]):
        rows.append(
            [
                f"{r['shape']['minutes']} min",
                f"{r['job_s']['p50']:.1f} s",
                f"{r['decode_s']['p50']:.1f} s",
                f"{r['ratio']:.1f}",
                f"{r['peak_mib']:.0f} MiB",
                str(r["repeats"]),
            ]
        )
    head = ["video, 640 x 360, H.264", "whole job", "decoding it once with PyAV", "ratio", "peak memory", "runs"]
    return table(head, rows)


def encoder() -> str:
    """Frames a second of the embedded encoder."""
    rows = [
        [f"{r['threads']} threads, batches of {r['shape']['batch']}", f"{r['frames_a_second']['p50']:.0f}"]
        for r in newest("encoder", lambda r: (r["threads"], r["shape"]["batch"]))
    ]
    return table(["embedded frame encoder", "frames a second"], rows)


TABLES: dict[str, Callable[[], str]] = {"summarize": summarize, "encoder": encoder}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    text = README.read_text(encoding="utf-8")

    def fill(match: re.Match[str]) -> str:
        return f"<!-- bench:{match[1]} -->\n{TABLES[match[1]]()}\n<!-- /bench -->"

    new = re.sub(r"<!-- bench:(\w+) -->\n.*?<!-- /bench -->", fill, text, flags=re.DOTALL)
    if options.check:
        return int(new != text)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
