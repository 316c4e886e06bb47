"""The memory benchmark by its command: what it records, whom it refuses, and what it measures unless told otherwise."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from pathlib import Path
from typing import Any

import pytest

from bench import run
from bench.kit import roofline as yardsticks
from bench.kit.op import Options
from bench.kit.record import contest_key, read
from bench.ops.memory_attention import aims as memory_aims
from bench.ops.memory_attention import cases as memory_retrieval
from bench.ops.memory_attention import plan as memory_plan
from bench.ops.memory_attention import rivals as memory_rivals
from bench.ops.memory_attention.setting import Layer, Setting, least_work

OP = "memory_retrieval"
SIZES = ["--tokens", "40", "--dim", "48", "--slots", "64", "--best", "5"]
SMALL = ["--op", OP, "--device", "cpu", "--seconds", "0.001", *SIZES]


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command limits its process's memory; here the process is the tests'. And a small matrix product will do."""
    monkeypatch.setattr(run, "keep_alive", lambda device: None)
    monkeypatch.setattr(yardsticks, "PRODUCT_SIZE", {"cpu": 64, "cuda": 64})


def measure(output: Path, *words: str, status: int = 0) -> list[dict[str, Any]]:
    assert run.main([*SMALL, "--output", str(output), *words]) == status
    return read(output)


EAGER = "sdpa,matmul,folded,topk_bag,topk_bag_blocks,matmul_topk,matmul_topk_blocks,embedding_bag,index_sum"
TAKING_PART = {
    "fuse": ["product", "vtsum", "sdpa", "matmul", "folded"],
    "projected": ["product", "vtsum", "sdpa", "matmul", "folded"],
    "attention": ["product", "vtsum", "sdpa", "matmul"],
    "topk": ["product", "vtsum", "vtsum_product_keys", "topk_bag", "topk_bag_blocks"],
    "search": ["product", "vtsum", "matmul_topk", "matmul_topk_blocks"],
    "gather": ["copy", "vtsum", "embedding_bag", "index_sum"],
}


def test_every_contestant_gets_a_whole_record(tmp_path: Path) -> None:
    records = measure(tmp_path / "o.jsonl", "--rivals", EAGER, "--dtype", "float32")
    contests: dict[Any, dict[str, Any]] = {}
    for record in records:
        contests.setdefault(contest_key(record), {})[record["name"]] = record
    assert len(contests) == 2 * 6 - 1  # what was found has no gradient
    for (case, direction, *_), held in contests.items():
        assert sorted(held) == sorted(TAKING_PART[case])
        setting = Setting(case, "cpu", "float32", direction, 40, 48, 64, 1, 5 * (case in memory_plan.SPARSE))
        flops = least_work(setting)
        for name, r in held.items():
            assert r["status"] == "ok", r
            time = r["time_us"]
            assert 0 < time["p20"] <= time["p50"] <= time["p80"]
            assert (r["device_type"], r["op"]) == ("cpu", OP)
            assert "faiss-cpu" in r["versions"]
            assert r["shape"] == {"N": 40, "C": 48, "S": 64, "H": 1} | ({"k": 5} if setting.k else {})
            if name not in ("product", "copy"):
                assert 0 < r["rms_ratio"] < 1e-5
                assert r["max_error"] > 0
                assert r["checked_rows"] == 40
            if case == "gather":
                assert "gflop_s" not in r
                assert r["share_of_copy"] == pytest.approx(held["copy"]["time_us"]["p50"] / time["p50"], rel=0.05)
            else:
                assert r["flops"] == (2 * 64**3 if name == "product" else flops)
                assert r["gflop_s"] == pytest.approx(r["flops"] / time["p50"] / 1e3, rel=0.05)
                assert r["share_of_product"] == pytest.approx(r["gflop_s"] / held["product"]["gflop_s"], rel=2e-3)
                assert (r["gb_s"] is None) == (name == "product")
        assert held["vtsum"]["backend"] in ("cpp", "reference")


def test_half_precision_and_heads_and_a_compiled_rival(tmp_path: Path) -> None:
    words = ["--rivals", "sdpa,folded_compiled", "--dtype", "bfloat16", "--heads", "3", "--case", "fuse"]
    records = measure(tmp_path / "o.jsonl", *words)
    assert [(r["name"], r["pass"]) for r in records] == [
        (name, direction)
        for direction in ("fwd", "fwd+bwd")
        for name in ("product", "vtsum", "sdpa", "folded_compiled")
    ]
    assert {r["status"] for r in records} == {"ok"}
    assert {r["shape"]["H"] for r in records} == {3}
    assert all(1e-4 < r["rms_ratio"] < 2.4e-2 for r in records if r["name"] != "product")


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    words = ["--rivals", "sdpa", "--dtype", "float32", "--case", "fuse"]
    first = measure(output, *words, "--passes", "fwd")
    both = measure(output, *words, "--resume")
    assert both[: len(first)] == first
    assert [r["pass"] for r in both] == ["fwd"] * 3 + ["fwd+bwd"] * 3
    assert len({r["run"] for r in both}) == 1


def use(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> None:
    right = next(rival for rival in memory_rivals.RIVALS if rival.name == "matmul")
    monkeypatch.setattr(memory_rivals, "RIVALS", (dataclasses.replace(right, **changed),))


def nearly(setting: Setting) -> Layer:
    right = memory_rivals.matmul(setting)
    return Layer(right.prepare, lambda x, *constants: right.compute(x, *constants) * 1.001)


def test_a_wrong_rival_gets_no_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, make=nearly)
    found = measure(tmp_path / "o.jsonl", "--case", "fuse", "--dtype", "float32")
    wrong = [r for r in found if r["name"] == "matmul"]
    assert [r["status"] for r in wrong] == ["wrong", "wrong"]
    assert all("time_us" not in r and "gflop_s" not in r for r in wrong)
    assert all(r["status"] == "ok" for r in found if r["name"] != "matmul")


def test_our_own_wrong_numbers_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    monkeypatch.setattr(memory_retrieval, "our_layer", lambda setting, backend: nearly(setting))
    found = measure(tmp_path / "o.jsonl", "--case", "fuse", "--dtype", "float32", "--passes", "fwd", status=1)
    assert {r["name"]: r["status"] for r in found} == {"product": "ok", "vtsum": "wrong", "matmul": "ok"}


def test_nobody_is_measured_for_longer_than_the_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    monkeypatch.setattr(memory_retrieval, "LONGEST", 1e-7)
    found = measure(
        tmp_path / "o.jsonl", "--case", "fuse", "--dtype", "float32", "--tokens", "40,80", "--passes", "fwd"
    )
    assert [r["status"] for r in found if r["name"] != "product"] == ["too slow"] * 4
    reasons = [r["reason"] for r in found if r["name"] == "vtsum"]
    assert "a call took" in reasons[0]
    assert "a call would take about" in reasons[1]  # told by the smaller one, without a call


def test_faiss_is_absent_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = measure(tmp_path / "o.jsonl", "--case", "search", "--rivals", "faiss", "--dtype", "float32")
    assert found[-1]["name"] == "vtsum"
    absent = next(r for r in found if r["name"] == "faiss")
    assert (absent["status"], absent["reason"]) == ("absent", "not installed; pip install faiss-cpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rivals", "natten"], "--rivals must be one of sdpa, sdpa_compiled"),
        (["--case", "sweep"], "--case must be one of fuse, projected, attention, topk, search, gather, got sweep"),
        (["--slots", "none"], "--slots must be positive numbers, got none"),
        (["--passes", "bwd"], "--passes must be one of fwd, fwd+bwd, got bwd"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.main([*SMALL, *words])
    assert message in str(stopped.value)


def test_each_op_has_its_own_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--op", OP, "--frames", "40"])
    assert "unrecognized arguments: --frames 40" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run.main(["--op", OP, "--help"])
    listed = capsys.readouterr().out
    assert all(word in listed for word in ("--slots", "--heads", "--best", "--tokens"))


def planned(device: str, **chosen: Any) -> list[Setting]:
    nothing: dict[str, tuple[int, ...]] = dict.fromkeys(memory_plan.NUMBERS, ())
    options: dict[str, Any] = {"cases": (), "dtypes": (), "passes": (), "rivals": (), "words": {}, "numbers": nothing}
    return memory_plan.settings(Options(device, **{**options, **chosen}))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_plan_measures_what_was_aimed_at(device: str) -> None:
    plan, tokens = planned(device), memory_plan.MIDDLE[device]
    assert len(plan) == len(set(plan))
    for dtype, slots, direction in itertools.product(
        ("float32", "bfloat16") if device == "cpu" else ("bfloat16",), memory_aims.AHEAD_OF_SDPA, ("fwd", "fwd+bwd")
    ):
        assert Setting("fuse", device, dtype, direction, tokens, 768, slots) in plan
    assert any(s.heads == 12 and s.slots in memory_aims.AHEAD_WITH_HEADS for s in plan)
    large = {(s.tokens, s.direction) for s in plan if s.case == "topk" and s.slots == memory_aims.TOPK_SLOTS}
    assert {direction for _, direction in large} == {"fwd", "fwd+bwd"}
    assert len({n for n, direction in large if direction == "fwd"}) > 1  # tells how memory grows
    assert {s.case for s in plan} == set(memory_plan.CASES)
    by_case = [memory_plan.CASES.index(s.case) for s in plan]
    assert by_case == sorted(by_case)


def test_choices_narrow_the_plan_and_sizes_replace_it() -> None:
    everything = planned("cpu")
    chosen = planned("cpu", cases=("topk",), dtypes=("bfloat16",), passes=("fwd",))
    assert {(s.case, s.dtype, s.direction) for s in chosen} == {("topk", "bfloat16", "fwd")}
    assert {s.slots for s in chosen} == {s.slots for s in everything if s.case == "topk"}
    numbers = {**dict.fromkeys(memory_plan.NUMBERS, ()), "slots": (8, 16), "heads": (1, 2)}
    sized = planned("cpu", cases=("fuse",), passes=("fwd",), dtypes=("float32",), numbers=numbers)
    assert sorted((s.slots, s.heads, s.tokens) for s in sized) == [(s, h, 4096) for s in (8, 16) for h in (1, 2)]


def test_dry_run_lists_the_gpu_contests_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "o.jsonl"
    assert run.main(["--op", OP, "--device", "cuda", "--dry-run", "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = "fuse fwd+bwd bfloat16 N 16384 C 768 S 256 H 1 97.5 GFLOP"
    assert any(line.startswith(f"{start}: product, vtsum, vtsum_triton, sdpa, ") for line in lines), lines
    assert any(line.startswith("gather fwd bfloat16") and "MiB: copy, vtsum, embedding_bag" in line for line in lines)
    assert not any("faiss" in line for line in lines)
    assert not output.exists()
