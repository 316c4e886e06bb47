"""Stretches that the user keeps or drops."""

from __future__ import annotations

import os
import sys

import pytest

import vtsum
from tests import forked
from tests.vtsum.clips import numbers_shown
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT
from vtsum.errors import VTSumError
from vtsum.summary.by_hand import parse_ranges

OPTIONS = {"speech": None, "ocr": False, "captioner": "none", "formats": ["mp4", "json", "analysis"]}


@pytest.mark.parametrize("refine", ["dpp", "knapsack", "none"])
def test_what_is_kept_is_shown_whole_and_what_is_dropped_is_not(scenes, tmp_path, refine):
    options = {**OPTIONS, "refine": refine, "budget": "8s", "model": ColourModel()}
    made = vtsum.summarize(scenes, tmp_path / "o", keep="0:03.3-5.2, 0:21-0:22", drop=[(10.0, 24.0 - 3.0)], **options)
    shown = set(numbers_shown(made.files["mp4"]))
    assert shown >= {*range(33, 52), *range(210, 220)}
    assert not shown & set(range(100, 210))
    assert 7.5 <= made.duration <= 8.05
    assert made.data["settings"]["keep"] == [{"start": 3.3, "end": 5.2}, {"start": 21.0, "end": 22.0}]
    reasons = {(shot["start"], shot["end"]): shot["reason"] for shot in made.shots}
    assert reasons[3.3, 5.2].endswith("kept as asked")
    assert all(shot["reason"].endswith("left out as asked") for shot in made.shots if 10 <= shot["start"] < 21)
    again = vtsum.recut(made.output, tmp_path / "r", video=scenes)
    assert again.shots == made.shots


def test_what_is_kept_may_be_all(scenes, tmp_path):
    made = vtsum.summarize(
        scenes, tmp_path / "o", keep=[(2.0, 6.0)], drop="0-1", budget="4.5s", model=ColourModel(), **OPTIONS
    )
    assert set(numbers_shown(made.files["mp4"])) == set(range(20, 60))  # half a second is too little for another clip
    exact = vtsum.recut(made.output, tmp_path / "e", keep=[(6.04, 7.03)], drop=(), budget="0.99s", video=scenes)
    assert numbers_shown(exact.files["mp4"]) == [*range(60, 70)]  # whole frames, and not a tenth of one too much
    none = vtsum.recut(made.output, tmp_path / "r", keep=(), drop=(), video=scenes)
    plain = vtsum.summarize(scenes, tmp_path / "p", budget="4.5s", model=ColourModel(), **OPTIONS)
    assert none.shots == plain.shots


def test_a_command_keeps_and_drops(scenes, tmp_path):
    """And one that cannot says why before anything is written."""
    run = [sys.executable, "-m", "vtsum.cli", "summarize", str(scenes), "--no-speech", "--no-ocr", "-f", "mp4"]
    words = ["--budget", "5s", "--keep", "0:01-0:02,0:12-0:13", "--keep", "25-26.5", "--drop", "0:03-0:09"]
    done = forked.run([*run, *words, "-o", str(tmp_path / "o")], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    for words, reason in {
        "--keep 0:10": "summarize: keep must be stretches such as 0:10-0:20, got '0:10'",
        "--keep 0:20-0:10": "keep must end after they start, got '0:20-0:10'",
        "--keep 0:01-0:05,0:04-0:06": "keep must not overlap, got 0:01-0:05 and 0:04-",
        "--keep 1:00-1:10": "keep must lie in the video of 30.0 s, got 1:00-1:10",
        "--keep 0:01-0:05 --drop 0:04-0:06": "keep and drop must not meet, got 0:04-0:05 in both",
        "--keep 0:01-0:09 --budget 5s": "keep must be at most the budget of 5.0 s, got 8.0 s",
        "--drop 0-100": "drop must leave something to show, got all of the video",
        "--keep 5-5.1": "must be of stretches longer than the time between two frames looked at (--fps)",
    }.items():
        told = forked.run([*run, *words.split(), "-o", str(tmp_path / "x")], env=ENVIRONMENT)
        assert told.returncode == 2, words
        assert reason in told.stderr
        assert len(told.stderr.splitlines()) == 1, told.stderr
    assert os.listdir(tmp_path) == ["o"]


def test_ranges():
    assert parse_ranges("1:02:03.5-1:02:04, 5s–10s", "keep") == [(5.0, 10.0), (3723.5, 3724.0)]
    assert parse_ranges([(1, 2), "0:03-4"], "keep") == [(1.0, 2.0), (3.0, 4.0)]
    assert parse_ranges("", "keep") == parse_ranges((), "keep") == []
    for wrong in ("a-b", "-5", "1-2-3", [(1, float("nan"))], [(1, 2, 3)], "5-5"):
        with pytest.raises(VTSumError, match="keep must"):
            parse_ranges(wrong, "keep")
