"""Plans: what each way to refine chooses, why, and where its cuts lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vtsum.enhance.event_segmentation import PictureChanges
from vtsum.enhance.summary_refinement import parse_budget
from vtsum.errors import VTSumError
from vtsum.summary.planning import Plan, make_plan
from vtsum.summary.watching import Watched
from vtsum.video.info import VideoInfo

INFO = VideoInfo(
    path=Path("a.mp4"), duration=120.0, width=64, height=36, fps=25.0, rotation=0, has_audio=False,
    video_codec="h264", audio_codec=None, container="mp4", title=None, size_bytes=0,
)  # fmt: skip


def watched(looks: list[int], saliency: list[float], seconds: int = 10) -> Watched:
    """Scenes of `seconds` frames, one frame a second; `looks` says which of them look alike."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(looks) + 1, 32))
    frames = np.repeat(centres[looks], seconds, axis=0) + 0.05 * rng.normal(size=(len(looks) * seconds, 32))
    count = len(frames)
    return Watched(
        features=frames.astype(np.float32),
        event_features=frames.astype(np.float32),
        saliency=np.repeat(saliency, seconds).astype(np.float32),
        duration=float(count),
        broken_at=None,
        warnings=[],
        changes=PictureChanges(),
        encoded=np.ones(count, dtype=bool),
    )


REPEATED = watched([0, 1, 0, 2, 0, 3, 4, 5], [0.9, 0.2, 0.89, 0.3, 0.88, 0.5, 0.45, 0.2])


def seconds(plan: Plan) -> float:
    return sum(map(len, plan.clips.values())) / plan.rate


def check(plan: Plan, budget: float) -> None:
    assert seconds(plan) <= budget + 1e-9
    for shot, clip in plan.clips.items():
        assert plan.shots[shot][0] <= clip.start < clip.end <= plan.shots[shot][1]
        assert plan.span(shot)[0] <= plan.peaks[shot] <= plan.span(shot)[1]
    assert sorted(plan.ranks) == list(range(1, len(plan.shots) + 1))
    assert plan.shots[0][0] == 0
    assert all(a[1] == b[0] for a, b in zip(plan.shots, plan.shots[1:], strict=False))
    assert ((plan.novelty >= 0) & (plan.novelty <= 1)).all()


def test_a_dpp_shows_different_shots_where_scores_alone_repeat_one():
    found = {
        refine: make_plan(REPEATED, parse_budget("9s"), INFO, 1.0, refine=refine)
        for refine in ("dpp", "knapsack", "none")
    }
    for plan in found.values():
        check(plan, 9.0)
        assert len(plan.shots) == 8
    alike = {refine: len({0, 2, 4} & plan.clips.keys()) for refine, plan in found.items()}
    assert alike["none"] == 3
    assert alike["dpp"] == 1
    assert alike["knapsack"] <= 2
    assert len(found["dpp"].clips) >= 3


def test_a_plan_says_why():
    plan = make_plan(REPEATED, parse_budget("9s"), INFO, 1.0)
    (kept,) = {0, 2, 4} & plan.clips.keys()
    for repeat in {0, 2, 4} - {kept}:
        assert plan.twin[repeat] == kept
        assert plan.like[repeat] > 0.9
        assert plan.novelty[repeat] < 0.6
        assert plan.scores[repeat] < plan.scores[kept]
    assert plan.ranks[kept] == 1
    assert plan.novelty[kept] == 1.0
    assert (plan.like[kept], plan.twin[kept]) == (0.0, -1)
    plain = make_plan(REPEATED, parse_budget("9s"), INFO, 1.0, refine="none")
    assert plain.refine == "none"
    assert plain.novelty.tolist() == [1.0] * 8
    assert plain.twin.tolist() == [-1] * 8


@pytest.mark.parametrize("refine", ["dpp", "knapsack"])
def test_cuts_move_into_pauses(refine):
    plain = make_plan(REPEATED, parse_budget("30s"), INFO, 1.0, refine=refine)
    cuts = [t / plain.rate for clip in plain.clips.values() for t in (clip.start, clip.end)]
    quiet = [(t + 0.3, t + 0.7) for t in cuts]
    moved = make_plan(REPEATED, parse_budget("30s"), INFO, 1.0, refine=refine, pauses=quiet)
    check(moved, 30.0)
    assert moved.clips.keys() == plain.clips.keys()

    def inside(plan: Plan) -> int:
        return sum(
            any(a <= t / plan.rate <= b for a, b in quiet) for c in plan.clips.values() for t in (c.start, c.end)
        )

    assert inside(plain) == 0
    assert inside(moved) >= len(moved.clips)
    unmoved = make_plan(REPEATED, parse_budget("30s"), INFO, 1.0, refine="none", pauses=quiet)
    assert inside(unmoved) == 0


def test_shots_come_from_the_segmenter_asked_for():
    plan = make_plan(REPEATED, parse_budget("20%"), INFO, 1.0, segmenter="uniform")
    check(plan, 16.0)
    assert len(plan.shots) == 16
    with pytest.raises(VTSumError, match="method must be one of"):
        make_plan(REPEATED, parse_budget("20%"), INFO, 1.0, segmenter="words")


def test_an_unknown_refinement_is_named():
    with pytest.raises(VTSumError, match="summarize: refine must be one of dpp, knapsack, none, got 'best'"):
        make_plan(REPEATED, parse_budget("20%"), INFO, 1.0, refine="best")


@pytest.mark.parametrize("refine", ["dpp", "knapsack", "none"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_shortest_videos_and_constant_features(refine, count):
    still = watched([0], [0.5], seconds=count)
    still.event_features[:] = 1.0
    still.saliency[:] = 0.0
    for share in ("15%", "50%", "100%"):
        plan = make_plan(still, parse_budget(share), INFO, 1.0, refine=refine)
        check(plan, plan.budget_seconds)
        assert seconds(plan) >= 0.8 * plan.budget_seconds - 1 / plan.rate


def test_everything_fits():
    plan = make_plan(REPEATED, parse_budget("100%"), INFO, 1.0)
    assert seconds(plan) == 80.0
    assert all(clip.part == "whole" for clip in plan.clips.values())
