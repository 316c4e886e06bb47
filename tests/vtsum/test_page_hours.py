"""The page of three hours in a browser: its timeline, its lists, its search, and a player that stays in sight."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.once import once
from tests.vtsum import pages
from vtsum.summary import schema

SEEN = """(() => { const v = document.getElementById('original').hidden ? 'video' : 'original';
  const r = document.getElementById(v).getBoundingClientRect(); return [r.top, r.bottom]; })()"""
SETTLED = """new Promise((done) => { const look = () => {
  const s = document.getElementById('video'), o = document.getElementById('original'), one = o.hidden ? s : o;
  if (!one.seeking && one.readyState >= 2 && one === %s) done(one.currentTime); else setTimeout(look, 20); };
  setTimeout(look, 40); })"""


@pytest.fixture(scope="module")
def page(clip: Path, nobody_listens: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    short = once(tmp_path_factory, "short_page", lambda path: pages.short_page(clip, path))
    data = schema.read(short / "o" / "summary.json")
    return once(tmp_path_factory, "hours_page", lambda path: pages.hours_page(data, path)) / "report.html"


def test_the_timeline_is_true_and_can_be_zoomed(browser, page):
    browser.open(page, 1280, 900)
    shaded = (
        "[...document.querySelectorAll('.band')].reduce((sum, band) => sum + Number(band.getAttribute('width')), 0)"
    )
    assert browser.run(shaded) / 1000 == pytest.approx(0.15, abs=0.002)
    cuts = "getComputedStyle(document.getElementById('cuts')).display"
    assert browser.run(cuts) == "none", "899 marks in 700 pixels are a slab"
    assert "zoom in to see" in browser.run("document.querySelector('.legend').innerText")
    width = "document.getElementById('track').clientWidth"
    whole = browser.run(width)
    points = "document.getElementById('line').getAttribute('d').split('L').length"
    assert browser.run(points) < 1000
    browser.run("document.getElementById('curve').focus()")
    for _ in range(4):
        browser.key("+")
    assert browser.run(width) == pytest.approx(16 * whole, rel=0.01)
    assert browser.run(cuts) != "none"
    assert "zoom in to see" not in browser.run("document.querySelector('.legend').innerText")
    assert browser.run(points) > 10000, "no value is left out any more"
    labels = browser.run("[...document.querySelectorAll('#axis span')].map((s) => s.getBoundingClientRect().left)")
    assert min(b - a for a, b in itertools.pairwise(labels)) > 40
    assert browser.run("document.documentElement.scrollWidth") <= 1280
    browser.run("document.getElementById('zoom-all').click()")
    assert browser.run(width) == whole
    # Zoomed at the mouse, the moment under it stays there.
    moment = """(() => { const r = document.getElementById('curve').getBoundingClientRect();
      return (300 - r.left) / r.width; })()"""
    before = browser.run(moment)
    browser.run(
        "document.getElementById('curve').dispatchEvent(new WheelEvent('wheel',"
        " {deltaY: -300, ctrlKey: true, clientX: 300, clientY: 500, cancelable: true}))"
    )
    assert browser.run(width) == pytest.approx(8 * whole, rel=0.01)
    assert browser.run(moment) == pytest.approx(before, abs=0.002)
    assert browser.errors == []


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (360, 740)])
def test_the_player_stays_and_nothing_jumps(browser, page, width, height):
    browser.open(page, width, height)
    assert browser.run("document.documentElement.scrollHeight") < 9000, "not a sentence after the other for ever"
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.getElementById('said-title').scrollIntoView()")
    browser.run("document.getElementById('said').scrollTop = 40000")
    rows = "[...document.querySelectorAll('#said li')]"
    inside = f"{rows}.find((row, i) => i > 1200 && row.querySelector('.inside'))"
    browser.run(f"{inside}.scrollIntoView({{block: 'center'}})")
    drawn = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
    browser.run(drawn)
    where = f"[scrollY, {inside}.getBoundingClientRect().top]"
    before = browser.run(where)
    assert browser.run("document.getElementById('said').scrollTop") > 10000
    at = browser.run(f"Number({inside}.querySelector('.time').dataset.at)")
    browser.run(f"{inside}.querySelector('.time').click()")
    played = browser.run(SETTLED % "s")
    assert played == pytest.approx(int(at / 72) * 10.8 + at % 72, abs=1)
    browser.run(drawn)
    assert browser.run(where) == pytest.approx(before, abs=1)
    top, bottom = browser.run(SEEN)
    assert top >= -1
    assert bottom <= height
    browser.run(f"{rows}[1500].querySelector('.time').click()")
    assert browser.run(SETTLED % "o") == pytest.approx(6750, abs=1)
    assert browser.run(f"{rows}.findIndex((row) => row.hasAttribute('aria-current'))") == 1500
    top, bottom = browser.run(SEEN)
    assert top >= -1
    assert bottom <= height


def test_search_and_what_is_in_the_summary(browser, page):
    browser.open(page, 1280, 900)
    count = "[...document.querySelectorAll('#said li')].filter((row) => row.getClientRects().length).length"
    type_in = (
        "(() => { const f = document.getElementById('find'); f.value = %r; f.dispatchEvent(new Event('input')); })()"
    )
    browser.run(type_in % "SENTENCE 1577")
    assert browser.run(count) == 1
    assert browser.run("document.getElementById('found').textContent") == "1 found"
    browser.run(type_in % "")
    assert browser.run(count) == 2400
    browser.run("document.getElementById('only').click()")
    wanted = sum(min(4.5 * i % 72 + 3.5, 10.8) - 4.5 * i % 72 >= 1.75 for i in range(2400))
    assert browser.run(count) == wanted > 300


def test_chapters_and_shot_rows_play(browser, page):
    browser.open(page, 1280, 900)
    rows = "[...document.querySelectorAll('section[aria-labelledby=chapters-title] li')]"
    assert browser.run(f"{rows}.length") == 12
    assert "in the summary from 15:36" in browser.run(f"{rows}[1].innerText").replace("\n", " ")
    browser.run(f"{rows}[1].querySelector('.first .time').click()")
    assert browser.run(SETTLED % "s") == pytest.approx(13 * 10.8, abs=1)
    assert browser.run(f"{rows}[1].getAttribute('aria-current')") == "true"
    browser.run(f"{rows}[1].querySelector('.time').click()")
    assert browser.run(SETTLED % "o") == pytest.approx(900, abs=1)

    browser.run("document.getElementById('all-shots').open = true")
    row = "document.querySelectorAll('.shots li')[%d]"
    browser.run(f"{row % 6}.scrollIntoView({{block: 'center'}})")
    box = browser.run(
        f"(() => {{ const r = {row % 6}.querySelector('.why').getBoundingClientRect(); return [r.left, r.top]; }})()"
    )
    browser.click(box[0] + 20, box[1] + 8)
    assert browser.run(SETTLED % "s") == pytest.approx(10.8, abs=1)
    browser.run(f"{row % 7}.querySelector('.time').click()")
    assert browser.run(SETTLED % "o") == pytest.approx(84, abs=1)
    assert browser.errors == []
