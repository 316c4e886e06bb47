"""What the user asks about: what is heard and read of it is worth more."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vtsum
from tests import forked
from tests.once import once
from tests.vtsum.clips import numbered_scene
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT
from vtsum.enhance.screen_text.lines import ScreenLine
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.errors import VTSumError
from vtsum.summary import schema
from vtsum.summary.about import K1, B, Passage, fits, passages, ranked, relevance, terms, words_told
from vtsum.summary.choosing import Span, preferring

SRT = """1
00:00:03,000 --> 00:00:05,000
First we drive to the fields.

2
00:00:14,000 --> 00:00:16,000
Now the harvests begin, and berries too.
"""
OPTIONS: dict[str, Any] = {"ocr": False, "captioner": "none", "formats": ["json", "html", "txt", "analysis"]}


def test_words_are_compared_without_endings_and_without_what_tells_nothing() -> None:
    assert terms("The Farmers' berries, and the train’s WHEELS!") == ["farmer", "berry", "train", "wheel"]
    assert terms("glass bus trees shoes was his") == ["glass", "bus", "trees", "shoes"]
    assert terms("of the and") == []


def test_the_scores_are_the_formulas() -> None:
    found = [Passage(0, 2, ("corn", "corn", "field")), Passage(4, 6, ("corn",)), Passage(6, 9, ("rain",) * 4)]
    mean, rarity = 8 / 3, math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))

    def score(count: int, length: int) -> float:
        return rarity * count * (K1 + 1) / (count + K1 * (1 - B + B * length / mean))

    told = relevance("corn in the barn", found, np.arange(11.0))
    best = max(score(2, 3), score(1, 1))
    wanted = [score(2, 3) / best] * 2 + [0] * 2 + [score(1, 1) / best] * 2 + [0] * 4
    assert told == pytest.approx(wanted)
    assert not relevance("barn", found, np.arange(11.0)).any()
    assert not relevance("corn", [], np.arange(11.0)).any()
    assert list(words_told("Corn, corn or rains", found, 5, 7)) == ["Corn", "rains"]


def test_a_short_word_between_two_frames_counts_for_the_one_that_is_shown() -> None:
    assert list(relevance("corn", [Passage(2.2, 2.4, ("corn",))], np.arange(5.0))) == [0, 0, 1, 0]
    assert list(relevance("corn", [Passage(3.9, 99.0, ("corn",))], np.arange(5.0))) == [0, 0, 0, 1]


def test_only_what_is_sure_counts() -> None:
    said = Transcript((Utterance((Word("corn", 1, 2, 0.3), Word("rain", 2, 3, 0.9))),), "mine", None)
    box = (0.0, 0.0, 1.0, 0.1)
    lines = [ScreenLine("Corn", 4, 5, 0.9, box, False), ScreenLine("Barn", 6, 7, 0.9, box, True)]
    assert passages(said, lines) == [Passage(1, 3, ("rain",)), Passage(6, 7, ("barn",))]
    assert passages(None, []) == []


def test_sentences_about_it_come_first_and_none_is_quoted_that_was_not_to_be() -> None:
    texts = {"Rain fell on the hills.": 1.0, "The corn grew well.": 0.2, "Corn was what I heard.": 0.0}
    spans = [Span(text, i, i + 1, 0.9, "heard", score) for i, (text, score) in enumerate(texts.items())]
    scores = [span.score for span in preferring("corn", spans)]
    assert scores[1] > scores[0] > scores[2] == 0
    assert preferring("wheat", spans) == preferring(None, spans) == spans
    assert not ranked("corn", ["of the", "and"]).any()


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.srt"
    path.write_text(SRT)
    return path


def shown(made: vtsum.Summary, start: float, end: float) -> float:
    """Seconds of a stretch that a summary shows."""
    clips = [shot["clip"] for shot in made.shots if shot["clip"]]
    return sum(max(0.0, min(end, clip["end"]) - max(start, clip["start"])) for clip in clips)


@pytest.mark.parametrize("refine", ["dpp", "knapsack"])
def test_what_is_asked_about_is_shown(scenes: Path, talk: Path, tmp_path: Path, refine: str) -> None:
    options = {**OPTIONS, "model": ColourModel(), "transcript": talk, "budget": "4s", "refine": refine}
    plain = vtsum.summarize(scenes, tmp_path / "plain", **options)
    for about, start, other in (("the harvest", 14.0, 3.0), ("fields", 3.0, 14.0)):
        made = vtsum.summarize(scenes, tmp_path / about, about=about, **options)
        assert made.data["settings"]["about"] == about
        assert shown(made, start, start + 2) >= 1.5
        assert shown(made, other, other + 2) <= shown(plain, other, other + 2)
        (shot,) = [shot for shot in made.shots if f"heard or read there: “{about.split()[-1]}”" in shot["reason"]]
        assert shot["chosen"]
        assert shot["start"] < start + 2
        assert shot["end"] > start
        assert f"what tells of “{about}”" in (made.output / "report.html").read_text(encoding="utf-8")
        again = vtsum.recut(plain.output, tmp_path / f"again {about}", video=scenes, about=about)
        assert [shot["clip"] for shot in again.shots] == [shot["clip"] for shot in made.shots]
    assert max(shown(plain, 14, 16), shown(plain, 3, 5)) < 1.5


def test_what_nobody_says_changes_nothing_and_is_told(scenes: Path, talk: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "model": ColourModel(), "transcript": talk, "budget": "4s"}
    plain = vtsum.summarize(scenes, tmp_path / "plain", **options)
    made = vtsum.summarize(scenes, tmp_path / "o", about="volcanoes", **options)
    assert made.shots == plain.shots
    told = "no word of “volcanoes” is surely heard or read in the video: what is shown was chosen without it"
    assert [warning for warning in made.warnings if warning not in plain.warnings] == [told]


@pytest.mark.parametrize("about", ["of the", "?!", "x" * 301])
def test_a_text_that_names_no_topic_is_refused(scenes: Path, tmp_path: Path, about: str) -> None:
    with pytest.raises(VTSumError, match="summarize: about must "):
        vtsum.summarize(scenes, tmp_path / "o", about=about, **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_a_command_takes_it(scenes: Path, talk: Path, tmp_path: Path) -> None:
    words = ["summarize", str(scenes), "--transcript", str(talk), "--no-ocr", "-f", "json", "--budget", "4s"]
    run = [sys.executable, "-m", "vtsum.cli", *words]
    done = forked.run([*run, "--about", "berry", "-o", str(tmp_path / "o")], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    shots = schema.read(tmp_path / "o" / "summary.json")["shots"]
    assert any("heard or read there: “berry”" in shot["reason"] for shot in shots if shot["chosen"])
    wrong = forked.run([*run, "--about", "of the", "-o", str(tmp_path / "x")], env=ENVIRONMENT)
    told = "vtsum: summarize: about must hold a word that tells of a topic, got 'of the'\n"
    assert (wrong.returncode, wrong.stderr) == (2, told)


COLOURS = {"red": 4.0, "green": 14.0, "blue": 24.0}  # of the walls in `scenes`, and seconds in which they stand


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP that knows the walls of `scenes` by their colours."""

    def make(folder: Path) -> None:
        from vtsum.model.frame_encoder import resize
        from vtsum.recipes.tiny_clip import ClipExample, save_tiny_clip, train_tiny_clip

        def pictures(time: float) -> np.ndarray:
            frames = [numbered_scene(number, time) for number in range(0, 300, 20)]
            return resize(np.stack(frames), 64)

        sentences = [f"a {colour} wall" for colour in COLOURS]
        examples = [
            ClipExample([pictures(time)], [sentence], sentence, pictures(34.0))
            for sentence, time in zip(sentences, COLOURS.values(), strict=True)
        ]
        save_tiny_clip(train_tiny_clip(examples, sentences, steps=60)[0], folder)

    return once(tmp_path_factory, "clip of walls", make)


def test_pictures_count_where_the_model_reads_words(scenes: Path, clip: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "model": str(clip), "budget": "4s", "speech": None}
    plain = vtsum.summarize(scenes, tmp_path / "plain", **options)
    for colour, time in COLOURS.items():
        about = f"the {colour} wall"
        made = vtsum.summarize(scenes, tmp_path / colour, about=about, **options)
        (first,) = [shot for shot in made.shots if shot["rank"] == 1]
        assert time - 4 <= first["start"] < first["end"] <= time + 6
        assert "pictures among the nearest to what is asked about" in first["reason"]
        assert shown(made, time - 4, time + 6) >= 2
        assert made.warnings == plain.warnings
        again = vtsum.recut(plain.output, tmp_path / f"again {colour}", video=scenes, about=about)
        assert again.shots == made.shots


def test_a_command_asks_the_pictures_and_says_nothing_of_the_weights(scenes: Path, clip: Path, tmp_path: Path) -> None:
    words = ["summarize", str(scenes), "--model", str(clip), "--no-ocr", "--no-speech", "-f", "json", "--budget", "4s"]
    run = [sys.executable, "-m", "vtsum.cli", *words, "--about", "the blue wall", "-o", str(tmp_path / "o")]
    done = forked.run(run, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("vtsum: note: ") for line in done.stderr.splitlines()), done.stderr
    shots = schema.read(tmp_path / "o" / "summary.json")["shots"]
    assert any("pictures among the nearest" in shot["reason"] for shot in shots if shot["chosen"])


def test_a_recut_wants_the_model_that_reads_the_words(scenes: Path, clip: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(clip, moved)
    made = vtsum.summarize(scenes, tmp_path / "o", **{**OPTIONS, "model": str(moved), "budget": "4s", "speech": None})
    shutil.rmtree(moved)
    assert vtsum.recut(made.output, tmp_path / "plain", video=scenes).shots == made.shots
    with pytest.raises(VTSumError, match=r"model must be .*moved"):
        vtsum.recut(made.output, tmp_path / "about", video=scenes, about="a red wall")
    assert not (tmp_path / "about").exists()


class Astray(ColourModel):
    """Says that it reads words, into another space than its pictures'."""

    reads_words = True

    def text_features(self, text: str) -> np.ndarray:
        return np.zeros(3, np.float32)


def test_words_in_another_space_than_the_pictures_are_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(VTSumError, match="about: text_features of 'colour' must be 48 finite numbers"):
        vtsum.summarize(scenes, tmp_path / "o", about="a red wall", **{**OPTIONS, "model": Astray()})


def test_half_of_the_pictures_fit_nothing_and_the_best_one_wholly() -> None:
    class Known(Astray):
        def text_features(self, text: str) -> np.ndarray:
            return np.array([2.0, 0.0], np.float32)

    angles = np.radians([80, 60, 90, 0, 45])
    found = fits("a wall", Known(), np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32))
    assert found == pytest.approx([0, 0, 0, 1, (math.sqrt(0.5) - 0.5) / 0.5], abs=1e-6)
    assert fits("a wall", ColourModel(), np.ones((3, 2), np.float32)) is None
