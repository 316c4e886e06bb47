"""The page for readers: a phone, paper, no scripts, copied text, keys of the browser, forced colours, plain words."""

from __future__ import annotations

import copy
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.once import once
from tests.vtsum import pages
from vtsum import cli
from vtsum.summary import report, schema

PAUSED = "document.getElementById('video').paused && document.getElementById('original').paused"
CONTROLS = """[...document.querySelectorAll('button, select, summary, .button, .ticks label, .find label:last-of-type,'
  + 'input:not([type=checkbox], [type=file])')].filter((one) => one.getClientRects().length)"""
# The lowest contrast of any text that is shown with what is behind it, and that text.
CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const fill = (colour) => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); };
  const over = (colour, under) => { fill(`rgb(${under})`); fill(colour);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (rgb) => { const [r, g, b] = rgb.map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (one) => { const all = [];
    for (let e = one; e; e = e.parentElement) all.unshift(getComputedStyle(e).backgroundColor);
    return all.reduce((under, colour) => over(colour, under), [255, 255, 255]); };
  let worst = [99, ''];
  for (const one of document.querySelectorAll('body *')) {
    const text = [...one.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join('');
    if (!text || !one.getClientRects().length || one.disabled || one.closest('script, noscript')) continue;
    const under = behind(one), a = light(over(getComputedStyle(one).color, under)), b = light(under);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < worst[0]) worst = [ratio, text.slice(0, 40)];
  }
  return worst; })()"""


@pytest.fixture(scope="module")
def folder(clip: Path, nobody_listens: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "short_page", lambda path: pages.short_page(clip, path))


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return folder / "o" / "report.html"


@pytest.fixture
def opened(browser, page):
    browser.open(page, 1280, 900)
    yield browser
    browser.see()
    assert browser.errors == []


def center(browser, selector: str) -> tuple[float, float]:
    x, y = browser.run(
        f"(() => {{ const one = document.querySelector({selector!r}); one.scrollIntoView({{block: 'center'}});"
        " const r = one.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; })()"
    )
    return x, y


def test_a_phone(browser, page):
    browser.open(page, 360, 740)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") <= 360
    small = browser.run(
        f"{CONTROLS}.map((one) => [one.getBoundingClientRect(), one.textContent || one.id])"
        ".filter(([r]) => r.height < 44 || r.width < 44 || r.right > 360).map(([r, text]) => [text, r.width, r.height])"
    )
    assert small == []
    # A tap far down, on the curve too, plays where it is seen.
    browser.run("document.querySelector('footer').scrollIntoView()")
    browser.tap(*center(browser, ".shots li:last-child .time"))
    assert browser.run(f"new Promise((d) => {{ const l = () => {PAUSED} ? setTimeout(l, 20) : d(true); l(); }})")
    box = """(() => { const r = document.querySelector('video:not([hidden])').getBoundingClientRect();
      return [r.top, r.bottom, innerHeight]; })()"""
    for _ in range(2):
        top, bottom, height = browser.run(box)
        assert -1 <= top < bottom <= height
        browser.tap(*center(browser, "#curve"))


@pytest.mark.parametrize("width", [360, 1280])
def test_a_long_title_leaves_room_for_the_player(browser, folder, tmp_path, width):
    data = schema.read(folder / "o" / "summary.json")
    data["title"] = {"text": "A title without end, " * 100 + "x" * 500, "origin": "file", "times": []}
    data["source"]["name"] = "y" * 250 + ".mp4"
    (tmp_path / "report.html").write_text(report.render(data, b"", {}), encoding="utf-8")
    browser.open(tmp_path / "report.html", width, 740)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.getElementById('video').getBoundingClientRect().top") < 370


def test_paper_shows_what_is_folded(opened):
    closed = "document.querySelectorAll('details:not([open])').length"
    assert opened.run(closed) > 0
    opened.run(f"addEventListener('beforeprint', () => {{ window.folded = {closed}; }})")
    assert opened.print().startswith(b"%PDF")
    assert opened.run("window.folded") == 0
    assert opened.run(closed) > 0, "folded again afterwards"
    opened.see(media="print")
    cut = "[...document.querySelectorAll('.box')].filter((box) => box.scrollHeight > box.clientHeight + 1).length"
    assert opened.run(cut) == 0
    assert opened.run(f"{CONTROLS}.filter((one) => one.matches('.button')).length") == 0


def test_without_scripts_there_is_no_dead_button(browser, page):
    browser.scripts(False)
    try:
        browser.open(page, 1280, 900)
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        shown = "[...document.querySelectorAll('%s')].filter((one) => one.getClientRects().length).length"
        assert browser.run(shown % "button, input, select") == 0
        text = browser.run("document.querySelector('main').innerText")
        assert re.search(r"0:08\s+Stars burst at last\.", text), text
        assert (
            browser.run("[...document.querySelectorAll('img')].filter((one) => one.getClientRects().length).length")
            == 2
        )
    finally:
        browser.scripts(True)


def test_selecting_does_not_play_and_words_stay_apart(opened, folder):
    x, y = center(opened, ".sentence")
    opened.drag((x - 60, y), (x + 60, y))
    assert len(opened.run("getSelection().toString()")) > 5
    assert opened.run(PAUSED)
    opened.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    center(opened, ".shots .why")
    x, y = opened.run("(({left, top}) => [left, top])(document.querySelector('.shots .why').getBoundingClientRect())")
    opened.drag((x + 4, y + 11), (x + 90, y + 11))
    assert len(opened.run("getSelection().toString()")) > 3
    assert opened.run(PAUSED)
    opened.run("getSelection().selectAllChildren(document.querySelector('main'))")
    text = opened.run("getSelection().toString()")
    assert "Then coloured stripes come past." in text
    assert not re.search(r"\d:\d\d\w|[^\W\d_]\d+:\d\d|[.”][A-Z“]|[a-z][A-Z]", text.replace("VTSum", "")), text

    opened.run("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    opened.run("document.getElementById('copy').click()")
    assert opened.run("window.copied") == (folder / "o" / "summary.txt").read_text(encoding="utf-8")
    opened.run("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    opened.run("document.execCommand = () => { window.old = document.activeElement.value; return true; }")
    opened.run(
        "(async () => { document.getElementById('copy').click(); await new Promise((d) => setTimeout(d, 30)); })()"
    )
    assert opened.run("window.old") == opened.run("window.copied")


def test_names_and_what_plays_are_told_in_words(opened):
    names = "[...document.querySelectorAll('video')].map((one) => one.getAttribute('aria-label'))"
    assert [name.split(" of ")[0] for name in opened.run(names)] == ["The summary", "The original"]
    frame = "document.querySelectorAll('.frames li')[1]"
    assert opened.run(f"{frame}.querySelector('img').alt") == ""
    time = opened.run(f"{frame}.querySelector('.frame').textContent")
    assert opened.run(f"{frame}.innerText").count(time) == 1
    opened.run(f"{frame}.querySelector('.frame').click()")
    opened.run("document.querySelectorAll('video').forEach((one) => one.pause())")
    assert opened.run(f"{frame}.getAttribute('aria-current')") == "true"
    before = "(one) => getComputedStyle(one, '::before').content"
    assert "▶" in opened.run(f"({before})({frame}.querySelector('.time'))")
    assert opened.run(f"({before})(document.querySelector('.frames .time'))") == "none"


def test_the_browsers_own_keys_are_left_to_it(opened):
    opened.run("document.getElementById('curve').focus()")
    opened.run("window.taken = []; addEventListener('keydown', (event) => taken.push(event.defaultPrevented))")
    opened.key("Home", control=True)
    opened.key("End", control=True)
    opened.run("document.getElementById('curve').dispatchEvent(new KeyboardEvent('keydown',"
               " {key: 'ArrowLeft', altKey: true, bubbles: true, cancelable: true}))")  # fmt: skip
    opened.key("Home")
    assert opened.run("taken") == [False, False, False, True]


def test_plain_words_first_and_the_fields_terms_in_a_details_part(opened):
    text = opened.run("document.querySelector('main').innerText")
    jargon = ("saliency", "liveliness", "novelty", "dpp", "mov,mp4", "sha256", "% a word", "h264")
    assert [word for word in jargon if word in text.lower()] == []
    assert "interest" in text
    opened.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    text = opened.run("document.querySelector('main').innerText")
    for word in ("saliency", "liveliness", "novelty", "dpp", "mov,mp4", "sha256", "h264"):
        assert word in text
    reasons = opened.run("[...document.querySelectorAll('.shots .why')].map((one) => one.textContent)")
    assert all(re.match(r"interest [\d.]+, movement [\d.]+, rank \d+ of \d+, ", reason) for reason in reasons)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_focus(opened, scheme):
    opened.see(prefers_color_scheme=scheme)
    opened.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    opened.run("document.querySelector('.frame').click()")
    ratio, text = opened.run(CONTRAST)
    assert ratio >= 4.5, text
    assert opened.run("[...document.querySelectorAll('[tabindex]')].every((one) => one.tabIndex <= 0)")
    opened.run("document.getElementById('link').focus()")
    opened.key("Tab")  # over the buttons that zoom: twelve seconds are shown whole
    assert opened.run("document.activeElement.id") == "curve"
    assert opened.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_forced_colours(opened):
    opened.see(forced_colors="active")
    colours = opened.run(
        """(() => { const style = (s) => getComputedStyle(document.querySelector(s));
        const one = document.createElement('i');
        one.style.cssText = 'background: Highlight; color: CanvasText; forced-color-adjust: none';
        document.body.append(one); const own = getComputedStyle(one);
        return [style('.playhead').backgroundColor, style('.band').fill, style('#line').stroke,
                own.backgroundColor, own.color, style('.time:not(.outside)').borderTopStyle]; })()"""
    )
    playhead, band, line, highlight, ink, border = colours
    assert (playhead, band, line, border) == (highlight, highlight, ink, "solid")


def test_ticks_build_the_command_that_makes_the_summary_again(opened, folder, tmp_path, monkeypatch, capsys):
    opened.run("document.getElementById('all-shots').open = true")
    command = "document.getElementById('command').textContent"
    assert shlex.split(opened.run(command)) == ["vtsum", "recut", str(folder / "o")]
    shots = schema.read(folder / "o" / "summary.json")["shots"]
    dropped = [i for i, shot in enumerate(shots) if 4 <= shot["start"] < 8]
    assert opened.run("[...document.querySelectorAll('.shots .drop')].map((one) => one.checked)") == [
        i in dropped for i in range(len(shots))
    ], "what was asked for the first time"
    for i in dropped:
        opened.run(f"document.querySelectorAll('.shots .keep')[{i}].click()")
        assert not opened.run(f"document.querySelectorAll('.shots .drop')[{i}].checked")
    opened.run(f"document.querySelectorAll('.shots .drop')[{len(shots) - 1}].click()")
    opened.run(
        "(() => { const b = document.getElementById('budget'); b.value = '5s';"
        " b.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    words = shlex.split(opened.run(command))
    assert words[:5] == ["vtsum", "recut", str(folder / "o"), "--budget", "5s"]
    opened.run("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    opened.run("document.getElementById('copy-command').click()")
    assert shlex.split(opened.run("window.copied")) == words
    assert cli.main([*words[1:], "-o", str(tmp_path / "again"), "-q"]) == 0, capsys.readouterr().err
    again = schema.read(tmp_path / "again" / "summary.json")
    assert again["settings"]["budget"] == "5s"
    assert all(shot["chosen"] for shot in again["shots"] if 4 <= shot["start"] < 8)
    assert not again["shots"][-1]["chosen"]


def test_a_folder_with_odd_signs_is_quoted_and_a_page_without_analysis_has_no_ticks(browser, page, folder, tmp_path):
    odd = tmp_path / "it's a $HOME (folder) – ü"
    odd.mkdir()
    browser.open(Path(shutil.copy(page, odd / "report.html")), 1280, 900)
    assert shlex.split(browser.run("document.getElementById('command').textContent")) == ["vtsum", "recut", str(odd)]
    data = copy.deepcopy(schema.read(folder / "o" / "summary.json"))
    data["settings"]["formats"].remove("analysis")
    (odd / "report.html").write_text(report.render(data, b"", {}), encoding="utf-8")
    browser.open(odd / "report.html", 1280, 900)
    assert not browser.run("document.getElementById('recut')")
    assert browser.run("document.querySelectorAll('.shots input').length") == 0
    assert browser.errors == []


def test_pictures_are_saved(opened):
    opened.run("HTMLAnchorElement.prototype.click = function () { window.saved = [this.href, this.download]; }")
    opened.run("document.querySelectorAll('.save')[0].click()")
    href, name = opened.run("saved")
    assert href == opened.run("document.querySelector('.frames img').src")
    assert re.fullmatch(r"shot_\d{4}\.jpg", name)
