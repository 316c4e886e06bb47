"""The text that is extracted: which sentences and lines, the title, the chapters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vtsum
from tests.vtsum.clips import write_clip
from tests.vtsum.fakes import ColourModel
from tests.vtsum.test_transcript_summary import talk
from vtsum.enhance.screen_text import ScreenLine, ScreenSentence
from vtsum.enhance.speech import Transcript, Utterance, Word
from vtsum.enhance.speech.subtitles import read_transcript
from vtsum.summary import schema
from vtsum.summary.chapters import SHORTEST, chapters_of, title_of
from vtsum.summary.choosing import ALIKE, choose, spans_of

FLAT = np.full(400, 0.5)
BREAD = "Knead the dough until the bread is smooth and elastic."
TALK = [
    "Welcome back to my channel, everyone.",
    BREAD,
    "Um, press the uh dough into the tin and let the bread rest.",
    "And then it goes into the oven.",
    "Bake the bread for forty minutes in a hot oven.",
    "Knead the dough until the bread is smooth and elastic!",
    "Thanks for watching.",
]


def chosen(sentences: list[str], read: list[ScreenSentence] | None = None, limit: int = 5) -> list[str]:
    spans, rows = spans_of(talk(sentences), read or [], FLAT, 1.0)
    return [spans[i].text for i in choose(spans, rows, limit)]


def test_no_fillers_no_repeats_no_greetings() -> None:
    found = chosen(TALK)
    assert found == [
        BREAD,
        "press the dough into the tin and let the bread rest.",
        "And then it goes into the oven.",
        "Bake the bread for forty minutes in a hot oven.",
    ]
    assert "And then it goes into the oven." not in chosen(TALK, limit=3), "it leans on another"
    spans, rows = spans_of(talk(TALK), [], FLAT, 1.0)
    picked = choose(spans, rows, 5)
    cosines = (rows @ rows.T)[np.ix_(picked, picked)] - np.eye(len(picked))
    assert cosines.max() < ALIKE


def test_whole_sentences_alone() -> None:
    """A sentence cut in its middle by a pause of many seconds is none, in a text that has stops."""
    first, second = "The kiln is fired at night. We glaze the", "large bowls by hand today."
    words = [Word(w, i / 2, i / 2 + 0.4, 1.0) for i, w in enumerate(first.split())]
    words += [Word(w, 60 + i / 2, 60.4 + i / 2, 1.0) for i, w in enumerate(second.split())]
    said = Transcript((Utterance(tuple(words)),), "talk.srt", "en")
    spans, rows = spans_of(said, [], FLAT, 1.0)
    assert [spans[i].text for i in choose(spans, rows, 5)] == ["The kiln is fired at night."]


def test_saliency_of_the_moment_and_both_kinds() -> None:
    peak = FLAT.copy()
    peak[40:50] = 1.0
    sentences = [f"The {w} stands in the garden behind a wall." for w in ("oak", "elm", "ash", "fir", "yew", "fig")]
    spans, rows = spans_of(talk(sentences), [], peak, 1.0)
    assert [spans[i].text for i in choose(spans, rows, 1)] == [sentences[4]]
    title = ScreenSentence("On screen: \u201cBudget\u201d.", 2.0, 5.0, 0.95, 0.1)
    assert title.text in chosen(TALK, [title], 3)
    assert chosen([], [title]) == [title.text]
    assert choose([], np.zeros((0, 1)), 5) == []


def line(text: str, start: float, height: float = 0.1) -> ScreenLine:
    return ScreenLine(text, start, start + 4, 0.99, (0.1, 0.1, 0.6, 0.1 + height), confirmed=True)


def test_titles() -> None:
    spans, _ = spans_of(talk(TALK), [], FLAT, 1.0)
    lines = [line("Baking bread", 3.0, 0.12), line("www.example.org", 4.0, 0.02), line("12:30", 4.0, 0.2)]
    assert title_of("My film", "a.mp4", spans, lines).origin == "file"
    read = title_of(None, "a.mp4", spans, lines)
    assert (read.text, read.origin, read.span) == ("Baking bread", "read", (3.0, 7.0))
    heard = title_of(" ", "a.mp4", spans, lines[1:])
    assert (heard.origin, heard.text) == ("heard", BREAD.rstrip("."))
    doubtful = replace(line("Baking broad", 5.0, 0.3), confirmed=False)
    assert title_of(None, "a.mp4", spans, [doubtful, *lines]).text == "Baking bread"
    assert title_of(None, "a.mp4", [], [doubtful]).text == "a.mp4"
    assert title_of(None, "a.mp4", [], []).text == "a.mp4"


def test_scripts_without_spaces_have_sentences_and_titles(tmp_path: Path) -> None:
    """Read as a transcript is; what is too long for a title is none, though it holds no space."""
    short, long = "今天我们来谈谈视频摘要。", "大家好，欢迎收看我们的节目，" * 4 + "谢谢。"
    text = "".join(
        f"{n}\n00:00:{5 * n:02},000 --> 00:00:{5 * n + 4:02},000\n{said}\n\n" for n, said in enumerate((long, short), 1)
    )
    (tmp_path / "said.srt").write_text(text, encoding="utf-8")
    spans, _ = spans_of(read_transcript(tmp_path / "said.srt"), [], FLAT, 1.0)
    assert [span.text for span in spans] == [long, short]
    assert title_of(None, "a.mp4", spans, []).text == short
    assert title_of(None, "a.mp4", spans[:1], []).origin == "name"


def test_chapters_begin_with_sentences_where_the_topic_changes() -> None:
    """Two topics of 100 s each, in words and pictures; none for two minutes; without words by pictures alone."""
    bread = [f"Knead the {w} dough for the bread." for w in ("white", "dark", "sour", "sweet", "salty")] * 2
    boats = [f"The {w} boat sails out of the harbour." for w in ("red", "blue", "small", "long", "fast")] * 2
    said = talk([*bread, *boats])
    rng = np.random.default_rng(0)
    features = np.repeat(np.eye(2), 100, 0) + rng.normal(0, 0.02, (200, 2))
    lines = [line("Boats of the harbour", 103.0)]
    spans, rows = spans_of(said, [], FLAT, 1.0)
    found = chapters_of(200.0, features, 1.0, spans, rows, lines, [(0.0, 98.0), (98.0, 200.0)])
    assert [c.start for c in found] == [0.0, 100.0]
    assert [c.title.origin for c in found] == ["heard", "read"]
    assert found[1].title.text == "Boats of the harbour"
    doubtful = [replace(lines[0], confirmed=False)]
    found = chapters_of(200.0, features, 1.0, spans, rows, doubtful, [(0.0, 98.0), (98.0, 200.0)])
    assert [c.title.origin for c in found] == ["heard", "heard"]
    assert chapters_of(120.0, features[:120], 1.0, spans, rows, lines, [(0.0, 120.0)]) == []
    silent = chapters_of(200.0, features, 1.0, [], np.zeros((0, 1)), [], [(0.0, 98.0), (98.0, 200.0)])
    assert [(c.start, c.title.text) for c in silent] == [(0.0, "Part 1"), (98.0, "Part 2")]


@pytest.mark.parametrize("duration", [121.0, 600.0, 36000.0])
def test_chapters_of_any_video_are_in_order(duration: float) -> None:
    rng = np.random.default_rng(int(duration))
    count = int(duration / 10) + 1
    features = rng.normal(size=(count, 3))
    shots = np.unique([0.0, *np.sort(rng.uniform(0, duration, 20))])
    spans = list(zip(shots, [*shots[1:], duration], strict=True))
    found = chapters_of(duration, features, 0.1, [], np.zeros((0, 1)), [], spans)
    assert found[0].start == 0
    assert found[-1].end == duration
    assert len(found) <= 12
    assert all(c.end - c.start >= SHORTEST for c in found)
    assert len({c.title.text for c in found}) == len(found)


def test_title_and_chapters_are_shown(tmp_path: Path) -> None:
    def picture(number: int, time: float) -> np.ndarray:
        return np.full((48, 64, 3), (200, 30, 30) if time < 70 else (30, 30, 200), np.uint8)

    clip = write_clip(tmp_path / "clip.mp4", [i / 2 for i in range(280)], picture, rate=2)
    talk_ = ["Knead the <b> dough for the bread.", "The boat sails out of the harbour."]
    rows = [f"{n}\n00:0{t // 60}:{t % 60:02},000 --> 00:0{t // 60}:{t % 60 + 5:02},000\n{talk_[t >= 70]}\n"
            for n, t in enumerate((10, 72), 1)]  # fmt: skip
    (tmp_path / "talk.srt").write_text("\n".join(rows))
    made = vtsum.summarize(clip, tmp_path / "o", model=ColourModel(), transcript=tmp_path / "talk.srt", ocr=False)
    data = schema.read(made.files["json"])
    assert [c["start"] for c in data["chapters"]] == [0.0, 72.0]
    assert data["title"]["origin"] == "heard"
    text = made.files["txt"].read_text(encoding="utf-8")
    assert text.startswith(f"\u201c{data['title']['text']}\u201d\nclip.mp4, ")
    assert "\nChapters\n0:00 \u201cKnead the" in text
    assert "\n1:12 \u201cThe boat sails out of the harbour\u201d\n" in text
    assert "Heard: \u201cThe boat sails out of the harbour.\u201d" in text
    page = made.files["html"].read_text(encoding="utf-8")
    assert 'data-at="72.0" aria-label="Play 1:12' in page
    assert "guess" not in page + text
