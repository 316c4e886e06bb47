"""The benchmark of --about: what is asked, what is measured, and its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.kit import record
from bench.summary import topics
from bench.summary.ablation_drawn import reading
from bench.summary.speech_corpus import RATE
from bench.summary.tables import topics as tables
from tests.vtsum.clips import numbered_scene, write_clip
from tests.vtsum.fakes import ColourModel
from vtsum.enhance.speech.transcript import Transcript
from vtsum.recipes.synthetic_scenes import Artist
from vtsum.summary.progress import ignore
from vtsum.summary.watching import watch
from vtsum.video import probe

SENTENCES = [
    (4.0, 6.0, "The harvest begins early."),
    (14.0, 16.0, "Rain fills the barrels early."),
    (24.0, 26.0, "So it was early."),
]


def test_sentences_are_asked_about_by_words_of_their_own() -> None:
    assert topics.asked(SENTENCES) == [(SENTENCES[0], "harvest begin"), (SENTENCES[1], "rain fill")]
    said = topics.written(SENTENCES)
    assert [(u.start, u.end, u.text) for u in said.utterances] == SENTENCES


def test_what_is_shown_is_measured_without_and_with_it(tmp_path: Path) -> None:
    scenes = write_clip(tmp_path / "scenes.mp4", [n / 10 for n in range(300)], numbered_scene, rate=10, gop=10)
    info = probe(scenes)
    watched = watch(scenes, info, ColourModel(), 1.0, ignore)
    deaf = topics.Talk(info, watched, None, SENTENCES, Transcript((), "none", None))
    by_transcript, by_recogniser = topics.measured([deaf])
    assert (by_transcript["sentences"], by_transcript["matched"], by_recogniser["matched"]) == (2, 2, 0)
    assert by_transcript["half_shown"][1] == 2
    assert by_transcript["seconds_shown"][1] > by_transcript["seconds_shown"][0] + 0.5
    assert len(set(by_recogniser["half_shown"])) == 1  # nothing is heard: nothing changes
    plan = topics.plan_of(deaf, deaf.heard, [], None)
    assert topics.shown(plan, (0.0, 30.0, "")) == pytest.approx(3.0, abs=0.2)


class Reads(ColourModel):
    """Knows the sceneries of the first video."""

    reads_words = True

    def text_features(self, text: str) -> np.ndarray:
        plan = topics.drawn(1)[0]
        (scene,) = [scene for scene in plan.scenes if scene.scenery.words.endswith(text)]
        return self.encode(Artist(plan, (self.image_size, self.image_size)).draw(scene.start + 1)[None])[0]


def test_pictures_are_asked_by_what_stands_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "make_corpus", lambda *args, **sizes: None)
    monkeypatch.setattr(topics, "load", lambda folder: Reads())
    (record,) = topics.seen(1)
    assert (record["words"], record["sceneries"]) == ("pictures", 2)
    without, about = record["shares"]
    assert without == 0.5  # of two scenes
    assert about > 0.5
    assert record["less"] == 0
    monkeypatch.setattr(Reads, "reads_words", False)
    (record,) = topics.seen(1)
    assert record["shares"] == [without, without]
    assert record["more"] == record["less"] == 0


def test_what_is_read_fits_the_video(needs_program: Callable[[str], str]) -> None:
    needs_program("espeak-ng")
    samples, sentences = reading(60.0, 0)
    assert len(samples) == 60 * RATE
    assert all(0 <= start < end <= 60 for start, end, _ in sentences)
    loud = [float(np.abs(samples[round(start * RATE) : round(end * RATE)]).max()) for start, end, _ in sentences]
    assert min(loud) > 0.05


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert tables.topics() == tables.pictures() == "Not measured yet."
    line = {"words": "transcript", "videos": 5, "budget": "10%", "sentences": 90, "matched": 88, "seconds": 4.6}
    line |= {"seconds_shown": [0.51, 2.9], "half_shown": [9, 60], "commit": "abc"}
    record.append(tmp_path / "topics.jsonl", line)
    line = {
        "words": "pictures",
        "videos": 5,
        "budget": "10%",
        "sceneries": 14,
        "shares": [0.36, 0.492],
        "commit": "abd",
    }
    record.append(tmp_path / "topics.jsonl", {**line, "more": 7, "less": 0})
    assert "| transcript | 90, of 4.6 s | 88 | 9 → 60 | 0.5 → 2.9 |" in tables.topics()
    assert "commit abc" in tables.topics()
    assert "| 14 | 36% → 49% | 7, 0 |" in tables.pictures()
