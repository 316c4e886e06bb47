"""Write the tables of the README and of docs/*.md, and the plots, from the newest records in bench/results.

    python -m bench.report [--check]

A table stands between `<!-- bench:NAME -->` and `<!-- /bench -->`; nobody edits it by hand. Plots go to bench/results.
`--check` changes nothing and ends with status 1 where a page or a plot is not what the records say.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any

from bench.gpu import predictions as gpu_report
from bench.kit.record import RESULTS, ROOT, read
from bench.kit.tables import table
from bench.ops.memory_attention import aims as memory_aims
from bench.ops.memory_attention import tables as memory_report
from bench.ops.sliding_window_attention import aims as sliding_window_aims
from bench.ops.sliding_window_attention import tables as sliding_window_report
from bench.summary import memory_liveness
from bench.summary.tables import ablation as ablation_report
from bench.summary.tables import denoising as denoising_report
from bench.summary.tables import event_segmentation as event_segmentation_report
from bench.summary.tables import frame_sampling as frame_sampling_report
from bench.summary.tables import speech as speech_report
from bench.summary.tables import summary_refinement as summary_refinement_report
from bench.summary.tables import training_step as training_step_report

README = ROOT / "README.md"


def newest(name: str, key: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    """The last record of each `key` in results/NAME.jsonl, in order of the key."""
    last = {key(record): record for record in read(RESULTS / f"{name}.jsonl")}
    return [last[k] for k in sorted(last)]


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


def walkthrough() -> str:
    """How long the README's walkthrough took."""
    record = read(RESULTS / "walkthrough.jsonl")[-1]
    minutes, longest = record["total_s"] / 60, max(seconds for _, seconds in record["lines_s"]) / 60
    return (
        f"Run in this order, with the first training stopped after {record['stop_after_s']:.0f} s, this took "
        f"{minutes:.1f} minutes on {record['threads']}\ncores of a shared server, {longest:.1f} of them in the longest "
        "training (`python -m bench.summary.walkthrough`), and came to:"
    )


def synthetic() -> str:
    """The README's walkthrough: what its two evaluations say."""
    from vtsum.evaluation.videoxum_file import read_evaluation
    from vtsum.evaluation.videoxum_table import results_table

    found = [read_evaluation(RESULTS / f"synthetic_{name}.json") for name in ("tt_ca", "memory")]
    return results_table(found, ["TT+CA", "TT+CA+memory"]).strip()


TABLES: dict[str, Callable[[], str]] = {
    "summarize": summarize,
    "encoder": encoder,
    "synthetic": synthetic,
    "walkthrough": walkthrough,
    "memory_liveness": memory_liveness.liveness,
    **sliding_window_report.TABLES,
    "sliding_window_cpu_aims": lambda: sliding_window_aims.aims("cpu"),
    **ablation_report.TABLES,
    **event_segmentation_report.TABLES,
    **summary_refinement_report.TABLES,
    **speech_report.TABLES,
    **denoising_report.TABLES,
    **frame_sampling_report.TABLES,
    **memory_report.TABLES,
    **memory_aims.TABLES,
    **gpu_report.TABLES,
    "training_step_cpu": lambda: training_step_report.training_step("cpu"),
}


def filled(text: str) -> str:
    """The text with every table between its marks made anew."""

    def fill(match: re.Match[str]) -> str:
        if match[1] not in TABLES:
            raise SystemExit(f"bench.report: a table must be one of {', '.join(TABLES)}, got {match[1]}")
        return f"<!-- bench:{match[1]} -->\n{TABLES[match[1]]()}\n<!-- /bench -->"

    return re.sub(r"<!-- bench:(\w+) -->\n.*?<!-- /bench -->", fill, text, flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    pages = [README, *sorted((README.parent / "docs").glob("*.md"))]
    wanted = {page: filled(page.read_text(encoding="utf-8")) for page in pages}
    plots = sliding_window_report.plots() | memory_report.plots()
    wanted |= {RESULTS / name: text for name, text in plots.items()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if options.check:
        for path in stale:
            print(f"bench.report: {path.name} is not what the records say; run python -m bench.report", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
