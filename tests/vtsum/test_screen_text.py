"""Words on the screen: which pictures are read, what becomes of the readings, and what stands in the summary."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import vtsum
from tests import forked
from tests.vtsum.fakes import ColourModel, deafen
from tests.vtsum.samples import ENVIRONMENT
from vtsum.enhance.screen_text import RapidReader, Reading, ScreenLine, ScreenText, lines_of, quotations
from vtsum.enhance.screen_text import reader as rapid
from vtsum.enhance.screen_text.reader import rows
from vtsum.enhance.speech.merge import merge_text
from vtsum.errors import VTSumError
from vtsum.summary import pipeline, schema
from vtsum.summary.choosing import Span

WIDTH, HEIGHT = 480, 270
TITLE = "Harbour at dawn"
BOX = (0.1, 0.1, 0.5, 0.2)


def picture(text: str = "", at: tuple[int, int] = (60, 100), size: int = 30, seed: int = 0) -> np.ndarray:
    """A soft picture of its own for each seed, with a text: uint8 [H, W, 3]."""
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    a, b, c = np.random.default_rng(seed).uniform(0, 6, 3)
    soft = 90 + 40 * np.sin(3 * x + a)[..., None] * np.cos(np.stack([2 * y + b, 2 * x + c, y - x], -1))
    image = Image.fromarray(soft.astype(np.uint8))
    ImageDraw.Draw(image).text(at, text, font=ImageFont.load_default(size), fill="white")
    return np.asarray(image)


class Told:
    """Reads what it is told, wherever it looks, and notes the sizes of what it was given."""

    name = "told"

    def __init__(self, text: str = TITLE, margin: float = 14.0, score: float = 0.99) -> None:
        self.text, self.margin, self.score = text, margin, score
        self.sha256 = {"told.onnx": "0"}
        self.sizes: list[tuple[int, int]] = []

    def read(self, picture: np.ndarray) -> list[Reading]:
        height, width = picture.shape[:2]
        self.sizes.append((width, height))
        m = min(self.margin, height / 3, width / 3)
        return [Reading(self.text, self.score, (m, m, width - m, height - m))] if self.text else []


class Unsteady(Told):
    """Reads something else every second time."""

    def __init__(self, text: str = TITLE, again: str = "Harbour at down") -> None:
        super().__init__(text)
        self.again = again

    def read(self, picture: np.ndarray) -> list[Reading]:
        found = super().read(picture)
        return found if len(self.sizes) % 2 else [replace(one, text=self.again) for one in found]


def show(screen: ScreenText, pictures: list[np.ndarray], first: float = 0.0) -> None:
    for i, one in enumerate(pictures):
        grey = np.asarray(Image.fromarray(one).convert("L"))
        screen.look(first + i, grey, lambda one=one: one)


def test_a_title_is_read_once_however_long_it_stands() -> None:
    told = Told()
    screen = ScreenText(told)
    show(screen, [picture()] * 3 + [picture(TITLE)] * 9 + [picture()] * 3)
    (line,) = screen.lines(60.0)
    assert line.text == TITLE
    assert (line.start, line.end) == (3.0, 11.0)
    assert screen.read == 1
    assert len(told.sizes) == 2  # and what lies around it again
    assert told.sizes[0][1] < HEIGHT / 2  # of the picture, the part with the title


@pytest.mark.parametrize(
    ("again", "confirmed"),
    [(TITLE, True), ("Harbour  at dawn ", True), ("Harbour at down", False), ("Harbour atdawn", False), ("", False)],
)
def test_a_line_is_confirmed_by_a_second_reading(again: str, confirmed: bool) -> None:
    unsteady = Unsteady(again=again)
    screen = ScreenText(unsteady)
    show(screen, [picture(TITLE)] * 4)
    (found,) = screen.lines(60.0)
    assert (found.text, found.confirmed) == (TITLE, confirmed)
    first, second = unsteady.sizes
    assert second != first
    assert [q.text for q in quotations([found])] == ["On screen: \u201cHarbour at dawn\u201d."] * confirmed


def test_what_cannot_be_paid_for_is_not_read_again() -> None:
    told = Told()
    screen = ScreenText(told, _second_purse=0.0)
    show(screen, [picture(TITLE, size=40)] * 3)
    (found,) = screen.lines(60.0)
    assert not found.confirmed
    assert len(told.sizes) == 1


def test_a_title_over_pictures_that_change_keeps_its_time() -> None:
    told = Told()
    screen = ScreenText(told)
    show(screen, [picture(TITLE if 2 <= i < 9 else "", seed=i) for i in range(12)])
    (line,) = screen.lines(60.0)
    assert (line.start, line.end) == (2.0, 8.0)
    assert screen.read == 1


def test_the_next_slide_is_read_too() -> None:
    told = Told()
    screen = ScreenText(told)
    show(screen, [picture(TITLE)] * 4)
    told.text = "The second part"
    show(screen, [picture("The second part")] * 4, first=4.0)
    assert [(line.text, line.start, line.end) for line in screen.lines(60.0)] == [
        (TITLE, 0.0, 3.0),
        ("The second part", 4.0, 7.0),
    ]
    assert screen.read == 2


def slides(shown: list[list[str]], moving: bool = False) -> list[ScreenLine]:
    """The lines of slides of four seconds each, a row of letters under the other."""
    screen = ScreenText(RapidReader())
    for number, texts in enumerate(shown):
        for second in range(4 * number, 4 * number + 4):
            image = Image.fromarray(picture(seed=second if moving else 0))
            for row, text in enumerate(texts):
                ImageDraw.Draw(image).text((40, 60 + 70 * row), text, font=ImageFont.load_default(26), fill="white")
            show(screen, [np.asarray(image)], first=float(second))
    return screen.lines(600.0)


@pytest.mark.parametrize("moving", [False, True])
def test_slides_of_one_layout_are_told_apart(moving: bool) -> None:
    """Letters of one size at one place have most of their edges near those of others."""
    texts = [
        "Welcome to bees",
        "Why bees matter",
        "The hive in winter",
        "Honey and wax",
        "Threats to bees",
        "Thank you",
    ]
    found = slides([[text] for text in texts], moving)
    assert [(one.text, one.start, one.end) for one in found] == [
        (text, 4.0 * i, 4.0 * i + 3) for i, text in enumerate(texts)
    ]
    assert all(one.confirmed for one in found)


def test_a_line_of_which_one_digit_changes_is_another() -> None:
    """And what stands above and below it stays."""
    found = slides([["Sales this year", f"Total: {number} units", "Source: own count"] for number in (381, 384)])
    assert [(one.text, one.start, one.end) for one in found] == [
        ("Sales this year", 0.0, 7.0),
        ("Total: 381 units", 0.0, 3.0),
        ("Source: own count", 0.0, 7.0),
        ("Total: 384 units", 4.0, 7.0),
    ]


def test_a_clock_takes_no_reading_a_second() -> None:
    screen = ScreenText(RapidReader())
    show(screen, [picture(f"Bell {number} o'clock") for number in range(11, 31)])
    assert screen.read <= 10  # some of the first take two
    assert screen.lines(600.0) == []


def test_what_a_pointer_makes_of_letters_is_no_line() -> None:
    read = [line("point 2 of slide 2", 0, 9), line("point 2 of slidel", 10, 10), line("point 2 of slide 2", 11, 20)]
    assert [(one.text, one.start, one.end) for one in lines_of(read, 600.0)] == [("point 2 of slide 2", 0, 20)]
    elsewhere = replace(read[1], box=(0.1, 0.6, 0.5, 0.7))
    assert elsewhere.text in [one.text for one in lines_of([read[0], elsewhere, read[2]], 600.0)]


def test_pictures_without_letters_are_not_read() -> None:
    told = Told()
    show(ScreenText(told), [picture(seed=i // 3) for i in range(12)])
    assert told.sizes == []


def test_what_reading_costs_is_bounded_by_the_length_of_the_video() -> None:
    """Every two seconds another page full of signs, none of which is a letter."""
    told = Told(text="")
    screen = ScreenText(told)
    pages = [picture() for _ in range(120)]
    for i in range(0, 120, 2):
        page = np.random.default_rng(i).integers(0, 2, (HEIGHT // 6, WIDTH // 3), dtype=np.uint8)
        page[::3] = 0
        pages[i] = pages[i + 1] = np.repeat(np.repeat(255 * page, 6, 0), 3, 1)[..., None].repeat(3, 2)
    show(screen, pages)
    area = sum(w * h for w, h in told.sizes) / (WIDTH * HEIGHT)
    assert 3 < area <= 3 + 120 / 24 + 0.1


def test_a_line_that_goes_on_outside_of_what_was_read_is_read_whole() -> None:
    """The reader finds letters at the very edge of the part it is given, but not in the whole width."""
    told = Told(margin=0.0)
    screen = ScreenText(told)
    show(screen, [picture(TITLE)] * 3)
    assert told.sizes[0][0] < WIDTH
    assert told.sizes[1][0] == WIDTH
    assert screen.read == 2
    (line,) = screen.lines(60.0)
    assert (line.box[0], line.box[2]) == (0.0, 1.0)


def test_names_that_roll_by_are_read_now_and_then() -> None:
    told = Told()
    screen = ScreenText(told)
    moving = []
    for i in range(20):
        one = Image.fromarray(picture())
        for row in range(6):
            at = (90, 37 * i % 60 + 60 * row - 60)
            ImageDraw.Draw(one).text(at, f"Somebody Else {i} {row}", font=ImageFont.load_default(22), fill="white")
        moving.append(np.asarray(one))
    show(screen, moving)
    assert 2 <= screen.read <= 6
    assert (WIDTH, HEIGHT) in told.sizes


def test_a_reader_that_fails_is_told_and_asked_no_more() -> None:
    class Failing(Told):
        def read(self, picture: np.ndarray) -> list[Reading]:
            self.sizes.append((1, 1))
            raise VTSumError("told failed: no memory")

    failing = Failing()
    screen = ScreenText(failing)
    for i in range(8):
        screen.see(float(i), av.VideoFrame.from_ndarray(picture(TITLE if i % 4 else "Another"), format="rgb24"))
    assert screen.warnings == ["words on the screen were not read from 2 s on: told failed: no memory"]
    assert len(failing.sizes) == 1
    assert screen.lines(8.0) == []


def test_a_picture_that_cannot_be_converted_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    screen = ScreenText(told)
    frame = av.VideoFrame.from_ndarray(picture(TITLE), format="rgb24")
    with monkeypatch.context() as broken:
        broken.setattr("vtsum.enhance.screen_text.watching._within", lambda size, side: (-1, -1))  # swscale refuses
        screen.see(0.0, frame)
    for at in (1.0, 2.0, 3.0):
        screen.see(at, frame)
    assert [line.text for line in screen.lines(60.0)] == [TITLE]


@pytest.mark.parametrize("error", [RuntimeError("onnx\nno kernel"), ValueError("shape")])
def test_what_rapidocr_raises_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def engine(picture: np.ndarray) -> None:
        raise error

    reader = RapidReader()
    monkeypatch.setitem(reader.__dict__, "_engine", engine)
    with pytest.raises(VTSumError, match=rf"^{__import__('re').escape(reader.name)} failed: (no kernel|shape)$"):
        reader.read(picture())


def line(text: str, start: float, end: float, score: float = 0.99, top: float = 0.1, height: float = 0.1) -> ScreenLine:
    return ScreenLine(text, start, end, score, (0.1, top, 0.5, top + height), confirmed=True)


def test_readings_of_one_line_become_one() -> None:
    read = [line("Harb", 0, 1), line("Harbour at dawn", 2, 4), line("Harbour at davvn", 5, 7, score=0.95)]
    assert [(one.text, one.start, one.end) for one in lines_of(read, 60.0)] == [("Harbour at dawn", 0, 7)]
    numbered = [line("Results of week 12", 0, 4), line("Results of week 13", 5, 9)]
    assert [(one.text, one.end) for one in lines_of(numbered, 60.0)] == [(one.text, one.end) for one in numbered]
    again = [line("Harbour at dawn", 0, 1), line("Harbour at dawn", 30, 32)]
    assert [(one.start, one.end) for one in lines_of(again, 60.0)] == [(0, 1), (30, 32)]
    assert [one.text for one in lines_of([line("Sales rose", 0, 1), line("Costs fell", 0, 1, top=0.4)], 60.0)] == [
        "Sales rose",
        "Costs fell",
    ]


def test_of_readings_of_one_line_a_confirmed_one_stays() -> None:
    sure = line("Harbour at dawn", 5, 7, score=0.95)
    doubtful = replace(line("Harbour at davvn", 2, 4, score=0.99), confirmed=False)
    later = replace(doubtful, start=8, end=9)
    (found,) = lines_of([doubtful, sure, later], 60.0)
    assert (found.text, found.confirmed) == ("Harbour at dawn", True)
    whole = replace(line("Harbour at dawn in davvn", 5, 7), confirmed=False)  # what is confirmed is a part of it alone
    (found,) = lines_of([line("Harbour", 2, 4), whole], 60.0)
    assert (found.text, found.confirmed) == (whole.text, False)


@pytest.mark.parametrize(
    "read",
    [
        [line("A", 1, 4)],
        [line("IV", 1, 4)],
        [line("12:30", 1, 4)],
        [line("Hello there", 1, 4, score=0.85)],
        [line(f"TC 01:00:{i:02}", i, i + 1) for i in range(5)],
        [line("VTV", 0, 50)],
        [line("VTV", 0, 20), line("VTV", 45, 59)],
        [line("past the end", 61, 62)],
    ],
)
def test_what_tells_nothing_is_left_out(read: list[ScreenLine]) -> None:
    assert lines_of(read, 60.0) == []


@pytest.mark.parametrize("text", ["城市", "東京駅", "Week 12"])
def test_two_signs_of_chinese_and_numbers_with_letters_stay(text: str) -> None:
    assert [one.text for one in lines_of([line(text, 1, 4)], 60.0)] == [text]


@pytest.mark.parametrize("text", ["Öl", "Go!"])
def test_words_of_two_letters_are_left_out(text: str) -> None:
    assert lines_of([line(text, 1, 4)], 60.0) == []


def test_the_lines_of_hours_are_told_apart_in_seconds() -> None:
    words = ["".join(np.random.default_rng(i).choice(list("abcdefghijklmnop"), 6)) for i in range(3000)]
    pages = [
        (12.0 * page, " ".join(words[(7 * page + 131 * row + i) % 3000] for i in range(5)), row / 10)
        for page in range(600)
        for row in range(8)
    ]
    read = [line(text, start, start + 12.0, top=top) for start, text, top in pages]
    read += [line("Channel Nine", start, start + 12.0, top=0.95) for start in range(0, 7200, 12)]
    begun = time.perf_counter()
    found = lines_of(read, 7200.0)
    assert time.perf_counter() - begun < 20.0  # all against all took minutes
    assert len(found) > 4000
    assert "Channel Nine" not in {one.text for one in found}


def test_letters_of_the_screen_are_cleaned() -> None:
    assert lines_of([line("a\u202eb\x1b[31m text", 1, 4)], 60.0)[0].text == "ab [31m text"


def test_words_of_one_row_are_joined() -> None:
    words = [Reading("Lisbon", 0.9, (130, 12, 190, 40)), Reading("Live", 0.99, (10, 10, 60, 40))]
    words += [Reading("from", 0.95, (70, 11, 120, 40)), Reading("News", 0.9, (10, 60, 60, 80))]
    assert [(w.text, w.score) for w in rows(words)] == [("Live from Lisbon", 0.9), ("News", 0.9)]


def test_quotations_are_the_largest_letters_and_not_what_is_said() -> None:
    page = [line("Budget report", 5, 9, top=0.1, height=0.2), line("page 3 of 12", 5, 9, top=0.9, height=0.03)]
    page += [line("Second quarter", 5.5, 9, top=0.4, height=0.15)]
    subtitle = line("we sold more boats", 20, 23, top=0.8)
    said = [(word, 20.5) for word in ["We", "sold", "more", "boats,", "too"]]
    (one,) = quotations([*page, subtitle], said)
    assert one.text == "On screen: \u201cBudget report\u201d, \u201cSecond quarter\u201d."
    assert (one.start, one.end) == (5, 9)
    assert [q.text for q in quotations([subtitle])] == ["On screen: \u201cwe sold more boats\u201d."]
    later = [(word, 40.0) for word, _ in said]
    assert len(quotations([subtitle], later)) == 1


def test_quotations_and_sentences_share_the_text() -> None:
    heard = [Span(f"Sentence {i}.", 10 * i, 10 * i + 2, 0.9, "heard", 0.5 + i / 100) for i in range(9)]
    quoted = quotations([line(f"Slide number {'abcdefghi'[i]}{i}", 10 * i + 5, 10 * i + 7) for i in range(9)])
    text = merge_text([], heard, 5, quotations=quoted, clips=[(3, 0.0, 6.0)])
    assert [s.origin for s in text].count("heard") == 3
    assert [s.origin for s in text].count("read") == 2
    assert [s.times[0][0] for s in text] == sorted(s.times[0][0] for s in text)
    alone = merge_text([], [], 5, quotations=quoted, clips=[(3, 0.0, 6.0)])
    assert len(alone) == 5
    assert next(s for s in alone if s.times[0][0] == 5).shots == (3,)


def test_a_drawn_picture_is_read() -> None:
    found = RapidReader().read(picture("Jane Miller, 2 cups of tea"))
    assert [one.text for one in found] == ["Jane Miller, 2 cups of tea"]
    left, top, right, bottom = found[0].box
    assert 50 < left < 70
    assert 90 < top < 115
    assert 300 < right < WIDTH
    assert 120 < bottom < 150
    assert RapidReader().read(picture()) == []
    assert RapidReader().read(np.zeros((2, 2, 3), np.uint8)) == []


@pytest.mark.parametrize("text", ["Straße nach Köln: 45 €", "Łódź i Kraków", "Ελληνικά νέα"])
def test_accents_are_read_and_greek_is_left_out(text: str) -> None:
    """Greek would be read without its accents, and in every reading so."""
    image = Image.fromarray(picture())
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 30)
    ImageDraw.Draw(image).text((60, 100), text, font=font, fill="white")
    assert [one.text for one in RapidReader().read(np.asarray(image))] == [text] * text.startswith(("S", "Ł"))


def test_a_reader_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vtsum.extras.version_of", lambda name: None if name == "rapidocr" else "1")
    with pytest.raises(VTSumError, match=r"rapidocr must be installed: pip install vtsum\[ocr\]"):
        RapidReader()
    assert pipeline._reader()[0] is None
    monkeypatch.undo()
    # RapidOCR would download what is not there.
    monkeypatch.setattr(rapid, "_RECOGNITION", "other.onnx")
    with pytest.raises(VTSumError, match=r"other.onnx must be there, got none: pip install 'vtsum\[ocr\]'"):
        RapidReader()


def film(path: Path, shown: Callable[[float], np.ndarray], seconds: float, rotate: bool = False) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=5, options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(int(seconds * 5)):
            frame = av.VideoFrame.from_ndarray(shown(i / 5), format="rgb24")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def titled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def shown(time: float) -> np.ndarray:
        return picture(TITLE if 3 <= time < 8 else "", seed=int(time // 3))

    return film(tmp_path_factory.mktemp("screen") / "titled.mp4", shown, 12.0)


def test_the_screen_is_quoted_by_command(titled: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vtsum.cli", "summarize", str(titled), "--no-speech", "-f", "txt,json,html"]
    done = forked.run([*command, "-o", str(tmp_path / "s")], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "[0:03-0:07] On screen: \u201cHarbour at dawn\u201d." in (tmp_path / "s" / "summary.txt").read_text()
    data = schema.read(tmp_path / "s" / "summary.json")
    assert data["screen"] is not None
    (only,) = data["screen"]["lines"]
    assert only["text"] == TITLE
    assert 0.05 < only["box"]["left"] < only["box"]["right"] < 0.8
    assert len(data["screen"]["sha256"]) == 2
    assert [s["origin"] for s in data["text"]] == ["measured", "read"]  # few words: what was measured stands beside
    assert data["title"] == {"text": TITLE, "origin": "read", "times": [{"start": only["start"], "end": only["end"]}]}
    page = (tmp_path / "s" / "report.html").read_text()
    assert "Words on the screen" in page
    assert f'<span class="line">{TITLE}</span>' in page
    done = forked.run([*command, "--no-ocr", "-o", str(tmp_path / "n")], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    data = schema.read(tmp_path / "n" / "summary.json")
    assert data["screen"] is None
    assert TITLE not in (tmp_path / "n" / "summary.txt").read_text()


def test_what_is_read_otherwise_again_is_marked_and_quoted_nowhere(
    titled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deafen(monkeypatch)
    monkeypatch.setattr(pipeline, "_reader", lambda: (Unsteady(), []))
    made = vtsum.summarize(titled, tmp_path / "s", model=ColourModel(), formats=["txt", "json", "html"])
    assert "Harbour" not in made.files["txt"].read_text()
    assert "no line on the screen is sure enough to be quoted" in made.warnings
    data = schema.read(made.files["json"])
    assert data["title"]["origin"] == "name"
    assert "read" not in {sentence["origin"] for sentence in data["text"]}
    assert data["screen"] is not None
    assert [(found["text"], found["confirmed"]) for found in data["screen"]["lines"]] == [(TITLE, False)]
    page = made.files["html"].read_text()
    assert page.count("Harbour") == page.count(f'<u class="unsure">{TITLE}</u>') == 1
    assert "not read alike twice" in page
    older = json.loads(made.files["json"].read_text())
    del older["screen"]["lines"][0]["confirmed"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    assert schema.read(tmp_path / "older.json") == data


def test_hostile_writing_is_harmless(titled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "<script>alert(1)</script> \x1b[31mred"
    deafen(monkeypatch)
    monkeypatch.setattr(pipeline, "_reader", lambda: (Told(evil), []))
    made = vtsum.summarize(titled, tmp_path / "s", model=ColourModel(), formats=["txt", "json", "html"])
    page = made.files["html"].read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in made.files["txt"].read_text() + made.files["json"].read_text()


def test_without_a_reader_the_summary_says_so(titled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deafen(monkeypatch)
    monkeypatch.setattr("vtsum.extras.version_of", lambda name: None if name == "rapidocr" else "1")
    made = vtsum.summarize(titled, tmp_path / "s", model=ColourModel(), formats=["json"])
    assert made.data["screen"] is None
    assert [w for w in made.warnings if "screen" in w] == [
        "words on the screen were not read: words on the screen: rapidocr must be installed: pip install vtsum[ocr]"
    ]


def test_a_summary_of_the_version_before_is_read(titled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deafen(monkeypatch)
    made = vtsum.summarize(titled, tmp_path / "s", model=ColourModel(), formats=["json"], ocr=False)
    old = json.loads(made.files["json"].read_text())
    old["schema"] = "vtsum-summary/1"
    del old["screen"], old["title"], old["chapters"], old["models"]
    for later in ("ocr", "writer", "offline_default"):
        del old["settings"][later]
    old["speech"] = {"source": "pocketsphinx", "language": "en", "guess": True, "utterances": [], "warnings": []}
    (tmp_path / "old.json").write_text(json.dumps(old))
    data = schema.read(tmp_path / "old.json")
    assert data["screen"] is None
    assert data["settings"]["ocr"] is False
    assert data["title"] == {"text": "titled.mp4", "origin": "name", "times": []}
    assert (data["chapters"], data["models"], data["settings"]["writer"]) == ([], [], None)
    assert data["speech"]["source"] == "pocketsphinx"
    with pytest.raises(VTSumError, match=r"schema must be 'vtsum-summary/2'"):
        schema.validate(old)
    early = {**old, "schema": "vtsum-summary/2", "speech": None, "screen": None}
    early["settings"] = {**early["settings"], "ocr": True}
    (tmp_path / "early.json").write_text(json.dumps(early))
    assert schema.read(tmp_path / "early.json")["title"] == data["title"]
