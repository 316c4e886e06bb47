"""The GPU check's part that measures the model, without a GPU: what is recorded of each length, and what is said."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu import model, training
from bench.gpu.stage import Context
from bench.kit.record import read
from bench.summary.training_step import FORMS


def words(out: Path) -> list[str]:
    until = str(time.monotonic() + 300)
    given = ["--tell", str(out / "lines.jsonl"), "--out", str(out), "--run", "a run", "--device", "cpu"]
    return ["program", *given, "--until", until, "--dry-run"]


def ok(step: float, **changes: Any) -> dict[str, Any]:
    return {"status": "ok", "step_s": step, "peak_mib": 1000.0, "shape": {"T": 512, "B": 4}, **changes}


def test_forms_are_one_model_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it on the CPU, small; what the run has is not measured again."""
    monkeypatch.setattr(sys, "argv", words(tmp_path))
    monkeypatch.setattr(training, "TINY_FRAMES", (32,))
    assert training.main() == 0
    records = read(tmp_path / "training_step.jsonl")
    assert [(r["form"], r["shape"], r["status"]) for r in records] == [
        (form, {"T": 32, "B": 2}, "ok") for form in FORMS
    ]
    assert all(r["step_s"] > 0 and r["dtype"] == "bfloat16" and r["run"] == "a run" for r in records)
    assert all(r["local_attention_s"] > 0 and r["parameters"] > 50_000 for r in records)
    assert all(r["saliency_difference"] < 1e-4 for r in records)
    assert {r["temporal_window"] for r in records if r["form"] == "windowed"} == {training.TINY_WINDOW}
    said = [entry["line"] for entry in read(tmp_path / "lines.jsonl")]
    assert [line["check"] for line in said] == ["training step T 32 x 2", "training step: out of memory"]
    assert said[0]["ratio_to_best_rival"] == pytest.approx(records[2]["step_s"] / records[0]["step_s"])
    assert training.main() == 0
    assert len(read(tmp_path / "training_step.jsonl")) == len(FORMS)


def test_who_has_no_room_is_not_asked_for_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def measure(model: Any, options: Any, frames: int) -> dict[str, Any]:
        asked.append(frames)
        if frames >= 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 100 GiB")
        return {"status": "ok", "step_s": 1.0, "peak_mib": 5.0}

    monkeypatch.setattr(training, "measure_model", measure)
    monkeypatch.setattr(training, "make_models", lambda *_: {form: torch.nn.Linear(2, 2) for form in FORMS})
    monkeypatch.setattr(training, "difference", lambda models, device: 0.0)
    monkeypatch.setattr(training, "TINY_FRAMES", (64, 128, 32))
    monkeypatch.setattr(sys, "argv", words(tmp_path))
    assert training.main() == 0
    assert asked == [64] * 3 + [32] * 3
    records = read(tmp_path / "training_step.jsonl")
    assert [r["status"] for r in records] == ["out of memory"] * 6 + ["ok"] * 3
    assert {r["reason"] for r in records[3:6]} == {"as at 64 frames"}
    last = read(tmp_path / "lines.jsonl")[-1]["line"]
    assert last["detail"] == "vtsum at T 64; windowed at T 64; dense at T 64"


def test_a_form_that_fails_is_a_failed_line() -> None:
    known = {
        ("vtsum", 512): ok(0.5),
        ("windowed", 512): ok(0.4),
        ("dense", 512): {"status": "cannot run", "reason": "RuntimeError: no", "shape": {"T": 512, "B": 4}},
    }
    line = training.line_of(known, 512)
    assert (line.check, line.result, line.ratio_to_best_rival) == ("training step T 512 x 4", "failed", None)
    assert line.detail == "vtsum 0.5 s, 1,000 MiB; windowed 0.4 s, 1,000 MiB; dense cannot run; RuntimeError: no"
    known["dense", 512] = ok(1.5)
    line = training.line_of(known, 512)
    assert (line.result, line.ratio_to_best_rival) == ("ok", 3.0)
    assert training.where_it_ends(known) == "vtsum not up to T 512; windowed not up to T 512; dense not up to T 512"


def test_different_models_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "make_models", lambda *_: {form: torch.nn.Linear(2, 2) for form in FORMS})
    monkeypatch.setattr(training, "difference", lambda models, device: 0.1)
    monkeypatch.setattr(sys, "argv", words(tmp_path))
    assert training.main() == 0
    (entry,) = read(tmp_path / "lines.jsonl")
    assert (entry["line"]["result"], entry["line"]["detail"]) == ("failed", "saliency differs by 1.0e-01")
    assert not (tmp_path / "training_step.jsonl").exists()


def test_what_the_frame_encoder_lacks_is_absent(tmp_path: Path) -> None:
    told = Context(tmp_path, "cpu", True, 0.0, False, {})
    (tmp_path / "numpy.py").write_text("import no_such_package")
    missing = model.encoder(told, 120.0, {"PYTHONPATH": str(tmp_path)})
    assert (missing.result, "no_such_package" in missing.detail) == ("absent", True)
