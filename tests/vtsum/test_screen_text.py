"""Words on the screen: which pictures are read, what becomes of the readings, and what stands in the summary."""

from __future__ import annotations

import json
import subprocess
import sys
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
from vtsum.enhance.screen_text import RapidReader, Reading, ScreenLine, ScreenText, quotations
from vtsum.enhance.screen_text import reader as rapid
from vtsum.enhance.screen_text.reader import rows
from vtsum.errors import VTSumError
from vtsum.summary import pipeline, schema

WIDTH, HEIGHT = 480, 270
TITLE = "Harbour at dawn"


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


@pytest.mark.parametrize(("speed", "pan"), [(0, 0), (0, 9), (15, 0)])
def test_writing_over_footage_is_found_whether_it_stands_or_moves(speed: int, pan: int) -> None:
    """What told slides apart had lost the lines that move, and readings to what moves behind others."""
    rng = np.random.default_rng(0)
    ground = np.asarray(
        Image.fromarray(rng.integers(0, 256, (HEIGHT // 12, WIDTH // 12, 3), np.uint8)).resize((WIDTH, HEIGHT))
    )
    texts = ["Harbour at dawn", "Jane Miller, astronomer", "Add two cups of flour", "The second experiment"]
    screen = ScreenText(RapidReader())
    for second in range(4 * 6):
        image = Image.fromarray((np.roll(ground, pan * second, 1) // 2).copy())
        draw, step = ImageDraw.Draw(image), second % 6
        draw.ellipse((60 * second, 30, 60 * second + 40, 70), fill=(90, 60, 30))  # passes behind the first
        if step >= 2:
            draw.text(
                (30 + speed * step, 40 + 55 * (second // 6)), texts[second // 6], "white", ImageFont.load_default(26)
            )
        shown = np.asarray(image)
        screen.look(float(second), np.asarray(image.convert("L")), lambda shown=shown: shown)
    found = [line.text for line in screen.lines(24.0)]
    assert [text for text in texts if text not in found] == []


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


def test_words_of_one_row_are_joined() -> None:
    words = [Reading("Lisbon", 0.9, (130, 12, 190, 40)), Reading("Live", 0.99, (10, 10, 60, 40))]
    words += [Reading("from", 0.95, (70, 11, 120, 40)), Reading("News", 0.9, (10, 60, 60, 80))]
    assert [(w.text, w.score) for w in rows(words)] == [("Live from Lisbon", 0.9), ("News", 0.9)]


def test_onnx_runtime_keeps_no_identifier_and_tells_nobody(titled: Path, tmp_path: Path) -> None:
    """It laid one into the home folder, and a session's into the temporary one, to send them with what it counts."""
    home = {name: str(tmp_path / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for folder in home.values():
        Path(folder).mkdir()
    code = (
        "import sys, av; from vtsum.enhance.screen_text.reader import RapidReader\n"
        "picture = next(p for p in av.open(sys.argv[1]).decode(video=0) if p.time > 5)\n"
        "print(RapidReader().read(picture.to_ndarray(format='rgb24'))[0].text)"
    )
    env = {name: value for name, value in ENVIRONMENT.items() if name != "ORT_DISABLE_TELEMETRY"} | home
    done = subprocess.run([sys.executable, "-c", code, titled], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, TITLE + "\n"), done.stderr
    assert [path for path in tmp_path.rglob("*") if path.name in (".ses", "Microsoft")] == []


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
        "words on the screen were not read: rapidocr must be installed: pip install vtsum[ocr]"
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
