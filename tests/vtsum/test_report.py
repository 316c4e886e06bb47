"""The page: what it holds, that it needs nothing from outside, and how it behaves in a browser."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest

import vtsum
from tests.vtsum.fakes import ColourModel, FakeCaption
from tests.vtsum.samples import remux
from vtsum.summary import report, report_timeline

EVIL = '<script>document.title="owned"</script>'


class Talker(ColourModel):
    """A model whose words try to be markup."""

    def describe(self, features, spans, key_frames=None):
        return [FakeCaption(f"moment {i} {EVIL} & more", 0.4) for i in range(len(spans))]


pytestmark = pytest.mark.usefixtures("nobody_listens")


@pytest.fixture(scope="module")
def made(clip: Path, nobody_listens: None, tmp_path_factory: pytest.TempPathFactory) -> vtsum.Summary:
    """A summary of a file whose name and title hold markup."""
    folder = tmp_path_factory.mktemp("report")
    evil = remux(clip, folder / "a <script>alert(1)<⁄script>_b.mp4", f"A long {EVIL} title")
    return vtsum.summarize(evil, folder / "out", budget="5s", model=Talker(), captioner="embedded")


@pytest.fixture(scope="module")
def html(made: vtsum.Summary) -> str:
    return made.files["html"].read_text(encoding="utf-8")


class Tags(HTMLParser):
    """All start tags, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_nothing_comes_from_outside(html):
    for tag, attributes in Tags(html).tags:
        assert tag not in {"link", "iframe", "object", "base", "embed"}
        for name in ("src", "href", "poster", "srcset"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, name)
    style = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert "max-width" in style
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src &#39;none&#39;" in html or "default-src 'none'" in html


def test_text_from_the_file_is_escaped(html):
    assert EVIL not in html
    parsed = Tags(html)
    assert [tag for tag, _ in parsed.tags].count("script") == 2, "only the page's own"
    text = "".join(parsed.words)
    assert f"A long {EVIL} title" in text.replace("\n", " ")
    assert f"Moment 0 {EVIL} & more." in text


def test_the_video_and_the_key_frames_are_inside(made, html):
    video = re.search(r'src="data:video/mp4;base64,([^"]+)"', html)
    assert base64.b64decode(video.group(1)) == made.files["mp4"].read_bytes()
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', html)
    chosen = [shot for shot in made.shots if shot["chosen"]]
    files = [(made.output / shot["clip"]["keyframe"]).read_bytes() for shot in chosen]
    assert [base64.b64decode(picture) for picture in pictures] == files


def test_notes_and_facts_are_told(made, html):
    text = "".join(Tags(html).words)
    for words in (
        "most of it is not true",
        "sha256 0000000000000000",
        "colour",
        "5s = 5.0 s",
        "12 frames, 1 a second",
    ):
        assert words in text
    for shot in made.shots:
        assert shot["reason"] in text


def points(path: str) -> np.ndarray:
    return np.array([[float(v) for v in pair.split(",")] for pair in path[1:].split("L")])


def test_curve_keeps_its_extremes():
    saliency = np.full(7200, 0.3)
    saliency[[17, 4999]] = 0.9, 0.05
    curve = points(report_timeline.curve_path(list(np.arange(7200.0)), list(saliency), 7200.0, 0.05, 0.9))
    assert len(curve) <= 1000
    assert (np.diff(curve[:, 0]) >= 0).all()
    assert curve[np.argmin(curve[:, 1])] == pytest.approx([17 / 7.2, 3], abs=0.1)
    assert curve[np.argmax(curve[:, 1])] == pytest.approx([4999 / 7.2, 97], abs=0.1)
    short = points(report_timeline.curve_path([0.0, 1.0], [0.2, 0.4], 2.0, 0.2, 0.4))
    assert short.tolist() == [[0, 97], [500, 3], [1000, 3]]
    part = report_timeline.curve_path([60.0, 61.0, 62.0], [0.2, 0.4, 0.4], 100.0, 0.2, 0.4)
    assert points(part).tolist() == [[600, 97], [610, 3], [620, 3], [630, 3]], "nothing where nobody looked"
    assert report_timeline.area_path(part) == f"{part}L630.0,100L600.0,100Z"


@pytest.mark.parametrize("duration", [0.04, 1, 12, 59, 600, 3601, 7200, 86400, 1e6])
def test_axis(duration):
    ticks = report_timeline.axis_ticks(duration)
    assert ticks[0] == 0
    assert len(ticks) <= 9
    assert max(ticks) < duration
    assert len({round(b - a, 6) for a, b in itertools.pairwise(ticks)}) <= 1


def test_flat_saliency_is_drawn_flat():
    assert report_timeline.value_range([0.3, 0.3]) == pytest.approx((0.275, 0.325))
    assert report_timeline.value_range([0.0, 1.0]) == (0.0, 1.0)


def test_a_large_summary_is_embedded_smaller(made, tmp_path, monkeypatch):
    (tmp_path / "summary.mp4").write_bytes(made.files["mp4"].read_bytes())
    size = (tmp_path / "summary.mp4").stat().st_size
    assert report.embedded_video(tmp_path) == (tmp_path / "summary.mp4").read_bytes()
    monkeypatch.setattr(report, "MAX_EMBEDDED", int(size * 0.9))
    smaller = report.embedded_video(tmp_path)
    assert len(smaller) <= size * 0.9
    assert [p.name for p in tmp_path.iterdir()] == ["summary.mp4"]
    (tmp_path / "small.mp4").write_bytes(smaller)
    with av.open(str(tmp_path / "small.mp4")) as container:
        assert float(container.duration / av.time_base) == pytest.approx(made.duration, abs=0.15)


def test_bands_are_seen_and_leave_the_share_true():
    """Ten short clips of three hours are widened; 900 that are 15% of it shade 15%."""
    few = report_timeline.bands([(1000.0 * i, 1000.0 * i + 3) for i in range(10)], 10800.0)
    assert min(width for _, width in few) >= 1
    assert sum(width for _, width in few) / 1000 <= 30 / 10800 + 0.02
    many = report_timeline.bands([(12.0 * i, 12.0 * i + 1.8) for i in range(900)], 10800.0)
    assert sum(width for _, width in many) / 1000 == pytest.approx(0.15, abs=0.002)
    assert report_timeline.bands([], 5.0) == []


def test_a_page_without_text_says_so(made):
    data = copy.deepcopy(made.data)
    data["text"] = []
    assert "No sentence was found" in report.render(data, b"", {})


LOADED = """new Promise((done, fail) => {
  const video = document.getElementById("video");
  const end = () => video.error ? fail(video.error.message) : done(video.readyState);
  if (video.readyState >= 2 || video.error) end();
  else { video.onloadeddata = end; video.onerror = end; }
})"""
PLAYED = """new Promise((done) => {
  const video = document.getElementById("video");
  // Shown: the original has its pictures before the page hears of them and goes to the moment asked for.
  const there = () => !video.hidden && !video.seeking && video.readyState >= 2;
  const wait = () => there() ? done(video.currentTime) : setTimeout(wait, 20);
  setTimeout(wait, 20);
})"""


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (360, 740), (1600, 1000)])
@pytest.mark.parametrize("dark", [False, True])
def test_in_chromium(browser, made, tmp_path, width, height, dark):
    page = made.files["html"]
    browser.open(page, width, height, dark=dark)
    assert browser.run(LOADED) >= 2
    assert browser.requests == [page.resolve().as_uri()], "the page asked for something else"
    assert browser.run("document.getElementById('video').duration") == pytest.approx(made.duration, abs=0.1)
    assert browser.run("document.documentElement.scrollWidth") <= width, "scrolls sideways"
    assert EVIL in browser.run("document.title")
    box = browser.run("JSON.stringify(document.getElementById('video').getBoundingClientRect())")
    assert f'"width":{width - 32}' in box if width < 600 else '"width":' in box
    # Every control is inside the page and large enough to hit.
    small = browser.run(
        "[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect())"
        ".filter(r => r.height < 22 || r.width < 30 || r.right > innerWidth).length"
    )
    assert small == 0
    contrast = browser.run(
        "(() => { const c = getComputedStyle(document.body); return [c.color, c.backgroundColor]; })()"
    )
    ink, paper = (np.mean([int(v) for v in re.findall(r"\d+", colour)[:3]]) for colour in contrast)
    assert (ink > paper) == dark
    assert abs(ink - paper) > 150
    picture = tmp_path / "page.png"
    browser.picture(picture)
    from PIL import Image

    with Image.open(picture) as image:
        assert image.width == width
        assert len(image.convert("RGB").resize((64, 64)).getcolors(4096) or []) > 100, "the page is blank"


def test_clicks_and_keys_seek(browser, made):
    clips = [shot["clip"] for shot in made.shots if shot["clip"]]
    duration = made.data["source"]["duration"]
    assert len(clips) >= 2
    browser.open(made.files["html"], 1280, 900)
    browser.run(LOADED)
    browser.run("document.getElementById('curve').scrollIntoView({block: 'center'})")

    # A click into the middle of the last chosen clip plays that moment.
    last = clips[-1]
    moment = (last["start"] + last["end"]) / 2
    box = browser.run(
        "(() => { const r = document.getElementById('curve').getBoundingClientRect();"
        " return [r.left, r.top, r.width, r.height]; })()"
    )
    browser.click(box[0] + box[2] * moment / duration, box[1] + box[3] / 2)
    at = browser.run(PLAYED)
    assert last["summary_start"] <= at <= last["summary_end"] + 0.1
    assert not browser.run("document.getElementById('video').paused")
    browser.run("document.getElementById('video').pause()")
    left = browser.run("parseFloat(document.getElementById('playhead').style.left)") / 100 * duration
    assert last["start"] - 0.1 <= left <= last["end"] + 0.1

    # A click between two clips plays the original, whatever its name, and nothing of the summary.
    between = (clips[-2]["end"] + last["start"]) / 2
    assert last["start"] - clips[-2]["end"] > 0.3
    browser.click(box[0] + box[2] * between / duration, box[1] + box[3] / 2)
    assert between - 0.05 <= browser.run(PLAYED.replace('"video"', '"original"')) <= between + 1
    assert browser.run("document.getElementById('video').hidden")

    # The buttons of key frames and sentences play their own clip and mark it.
    browser.run("document.querySelectorAll('button.frame')[1].click()")
    assert clips[1]["summary_start"] <= browser.run(PLAYED) <= clips[1]["summary_start"] + 0.5
    assert browser.run("document.querySelectorAll('.frames li')[1].getAttribute('aria-current')") == "true"
    sentence = made.data["text"][-1]
    spoken = made.shots[sentence["shots"][0]]["clip"]
    browser.run("[...document.querySelectorAll('.words .time')].at(-1).click()")
    assert spoken["summary_start"] <= browser.run(PLAYED) <= spoken["summary_start"] + 0.5
    assert browser.run("[...document.querySelectorAll('.words li')].at(-1).getAttribute('aria-current')") == "true"

    # Arrow keys on the curve go from clip to clip.
    browser.run("document.getElementById('curve').focus()")
    browser.key("Home")
    assert browser.run(PLAYED) <= clips[0]["summary_end"]
    browser.run("document.getElementById('video').pause()")
    browser.key("ArrowRight")
    assert clips[1]["summary_start"] <= browser.run(PLAYED) <= clips[1]["summary_start"] + 0.5
    assert browser.run("document.getElementById('curve').getAttribute('aria-valuetext')")


def test_what_is_said_is_shown_in_the_player_and_found_in_the_transcript(browser, clip, tmp_path):
    lines = ["Nothing --> happens <b>here</b> & there.", EVIL + " said the second one.", "大家好，欢迎收看。"]
    srt = "".join(f"{n}\n00:00:0{2 * n},000 --> 00:00:0{2 * n + 1},500\n{line}\n\n" for n, line in enumerate(lines, 1))
    (tmp_path / "said.en.srt").write_text(srt, encoding="utf-8")
    made = vtsum.summarize(
        clip, tmp_path / "out", budget="100%", model=ColourModel(), transcript=tmp_path / "said.en.srt", ocr=False
    )
    browser.open(made.files["html"], 1280, 900)
    browser.run(LOADED)
    browser.run("document.getElementById('video').textTracks[0].mode = 'showing'")
    ready = (
        "new Promise((done) => { const track = document.querySelector('track');"
        " const look = () => track.readyState >= 2 ? done(track.readyState) : setTimeout(look, 50); look(); })"
    )
    assert browser.run(ready) == 2
    cues = browser.run(
        "[...document.getElementById('video').textTracks[0].cues].map((c) => c.getCueAsHTML().textContent)"
    )
    assert cues[0] == "Nothing --> happens here & there."
    assert "".join(cues).endswith("大家好，欢迎收看。")  # a cut may lie in it
    assert browser.run("document.title") != "owned"
    assert browser.run("document.querySelector('track').srclang") == "en"

    shown = (
        "[...document.querySelectorAll('#said li')].filter((line) => getComputedStyle(line).display != 'none')"
        ".map((line) => line.lastElementChild.textContent)"
    )
    assert len(browser.run(shown)) == 3
    browser.run("document.getElementById('find').focus()")
    for wanted, found in (("SECOND", 1), ("<b>", 0), ("欢迎", 1), ("here", 1), ("", 3)):
        browser.run(f"(() => {{ const f = document.getElementById('find'); f.value = {json.dumps(wanted)};"
                    " f.dispatchEvent(new Event('input', {bubbles: true})); })()")  # fmt: skip
        assert len(browser.run(shown)) == found, wanted
        assert browser.run("document.getElementById('found').textContent") == (f"{found} found" if wanted else "")


def test_the_curve_tells_its_value_under_the_mouse(browser, made):
    browser.open(made.files["html"], 1280, 900)
    browser.run("document.getElementById('curve').scrollIntoView({block: 'center'})")
    box = browser.run(
        "(() => { const r = document.getElementById('curve').getBoundingClientRect();"
        " return [r.left, r.top, r.width]; })()"
    )
    share = 2.5 / made.data["source"]["duration"]
    browser.move(box[0] + box[2] * share, box[1] + 20)
    shown = browser.run("document.getElementById('hover').textContent")
    assert shown.split(", ")[:2] == ["0:02", f"interest {made.data['frames']['saliency'][2]:.2f}"]
    inside = any(shot["clip"]["start"] <= 2.5 < shot["clip"]["end"] for shot in made.shots if shot["clip"])
    assert shown.endswith("not in the summary") != inside
