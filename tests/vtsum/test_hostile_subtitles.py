"""Subtitles of a stranger that hold more within a line than a reader would think: each is one line."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

import vtsum
from tests import forked
from tests.vtsum.clips import numbered_clip
from tests.vtsum.samples import small_clip
from tests.vtsum.test_hostile_text import ENVIRONMENT, FAKE
from vtsum.enhance.speech.subtitles import read_transcript
from vtsum.errors import VTSumError
from vtsum.summary.listening import Listening
from vtsum.video import probe

_FIELDS = ",".join(f"{i:x}" for i in range(256, 2600))
_ASS = "Dialogue: 0,0:00:00.00,0:00:01.00,,,,,,,"
_TTML = '<tt><p begin="0s" end="1s">'


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("t.ass", f"[Events]\nFormat:{_FIELDS},start,end,text\n" + "Dialogue:1\n" * 400_000, "words, found none"),
        ("t.sub", "{1}{1}25\n" + ("{1}{2}" + "|" * 9990 + "\n") * 400, "words, found none"),
        ("t.sub", "{1}{1}25\n" + ("{1}{2}" + "-|" * 4990 + "\n") * 400, "at most 300000 words, got more"),
        ("t.ass", "[Events]\n" + (_ASS + r"\N" * 4900 + "\n") * 800, "words, found none"),
        ("t.ttml", f"{_TTML}{'<br/>' * 300_000}</p></tt>", "words, found none"),
        ("t.ttml", f"{_TTML}{'-<br/>' * 301_000}</p></tt>", "at most 300000 words, got more"),
        ("t.ttml", f"{_TTML}{'<b/>' * 1_600_000}</p></tt>", "at most 600000 elements, got more"),
        ("t.json", '[{"start": 0, "end": 1, "text": "-' + r"\n" * 4000 + '"}]', "words, found none"),
    ],
)
def test_lines_and_fields_within_a_subtitle_have_an_end(name: str, text: str, told: str, tmp_path: Path) -> None:
    """A line of a file may hold thousands of lines of subtitles, and a format name thousands of fields: files of 8 MiB
    took minutes."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert len(text) < 8 << 20
    started = time.process_time()
    with pytest.raises(VTSumError, match=rf"{name}: must (hold|have) {told}"):
        read_transcript(tmp_path / name, duration=60.0)
    assert time.process_time() - started < 6


@pytest.mark.parametrize(
    ("name", "line", "count", "told"),
    [
        ("t.txt", "0:12 a\n", 1_198_000, "have at most 600000 lines, got 1198000"),
        ("t.sub", "{1}{2}" + "-|" * 4990 + "\n", 830, "hold at most 300000 words, got more"),  # lines within lines
    ],
)
def test_a_command_refuses_endless_lines_of_a_transcript(
    name: str, line: str, count: int, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(line * count)
    clip = numbered_clip(tmp_path / "clip.mp4", 25)
    done = forked.run(
        [*FAKE, "summarize", clip, "-o", tmp_path / "o", "--transcript", tmp_path / name],
        env=ENVIRONMENT,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (2, f"vtsum: read_transcript: {tmp_path}/{name}: must {told}\n")
    assert not (tmp_path / "o").exists()


def test_more_words_than_can_be_said_are_told_before_the_video_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = small_clip(tmp_path / "small.mp4").path
    timed = "".join(f"{i}\n00:00:00,{i // 2:03} --> 00:00:02,000\nword\n\n" for i in range(1500))
    (tmp_path / "timed.srt").write_text(timed)
    monkeypatch.setattr("vtsum.summary.pipeline.WatchedFrames", None)
    monkeypatch.setattr("vtsum.summary.pipeline.watch", None)
    with pytest.raises(VTSumError, match=r"^summarize: transcript must be of the video, got 1,500 words in \d+ s"):
        vtsum.summarize(clip, tmp_path / "o", transcript=tmp_path / "timed.srt")


def test_plain_text_is_held_against_what_the_video_is_found_to_last(tmp_path: Path) -> None:
    """Not against what its container states, which may be the first second of an hour."""
    clip = small_clip(tmp_path / "small.mp4").path
    (tmp_path / "plain.txt").write_text("word " * 1200)
    info = dataclasses.replace(probe(clip), stated_duration=1.0)
    with Listening(clip, info, None, tmp_path / "plain.txt", None, None, "cpu", lambda *_: None) as listening:
        found = listening.said(100.0)
    assert found is not None
    assert len(found.words) == 1200
