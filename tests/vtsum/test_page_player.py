"""The page in a browser: what a moment plays, where the original comes from, links, keys, speed, subtitles."""

from __future__ import annotations

import copy
import json
import shutil
import struct
import time
from pathlib import Path

import pytest

from tests.once import once
from tests.vtsum import pages
from vtsum.summary import report, schema

STATE = """(() => { const s = document.getElementById('video'), o = document.getElementById('original');
  const one = o.hidden ? s : o; return [o.hidden ? 'summary' : 'original', one.currentTime, one.paused]; })()"""
SETTLED = """new Promise((done) => { const began = Date.now(); const look = () => {
  const s = document.getElementById('video'), o = document.getElementById('original'), one = o.hidden ? s : o;
  if (!one.seeking && one.readyState >= 2 && (%s)) done(true); else if (Date.now() - began > 8000) done(false);
  else setTimeout(look, 20); }; setTimeout(look, 20); })"""
TOLD = "document.getElementById('told').textContent"
ASKED = """new Promise((done) => { const look = () =>
  document.getElementById('pick').hidden ? setTimeout(look, 20) : done(1); look(); })"""
PAUSE = "document.querySelectorAll('video').forEach((one) => one.pause())"


@pytest.fixture(scope="module")
def folder(clip: Path, nobody_listens: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "short_page", lambda path: pages.short_page(clip, path))


@pytest.fixture(scope="module")
def data(folder: Path) -> schema.SummaryDocument:
    return schema.read(folder / "o" / "summary.json")


@pytest.fixture
def alone(folder: Path, tmp_path: Path) -> Path:
    """The page with no video near it."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    return Path(shutil.copy(folder / "o" / "report.html", tmp_path / "a" / "b" / "report.html"))


def settled(browser, condition: str = "true") -> tuple[str, float, bool]:
    assert browser.run(SETTLED % condition), browser.run(STATE)
    which, at, paused = browser.run(STATE)
    return which, at, paused


def press(browser, label: str) -> None:
    """Press the transcript's button of that time."""
    browser.run(
        f"[...document.querySelectorAll('#said .time')].find((b) => b.textContent === {json.dumps(label)}).click()"
    )


def test_a_moment_in_the_summary_plays_there_and_one_outside_plays_the_original_beside(browser, folder, data):
    page = folder / "o" / "report.html"
    browser.open(page, 1280, 900)
    first, second = [shot["clip"] for shot in data["shots"] if shot["clip"]]
    assert browser.requests == [page.resolve().as_uri()]
    press(browser, "0:08")
    which, at, paused = settled(browser)
    assert (which, paused) == ("summary", False)
    wanted = second["summary_start"] + 8.3 - second["start"]
    assert wanted - 0.05 <= at <= wanted + 1, "it plays the very words"
    assert browser.run(TOLD) == ""

    press(browser, "0:04")  # dropped
    which, at, paused = settled(browser, "one === o")
    assert (which, paused) == ("original", False)
    assert 4.15 <= at <= 5.2
    assert "0:04 is not in the summary" in browser.run(TOLD)
    assert browser.run("document.getElementById('video').paused")
    assert [Path(url).name for url in browser.requests[1:]].count("small.mp4") >= 1
    assert browser.run("document.querySelector('#said [aria-current] .time').textContent") == "0:04"

    # The next moment inside plays the summary again; a clip's picture from the clip's start.
    browser.run("document.querySelectorAll('.frame')[0].click()")
    which, at, _ = settled(browser, "one === s")
    assert which == "summary"
    assert first["summary_start"] <= at <= first["summary_start"] + 1
    assert browser.errors == []


def test_the_same_times_stand_in_the_text_and_it_says_what_the_video_shows(browser, folder, data):
    browser.open(folder / "o" / "report.html", 1280, 900)
    lines = (folder / "o" / "summary.txt").read_text(encoding="utf-8").splitlines()
    told = [line for line in lines if line.startswith("[")]
    shown = browser.run(
        "[...document.querySelectorAll('.words li')].map((row) => [row.querySelector('.time').textContent,"
        " !row.querySelector('.time').classList.contains('outside'), row.querySelector('.sentence').textContent])"
    )
    assert len(told) == len(shown) >= 2
    for line, (span, inside, text) in zip(told, shown, strict=True):
        assert line.startswith(f"[{span}] ")
        assert text in line
        assert ("(not in the summary)" in line) == (not inside)
    second = data["shots"][-1]["clip"]
    assert told[-1].endswith(f"(in the summary at 0:{int(second['summary_start'] + 0.3):02})")
    assert {inside for _, inside, _ in shown} == {True, False}
    assert browser.run("document.querySelectorAll('.words li')[0].innerText").endswith("not in the summary")


def test_without_the_original_the_page_asks_for_it_and_takes_no_other(browser, alone, folder, tmp_path):
    browser.open(alone, 1280, 900)
    press(browser, "0:04")
    browser.run(ASKED)
    assert browser.run(TOLD).startswith("0:04 is not in the summary. The original does not lie beside this page.")
    assert browser.run(STATE)[0] == "summary"
    assert browser.run(STATE)[2], "nothing else is played instead"
    (tmp_path / "other.mp4").write_bytes(b"x" * 1000)
    browser.choose("#file", tmp_path / "other.mp4")
    assert "other.mp4 is another file" in browser.run(TOLD)
    browser.choose("#file", folder / "small.mp4")
    which, at, paused = settled(browser, "one === o")
    assert (which, paused) == ("original", False)
    assert 4.15 <= at <= 5.2, "what was asked for before"
    assert browser.run("document.getElementById('pick').hidden")


def test_a_video_of_that_name_but_another_length_is_not_taken(browser, alone):
    pages.made_video(alone.with_name("small.mp4"), 60, 1)
    browser.open(alone, 1280, 900)
    browser.run("document.getElementById('show-original').click()")
    browser.run(ASKED)
    assert browser.run(STATE)[0] == "summary"


def test_what_the_summary_shows_too_little_of_plays_the_original(browser, folder, data, tmp_path):
    """A sentence of two seconds that begins in the last tenth of a clip's; a cut would end it."""
    cut = copy.deepcopy(data)
    end = next(shot["clip"]["end"] for shot in cut["shots"] if shot["clip"])
    line = cut["speech"]["utterances"][0]
    line |= {"start": end - 0.1, "end": end + 1.9, "words": [line["words"][0] | {"start": end - 0.1, "end": end + 1.9}]}
    (tmp_path / "report.html").write_text(report.render(cut, (folder / "o" / "summary.mp4").read_bytes(), {}))
    shutil.copy(folder / "small.mp4", tmp_path)
    browser.open(tmp_path / "report.html", 1280, 900)
    browser.run("document.querySelector('#said .time').click()")
    which, at, _ = settled(browser, "one === o")
    assert which == "original"
    assert end - 0.15 <= at <= end + 1


def test_the_viewer_may_stay_with_the_original(browser, folder):
    browser.open(folder / "o" / "report.html", 1280, 900)
    browser.run("document.getElementById('show-original').click()")
    which, _, paused = settled(browser, "one === o")
    assert (which, paused) == ("original", True), "it was not playing before"
    press(browser, "0:08")  # in the summary, too
    which, at, _ = settled(browser, "one.currentTime > 8")
    assert which == "original"
    assert 8.25 <= at <= 9.3
    assert browser.run("document.getElementById('show-original').getAttribute('aria-pressed')") == "true"
    browser.run("document.getElementById('show-summary').click()")
    assert settled(browser, "one === s")[0] == "summary"


def test_links_keys_speed_and_subtitles(browser, folder, data):
    page = folder / "o" / "report.html"
    second = data["shots"][-1]["clip"]
    browser.open(page, 1280, 900, fragment="#t=0:08.5")
    which, at, paused = settled(browser)
    assert (which, paused) == ("summary", True), "a link waits to be played"
    assert at == pytest.approx(second["summary_start"] + 0.5, abs=0.05)
    browser.run("location.hash = '#t=4.5'")
    which, at, _ = settled(browser, "one === o")
    assert 4.45 <= at <= 5.5
    browser.run(PAUSE)
    browser.run("document.getElementById('show-summary').click()")
    settled(browser, "one === s")
    browser.run("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    browser.run("document.getElementById('video').currentTime = 2.7")
    settled(browser, "one.currentTime > 2.6")
    browser.run("document.getElementById('link').click()")
    assert browser.run("window.copied") == f"{page.resolve().as_uri()}#t={second['start'] + 0.5:.1f}"

    browser.run("document.activeElement.blur()")
    for key, paused in ((" ", False), ("k", True), ("K", False), ("k", True)):
        browser.key(key)
        assert browser.run(STATE)[2] == paused, key
    browser.key("j")
    assert settled(browser)[1] < 0.5
    browser.key("l")
    assert settled(browser)[1] > 3
    browser.run("document.getElementById('find').focus()")
    browser.key("k")
    assert browser.run(STATE)[2], "it is a letter there"
    assert browser.run("document.getElementById('find').value") == "k"

    browser.run(
        "(() => { const s = document.getElementById('speed'); s.value = 1.5; s.dispatchEvent(new Event('change')); })()"
    )
    assert browser.run("[...document.querySelectorAll('video')].map((v) => v.playbackRate)") == [1.5, 1.5]
    browser.run("document.getElementById('subtitles').click()")
    modes = "[...document.querySelectorAll('video')].map((v) => v.textTracks[0].mode)"
    assert browser.run(modes) == ["showing", "showing"]
    cues = "[...document.getElementById('original').textTracks[0].cues].map((c) => c.text)"
    assert browser.run(cues)[1] == "Then coloured stripes come past."
    browser.run("document.getElementById('subtitles').click()")
    assert browser.run(modes) == ["hidden", "hidden"]
    assert browser.errors == []


def test_the_largest_page_plays_at_once(browser, folder, data, tmp_path):
    """Of 24 MB of video, 32 MB of HTML: 0.6 to 1 s on two cores, for which others waited, too."""
    video = (folder / "o" / "summary.mp4").read_bytes()
    spare = report.MAX_EMBEDDED - len(video)
    page = tmp_path / "report.html"
    page.write_text(report.render(data, video + struct.pack(">I4s", spare, b"free") + bytes(spare - 8), {}))
    assert page.stat().st_size > 32_000_000
    took = []
    for _ in range(3):
        began = time.monotonic()
        browser.open(page, 1280, 900)
        browser.run(SETTLED % "true")
        took.append(time.monotonic() - began)
    assert min(took) < 1.5
