"""The GPU check's measurements, without a GPU: the plan, the lines, what is read of compilers."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.gpu import child, comparisons, plan, registers
from bench.gpu.stage import Context
from bench.kit import comparison
from bench.kit.kernels import Used, launched, tune_into
from bench.kit.record import ROOT, read
from bench.kit.roofline import Roofline
from bench.ops import OPS

NAMES = ("copy", "vtsum", "sdpa_masked", "unfold")
ROOFLINE = Roofline(4.0e12, {"bfloat16": 800e12, "float32": 50e12})


def context(folder: Path, **changes: Any) -> Context:
    facts: dict[str, Any] = {
        "out": folder / "out",
        "device": "cpu",
        "dry_run": True,
        "deadline": time.monotonic() + 300.0,
        "tune": False,
        "facts": {},
        "scratch": folder / "scratch",
        "run": "a run",
    }
    return Context(**{**facts, **changes})


def record(name: str, p50: float, **changes: Any) -> dict[str, Any]:
    time_us = {"p20": p50 * 0.9, "p50": p50, "p80": p50 * 1.1}
    return {
        "name": name,
        "status": "ok",
        "time_us": time_us,
        "dtype": "bfloat16",
        "moved_bytes": 400_000_000,
        "reason": "",
        **changes,
    }


def test_the_plan_begins_with_what_the_aims_are_about() -> None:
    full = plan.planned(False)
    titles = [one.title for one in full]
    assert len(set(titles)) == len(titles)
    assert 25 <= len(full) <= 34  # with the other parts' lines, the table has fewer than 60
    assert titles[0] == "window fwd bfloat16 B 8 T 8192 w 5"
    assert "memory fuse fwd+bwd bfloat16 N 16384 S 256 H 1" in titles[:4]
    assert {one.op.name for one in full[: len(OPS)]} == set(OPS)
    for one in full:
        assert one.setting.device == "cuda"
        assert one.setting.case in one.op.cases
    cases = {one.setting.case for one in full}
    assert cases >= {"overhead", "sweep", "fuse", "projected", "attention", "topk", "search", "gather"}
    windows = {one.setting.window for one in full if one.op.name == "sliding_window_attention"}
    assert windows >= {5, 9, 17, 33, 129, 257}
    tiny = plan.planned(True)
    assert {one.op.name for one in tiny} == set(OPS)
    assert {one.setting.device for one in tiny} == {"cpu"}


def test_every_rival_the_check_promises_takes_part() -> None:
    full = plan.planned(False)
    window = set(full[0].comparison().names)
    promised = {"copy", "vtsum", "vtsum_triton", "flash_window", "flex_compiled", "shifts_compiled", "unfold_compiled"}
    assert window >= promised | {"sdpa_masked", "natten", "flash_attn"}
    fuse = next(one for one in full if one.setting.case == "fuse")
    assert set(fuse.comparison().names) >= {"product", "vtsum", "vtsum_triton", "sdpa", "sdpa_compiled", "folded"}
    gather = next(one for one in full if one.setting.case == "gather")
    assert set(gather.comparison().names) >= {"copy", "vtsum", "embedding_bag"}
    plain = [one for one in full if not one.compiled]
    assert plain
    assert not any(name.endswith("_compiled") for one in plain for name in one.comparison().names)


def test_the_roofline_is_the_longer_of_bytes_and_operations() -> None:
    assert ROOFLINE.seconds(4_000_000, 0, "bfloat16") == pytest.approx(1e-6)
    assert ROOFLINE.seconds(4_000_000, int(8e9), "float16") == pytest.approx(1e-5)
    assert ROOFLINE.seconds(4_000_000, int(8e9), "float32") == pytest.approx(16e-5)
    assert Roofline.of(ROOFLINE.facts()) == ROOFLINE
    assert Roofline.of({}) is None


def test_a_comparison_s_line() -> None:
    compared = {
        r["name"]: r
        for r in (
            record("copy", 90.0),
            record("vtsum", 125.0, backend="cuda"),
            record("vtsum_triton", 150.0),
            record("flash_window", 400.0),
            record("sdpa", 300.0, status="wrong", reason="much"),
        )
    }
    line = comparisons.line_of("some", compared, ROOFLINE, "memory_fuse")
    assert line.result == "ok"
    assert line.detail == "125 us (112.5 to 137.5) cuda; triton 150; flash_window 400"
    assert line.share_of_roofline == pytest.approx(100 / 125)
    assert line.ratio_to_best_rival == pytest.approx(400 / 125)
    compared["vtsum_triton"] |= {"status": "wrong", "reason": "RMS ratio 1"}
    assert comparisons.line_of("some", compared, ROOFLINE, "memory_fuse").result == "failed"
    assert comparisons.line_of("some", compared, ROOFLINE, "memory_fuse").detail.endswith("triton wrong: RMS ratio 1")
    assert comparisons.line_of("some", compared, ROOFLINE, "memory_fuse").share_of_roofline == pytest.approx(0.8)
    compared["vtsum"] |= {"status": "cannot run", "reason": "an error"}
    failed = comparisons.line_of("some", compared, ROOFLINE, "memory_fuse")
    assert (failed.result, failed.share_of_roofline) == ("failed", None)
    assert "vtsum cannot run: an error" in failed.detail
    assert comparisons.line_of("some", {}, ROOFLINE, "memory_fuse").result == "failed"


def test_no_time_left_is_no_failure_of_triton() -> None:
    compared = {
        r["name"]: r for r in (record("vtsum", 100.0), record("vtsum_triton", 1.0, status="left out", reason="time"))
    }
    assert comparisons.line_of("some", compared, ROOFLINE, "memory_fuse").result == "ok"


RESOURCES = """
Fatbin elf code:
================
arch = sm_90

Resource usage:
 Common:
  GLOBAL:0
 Function _ZN3vts20_GLOBAL__N__ef95002740sliding_window_attention_ring_fwd_kernelIfLi8EEEvNS_6paramsE:
  REG:96 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:936 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _ZN3vts4ring40sliding_window_attention_ring_fwd_kernelIfLi16EEEvNS_6paramsE:
  REG:128 STACK:STACKS SHARED:1024 LOCAL:0 CONSTANT[0]:936 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _ZN3vts18memory_topk_kernelEv:
  REG:40 STACK:8 SHARED:0 LOCAL:0 CONSTANT[0]:528 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _ZN3cub6scanEv:
  REG:255 STACK:96 SHARED:0 LOCAL:0 CONSTANT[0]:528 TEXTURE:0 SURFACE:0 SAMPLER:0
"""


@pytest.mark.parametrize(("stack", "result"), [(0, "ok"), (48, "failed")])
def test_registers_and_spills_are_read(stack: int, result: str) -> None:
    found = registers.read_resources(RESOURCES.replace("STACKS", str(stack)))
    ring = "sliding_window_attention_ring_fwd_kernel"
    assert found == {ring: [Used(96, 0, 0), Used(128, stack, 1024)], "memory_topk_kernel": [Used(40, 8, 0)]}
    facts, line = registers.told("registers", found)
    assert line.result == result
    assert facts["memory_topk_kernel"] == {"instances": 1, "registers": 40, "stack": 8, "shared": 0}
    assert "3 kernels, at most 128 registers" in line.detail
    assert ("on the stack" in line.detail) == (stack > 8)


def test_what_launched_triton_kernels_take_is_noted_once() -> None:
    launch = pytest.importorskip("vtsum_kernels.triton_kit.launch")
    before, found = launch.start, dict[str, set[Used]]()

    class Kernel:
        __name__, arg_names = "a_kernel", ("x",)

        def __getitem__(self, grid: tuple[int]) -> Any:
            return lambda **given: SimpleNamespace(n_regs=90, n_spills=12, metadata=SimpleNamespace(shared=1024))

    with launched(found):
        for _ in range(2):
            launch.launch(Kernel(), 1, launch.Config("tile", 64, 64, 4, 1), {"x": 1})
    assert found == {"a_kernel": {Used(90, 48, 1024)}}
    assert launch.start is before
    assert registers.told("Triton", found)[1].result == "failed"


def test_where_the_tools_are_missing_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers, "ROOT", tmp_path)
    line = registers.resources(context(tmp_path))
    assert (line.result, line.detail) == ("absent", "the CUDA kernels are not built")


PROGRAM = """
import sys
from pathlib import Path
from bench.gpu.child import BROKEN, Teller, parser
options = parser("").parse_args()
teller = Teller(options.tell)
count = Path(options.out, "count")
starts = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(starts))
teller.line(f"start {starts}", "ok")
teller.facts(starts=starts)
print("said", starts)
sys.exit(STATUS)
"""


@pytest.mark.parametrize(
    ("status", "starts", "last"),
    [
        ("0", 1, None),
        ("BROKEN if starts < 3 else 0", 3, None),
        ("5", 1, "status 5: said 1"),
        ("BROKEN", child.TRIES, "status 3"),
    ],
)
def test_a_program_s_lines_come_and_a_broken_gpu_starts_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, starts: int, last: str | None
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.replace("STATUS", status))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    told = context(tmp_path)
    told.out.mkdir()
    lines = list(child.follow(told, "program", until=time.monotonic() + 60))
    assert [line.check for line in lines if line.result == "ok"] == [f"start {n}" for n in range(1, starts + 1)]
    assert told.facts["starts"] == starts
    if last is None:
        assert len(lines) == starts
    else:
        assert lines[-1].result == "failed"
        assert lines[-1].detail.startswith(last)


def test_a_program_that_outlives_its_time_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(child, "GRACE", 0.2)
    began = time.monotonic()
    (line,) = child.follow(context(tmp_path), "program", until=began + 0.5)
    assert time.monotonic() - began < 10
    assert line.result == "failed"
    assert "all the time it had" in line.detail


def test_who_breaks_the_gpu_is_recorded_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start ends at the culprit; the second makes the comparison without it, and goes on."""
    tiny = plan.planned(True)[0]
    broken = [False]
    real = tiny.comparison()

    def entries() -> list[comparison.Entry]:
        def breaks() -> Any:
            broken[0] = True
            raise RuntimeError("an illegal memory access was encountered")

        found = [entry for entry in real.entries() if entry.name != "vtsum_triton"]
        return [comparison.Entry("unfold", breaks) if entry.name == "unfold" else entry for entry in found]

    instead = dataclasses.replace(real, entries=entries, names=NAMES)
    monkeypatch.setattr(comparison, "gpu_is_broken", lambda: broken[0])
    limits, path = comparison.Limits(0.001, 1.0), tmp_path / "o.jsonl"

    def compared() -> Any:
        facts = {"device_type": "cpu"}
        return comparison.compare_into(path, "op", "a run", instead, facts, limits, {}, random.Random(0))

    with pytest.raises(comparison.Broken, match="unfold"):
        compared()
    (culprit,) = read(path)
    assert (culprit["name"], culprit["status"], culprit["broke"]) == ("unfold", "cannot run", True)
    broken[0] = False
    again = compared()
    assert {name: r["status"] for name, r in again.items()} == {
        "unfold": "cannot run",
        **{name: "ok" for name in NAMES if name != "unfold"},
    }
    assert compared() is None  # the run has it


def test_a_comparison_ends_in_time() -> None:
    tiny = plan.planned(True)[0]
    one = tiny.op.comparison(tiny.setting, tiny.op.against(tiny.setting, ("unfold",)))
    over = comparison.Limits(30.0, 1.0, time.monotonic() - 1.0)
    records = list(comparison.compare(one, over, {}, random.Random(0), lambda name: None))
    assert {r["status"] for r in records} == {"left out"}
    soon = comparison.Limits(30.0, 1.0, time.monotonic() + 1.5)
    began = time.monotonic()
    records = list(comparison.compare(one, soon, {}, random.Random(0), lambda name: None))
    assert time.monotonic() - began < 20  # of the 30 seconds that each may take
    assert {r["name"]: r["status"] for r in records} == {"copy": "ok", "vtsum": "ok", "unfold": "ok"}
    assert min(r["repeats"] for r in records) >= 1


def test_what_is_tuned_is_what_is_measured() -> None:
    """Every call of the plan that has a choice, with both passes where the plan has both."""
    targets = plan.tunable(False)
    chosen = {one.title for one in targets}
    assert "window fwd+bwd bfloat16 B 8 T 8192 w 5" in chosen
    assert "window fwd bfloat16 B 8 T 8192 w 5" not in chosen
    assert "window fwd bfloat16 B 1 T 300 w 5" in chosen
    assert not any(one.setting.case in ("gather", "topk", "search", "overhead") for one in targets)
    assert targets[0].setting.direction == "fwd+bwd"


def test_what_the_tuner_finds_is_written_where_the_kernels_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = pytest.importorskip("vtsum_kernels.triton_kit.launch")
    tuning = pytest.importorskip("vtsum_kernels.triton_kit.tuning")
    monkeypatch.setattr(launch, "TUNER", launch.TUNER)
    slow, fast = tuning.Config("tile", 64, 64, 4, 1), tuning.Config("tile", 128, 64, 8, 3)
    tuner = tune_into(tmp_path / "tuned.json")
    assert launch.TUNER is tuner
    assert tuner.choose("a call", [slow, fast], {slow: 2.0, fast: 1.0}.__getitem__) == fast
    assert tuning.read(tmp_path / "tuned.json").configs == tuner.read() == {"a call": fast}
