"""A part of a video is watched, listened to and shown, in the times of the whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest

import vtsum
from tests import forked
from tests.vtsum.clips import number_of, numbered_scene, numbers_shown, write_clip
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT
from vtsum.enhance.speech import read_sound
from vtsum.errors import VTSumError
from vtsum.summary import schema
from vtsum.video import FrameSampler
from vtsum.video.part import PartSampler

RATE, SECONDS = 10, 40
OPTIONS = {"speech": None, "ocr": False, "captioner": "none", "formats": ["mp4", "txt", "json", "html", "analysis"]}
SRT = (
    "1\n00:00:02,000 --> 00:00:05,000\nThis is said before the part.\n\n"
    "2\n00:00:16,000 --> 00:00:19,000\nThe red balls roll over the table.\n\n"
    "3\n00:00:33,000 --> 00:00:36,000\nThis is said behind the part.\n"
)


def _chirp() -> np.ndarray:
    """No two seconds of it are the same."""
    t = np.arange(SECONDS * 48_000) / 48_000
    return (0.3 * np.sin(2 * np.pi * (100 + 10 * t) * t))[None].astype(np.float32)


@pytest.fixture(scope="module", params=["mp4", "mkv", "ts"])
def source(request, tmp_path_factory) -> Path:
    times = [n / RATE for n in range(RATE * SECONDS)]
    path = tmp_path_factory.mktemp("parts") / f"clip.{request.param}"
    return write_clip(path, times, numbered_scene, rate=RATE, gop=20, sound=_chirp())


@pytest.mark.parametrize(("start", "end"), [(0.0, 9.0), (12.3, 31.05), (25.0, None)])
def test_the_frames_of_a_part_are_those_of_the_whole(source, start, end):
    seen: list[float] = []
    part = PartSampler(source, start, end, fps=2, size=(96, 54), on_picture=lambda time, frame: seen.append(time))
    frames = list(part)
    whole = [f for f in FrameSampler(source, fps=2, size=(96, 54)) if int(start * 2) <= f.index < 2 * (end or SECONDS)]
    assert [f.index for f in frames] == [f.index for f in whole]
    first = number_of(frames[0].image)
    assert first == int(start * RATE)  # what is on display when the part begins, be the grid point before it
    assert [number_of(f.image) for f in frames[1:]] == [number_of(f.image) for f in whole[1:]]
    assert start <= min(seen)
    assert max(seen) < (end or SECONDS)
    assert part.duration == pytest.approx(end or SECONDS, abs=0.11)
    assert (part.broken_at, part.damaged, part.warnings) == (None, [], [])


def test_the_sound_of_a_part_is_that_of_the_whole(source):
    whole = np.concatenate([block for _, block in read_sound(source)])
    found = list(read_sound(source, part=(12.3, 20.0)))
    assert found[0][0] == 12.3
    heard = np.concatenate([block for _, block in found])
    assert len(heard) == round(7.7 * 16_000)
    # A container rounds times, Matroska to a millisecond: 16 samples.
    begin, inner = round(12.3 * 16_000), heard[1000:-1000]
    off = [np.abs(inner - whole[begin + 1000 + lag :][: len(inner)]).max() for lag in range(-17, 18)]
    assert min(off) < 0.03


def test_a_part_is_summarised_in_source_time(source, tmp_path):
    (tmp_path / "t.srt").write_text(SRT, encoding="utf-8")
    made = vtsum.summarize(
        source,
        tmp_path / "o",
        start="0:12",
        end=31,
        budget="50%",
        keep="0:25-0:27",
        model=ColourModel(),
        title="The  middle\nof it",
        transcript=tmp_path / "t.srt",
        **OPTIONS,
    )
    data = schema.read(made.files["json"])
    assert (data["settings"]["start"], data["settings"]["end"]) == (12.0, 31.0)
    assert data["source"]["duration"] == pytest.approx(SECONDS, abs=0.2)
    assert data["settings"]["budget_seconds"] == pytest.approx(9.5, abs=0.01)
    shots = data["shots"]
    assert (shots[0]["start"], shots[-1]["end"]) == (12.0, 31.0)
    assert {20.0, 25.0, 27.0, 30.0} <= {shot["start"] for shot in shots}  # cuts of the film, and what is kept
    assert data["frames"]["time"] == [float(k) for k in range(12, 31)]
    shown = numbers_shown(made.files["mp4"])
    assert set(range(250, 270)) <= set(shown) <= set(range(120, 310))
    words = [word["text"] for utterance in data["speech"]["utterances"] for word in utterance["words"]]
    assert " ".join(words) == "The red balls roll over the table."
    assert all(12 <= span["start"] < span["end"] <= 31 for sentence in data["text"] for span in sentence["times"])
    assert data["title"] == {"text": "The middle of it", "origin": "given", "times": []}
    text = made.files["txt"].read_text().splitlines()
    assert text[0] == "The middle of it"
    assert text[1].endswith("of 0:40, summarised from 0:12-0:31")
    assert "<title>The middle of it" in made.files["html"].read_text()
    with av.open(str(made.files["mp4"])) as film:
        assert film.metadata["title"] == "The middle of it"
    again = vtsum.recut(made.output, tmp_path / "r", video=source, title="Another")
    assert again.shots == made.shots
    assert again.data["title"]["text"] == "Another"


def test_what_nobody_says_in_a_part_is_measured_in_it(source, tmp_path):
    made = vtsum.summarize(source, tmp_path / "o", start=21, end=29, model=ColourModel(), **OPTIONS)
    assert made.text.startswith("8.0 s long; 2 parts were found, beginning at 0:21 and 0:25")
    assert made.data["text"][0]["times"] == [{"start": 21.0, "end": 29.0}]


def test_a_part_that_is_none(source, tmp_path):
    for options, reason in (
        ({"start": 50}, "start must (lie in the video of 40.0 s|be longer)|must be longer than the start of the part"),
        ({"start": 20, "end": "0:10"}, "summarize: end must be after start, 20 s, got 10 s"),
        ({"start": 10, "keep": "2-5"}, r"keep must lie in the part from 10.0 s on, got 0:02-0:05"),
        ({"end": 10, "budget": "20s"}, "budget must be at most the length of the video, 10.0 s"),
        (
            {"start": "soon"},
            r"summarize: start must be seconds or a time \(2.5, 90s, 1:30\), 0 to 1e\+06 s, got 'soon'",
        ),
        ({"title": " "}, "summarize: title must be words on one line, at most 300 letters, got ' '"),
    ):
        with pytest.raises(VTSumError, match=reason):
            vtsum.summarize(source, tmp_path / "o", model=ColourModel(), **OPTIONS, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_command_watches_a_part(source, tmp_path):
    run = [sys.executable, "-m", "vtsum.cli", "summarize", str(source), "--no-speech", "--no-ocr", "--json"]
    words = ["-f", "json", "--from", "0:10", "--to", "20s", "--title", "Ten seconds", "-o", str(tmp_path / "o")]
    done = forked.run([*run, *words], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    data = schema.validate(json.loads(done.stdout))
    assert (data["shots"][0]["start"], data["shots"][-1]["end"]) == (10.0, 20.0)
    assert data["title"]["text"] == "Ten seconds"
