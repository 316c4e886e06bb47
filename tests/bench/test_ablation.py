"""The ablation: what its pipelines are, what it measures of a plan, and its tables."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.kit.tables import NOTHING
from bench.summary import ablation as bench_ablation
from bench.summary import ablation_drawn
from bench.summary.ablation import Reader, encoded_frames, measure_tvsum
from bench.summary.ablation_drawn import Truth, cuts_in_words, figures, shown_spans, spoken
from bench.summary.ablation_variants import ALL_OFF, BASE, ON_DRAWN, ON_TVSUM, RANDOM, Variant, line
from bench.summary.frame_sampling import Case
from bench.summary.speech_corpus import RATE
from bench.summary.tables import ablation as ablation_report
from vtsum.data.tvsum import TVSumVideo
from vtsum.enhance.event_segmentation import PictureChanges
from vtsum.enhance.summary_refinement import parse_budget
from vtsum.summary.listening import RECOGNISER
from vtsum.summary.pipeline import summarize
from vtsum.summary.planning import make_plan
from vtsum.summary.watching import Watched
from vtsum.video.info import VideoInfo


def test_everything_on_is_what_summarize_does() -> None:
    usual = {name: one.default for name, one in inspect.signature(summarize).parameters.items()}
    assert (BASE.sampler, BASE.segmenter, BASE.refine) == (usual["sampler"], usual["segmenter"], usual["refine"])
    assert (
        usual["speech"] == RECOGNISER == inspect.signature(ablation_drawn.transcribe).parameters["recogniser"].default
    )


@pytest.mark.parametrize("variants", [*ON_TVSUM.values(), ON_DRAWN])
def test_a_variant_differs_in_one_module_and_the_last_in_all(variants: tuple[Variant, ...]) -> None:
    assert variants[0] is BASE
    for variant in variants[1:]:
        changed = {key for key, value in asdict(variant).items() if value != asdict(BASE)[key]} - {"name"}
        assert (
            changed == {"sampler", "segmenter", "refine", "smooth", "speech"}
            if variant is ALL_OFF
            else len(changed) == 1
        )
        assert variant.name in ablation_report.NAMES


def test_differences_are_paired() -> None:
    base = np.array([[1.0], [2.0], [6.0]])
    found = line("part", "x", ("f",), base + np.array([[0.1], [0.2], [0.3]]), base)
    assert found["values"]["f"][0] == pytest.approx(3.2)
    assert found["differences"]["f"] == [0.2, pytest.approx(0.1 / 3**0.5, abs=1e-5)]


def small_video(key: str, seed: int) -> tuple[TVSumVideo, np.ndarray]:
    """Two minutes of 24 scenes at 15 frames a second; four scenes are rated high. And features of its seconds."""
    rng = np.random.default_rng(seed)
    scene = np.repeat(np.arange(24), 5)  # by second
    liked = np.isin(scene, rng.choice(24, 4, replace=False))
    ratings = np.repeat(np.where(liked, 5, 1), 15)
    features = rng.normal(size=(24, 16))[scene] + 0.05 * rng.normal(size=(120, 16))
    edges = np.arange(0, 1800, 75)
    features[:, 0] = 3.0 * liked
    video = TVSumVideo(
        dataset="TVSum",
        key=key,
        name=key,
        title="",
        category="",
        fps=15.0,
        n_frames=1800,
        picks=np.arange(0, 1800, 15),
        features=features.astype(np.float32),
        user_scores=np.tile(ratings, (3, 1)).astype(np.uint8),
        user_summary=np.tile(ratings > 3, (3, 1)),
        change_points=np.stack([edges, edges + 74], axis=1),
        n_frame_per_seg=np.full(24, 75),
        gtscore=ratings[::15].astype(np.float32),
    )
    return video, features.astype(np.float32)


def test_on_tvsum_a_saliency_that_knows_beats_one_at_random() -> None:
    cases = []
    for number in (1, 2, 3):
        video, features = small_video(f"video_{number}", number)
        cases.append(Case(video, 1.0, np.arange(120.0), features, features))
    reader = Reader(lambda _, x: x[:, 0], lambda x: None, lambda x: x)
    found = {record["variant"]: record for record in measure_tvsum("ridge", cases, reader, ON_TVSUM["ridge"])}
    assert list(found) == [variant.name for variant in ON_TVSUM["ridge"]]
    on, off, by_chance = (found[name]["values"] for name in (BASE.name, ALL_OFF.name, RANDOM.name))
    assert off["encoded"][0] == 1.0
    assert on["encoded"][0] == pytest.approx(40 / 120, abs=1e-4)
    assert off["tau"][0] == pytest.approx(1.0, abs=1e-4)
    # Ratings are tied within a scene; smoothed scores at its edges are not, which tau-b counts as an error.
    assert 0.7 < found["smoothing off"]["values"]["tau"][0] < 1.0
    assert 0.5 < on["tau"][0] < 1.0
    assert abs(by_chance["tau"][0]) < 0.15
    assert on["f"][0] > by_chance["f"][0] + 0.1
    assert set(found["refine none"]["differences"]["tau"]) == {0.0}  # what comes after the saliency leaves it as it is


def test_the_frames_encoded_are_the_samplers() -> None:
    cheap = np.repeat(np.random.default_rng(0).normal(size=(10, 4)), 30, axis=0)
    assert len(encoded_frames(cheap, "all")) == 300
    for sampler in ("coverage", "uniform"):
        assert len(encoded_frames(cheap, sampler)) == pytest.approx(75, abs=1)
    assert np.ptp(np.diff(encoded_frames(cheap, "uniform"))) <= 1


def test_a_reading_is_found_to_the_hundredth() -> None:
    samples = np.zeros(4 * RATE, np.float32)
    for first, last in ((0.5, 1.0), (1.1, 1.6), (2.0, 3.25)):  # the first gap is shorter than a pause
        samples[round(first * RATE) : round(last * RATE)] = 0.1
    assert spoken(samples) == [pytest.approx((0.5, 1.6)), pytest.approx((2.0, 3.25))]
    truth = Truth(4.0, [], [], spoken(samples))
    assert truth.pauses == [pytest.approx((0.0, 0.5)), pytest.approx((1.6, 2.0)), pytest.approx((3.25, 4.0))]


def test_cuts_in_words() -> None:
    truth = Truth(10.0, [], [], [(1.0, 4.0), (6.0, 10.0)])
    assert cuts_in_words([(0.0, 2.0)], truth) == 1.0  # the video's start is no cut
    assert cuts_in_words([(0.5, 2.0), (4.0, 5.0), (9.0, 10.0)], truth) == pytest.approx(2 / 5)
    assert cuts_in_words([(0.0, 10.0)], truth) == 0.0


def test_figures_of_a_plan() -> None:
    """Ten scenes of ten seconds; the third and the seventh are lively: they are shown, and no other event is."""
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(10, 8)), 10, axis=0)
    saliency = np.repeat(np.isin(np.arange(10), (2, 6)), 10).astype(np.float32)
    watched = Watched(features, features, saliency, 100.0, None, [], PictureChanges(), np.ones(100, bool))
    info = VideoInfo(Path("x"), 100.0, 64, 64, 10.0, 0, False, "h264", None, "mp4", None, 0)
    plan = make_plan(watched, parse_budget("20%"), info, 1.0, refine="none")
    events = [(20.0, 30.0), (60.0, 70.0), (45.0, 48.0)]
    truth = Truth(100.0, [10.0 * k for k in range(1, 10)], events, [(0.0, 100.0)])
    found = dict(zip(ablation_drawn.COLUMNS, figures(plan, truth, 0.25), strict=True))
    shown = shown_spans(plan)
    inside = [sum(max(0.0, min(b, end) - max(a, start)) for a, b in shown) for start, end in events]
    assert min(inside[:2]) >= 1.0 > inside[2]
    assert found["events_shown"] == pytest.approx(2 / 3)
    assert found["seconds_shown"] == pytest.approx(np.mean(inside))
    assert found["boundary_f"] == 1.0
    assert found["cuts_in_words"] == 1.0
    assert found["budget_used"] == pytest.approx(sum(b - a for a, b in shown) / 20.0)
    assert sum(b - a for a, b in shown) == pytest.approx(sum(len(c) for c in plan.clips.values()) / plan.rate)


def record(part: str, variant: str, run: str, f: float, difference: float = 0.0) -> dict[str, Any]:
    columns = {*bench_ablation.COLUMNS, *ablation_drawn.COLUMNS}
    values = {column: [f, 0.01] for column in columns}
    changes = {column: [difference, abs(difference) / 10] for column in columns}
    facts = {"commit": "abc1234", "run": run, "videos": 5, "events": 30, "understood": 4}
    return {"part": part, "variant": variant, "values": values, "differences": changes, **facts}


def test_tables_hold_the_last_run_alone() -> None:
    records = [
        record("drawn", "everything on", "2026-01-01", 0.9),
        record("drawn", "speech off", "2026-01-01", 0.8, -0.1),
        record("drawn", "everything on", "2026-02-01", 0.5),
        record("drawn", "refine none", "2026-02-01", 0.45, -0.05),
        record("embedded", "everything on", "2026-01-01", 0.25),
    ]
    text = ablation_report.procedural(records)
    assert "**everything on** | 50 | 0.50 | 50.0 | 50 | 50.0 | 50%" in text
    assert "45 (-5 ± 0)" in text
    assert "0.45 (-0.05 ± 0.01)" in text
    assert "speech off" not in text
    assert "understood words in 4 of them" in text
    assert "| embedded model, 10 held-out videos | **everything on** | 0.250 |" in ablation_report.tvsum(records)
    assert ablation_report.tvsum(records[:4]) == NOTHING
