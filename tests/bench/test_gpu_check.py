"""The GPU check without a GPU: the dry run through every part, parts that break, interruption, the table's bounds."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import check as gpu_check
from bench.gpu import machine, stage, table
from bench.gpu.stage import Context, Line, Program
from bench.kit import record
from bench.ops import OPS

ROOT = Path(__file__).resolve().parents[2]
FACTS: dict[str, Any] = {
    "gpu": "Some GPU",
    "capability": "9.0",
    "multiprocessors": 132,
    "l2_mib": 60.0,
    "memory_gib": 139.8,
    "torch_cuda": "13.0",
    "nvcc": "13.0",
    "card": {"driver_version": "580.1", "clocks.sm": "1980 MHz"},
    "device": "Some CPU",
    "commit": None,
    "versions": {"python": "3.12.3", "torch": "2.11.0"},
    "tools": {"nvcc": "/usr/local/cuda/bin/nvcc", "cuobjdump": None},
}
#: Parts that behave as no part should, in a module each.
BROKEN = {
    "good": "yield Line('first', 'ok', 'as it should', 0.87, 1.25)",
    "raises": "yield Line('before', 'ok')\n    raise ValueError('the shapes do not fit')",
    "exits": "yield Line('before', 'ok')\n    raise SystemExit('bench.run: --case must be known')",
    "lacks": "import no_such_package\n    yield Line('never', 'ok')",
    "lacks_ours": "import bench.no_such_module\n    yield Line('never', 'ok')",
    "dies": """yield Line('before', 'ok')
    done = context.call(['bash', '-c', 'echo begun; kill -SEGV $$'], context.left())
    yield Line('program', 'failed', done.why())""",
    "silent": "yield from ()",
    "notes": "context.note(copy_gb_s=4321)\n    yield Line('noted', 'ok')",
    "reads": "yield Line('read', 'ok', f'{context.facts[\"copy_gb_s\"]} {context.left():.2f}')",
    "hangs": """yield Line('before', 'ok')
    command = ['bash', '-c', f'echo begun; sleep 600 & echo $! > {context.scratch}/child; wait']
    with context.start(command, context.left()) as program:
        yield Line('program', 'failed', program.wait().why())""",
}


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of parts; this machine's facts are made up."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, body in BROKEN.items():
        head = "from bench.gpu.stage import Line\n\n\n"
        (folder / f"part_{name}.py").write_text(f"{head}def run(context):\n    {body}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(machine, "facts", lambda context: dict(FACTS))
    monkeypatch.setattr(machine, "card", lambda context: {"clocks.sm": "1755 MHz"})
    monkeypatch.setattr(gpu_check, "SCRATCH", tmp_path / "scratch")
    return folder


def check(
    monkeypatch: pytest.MonkeyPatch, out: Path, *names: str, minutes: float = 1.0, dry_run: bool = False
) -> tuple[int, dict[str, list[Line]]]:
    """Runs these parts, of equal shares; the status, and the lines of each."""
    monkeypatch.setattr(gpu_check, "PARTS", {name: (f"part_{name}", 1.0) for name in names})
    dry = ["--dry-run"] if dry_run else []
    status = gpu_check.main(["--out", str(out), "--minutes", str(minutes), *dry])
    found: dict[str, list[Line]] = {}
    for r in record.read(out / "check.jsonl"):
        if "part" in r:
            line = Line(*(r[key] for key in Line.__dataclass_fields__))
            found.setdefault(r["part"], []).append(line)
    return status, found


def test_a_dry_run_goes_through_every_stage(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu.check", "--out", str(tmp_path), "--dry-run", "--tune"]
    command += ["--minutes", "60"]  # on a busy machine it takes longer than ten
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    log = (tmp_path / "log.txt").read_text()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:] + log[-4000:]
    records = record.read(tmp_path / "check.jsonl")
    lines = [r for r in records if "part" in r]
    assert {r["part"] for r in lines} == {"build", "tests", "kernels", "model"}
    assert not [r for r in lines if r["result"] == "failed"]
    for part in ("build", "tests", "kernels", "model"):
        assert [r for r in lines if r["part"] == part and r["result"] == "ok"], part
    tests = {r["check"]: r["detail"] for r in lines if r["part"] == "tests"}
    assert all("passed" in detail for detail in tests.values()), tests
    assert {Path(name).name for name in tests} == {
        "test_sliding_window_attention.py",
        "test_triton_numbers.py",
        "test_emulator.py",
    }
    assert any("versions" in r.get("facts", {}) for r in records)
    (encoder,) = record.read(tmp_path / "encoder.jsonl")
    assert encoder["shape"]["batch"] == 2
    (said,) = [r["detail"] for r in lines if r["check"] == "embedded frame encoder"]
    assert f"{encoder['frames_a_second']['p50']:,.0f} frames a second" in said
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {
        *("check.jsonl", "table.md", "log.txt", "tests.txt", "training_step.jsonl", "encoder.jsonl"),
        *(f"{op}.jsonl" for op in OPS),
    }
    text = (tmp_path / "table.md").read_text()
    assert len(text.splitlines()) < 60
    assert text in done.stdout
    assert "no number below means anything" in text


def test_a_part_that_breaks_is_a_line_and_the_rest_goes_on(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("raises", "exits", "lacks_ours", "dies", "silent", "lacks", "good")
    status, lines = check(monkeypatch, tmp_path / "out", *names)
    assert status == 1
    assert [line.result for line in lines["raises"]] == ["ok", "failed"]
    assert lines["raises"][1].detail == "ValueError: the shapes do not fit"
    assert lines["exits"][1].detail == "SystemExit: bench.run: --case must be known"
    assert lines["lacks_ours"][0].result == "failed"
    assert [line.result for line in lines["dies"]] == ["ok", "failed"]
    assert lines["dies"][1].detail == "signal SIGSEGV: begun"
    assert lines["silent"] == [Line("silent", "failed", "it said nothing")]
    assert lines["lacks"] == [Line("lacks", "absent", "the package no_such_package is not installed")]
    assert lines["good"] == [Line("first", "ok", "as it should", 0.87, 1.25)]
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "raise ValueError('the shapes do not fit')" in log
    shown = capsys.readouterr().out
    assert "raises: raises: failed: ValueError: the shapes do not fit" in shown
    assert "| good: first | 87% | 1.25 | ok: as it should |" in shown
    assert "total: 4 ok, 5 failed, 1 absent, 0 skipped" in shown
    assert "Some GPU, sm_90, 132 multiprocessors" in shown


def test_a_part_that_outlives_its_time_is_ended_with_all_it_started(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, lines = check(monkeypatch, tmp_path / "out", "hangs", "good", minutes=0.15)
    assert status == 1
    assert [line.result for line in lines["hangs"]] == ["ok", "failed"]
    assert re.fullmatch(r"ended after \d s, all the time it had", lines["hangs"][1].detail)
    assert lines["good"][0].result == "ok"
    assert gone(int((tmp_path / "scratch" / "child").read_text()))


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds; nobody may have read its status yet."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_a_program_that_is_just_beginning_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a signal that comes before its number is known."""
    numbers: list[int] = []

    class Slow(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            numbers.append(self.pid)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    before = signal.signal(signal.SIGTERM, lambda *_: stage.interrupt(gpu_check.Interrupted(143)))
    try:
        with pytest.raises(gpu_check.Interrupted):
            Program(["sleep", "600"], 600.0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert gone(numbers[0])


def test_what_a_part_notes_and_the_time_that_it_leaves_over_are_the_next_ones(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, lines = check(monkeypatch, tmp_path / "out", "notes", "reads", "lacks")
    assert status == 0, "what is absent is no failure"
    copied, left = lines["reads"][0].detail.split()
    assert copied == "4321"
    assert 30 < float(left) < 38.1, "its own share is 19 seconds, and so is the last one's"
    facts = [r["facts"] for r in record.read(tmp_path / "out" / "check.jsonl") if "facts" in r]
    assert facts[-1] == {"card_afterwards": {"clocks.sm": "1755 MHz"}}


def test_without_a_gpu_only_the_build_is_tried(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "facts", lambda context: {**FACTS, "gpu": None})
    (parts / "part_build.py").write_text((parts / "part_good.py").read_text())
    status, lines = check(monkeypatch, tmp_path / "out", "build", "good")
    assert status == 1
    assert lines["build"][0].result == "ok"
    assert lines["good"] == [Line("good", "failed", "torch finds no GPU (--dry-run needs none)")]


def test_an_interruption_loses_nothing(parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"""
from pathlib import Path
from bench.gpu import check as gpu_check
from bench.gpu import machine
machine.facts = lambda context: {FACTS!r}
gpu_check.SCRATCH = Path({str(tmp_path / "scratch")!r})
gpu_check.PARTS = {{name: (f"part_{{name}}", 1.0) for name in ("good", "hangs", "silent")}}
gpu_check.main(["--out", {str(out)!r}])
"""
    path = os.pathsep.join([str(ROOT), str(parts)])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        child = tmp_path / "scratch" / "child"
        for _ in range(300):
            if child.is_file() and child.read_text():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        shown, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert gone(int(child.read_text()))
    text = (out / "table.md").read_text()
    assert text in shown
    assert "| good: first | 87% | 1.25 | ok: as it should |" in text
    assert "| hangs: before |" in text
    assert "| hangs: hangs |  |  | failed: the check was interrupted |" in text
    assert "| silent: silent |  |  | skipped: the check was interrupted |" in text
    assert "begun" in (out / "log.txt").read_text(), "what the program had printed"


def test_time_is_shared_out() -> None:
    whole = gpu_check.allowances(["build", "tests", "kernels", "model"], 600, tune=False)
    assert whole == pytest.approx({"build": 180, "tests": 150, "kernels": 150, "model": 90})
    assert gpu_check.allowances(["kernels"], 600, tune=False) == pytest.approx({"kernels": 570})
    tuning = gpu_check.allowances(["build", "tests", "kernels", "model"], 600, tune=True)
    assert sum(tuning.values()) == pytest.approx(570)
    assert tuning["kernels"] == pytest.approx(3 * tuning["tests"])


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_minutes_must_be_positive(minutes: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--minutes must be more than 0"):
        gpu_check.main(["--out", str(tmp_path), "--minutes", minutes])


@pytest.mark.parametrize("count", [0, 1, 45, 60, 1000])
def test_the_table_stays_under_60_lines(count: int) -> None:
    lines: list[tuple[str, Line]] = [("tests", Line(f"file {i}", "ok", "12 passed")) for i in range(count)]
    numbers: list[tuple[str, Line]] = [("kernels", Line(f"case {i}", "ok", "", 0.5, 2.0)) for i in range(count // 50)]
    failed: list[tuple[str, Line]] = [("model", Line("a | b\nc", "failed", "long " * 500))]
    text = table.final(["head"] * 7, lines + numbers + failed)
    rows = text.splitlines()
    assert len(rows) < 60
    assert all(len(row) < 400 for row in rows)
    (bad,) = [row for row in rows if row.startswith("| model: a / b c |")]
    assert bad.count("|") == 5
    for _, line in numbers:
        assert any(f"kernels: {line.check} |" in row for row in rows), "what was measured goes before what just passed"
    shown = sum(row.startswith("| tests: ") for row in rows)
    assert rows[-1] == f"total: {count + count // 50} ok, 1 failed, 0 absent, 0 skipped"
    if shown < count:
        assert f"not shown: {count - shown} ok" in text
        assert len(rows) == 59
    else:
        assert "not shown" not in text


def test_the_facts_of_this_machine(tmp_path: Path) -> None:
    variables = machine.environment(tmp_path / "scratch")
    context = Context(tmp_path, "cpu", False, time.monotonic() + 60, False, {}, environment=variables)
    found = machine.facts(context)
    json.dumps(found)
    assert found["versions"]["torch"]
    assert found["torch_cuda"] is None or found["gpu"] is None or "capability" in found
    inside = [name for name, value in variables.items() if str(tmp_path) in value]
    assert {"TMPDIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH"} <= set(inside)
    assert variables["PYTHONPATH"].split(os.pathsep)[:2] == [str(ROOT), str(ROOT / "kernels")]
    # Nothing there at all: it is said, not raised.
    context.deadline, context.environment = 0.0, {**variables, "PATH": ""}
    nothing = machine.facts(context)
    assert nothing["nvcc"] is None
    assert "torch_failed" in nothing
    assert machine.words(nothing)[0].startswith("GPU: no GPU (torch: ended after")


def test_a_commit_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VTSUM_COMMIT", "abc1234")
    assert record.machine()["commit"] == "abc1234"
    monkeypatch.delenv("VTSUM_COMMIT")
    assert record.machine()["commit"] is None


def test_a_program_that_takes_too_long_or_is_not_there() -> None:
    def call(command: list[str], seconds: float) -> stage.Done:
        with Program(command, seconds) as program:
            return program.wait()

    late = call(["bash", "-c", "echo begun; sleep 600"], 1)
    assert (late.status, late.output, late.ok) == (None, "begun\n", False)
    assert late.seconds < 10
    assert call(["no-such-program"], 1).status == 127
    assert call(["true"], 0).status is None
    failed = call(["bash", "-c", "echo the reason; exit 3"], 10)
    assert failed.why() == "status 3: the reason"


def test_a_table_of_somebody_elses_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("mine")
    with pytest.raises(SystemExit, match=r"--out must be new or hold earlier results, got .* with another table\.md"):
        gpu_check.main(["--dry-run", "--out", str(tmp_path)])
    assert (tmp_path / "table.md").read_text() == "mine"


def test_the_check_s_own_process_loads_none_of_our_packages() -> None:
    """A library that crashes takes a program with it, not the check; and nothing of ours is installed there."""
    code = """
import sys
sys.modules["vtsum"] = sys.modules["vtsum_kernels"] = None
from bench.gpu import build, check, kernels, model, plan, tests
assert len([one.title for one in plan.planned(False)]) > 20
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
