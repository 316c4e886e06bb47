"""What the page of the GPU check says is to be done next."""

from __future__ import annotations

from typing import Any

import pytest

from bench.gpu import table
from bench.gpu.advice import LOOK_AT, next_steps
from bench.gpu.card import CARDS
from bench.gpu.cost import prediction_of
from bench.gpu.cost_window import KERNELS
from bench.gpu.predictions import BANK, BEST, SLOTS, VIDEO
from bench.gpu.stage import Line


def measured(check: str, share: float, ratio: float | None = 2.0, times: float | None = None, bound: str = "") -> Line:
    return Line(check, "ok", "", share, ratio, times, bound)


def test_what_is_far_from_its_prediction_or_behind_is_named_worst_first() -> None:
    lines = [
        ("build", Line("libraries", "ok")),
        ("kernels", measured("near", 0.9, times=1.1, bound="memory")),
        ("kernels", measured("far", 0.5, times=1.9, bound="issue")),
        ("kernels", measured("farther", 0.4, 0.8, times=2.5, bound="memory")),
        ("kernels", measured("unforetold", 0.2, None)),
    ]
    steps = next_steps(lines, tuned=False)
    assert steps[0].startswith("farther takes 2.5 times its prediction, bound by memory: look at blocks")
    assert steps[1].startswith("far takes 1.9 times its prediction, bound by issue: look at stalls")
    assert steps[2] == "farther is behind its best rival: 0.80"
    assert steps[3].endswith("nothing is predicted of them: unforetold")
    assert "TUNE=1" in steps[4]
    assert steps[5].startswith("keep the records")
    assert not any("near" in step.split()[0] for step in steps)
    assert len(next_steps(lines, tuned=True)) == 5


def test_what_failed_comes_first_and_many_are_counted() -> None:
    lines = [("tests", Line(f"test {n}", "failed", "wrong")) for n in range(5)]
    assert next_steps(lines, False) == [
        "mend first what failed: test 0, test 1, test 2 and 2 more; log.txt and tests.txt have the whole of it"
    ]
    assert next_steps([("build", Line("libraries", "ok"))], False) == []


def test_the_page_ends_with_it_and_stays_under_60_lines() -> None:
    lines = [("kernels", measured(f"case {n}", 0.3, 0.5, 3.0, "memory")) for n in range(80)]
    rows = table.final(["head"] * 7, lines, next_steps(lines, False)).splitlines()
    assert len(rows) < 60
    assert [row.startswith("next: ") for row in rows[-8:]] == [True] * 8
    assert any(row.startswith("total: 80 ok") for row in rows)


def record(**changes: Any) -> dict[str, Any]:
    shape = {**VIDEO, "window": changes.pop("window", 5)}
    found = {"case": "sweep", "pass": "fwd", "dtype": "bfloat16", "shape": shape, "backend": "cuda"}
    return {**found, "device": "NVIDIA H200", **changes}


def test_a_call_is_held_against_the_kernels_that_it_runs() -> None:
    op = "sliding_window_attention"
    for window in {kernel.window for kernel in KERNELS}:
        for card in CARDS:
            ways = {}
            for way in ("fwd", "bwd", "fwd+bwd"):
                found = prediction_of(op, record(window=window, device=f"NVIDIA {card}", **{"pass": way}))
                if found is None:
                    pytest.fail(f"nothing is predicted of {window}, {way}, {card}")
                ways[way] = found[0]
                assert found[1] in LOOK_AT
            assert ways["fwd"] + ways["bwd"] == pytest.approx(ways["fwd+bwd"])
    assert prediction_of(op, record(window=7)) is None
    others = [{"device": "NVIDIA A100"}, {"dtype": "float32"}, {"case": "overhead"}, {"backend": "triton"}]
    for other in (*others, {"shape": {"window": 5}}):
        assert prediction_of(op, record(**other)) is None
    assert prediction_of("memory_fuse", record()) is None


def test_a_sum_of_chosen_rows_is_held_against_its_kernel() -> None:
    shape = {**BANK, "S": SLOTS, "H": 1, "k": BEST}
    found = prediction_of("memory_attention", record(case="gather", shape=shape))
    assert found is not None
    assert found[1] in LOOK_AT
    for other in ({"case": "topk"}, {"pass": "fwd+bwd"}, {"shape": {**shape, "k": 8}}):
        assert prediction_of("memory_attention", record(**{"case": "gather", "shape": shape, **other})) is None
