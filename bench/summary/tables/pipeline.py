"""The tables of the whole job, of the frame encoder and of the walkthrough."""

from __future__ import annotations

from bench.kit import record
from bench.kit.tables import NOTHING, Tables, formatted, records

SUMMARIZE = {
    "video, 640 x 360, H.264": "{shape[minutes]} min",
    "whole job": "{job_s[p50]:.1f} s",
    "decoding it once with PyAV": "{decode_s[p50]:.1f} s",
    "ratio": "{ratio:.1f}",
    "peak memory": "{peak_mib:.0f} MiB",
    "runs": "{repeats}",
}
ENCODER = {
    "embedded frame encoder": "{threads} threads, batches of {shape[batch]}",
    "frames a second": "{frames_a_second[p50]:.0f}",
}


OTHER_TOOLS = {
    "job": "{job}",
    "time": "{job_s[p50]:.0f} s",
    "CPU time": "{cpu_s[p50]:.0f} s",
    "video made": "{made_s:.0f} s",
}


def other_tools() -> str:
    """The whole job beside other tools' on the same file, all of the newest run."""
    found = records("other_tools")
    if not found:
        return NOTHING
    last = found[-1]
    rows = [r for r in found if r["commit"] == last["commit"] and r["shape"] == last["shape"]]
    tools = ", ".join(f"{name} {version}" for name, version in last["tools"].items() if version is not None)
    about = (
        f"{last['shape']['seconds'] / 60:.0f} minutes of {last['shape']['width']} x {last['shape']['height']}, H.264; "
        f"runs of each, in turn: {last['repeats']}; {tools}. {last['device']}, {last['threads']} threads, load "
        f"{last['load_before']} before, commit {last['commit']}. `python -m bench.summary.other_tools`."
    )
    return formatted(OTHER_TOOLS, rows, about)


def summarize() -> str:
    """The whole job against decoding the same file."""
    newest = {r["shape"]["minutes"]: r for r in records("summarize")}
    return formatted(SUMMARIZE, [newest[minutes] for minutes in sorted(newest)])


def encoder() -> str:
    """Frames a second of the embedded encoder."""
    ours = [r for r in records("encoder") if r["op"] == "embedded_encoder" and r.get("device_type") != "cuda"]
    newest = {(r["threads"], r["shape"]["batch"]): r for r in ours}
    about = "; ".join(
        dict.fromkeys(f"{r['device']}, {r.get('cpu_level', '')}, commit {r['commit']}" for r in newest.values())
    )
    return formatted(ENCODER, [newest[key] for key in sorted(newest)], about)


def walkthrough() -> str:
    """How long the walkthrough took."""
    last = records("walkthrough")[-1]
    minutes, longest = last["total_s"] / 60, max(seconds for _, seconds in last["lines_s"]) / 60
    return (
        f"Run in this order, with the first training stopped after {last['stop_after_s']:.0f} s, this took "
        f"{minutes:.1f} minutes on {last['threads']}\ncores of a shared server, {longest:.1f} of them in the longest "
        "training (`python -m bench.summary.walkthrough`), and came to:"
    )


def synthetic() -> str:
    """The walkthrough: what its two evaluations say."""
    from vtsum.evaluation.videoxum_file import read_evaluation
    from vtsum.evaluation.videoxum_table import results_table

    found = [read_evaluation(record.RESULTS / f"synthetic_{name}.json") for name in ("tt_ca", "memory")]
    return results_table(found, ["TT+CA", "TT+CA+memory"]).strip()


TABLES: Tables = {
    "summarize": summarize,
    "other_tools": other_tools,
    "encoder": encoder,
    "walkthrough": walkthrough,
    "synthetic": synthetic,
}
