"""The benchmark of the training step: all forms are one model, failures are recorded, the table says what was found."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
import torch

from bench.kit.tables import NOTHING
from bench.summary.tables import training_step as training_step_report
from bench.summary.training_step import FORMS, alone, difference, make_model, make_models


def test_all_forms_are_one_model() -> None:
    models = make_models("small", 49, "cpu")
    assert list(models) == list(FORMS)
    assert 0 < difference(models, "cpu") < 1e-5
    assert difference(make_models("small", 9, "cpu"), "cpu") > 1e-3, "a window that does not see all frames"


def test_the_dense_form_really_is_dense(tmp_path: Path) -> None:
    """Its scores hold an entry for every pair of frames; ours hold none so large."""
    sizes = {}
    for form in ("vtsum", "dense"):
        model = make_model(form, "small", 17, tmp_path).eval()
        x = torch.randn(1, 600, 64)
        with torch.profiler.profile(profile_memory=True, record_shapes=True) as profile, torch.no_grad():
            model.local_attention(x, torch.ones(1, 600, dtype=torch.bool))
        sizes[form] = max(event.self_cpu_memory_usage for event in profile.key_averages())
    assert sizes["dense"] >= 4 * 600 * 600 * 4  # four heads, float32
    assert sizes["vtsum"] < 600 * 600 * 4


def test_measures_in_a_process_of_its_own() -> None:
    options = argparse.Namespace(
        device="cpu", dtype="float32", size="small", repeats=1, threads=1, budget=64, temporal_window=9, timeout=120.0
    )
    found = alone(options, "windowed", 32)
    assert found["status"] == "ok", found
    # Which is the larger is left to chance where both take milliseconds and other processes run.
    assert found["local_attention_s"] > 0
    assert found["step_s"] > 0
    assert found["parameters"] > 50_000


def test_too_little_memory_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 150_000 if name == "SC_AVPHYS_PAGES" else real(name))
    options = argparse.Namespace(
        device="cpu", dtype="float32", size="small", repeats=1, threads=1, budget=64, temporal_window=9, timeout=120.0
    )
    assert alone(options, "dense", 8000)["status"] == "out of memory"


def test_the_table_compares_with_the_dense_form() -> None:
    base = {
        "device_type": "cpu",
        "size": "base",
        "device": "Some CPU",
        "threads": 2,
        "versions": {"torch": "2.13.0"},
        "dtype": "float32",
        "commit": "abc1234",
        "shape": {"T": 512, "B": 16},
        "parameters": 2_000_000,
        "status": "ok",
        "temporal_s": 0.5,
        "peak_mib": 1234.0,
    }
    lines = [
        {**base, "form": "vtsum", "step_s": 9.0, "local_attention_s": 0.002},
        {**base, "form": "vtsum", "step_s": 1.5, "local_attention_s": 0.001},
        {**base, "form": "dense", "step_s": 3.0, "local_attention_s": 0.25},
        {**base, "form": "dense", "status": "out of memory", "shape": {"T": 32768, "B": 1}},
    ]
    rows = training_step_report.training_step("cpu", lines).splitlines()
    assert rows[2] == "| 512 x 16 | VTSum | 1.5 s | 1,234 MiB | 500 ms | 1 ms (250 times as fast) |"
    assert rows[3].startswith("| 512 x 16 | the original's dense masks | 3 s |")
    assert rows[4] == "| 32768 x 1 | the original's dense masks | out of memory |  |  |  |"
    assert training_step_report.training_step("cuda", lines) == NOTHING
