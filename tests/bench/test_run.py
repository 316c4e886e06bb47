"""The benchmark's command: what it records, what it refuses to time, and how it goes on after an interruption."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench import run
from bench.kit import comparison, roofline
from bench.kit.comparison import LeftOut, Limits
from bench.kit.op import Rival
from bench.kit.record import append, comparison_key, read
from bench.ops.sliding_window_attention import cases, rivals
from bench.ops.sliding_window_attention.setting import Setting

ROOT = Path(__file__).resolve().parents[2]
OP = "sliding_window_attention"
SMALL = ["--op", OP, "--device", "cpu", "--case", "sweep", "--frames", "40", "--window", "5", "--seconds", "0.001"]


@pytest.fixture(autouse=True)
def no_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command limits its process's memory; here the process is the tests'."""
    monkeypatch.setattr(run, "limit_memory", lambda device, gib: None)


def measure(output: Path, *words: str, status: int = 0) -> list[dict[str, Any]]:
    assert run.main([*SMALL, "--output", str(output), *words]) == status
    return read(output)


def use(monkeypatch: pytest.MonkeyPatch, *instead: Rival) -> None:
    monkeypatch.setattr(cases, "OP", dataclasses.replace(cases.OP, rivals=instead))


def rival(make: Any) -> Rival:
    return Rival("some_rival", make)


def test_everyone_gets_a_whole_record(tmp_path: Path) -> None:
    words = ["--dtype", "float32,bfloat16", "--layout", "bhtd,bthd", "--rivals", "sdpa_masked,unfold"]
    records = measure(tmp_path / "some.jsonl", *words)
    names = ["copy", "vtsum", "sdpa_masked", "unfold"]
    assert len(records) == 2 * 2 * 2 * len(names)
    comparisons: dict[Any, dict[str, Any]] = {}
    for record in records:
        comparisons.setdefault(comparison_key(record), {})[record["name"]] = record
    assert len(comparisons) == 8
    for compared in comparisons.values():
        assert sorted(compared) == sorted(names)
        for name, r in compared.items():
            assert r["status"] == "ok", r
            time, size = r["time_us"], {"float32": 4, "bfloat16": 2}[r["dtype"]]
            assert 0 < time["p20"] <= time["p50"] <= time["p80"]
            assert r["moved_bytes"] == {"fwd": 4, "fwd+bwd": 11}[r["pass"]] * 12 * 40 * 64 * size
            assert r["gb_s"] == pytest.approx(r["moved_bytes"] / time["p50"] / 1e3, rel=2e-3)
            assert r["share_of_copy"] == pytest.approx(compared["copy"]["time_us"]["p50"] / time["p50"], rel=2e-3)
            assert r["repeats"] >= 3
            assert r["calls_a_repeat"] >= 1
            assert (r["device_type"], r["threads"]) == ("cpu", torch.get_num_threads())
            assert r["versions"]["torch"] == torch.__version__
            assert r["shape"] == {"B": 1, "H": 12, "T": 40, "D": 64, "window": 5}
            if name != "copy":
                assert 0 < r["rms_ratio"] < {4: 1e-6, 2: 1e-2}[size]
                assert 0 < r["max_error"] < {4: 1e-4, 2: 1e-1}[size]
                assert r["checked_rows"] == 40
    assert {r["backend"] for r in records if r["name"] == "vtsum"} <= {"cpp", "reference"}


def test_the_command_itself(tmp_path: Path) -> None:
    """As a user starts it: the overhead case, records in the file, progress and nothing else on stderr."""
    words = ["--op", OP, "--device", "cpu", "--case", "overhead", "--quick", "--output", str(tmp_path / "o.jsonl")]
    done = subprocess.run(
        [sys.executable, "-m", "bench.run", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "kernels")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "[1/3, 0 s] overhead fwd float32 B 1 H 12 T 32 D 64 window 5 bhtd" in done.stderr
    records = read(tmp_path / "o.jsonl")
    assert [(r["pass"], r["name"]) for r in records] == [
        (direction, name)
        for direction in ("fwd", "fwd_recorded", "fwd+bwd")
        for name in ("vtsum", "sdpa", "sdpa_masked")
    ]
    assert all(r["status"] == "ok" and r["share_of_copy"] is None for r in records)


def test_an_interrupted_run_goes_on_without_repeating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, written = tmp_path / "some.jsonl", 0

    def interrupted(path: Path, line: dict[str, Any]) -> None:
        nonlocal written
        if written == 5:  # within the second comparison
            raise KeyboardInterrupt
        append(path, line)
        written += 1

    words = ["--dtype", "float32,bfloat16", "--rivals", "shifts"]
    with monkeypatch.context() as patched:
        patched.setattr(comparison, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            measure(output, *words)
    before = read(output)
    assert len(before) == 5
    output.write_text(output.read_text() + '{"op": "sliding_win')  # a line that was cut off
    records = measure(output, *words, "--resume")
    assert records[:5] == before
    assert {r["run"] for r in records} == {before[0]["run"]}
    counts = Counter((comparison_key(r), r["name"]) for r in records)
    assert len(counts) == 4 * 3
    again = {comparison_key(before[-1])}
    assert all(count == 1 for (key, _), count in counts.items() if key not in again)
    assert measure(output, *words, "--resume") == records
    anew = measure(output, *words)
    assert len(anew) == len(records) + 12


def test_another_device_or_op_is_not_resumed(tmp_path: Path) -> None:
    output = tmp_path / "some.jsonl"
    first = measure(output, "--passes", "fwd", "--dtype", "float32", "--rivals", "shifts")
    output.write_text("".join(json.dumps({**r, "device_type": "cuda"}) + "\n" for r in first))
    assert len(measure(output, "--passes", "fwd", "--dtype", "float32", "--rivals", "shifts", "--resume")) == 6


def nearly(setting: Setting) -> Any:
    """Right in the forward pass but for one border row."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = rivals.shifts(setting)(q, k, v)
        return torch.cat([out[:, :, :-1], out[:, :, -1:] * 1.01], 2)

    return attend


def not_a_number(setting: Setting) -> Any:
    return lambda q, k, v: rivals.shifts(setting)(q, k, v) * float("nan")


def wrong_gradient(setting: Setting) -> Any:
    return lambda q, k, v: rivals.shifts(setting)(q, k.detach() + 0 * k, v)


@pytest.mark.parametrize(
    ("make", "passes"), [(nearly, "fwd"), (nearly, "fwd+bwd"), (not_a_number, "fwd"), (wrong_gradient, "bwd")]
)
def test_a_wrong_rival_gets_no_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, passes: str) -> None:
    use(monkeypatch, rival(make))
    records = {r["name"]: r for r in measure(tmp_path / "o.jsonl", "--passes", passes, "--dtype", "float32")}
    wrong = records["some_rival"]
    assert wrong["status"] == "wrong"
    assert "RMS ratio" in wrong["reason"]
    assert "time_us" not in wrong
    assert "gb_s" not in wrong
    assert wrong["rms_ratio"] is None or wrong["rms_ratio"] > 3e-5
    assert records["vtsum"]["status"] == "ok"


def test_our_own_wrong_numbers_get_no_speed_and_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    monkeypatch.setattr(cases, "_attend", lambda backend: nearly)
    records = {r["name"]: r for r in measure(tmp_path / "o.jsonl", "--passes", "fwd", "--dtype", "float32", status=1)}
    assert records["vtsum"]["status"] == "wrong"
    assert "time_us" not in records["vtsum"]


def refuses(setting: Setting) -> Any:
    raise NotImplementedError("not on Sundays")


def takes_too_long(setting: Setting) -> Any:
    raise LeftOut("it would take all night")


def out_of_memory(setting: Setting) -> Any:
    return lambda q, k, v: torch.empty(2**60, dtype=torch.uint8)


def fails_while_timed(setting: Setting) -> Any:
    right, calls = rivals.shifts(setting), itertools.count()

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return right(q, k, v) if next(calls) < 6 else torch.empty(2**60, dtype=torch.uint8)

    return attend


@pytest.mark.parametrize(
    ("entrant", "status", "reason"),
    [
        (rival(fails_while_timed), "out of memory", "can't allocate memory"),
        (rival(refuses), "cannot run", "NotImplementedError: not on Sundays"),
        (rival(takes_too_long), "left out", "it would take all night"),
        (rival(out_of_memory), "out of memory", "can't allocate memory"),
    ],
)
def test_who_cannot_take_part_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entrant: Rival, status: str, reason: str
) -> None:
    use(monkeypatch, entrant)
    records = {r["name"]: r for r in measure(tmp_path / "o.jsonl", "--passes", "fwd", "--dtype", "float32")}
    assert records["some_rival"]["status"] == status
    assert reason in records["some_rival"]["reason"]
    assert "time_us" not in records["some_rival"]


SEARCH = ["--op", "memory_attention", "--device", "cpu", "--case", "search", "--tokens", "9", "--best", "5"]


@pytest.mark.parametrize(
    ("words", "name", "package"),
    [(SMALL, "natten", "natten"), (SMALL, "local_attention", "local-attention"), (SEARCH, "faiss", "faiss-cpu")],
)
def test_rivals_that_are_not_installed_are_recorded_as_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], name: str, package: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    monkeypatch.setattr(roofline, "PRODUCT_SIZE", {"cpu": 64})
    output = tmp_path / "o.jsonl"
    more = ["--rivals", name, "--passes", "fwd", "--dtype", "float32", "--seconds", "0.001", "--output", str(output)]
    assert run.main([*words, *more]) == 0
    records = {r["name"]: r for r in read(output)}
    assert records[name]["status"] == "absent"
    assert records[name]["reason"] == f"not installed; pip install {package}"
    assert records["vtsum"]["status"] == "ok"


def test_slow_rivals_are_left_out_by_what_they_took_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call decides; at ten times the length no call is made. We ourselves are measured however long it takes."""
    monkeypatch.setattr(comparison, "PATIENCE", 0.0)
    calls: list[int] = []

    def counted(setting: Setting) -> Any:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            calls.append(setting.frames)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=rivals._visible(setting))

        return attend

    use(monkeypatch, rival(counted))
    words = ["--frames", "40,400", "--passes", "fwd", "--dtype", "float32", "--slow", "1e-9"]
    records = measure(tmp_path / "o.jsonl", *words)
    slow = [r for r in records if r["name"] == "some_rival"]
    assert [r["status"] for r in slow] == ["too slow", "too slow"]
    assert slow[0]["reason"].startswith("a call took")
    assert slow[1]["reason"].startswith("a call of a smaller shape took")
    assert calls == [40]
    assert [r["status"] for r in records if r["name"] == "vtsum"] == ["ok", "ok"]


@pytest.mark.parametrize(("frames", "window", "status"), [(24, 5, "too slow"), (20, 3, "too slow"), (20, 7, "ok")])
def test_who_was_slow_at_a_shape_is_tried_where_any_size_is_smaller(frames: int, window: int, status: str) -> None:
    setting, _ = cases.OP.tiny[0]
    known = {**setting.shape, "T": frames, "window": window}
    history = {("unfold", setting.case, setting.dtype, setting.direction, setting.layout): [(known, 5.0)]}
    one = cases.OP.comparison(setting, cases.OP.against(setting, ("unfold",)))
    records = comparison.compare(one, Limits(0.001, 1.0), history, random.Random(0), lambda name: None)
    assert {r["name"]: r["status"] for r in records}["unfold"] == status


def test_memory_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU it is the process's own, and who asks for more fails, not the process; on a GPU it is torch's."""
    code = "from bench.run import limit_memory; limit_memory('cpu', 2.0); bytearray(3 * 2**30)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.endswith("MemoryError\n"), done.stderr
    shares: list[float] = []
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30 * 2**30, 40 * 2**30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    for gib in (10.0, 50.0, None):
        run.limit_memory("cuda", gib)
    assert shares == [0.25, 1.0]


def test_a_slow_rival_is_measured_where_we_are_hardly_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, rival(rivals.shifts))
    words = ["--passes", "fwd", "--dtype", "float32", "--slow", "1e-9"]
    for patience, status in ((1e6, "ok"), (1e-6, "too slow")):
        monkeypatch.setattr(comparison, "PATIENCE", patience)
        records = measure(tmp_path / f"{patience}.jsonl", *words)
        assert [r["status"] for r in records if r["name"] == "some_rival"] == [status]


def test_slower_means_fewer_repeats_but_never_fewer_than_three() -> None:
    limits = Limits(seconds=0.2, slow=1.0)
    assert [comparison.repeats(limits, seconds) for seconds in (1e-6, 0.01, 0.1, 5.0)] == [200, 20, 3, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rivals", "nonesuch"], "--rivals must be one of sdpa_masked, sdpa_blocks"),
        (["--op", "memory_fuse", "--rivals", "natten"], "--rivals must be one of sdpa, sdpa_compiled"),
        (["--dtype", "int8"], "--dtype must be one of float32, float16, bfloat16, got int8"),
        (["--passes", "sideways"], "--passes must be one of fwd, fwd_recorded, bwd, fwd+bwd, got sideways"),
        (["--frames", "0"], "--frames must be positive numbers, got 0"),
    ],
)
def test_wrong_words_are_refused(tmp_path: Path, words: list[str], message: str) -> None:
    op = [] if "--op" in words else ["--op", OP]
    with pytest.raises(SystemExit) as stopped:
        run.main([*op, "--device", "cpu", "--output", str(tmp_path / "o.jsonl"), *words])
    assert message in str(stopped.value)
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("op", "start", "without"),
    [
        (
            OP,
            "sweep fwd+bwd bfloat16 B 8 H 12 T 8192 D 64 window 5 bhtd 1056.0 MiB: copy, vtsum, vtsum_triton, ",
            "faiss",
        ),
        (
            "memory_fuse",
            "fuse fwd+bwd bfloat16 N 16384 C 768 S 256 H 1 97.5 GFLOP: product, vtsum, vtsum_triton, sdpa",
            "",
        ),
        ("memory_attention", "gather fwd bfloat16 N 16384 C 768 S 16384 H 1 k 32 ", "faiss"),
    ],
)
def test_dry_run_lists_the_gpu_comparisons_without_a_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], op: str, start: str, without: str
) -> None:
    output = tmp_path / "o.jsonl"
    assert run.main(["--op", op, "--device", "cuda", "--dry-run", "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(start) for line in lines), lines
    assert all("flash_window, flash_attn" in line for line in lines if line.startswith("sweep"))
    assert not without or not any(without in line for line in lines)
    assert not output.exists()
