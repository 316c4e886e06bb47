"""The tables of docs/SCALE.md: what was measured for an hour of video, and what libraries come to at these rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.kit.tables import NOTHING, Records, Tables, newest, records, table

HOUR = 3600
#: Hours of video: VideoXum's 14,001 videos of 124.2 s (arXiv 2303.12060); a million of ten minutes; 500 hours a minute
#: for a day.
LIBRARIES = {
    "VideoXum: 14,001 videos": 14_001 * 124.2 / HOUR,
    "a million videos of 10 minutes": 1_000_000 / 6,
    "500 hours a minute, each day": 500.0 * 60 * 24,
}
MBIT = 1.2  # of the measured video in a second, at 640 x 360
#: Of an embedding, as `vtsum extract` keeps it: float32.
EMBEDDED_BYTES, BLIP_BYTES = 256 * 4, 768 * 4
PEAK, SHARE = 989e12, 0.4
"""Dense bfloat16 operations a second of an H100 SXM by its data sheet, and the share of it that is supposed here."""


class Rates:
    """What the newest records say: seconds on two cores, for an hour of video at a frame a second."""

    def __init__(self) -> None:
        job = newest(records("summarize"), "shape")[((10, 640, 360, 30),)]
        self.job, self.decode = job["job_s"]["p50"] * 6, job["decode_s"]["p50"] * 6
        encoders = newest([r for r in records("encoder") if r.get("device_type") != "cuda"], "op")
        found = {op[0].removesuffix("_encoder"): r for op, r in encoders.items()}
        self.encode = {name: HOUR / r["frames_a_second"]["p50"] for name, r in found.items()}
        self.flops = {name: HOUR * r.get("flops_a_frame", 0) for name, r in found.items()}
        self.machine = f"{job['device']}, {job['threads']} threads, commit {job['commit']}"
        blip = found["blip"]
        self.other = f"{blip['device']}, {blip['threads']} threads, commit {blip['commit']}"


def measured() -> Rates | None:
    """The rates; None where one of them was not measured."""
    try:
        return Rates()
    except KeyError:
        return None


def number(value: float) -> str:
    """Three digits, and words for what is large."""
    for size, name in ((1e18, " E"), (1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M")):
        if value >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def rates() -> str:
    """Seconds for an hour of video, by step."""
    if (found := measured()) is None:
        return NOTHING
    rows = [
        ["the whole job, listening and reading", number(found.job), number(HOUR / found.job)],
        ["decoding it once", number(found.decode), number(HOUR / found.decode)],
    ]
    names = {"embedded": "embedded encoder, every frame", "blip": "BLIP's ViT-B/16, every frame"}
    rows += [[what, number(found.encode[name]), number(HOUR / found.encode[name])] for name, what in names.items()]
    return table(
        ["step, on two cores", "seconds for an hour of video", "times as fast as it plays"],
        rows,
        f"From `bench.summary.summarize` (10 minutes of 640 x 360; {found.machine}) and `bench.summary.encoder` (one "
        f"frame a second of video; BLIP: {found.other}).",
    )


def libraries() -> str:
    """What the libraries come to."""
    if (found := measured()) is None:
        return NOTHING
    rows = []
    for name, hours in LIBRARIES.items():
        frames = hours * HOUR
        gpu = hours * found.flops["blip"] / (PEAK * SHARE) / HOUR
        rows.append(
            [
                name,
                number(hours),
                number(frames),
                number(hours * HOUR * MBIT * 1e6 / 8) + "B",
                f"{number(frames * EMBEDDED_BYTES)}B · {number(frames * BLIP_BYTES)}B",
                f"{number(hours * found.flops['embedded'])} · {number(hours * found.flops['blip'])}",
                *(number(hours * s / HOUR) for s in (found.job, found.decode, found.encode["blip"])),
                number(gpu),
            ]
        )
    head = [
        "library",
        "hours of video",
        "frames at 1 a second",
        "files",
        "features: embedded · BLIP",
        "operations: embedded · BLIP",
        "machine-hours: whole job",
        "decoding alone",
        "BLIP's encoder",
        "the same on one GPU",
    ]
    return table(head, rows, "A projection: the rates above times the hours; a machine has two cores.")


def many_videos(lines: Records | None = None) -> str:
    """The same short videos by one process, two and Ray: the newest run of each way."""
    found = list(newest(records("many_videos", lines), "way").values())
    if not found:
        return NOTHING
    last = found[-1]
    same: Sequence[dict[str, Any]] = [r for r in found if r["shape"] == last["shape"] and r["commit"] == last["commit"]]
    rows = [
        [
            r["way"],
            f"{r['s']['p50']:.0f} s",
            f"{r['shape']['videos'] / r['s']['p50'] * 60:.0f}",
            f"{max(r['start_s']['p50'], 0):.1f} s",
        ]
        for r in same
    ]
    return table(
        ["way", f"{last['shape']['videos']} videos", "videos a minute", "of it the start"],
        rows,
        f"Videos of {last['shape']['seconds']:g} s, {last['shape']['width']} x {last['shape']['height']}; runs of "
        f"each, in turn: {last['repeats']}. {last['device']}, {last['threads']} threads, load {last['load_before']}, "
        f"ray {last['versions']['ray']}, commit {last['commit']}. `python -m bench.summary.many_videos`.",
    )


TABLES: Tables = {"scale_rates": rates, "scale": libraries, "many_videos": many_videos}
