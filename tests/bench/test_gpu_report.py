"""What was predicted of a GPU, beside what records of one say."""

from __future__ import annotations

from typing import Any

import pytest

from bench.gpu.predictions import BOTH, FORWARD, PREDICTIONS, predictions


def line(name: str, time: float, **facts: Any) -> dict[str, Any]:
    """A record of a comparison at window 5 on a GPU."""
    return {
        "run": "1",
        "case": "sweep",
        "pass": FORWARD,
        "dtype": "bfloat16",
        "layout": "bhtd",
        "shape": {"B": 8, "H": 12, "T": 8192, "D": 64, "window": 5},
        "device_type": "cuda",
        "name": name,
        "status": "ok",
        "time_us": {"p50": time},
        **facts,
    }


def rows(lines: list[dict[str, Any]]) -> dict[str, list[str]]:
    text = predictions({"sliding_window_attention": lines})
    return {(cells := row.strip("| ").split(" | "))[0]: cells for row in text.splitlines()[2:]}


def test_what_a_gpu_did_stands_beside_what_was_predicted() -> None:
    lines = [line("vtsum", 125.0), line("vtsum_triton", 100.0), line("copy", 94.0), line("flash", 300.0)]
    lines += [line("flex", 250.0), line("wrong", 10.0, status="wrong")]
    found = rows(lines)
    assert found["window 5, fwd"][1:6] == ["93.6 µs", "110 µs", "125 µs", "1.8", "2.00"]
    assert found["window 33, fwd"][3:6] == ["not yet", "1.5", "not yet"]
    assert rows(lines[:1])["window 5, fwd"][5] == "no rival"


@pytest.mark.parametrize(
    "other", [{"device_type": "cpu"}, {"dtype": "float32"}, {"layout": "bthd"}, {"pass": BOTH}, {"case": "overhead"}]
)
def test_another_comparison_does_not_count(other: dict[str, Any]) -> None:
    assert rows([line("vtsum", 125.0, **other)])["window 5, fwd"][3] == "not yet"


def test_no_aim_is_below_its_floor_and_each_is_of_another_comparison() -> None:
    assert all(p.aim_us is None or p.floor_us is None or p.aim_us > p.floor_us for p in PREDICTIONS)
    comparisons = {(p.op, p.case, p.direction, *sorted(p.shape.items())) for p in PREDICTIONS}
    assert len(comparisons) == len(PREDICTIONS)
    # 512 and 896 bytes a row and head at D 64 in bfloat16.
    assert [round(p.floor_us) for p in PREDICTIONS[:2] if p.floor_us] == [94, 164]
