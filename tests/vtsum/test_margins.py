"""Margins round what is chosen, and the least length of a shot."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vtsum
from tests import forked
from tests.vtsum.clips import numbers_shown
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT
from vtsum.enhance.summary_refinement import Clip, overrun, with_margins
from vtsum.errors import VTSumError
from vtsum.summary import schema

OPTIONS = {"speech": None, "ocr": False, "captioner": "none", "formats": ["mp4", "json", "analysis"]}


def test_a_margin_is_shown_round_each_piece(scenes, tmp_path):
    """Beyond its shot too, once where two meet, nothing of what is dropped, and never more than the budget."""
    options = {**OPTIONS, "model": ColourModel(), "keep": "4-6, 7-8, 20-21", "drop": "21-22"}
    made = vtsum.summarize(scenes, tmp_path / "o", budget="7s", margin="0.3,1.2", **options)
    assert numbers_shown(made.files["mp4"]) == [*range(37, 92), *range(197, 210)]
    assert schema.read(made.files["json"])["settings"]["margin"] == [0.3, 1.2]
    again = vtsum.recut(made.output, tmp_path / "r", video=scenes, margin=(0, 0), budget="4s")
    assert numbers_shown(again.files["mp4"]) == [*range(40, 60), *range(70, 80), *range(200, 210)]
    tight = vtsum.recut(made.output, tmp_path / "t", video=scenes, budget="4.5s")
    assert len(numbers_shown(tight.files["mp4"])) == 45
    with pytest.raises(VTSumError, match=r"recut: margin must be seconds or a time \(2.5, 90s, 1:30\), 0 to 60 s"):
        vtsum.recut(made.output, tmp_path / "x", video=scenes, margin="-1,0")


@pytest.mark.parametrize("refine", ["dpp", "knapsack", "none"])
def test_the_choice_leaves_room_for_margins(scenes, tmp_path, refine):
    options = {**OPTIONS, "model": ColourModel(), "refine": refine, "budget": "9s"}
    made = vtsum.summarize(scenes, tmp_path / "o", margin=0.5, **options)
    plain = vtsum.recut(made.output, tmp_path / "p", video=scenes, margin=0)
    assert 8 <= made.duration <= 9.05
    assert 8.5 <= plain.duration <= 9.05
    clips = [shot["clip"] for shot in made.shots if shot["clip"]]
    assert all(clip["end"] - clip["start"] >= 1.5 for clip in clips)


def test_no_shot_and_no_piece_is_shorter_than_asked(scenes, tmp_path):
    options = {**OPTIONS, "model": ColourModel(), "segmenter": "cuts"}
    made = vtsum.summarize(scenes, tmp_path / "o", budget="14s", min_shot=4.5, **options)
    clips = [shot["clip"] for shot in made.shots if shot["clip"]]
    assert len(clips) > 1
    assert min(clip["end"] - clip["start"] for clip in clips) >= 4.5 - 0.05
    long = vtsum.recut(made.output, tmp_path / "long", video=scenes, budget="14s", min_shot="12s")
    assert min(shot["end"] - shot["start"] for shot in long.shots) >= 12
    assert len([shot for shot in long.shots if shot["clip"]]) == 1


def test_a_command_takes_margins_and_a_least_length(scenes, tmp_path):
    run = [sys.executable, "-m", "vtsum.cli", "summarize", str(scenes), "--no-speech", "--no-ocr", "-f", "json"]
    words = ["--margin", "0.2,0.5", "--min-shot", "2s", "--budget", "6s", "-o", str(tmp_path / "o")]
    done = forked.run([*run, *words], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    settings = schema.read(tmp_path / "o" / "summary.json")["settings"]
    assert (settings["margin"], settings["min_shot"]) == ([0.2, 0.5], 2.0)
    wrong = forked.run(
        [*run, "--min-shot", "7s", "--budget", "6s", "-o", str(tmp_path / "x")],
        env=ENVIRONMENT,
    )
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "vtsum: summarize: min_shot must be at most the budget of 6.0 s, got 7 s\n",
    )


@st.composite
def _clips(draw) -> tuple[list[Clip], int]:
    marks = sorted(draw(st.sets(st.integers(0, 200), min_size=2, max_size=12)))
    spans = zip(marks[::2], marks[1::2], strict=False)
    return [Clip(n, a, b, "whole") for n, (a, b) in enumerate(spans)], marks[-1] + draw(st.integers(0, 20))


@given(_clips(), st.integers(0, 30), st.integers(0, 30), st.integers(0, 100))
def test_margins_keep_order_budget_and_what_is_forbidden(drawn, before, after, spare):
    clips, last = drawn
    budget = sum(map(len, clips)) + spare
    forbidden = [(a.end + 2, b.start - 1) for a, b in itertools.pairwise(clips) if a.end + 2 < b.start - 1]
    wide = with_margins(clips, before, after, budget, 0, last, forbidden)
    assert sum(map(len, wide)) <= budget
    assert all(a.end <= b.start for a, b in itertools.pairwise(wide))
    assert wide[0].start >= 0
    assert wide[-1].end <= last
    for clip, other in zip(clips, wide, strict=True):
        assert clip.start - before <= other.start <= clip.start
        assert clip.end <= other.end <= clip.end + after
        assert not any(other.start < end and start < other.end for start, end in forbidden)
    if not overrun(clips, before, after, budget, 0, last):
        free = with_margins(clips, before, after, budget, 0, last)
        ends = [0, *(clip.end for clip in free)]
        assert all(
            clip.start in (max(own.start - before, 0), end) for clip, own, end in zip(free, clips, ends, strict=False)
        )
