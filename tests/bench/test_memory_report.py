"""The memory benchmark's tables, aims and plots, from records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.kit import record
from bench.kit.record import append
from bench.kit.tables import NOTHING, Records
from bench.ops.memory_attention import tables as attention
from bench.ops.memory_fuse import tables as fuse

FORWARD, BOTH = {"pass": "fwd"}, {"pass": "fwd+bwd"}


def line(
    name: str, micros: float | None, slots: int = 256, frames: int = 4096, heads: int = 1, k: int = 0, **more: Any
) -> dict[str, Any]:
    facts = {
        "op": "some",
        "run": "2026-01-01",
        "case": "fuse",
        "pass": "fwd+bwd",
        "dtype": "float32",
        "shape": {"N": frames, "C": 768, "S": slots, "H": heads} | ({"k": k} if k else {}),
        "name": name,
        "device": "Some CPU",
        "device_type": "cpu",
        "threads": 2,
        "versions": {"torch": "2.13.0"},
        "commit": "abc1234",
        **more,
    }
    if micros is None:
        return {"status": "too slow", "reason": "a call took 12 s", **facts}
    flops = 2 * 2048**3 if name == "product" else 20_000_000_000
    speeds = {"flops": flops, "gflop_s": flops / micros / 1e3, "share_of_product": round(80_000 / micros, 3)}
    times = {"p20": micros, "p50": micros, "p80": micros}
    common = {"status": "ok", "time_us": times, "peak_mib": 30.0, "share_of_copy": None}
    return {**common, **(speeds if facts["case"] != "gather" else {}), **facts}


TOP = {"case": "topk", "slots": 65536, "k": 32}
RECORDS = [
    line("product", 85_000.0),
    line("vtsum", 100_000.0),
    line("sdpa", 250_000.0),
    line("sdpa_compiled", 210_000.0),
    line("folded", 108_000.0),
    line("matmul", 1.0, status="wrong"),
    line("product", 85_000.0, slots=1024),
    line("vtsum", 200_000.0, slots=1024),
    line("sdpa", 280_000.0, slots=1024),
    line("folded", 190_000.0, slots=1024),
    line("vtsum", None, slots=4096),
    line("vtsum", 50_000.0, heads=12, slots=64),
    line("sdpa", 75_000.0, heads=12, slots=64),
    line("vtsum", 60_000.0, case="projected"),
    line("folded", 90_000.0, case="projected"),
    line("vtsum", 40_000.0, case="attention", dtype="bfloat16", **FORWARD),
    line("matmul", 30_000.0, case="attention", dtype="bfloat16", **FORWARD),
    line("vtsum", 200_000.0, frames=1024, **TOP, **FORWARD, peak_mib=210.0),
    line("vtsum_product_keys", 9_000.0, frames=1024, **TOP, **FORWARD),
    line("topk_bag", 700_000.0, frames=1024, **TOP, **FORWARD),
    line("topk_bag_blocks", 660_000.0, frames=1024, **TOP, **FORWARD),
    line("vtsum", 800_000.0, frames=4096, **TOP, **FORWARD, peak_mib=230.0),
    line("topk_bag", None, frames=4096, **TOP, **FORWARD),
    line("topk_bag_blocks", 2_800_000.0, frames=4096, **TOP, **FORWARD),
    line("vtsum", 500_000.0, frames=1024, case="search", slots=65536, k=32, **FORWARD),
    line("faiss", 900_000.0, frames=1024, case="search", slots=65536, k=32, **FORWARD),
    line("copy", 10_000.0, case="gather", slots=65536, k=32, **FORWARD),
    line("vtsum", 12_500.0, case="gather", slots=65536, k=32, share_of_copy=0.8, **FORWARD),
]


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("|")]


def test_dense_tables() -> None:
    text = fuse.dense("memory_fuse", ("fuse", "projected"), "cpu", RECORDS)
    assert rows(text) == [
        ["frames x C", "float32 forward + backward"],
        ["---", "---:"],
        ["4096 x 768, 1 head, 256 slots", "100 ms · 80% · 2.1 x SDPA, compiled · 1.1 x folded"],
        ["4096 x 768, 1 head, 1024 slots", "200 ms · 40% · 1.4 x SDPA · 0.95 x folded"],
        ["4096 x 768, 1 head, 4096 slots", "too slow"],
        ["4096 x 768, 12 heads, 64 slots", "50 ms · 160% · 1.5 x SDPA"],
        ["4096 x 768, 1 head, 256 slots, projected queries, no cosine", "60 ms · 133% · 1.5 x folded"],
    ]
    assert text.endswith("\n\nSome CPU, 2 threads, torch 2.13.0, commit abc1234, 2026-01-01; medians.")
    assert rows(attention.dense("memory_attention", ("attention",), "cpu", RECORDS))[2:] == [
        ["4096 x 768, 1 head, 256 slots", "40 ms · 200% · 0.75 x matmul, softmax, matmul"]
    ]


def test_sparse_tables() -> None:
    read, found, gathered = attention.sparse("cpu", RECORDS).split("; medians.\n\n")
    assert rows(read)[0][1:] == [
        "VTSum",
        "VTSum, product keys",
        "matmul, topk, EmbeddingBag",
        "the same by blocks of rows",
    ]
    assert rows(read)[3] == [
        "4096 x 768, 32 of 65536, float32 forward",
        "800 ms, 230 MiB",
        "",
        "too slow",
        "2.8 s, 30 MiB",
    ]
    assert rows(found)[2][1:] == ["500 ms, 30 MiB", "900 ms, 30 MiB"]
    assert rows(gathered)[0][1:] == ["VTSum", "copying the same bytes"]


@pytest.mark.parametrize("name", [name for name in report.TABLES if name.startswith("memory_") and "_cuda" in name])
def test_without_records_a_table_says_so(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for op in ("memory_attention", "memory_fuse"):
        append(tmp_path / f"{op}.jsonl", *RECORDS)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert report.TABLES[name]() == NOTHING
    assert report.TABLES[name.replace("cuda", "cpu")]() != NOTHING


def aims(lines: Records, device: str = "cpu") -> dict[str, list[str]]:
    found = rows(fuse.aims(device, lines)) + rows(attention.aims(device, lines))
    return {row[0]: row[1:] for row in found}


def starting(found: dict[str, list[str]], start: str) -> list[str]:
    return next(cells for aim, cells in found.items() if aim.startswith(start))


def test_aims_are_held_against_the_records() -> None:
    found = aims(RECORDS)
    assert found["aim at 4096 frames, C 768"] == ["measured", "reached"]
    assert starting(found, "64 slots, 1 head") == ["not measured", ""]
    # Against SDPA's faster form: 210 ms, and not 250.
    assert starting(found, "256 slots, 1 head, float32") == ["2.10", "yes"]
    assert starting(found, "1024 slots, 1 head") == ["1.40", "**no**"]
    assert starting(found, "4096 slots, 1 head") == ["not measured", ""]
    assert starting(found, "64 slots, 12 heads") == ["1.50", "yes"]
    assert starting(found, "never slower than folded eager") == ["0.95", "**no**"]
    assert starting(found, "top-k of 65536 slots, forward:") == ["3.30", "yes"]
    assert starting(found, "top-k of 65536 slots, forward + backward:") == ["not measured", ""]
    # 20 MiB for 3072 frames of 32 x 8 + 768 x 4 bytes.
    assert starting(found, "memory of its forward pass") == [f"{20 * 2**20 / 3072 / 3328:.2f}", "yes"]
    assert not any(aim.startswith("gather") for aim in found)
    stored = [*RECORDS, line("vtsum", 8e5, frames=4096, **TOP, **FORWARD, peak_mib=1000.0)]
    assert starting(aims(stored), "memory of its forward pass")[1] == "**no**"


def test_aims_on_a_gpu_hold_the_gather_against_a_copy() -> None:
    gpu = [{**record, "device_type": "cuda", "device": "Some GPU", "dtype": "bfloat16"} for record in RECORDS]
    found = aims(gpu, "cuda")
    assert starting(found, "gather of the values") == ["0.80", "yes"]
    assert starting(found, "256 slots, 1 head, bfloat16") == ["2.10", "yes"]


def test_pictures_hold_the_times_and_what_a_large_product_would_take() -> None:
    ((name, picture),) = fuse.pictures(RECORDS).items()
    assert name == "memory_fuse_cpu_slots.svg"
    (panel,) = picture.panels
    points = {name: len(line) for name, line in panel.lines.items()}
    assert points == {"vtsum": 2, "product": 2, "sdpa": 2, "sdpa_compiled": 1, "folded": 2}
    speed = 2 * 2048**3 / 85_000e-6
    assert panel.lines["product"] == [(256, pytest.approx(2e10 / speed)), (1024, pytest.approx(2e10 / speed))]
    more = [line("vtsum", 10_000.0, frames=256), line("sdpa", 20_000.0, frames=256)]
    assert sorted(fuse.pictures([*RECORDS, *more])) == ["memory_fuse_cpu_frames.svg", "memory_fuse_cpu_slots.svg"]
