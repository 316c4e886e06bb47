"""The GPU check's measurements, without a GPU: the plan, the lines, what is read of compilers and counters."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.gpu import child, comparisons, counters, kernels, plan, tune, warm
from bench.gpu.stage import Context
from bench.kit import comparison
from bench.kit.kernels import Used
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


def test_compiling_ahead_is_spread_over_the_processes_in_the_plan_s_order() -> None:
    full = plan.planned(False)
    groups = [group.split(",") for group in warm.jobs(full, 4)]
    assert len(groups) == 4
    assert [group[0] for group in groups] == [
        "0:vtsum_triton",
        "0:unfold_compiled",
        "0:shifts_compiled",
        "0:flex_compiled",
    ]
    everything = [job for group in groups for job in group]
    assert len(set(everything)) == len(everything)
    for job in everything:
        number, _, name = job.partition(":")
        assert name in full[int(number)].comparison().names
    assert len(warm.jobs(full, 1000)) == warm.MOST


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
    line = comparisons.line_of("some", compared, ROOFLINE)
    assert line.result == "ok"
    assert line.detail == "125 us (112.5 to 137.5) cuda; triton 150; flash_window 400"
    assert line.share_of_roofline == pytest.approx(100 / 125)
    assert line.ratio_to_best_rival == pytest.approx(400 / 125)
    compared["vtsum_triton"] |= {"status": "wrong", "reason": "RMS ratio 1"}
    assert comparisons.line_of("some", compared, ROOFLINE).result == "failed"
    assert comparisons.line_of("some", compared, ROOFLINE).detail.endswith("triton wrong: RMS ratio 1")
    assert comparisons.line_of("some", compared, ROOFLINE).share_of_roofline == pytest.approx(0.8)
    compared["vtsum"] |= {"status": "cannot run", "reason": "an error"}
    failed = comparisons.line_of("some", compared, ROOFLINE)
    assert (failed.result, failed.share_of_roofline) == ("failed", None)
    assert "vtsum cannot run: an error" in failed.detail
    assert comparisons.line_of("some", {}, ROOFLINE).result == "failed"


def test_no_time_left_is_no_failure_of_triton() -> None:
    compared = {
        r["name"]: r for r in (record("vtsum", 100.0), record("vtsum_triton", 1.0, status="left out", reason="time"))
    }
    assert comparisons.line_of("some", compared, ROOFLINE).result == "ok"


# What the compilers and Nsight Compute print, in their formats.

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
    found = counters.read_resources(RESOURCES.replace("STACKS", str(stack)))
    ring = "sliding_window_attention_ring_fwd_kernel"
    assert found == {ring: [Used(96, 0, 0), Used(128, stack, 1024)], "memory_topk_kernel": [Used(40, 8, 0)]}
    facts, line = counters.told("registers", found)
    assert line.result == result
    assert facts["memory_topk_kernel"] == {"instances": 1, "registers": 40, "stack": 8, "shared": 0}
    assert "3 kernels, at most 128 registers" in line.detail
    assert ("on the stack" in line.detail) == (stack > 8)


def ncu(*kernels: tuple[str, str, str, str]) -> str:
    """Its table: a row of units below the head, numbers with commas."""
    head = ["ID", "Process ID", "Kernel Name", *counters.METRICS.values()]
    rows = [["", "", "", "byte", "byte", "ns", "%", "%"]]
    rows += [[str(i), "12", *kernel, "84.5", "40.2"] for i, kernel in enumerate(kernels)]
    return "==PROF== Connected\n" + "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in [head, *rows])


SPIN = ("void at::cuda::spin_kernel(long)", "0", "0", "1,000")
RING = "void vts::ring::sliding_window_attention_ring_fwd_kernel<float, 8>(params)"
NCU = ncu(SPIN, (RING, "300,000,000", "101,000,000", "100,000"), SPIN, ("memory_gather_kernel", "40", "2", "7"))


def test_counters_are_read_call_by_call() -> None:
    calls = counters.by_call(counters.read_table(NCU))
    assert [[kernel["kernel"] for kernel in call] for call in calls] == [
        ["sliding_window_attention_ring_fwd_kernel"],
        ["memory_gather_kernel"],
    ]
    line = counters.counter_line("window fwd", 400_000_000, calls[0])
    assert line.check == "counters: window fwd"
    assert line.detail == ("401 MB, 1 times what was counted; ring_fwd 100 us 4.01 TB/s, 84% of peak, 40% warps")
    assert counters.counter_line("nothing", 1, []).result == "failed"
    assert counters.read_table("==ERROR== ERR_NVGPUCTRPERM") == []


def test_what_triton_made_is_told_once(tmp_path: Path) -> None:
    told = context(tmp_path)
    said = [{"a_kernel": [[90, 0, 1024], [90, 0, 1024]]}, {"a_kernel": [[90, 0, 1024]], "b_kernel": [[128, 0, 0]]}]
    (line,) = kernels.triton_kernels(told, said)
    assert line.detail == "2 kernels, at most 128 registers (b_kernel), none spills"
    assert told.facts["triton_kernels"]["a_kernel"]["instances"] == 1
    (line,) = kernels.triton_kernels(told, [*said, {"b_kernel": [[255, 64, 0]]}])
    assert (line.result, line.detail.split("; ")[1]) == ("failed", "on the stack: b_kernel")
    (line,) = kernels.triton_kernels(told, [])
    assert line.result == "absent"


def test_where_the_tools_are_missing_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "ROOT", tmp_path)
    (line,) = counters.resources(context(tmp_path))
    assert (line.result, line.detail) == ("absent", "the CUDA kernels are not built")


PROGRAM = """
import sys
from pathlib import Path
from bench.gpu.child import BROKEN, Teller, parser
from bench.gpu.stage import Line
options = parser("").parse_args()
teller = Teller(options.tell)
count = Path(options.out, "count")
starts = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(starts))
teller.line(Line(f"start {starts}", "ok"))
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
    limits, path = comparison.Limits(0.001, 1.0, 1 << 40), tmp_path / "o.jsonl"

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
    over = comparison.Limits(30.0, 1.0, 1 << 40, time.monotonic() - 1.0)
    records = list(comparison.compare(one, over, {}, random.Random(0), lambda name: None))
    assert {r["status"] for r in records} == {"left out"}
    soon = comparison.Limits(30.0, 1.0, 1 << 40, time.monotonic() + 1.5)
    began = time.monotonic()
    records = list(comparison.compare(one, soon, {}, random.Random(0), lambda name: None))
    assert time.monotonic() - began < 20  # of the 30 seconds that each may take
    assert {r["name"]: r["status"] for r in records} == {"copy": "ok", "vtsum": "ok", "unfold": "ok"}
    assert min(r["repeats"] for r in records) >= 1


# The search for sizes.


class Config(NamedTuple):
    form: str
    block_m: int
    block_n: int
    warps: int
    stages: int


FIRST, SECOND = Config("tile", 64, 64, 4, 1), Config("tile", 128, 64, 8, 3)


def test_the_search_looks_around_the_best_candidate() -> None:
    times = {FIRST: 10.0, SECOND: 8.0, SECOND._replace(warps=4): 6.0, SECOND._replace(stages=2): 9.0}
    tried: list[Config] = []

    def measure(config: Config) -> float:
        tried.append(config)
        return times.get(config, 100.0)

    search = tune.Search()
    assert search.choose("a", [FIRST, SECOND], measure) == SECOND._replace(warps=4)
    assert len(tried) == 2 + 4
    assert search.choose("a", [FIRST, SECOND], measure) == SECOND._replace(warps=4)
    assert len(tried) == 2 + 4
    assert search.gains == [pytest.approx(10 / 6)]
    assert tune.Search(wider=False).choose("a", [FIRST, SECOND], measure) == SECOND
    assert tune.Search().choose("b", [FIRST, SECOND], measure, may_measure=False) == FIRST


def test_what_is_hardly_better_is_noise() -> None:
    search = tune.Search(wider=False)
    assert search.choose("a", [FIRST, SECOND], {FIRST: 1.0, SECOND: 0.99}.__getitem__) == FIRST
    assert search.choose("b", [FIRST, SECOND], {FIRST: float("inf"), SECOND: 5.0}.__getitem__) == SECOND
    assert search.choose("c", [FIRST, SECOND], {FIRST: float("inf"), SECOND: float("inf")}.__getitem__) == FIRST
    assert search.gains == [1.0]


def test_what_is_tuned_is_what_is_measured() -> None:
    """Every call of the plan that has a choice, with both passes where the plan has both."""
    targets = tune.targets(False)
    chosen = {one.title for one in targets}
    assert "window fwd+bwd bfloat16 B 8 T 8192 w 5" in chosen
    assert "window fwd bfloat16 B 8 T 8192 w 5" not in chosen
    assert "window fwd bfloat16 B 1 T 300 w 5" in chosen
    assert not any(one.setting.case in ("gather", "topk", "search", "overhead") for one in targets)
    assert targets[0].setting.direction == "fwd+bwd"
