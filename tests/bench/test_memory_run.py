"""The memory benchmark by its command: what it records, and what it measures unless told otherwise."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from bench import run
from bench.kit import roofline
from bench.kit.op import Options
from bench.kit.record import comparison_key, read
from bench.ops import benchmark
from bench.ops.memory_attention import cases
from bench.ops.memory_attention import tables as attention_tables
from bench.ops.memory_attention.setting import Setting, least_work
from bench.ops.memory_fuse import tables as fuse_tables

ATTENTION, FUSE = "memory_attention", "memory_fuse"
SMALL = ["--device", "cpu", "--seconds", "0.001", "--tokens", "40", "--dim", "48", "--slots", "64"]


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command limits its process's memory; here the process is the tests'. And a small matrix product will do."""
    monkeypatch.setattr(run, "limit_memory", lambda device, gib: None)
    monkeypatch.setattr(roofline, "PRODUCT_SIZE", {"cpu": 64, "cuda": 64})


def measure(output: Path, op: str, *words: str) -> list[dict[str, Any]]:
    best = ["--best", "5"] if op == ATTENTION else []
    assert run.main(["--op", op, *SMALL, *best, "--output", str(output), *words]) == 0
    return read(output)


#: Of each op, the cases and who takes part.
TAKING_PART = {
    FUSE: {
        "fuse": ["product", "vtsum", "sdpa", "matmul", "folded"],
        "projected": ["product", "vtsum", "sdpa", "matmul", "folded"],
    },
    ATTENTION: {
        "attention": ["product", "vtsum", "sdpa", "matmul"],
        "topk": ["product", "vtsum", "vtsum_product_keys", "topk_bag", "topk_bag_blocks"],
        "search": ["product", "vtsum", "matmul_topk", "matmul_topk_blocks"],
        "gather": ["copy", "vtsum", "embedding_bag", "index_sum"],
    },
}


@pytest.mark.parametrize("op", [ATTENTION, FUSE])
def test_everyone_gets_a_whole_record(op: str, tmp_path: Path) -> None:
    eager = [rival.name for rival in benchmark(op).rivals if not rival.compiled and rival.name != "faiss"]
    records = measure(tmp_path / "o.jsonl", op, "--rivals", ",".join(eager), "--dtype", "float32")
    comparisons: dict[Any, dict[str, Any]] = {}
    for record in records:
        comparisons.setdefault(comparison_key(record), {})[record["name"]] = record
    assert len(comparisons) == {FUSE: 2 * 2, ATTENTION: 2 * 4 - 1}[op]  # what was found has no gradient
    for (case, direction, *_), compared in comparisons.items():
        assert sorted(compared) == sorted(TAKING_PART[op][case])
        setting = Setting(case, "cpu", "float32", direction, 40, 48, 64, 1, 5 * (case in cases.SPARSE))
        flops = least_work(setting)
        for name, r in compared.items():
            assert r["status"] == "ok", r
            time = r["time_us"]
            assert 0 < time["p20"] <= time["p50"] <= time["p80"]
            assert (r["device_type"], r["op"]) == ("cpu", op)
            assert r["shape"] == {"N": 40, "C": 48, "S": 64, "H": 1} | ({"k": 5} if setting.k else {})
            if name not in ("product", "copy"):
                assert 0 < r["rms_ratio"] < 1e-5
                assert r["max_error"] > 0
                assert r["checked_rows"] == 40
            if case == "gather":
                assert "gflop_s" not in r
                assert r["share_of_copy"] == pytest.approx(compared["copy"]["time_us"]["p50"] / time["p50"], rel=0.05)
            else:
                assert r["flops"] == (2 * 64**3 if name == "product" else flops)
                assert r["gflop_s"] == pytest.approx(r["flops"] / time["p50"] / 1e3, rel=0.05)
                assert r["share_of_product"] == pytest.approx(r["gflop_s"] / compared["product"]["gflop_s"], rel=2e-3)
                assert (r["gb_s"] is None) == (name == "product")
        assert compared["vtsum"]["backend"] in ("cpp", "reference")


def test_half_precision_and_heads_and_a_compiled_rival(tmp_path: Path) -> None:
    words = ["--rivals", "sdpa,folded_compiled", "--dtype", "bfloat16", "--heads", "3", "--case", "fuse"]
    records = measure(tmp_path / "o.jsonl", FUSE, *words)
    assert [(r["name"], r["pass"]) for r in records] == [
        (name, direction)
        for direction in ("fwd", "fwd+bwd")
        for name in ("product", "vtsum", "sdpa", "folded_compiled")
    ]
    assert {r["status"] for r in records} == {"ok"}
    assert {r["shape"]["H"] for r in records} == {3}
    assert all(1e-4 < r["rms_ratio"] < 2.4e-2 for r in records if r["name"] != "product")


def test_nobody_is_measured_for_longer_than_the_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "LONGEST", 1e-7)
    words = ["--rivals", "matmul", "--case", "fuse", "--dtype", "float32", "--tokens", "40,80", "--passes", "fwd"]
    found = measure(tmp_path / "o.jsonl", FUSE, *words)
    assert [r["status"] for r in found if r["name"] != "product"] == ["too slow"] * 4
    reasons = [r["reason"] for r in found if r["name"] == "vtsum"]
    assert "a call took" in reasons[0]
    assert "a call of a smaller shape took" in reasons[1]


def test_each_op_has_its_own_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--op", FUSE, "--frames", "40"])
    assert "unrecognized arguments: --frames 40" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run.main(["--op", ATTENTION, "--help"])
    listed = capsys.readouterr().out
    assert all(word in listed for word in ("--slots", "--heads", "--best", "--tokens"))


def planned(op: str, device: str, **chosen: Any) -> list[Setting]:
    return list(benchmark(op).settings(Options(device, **chosen)))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_plan_measures_what_was_aimed_at(device: str) -> None:
    plan, tokens = planned(FUSE, device), cases.MIDDLE[device]
    assert len(plan) == len(set(plan))
    for dtype, slots, direction in itertools.product(
        ("float32", "bfloat16") if device == "cpu" else ("bfloat16",), fuse_tables.AHEAD_OF_SDPA[1], ("fwd", "fwd+bwd")
    ):
        assert Setting("fuse", device, dtype, direction, tokens, 768, slots) in plan
    assert any(s.heads == 12 and s.slots in fuse_tables.AHEAD_OF_SDPA[12] for s in plan)
    sparse = planned(ATTENTION, device)
    large = {(s.tokens, s.direction) for s in sparse if s.case == "topk" and s.slots == attention_tables.TOPK_SLOTS}
    assert {direction for _, direction in large} == {"fwd", "fwd+bwd"}
    assert len({n for n, direction in large if direction == "fwd"}) > 1  # tells how memory grows
    for op, found in ((FUSE, plan), (ATTENTION, sparse)):
        by_case = [benchmark(op).cases.index(s.case) for s in found]
        assert by_case == sorted(by_case)
        assert {s.case for s in found} == set(benchmark(op).cases)


def test_choices_narrow_the_plan_and_sizes_replace_it() -> None:
    everything = planned(ATTENTION, "cpu")
    chosen = planned(ATTENTION, "cpu", cases=("topk",), dtypes=("bfloat16",), passes=("fwd",))
    assert {(s.case, s.dtype, s.direction) for s in chosen} == {("topk", "bfloat16", "fwd")}
    assert {s.slots for s in chosen} == {s.slots for s in everything if s.case == "topk"}
    numbers = {"slots": (8, 16), "heads": (1, 2)}
    sized = planned(FUSE, "cpu", cases=("fuse",), passes=("fwd",), dtypes=("float32",), numbers=numbers)
    assert sorted((s.slots, s.heads, s.tokens) for s in sized) == [(s, h, 4096) for s in (8, 16) for h in (1, 2)]


def test_tiny_work_is_compared_with_a_tiny_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a dry run, whose 16-bit product would take minutes on a processor that has none; nothing that is published."""
    monkeypatch.setattr(roofline, "PRODUCT_SIZE", {"cpu": 2048, "cuda": 8192})

    def size(setting: Setting) -> int:
        return roofline.product_size(setting.device, least_work(setting))

    assert [size(setting) for setting, _ in benchmark(FUSE).tiny] == [roofline.TINY_SIZE]
    for device, whole in (("cpu", 2048), ("cuda", 8192)):
        for op in (ATTENTION, FUSE):
            dense = [s for s in benchmark(op).settings(Options(device, quick=True)) if s.case != "gather"]
            assert dense
            assert {size(setting) for setting in dense} == {whole}
