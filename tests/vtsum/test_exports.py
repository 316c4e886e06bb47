"""Summaries for other programs, read again by readers that are not ours."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

import vtsum
from tests import forked
from tests.vtsum.clips import number_of, number_picture, tone, write_clip
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT
from vtsum.errors import VTSumError
from vtsum.summary import schema
from vtsum.summary.exports import EXPORTS, export
from vtsum.summary.exports.timecode import editing_rate, frames_of, timecode_of

otio = pytest.importorskip("opentimelineio")
RATE = 10
SECONDS = 150
SRT = "".join(
    f"{n + 1}\n00:{n * 10 // 60:02}:{n * 10 % 60:02},000 --> 00:{n * 10 // 60:02}:{n * 10 % 60 + 4:02},000\n"
    f"{text} number {n} = 100% & more\n\n"
    for n, text in enumerate(["Bread is baked here"] * 8 + ["Boats sail far away"] * 7)
)
VTSUM = [sys.executable, "-m", "vtsum.cli"]


def _numbered(number: int, time: float) -> np.ndarray:
    picture = number_picture(number, 96, 54)
    picture[30:] = ((200, 40, 40), (30, 90, 200))[time > 75]  # two events
    return picture


def _even() -> list[float]:
    return [n / RATE for n in range(SECONDS * RATE)]


def _uneven() -> list[float]:
    """Every fourth picture is missing, and one of the others comes late, on a grid of a hundredth."""
    times = [time for n, time in enumerate(_even()) if n % 4 != 3]
    return [round(time + 0.03 * (n % 5 == 2), 2) for n, time in enumerate(times)]


@pytest.fixture(scope="module", params=["even", "uneven"])
def made(request, tmp_path_factory) -> tuple[Path, vtsum.Summary, list[float]]:
    folder = tmp_path_factory.mktemp(request.param)
    times = _even() if request.param == "even" else _uneven()
    clip = write_clip(folder / "a = b.mp4", times, _numbered, rate=RATE, gop=20, sound=tone(SECONDS, 48000, 1))
    (folder / "words.srt").write_text(SRT, encoding="utf-8")
    options = {"model": ColourModel(), "budget": "20s", "ocr": False, "segmenter": "uniform"}
    summary = vtsum.summarize(
        clip, folder / "o", transcript=folder / "words.srt", formats=["mp4", "json", *EXPORTS], **options
    )
    return clip, summary, times


def _timeline(read):
    """FCPXML is read as a library that holds an event that holds the project."""
    while not isinstance(read, otio.schema.Timeline):
        (read,) = read
    return read


def _spans(read) -> list[tuple[int, int]]:
    """(first frame, how many) of the cuts of a track, in frames of the source."""
    (track, *_) = _timeline(read).video_tracks()
    return [(int(c.source_range.start_time.value), int(c.source_range.duration.value)) for c in track.find_clips()]


def _clips(data) -> list:
    return [shot["clip"] for shot in data["shots"] if shot["clip"]]


def test_all_editors_cut_at_the_same_frames(made):
    _, summary, times = made
    rate = float(editing_rate(summary.data["source"]["fps"]))
    found = {
        "edl": otio.adapters.read_from_file(str(summary.files["edl"]), "cmx_3600", rate=rate),
        "otio": otio.adapters.read_from_file(str(summary.files["otio"])),
        "fcpxml": otio.adapters.read_from_file(str(summary.files["fcpxml"]), "fcpx_xml"),
    }
    clips = _clips(summary.data)
    wanted = [(round(c["start"] * rate), round(c["end"] * rate) - round(c["start"] * rate)) for c in clips]
    assert len(clips) > 1
    assert {name: _spans(timeline) for name, timeline in found.items()} == dict.fromkeys(found, wanted)
    # The frame that an editor shows first in each cut is the one that summary.mp4 shows there.
    with av.open(str(summary.files["mp4"])) as film:
        shown = [(frame.time, number_of(frame.to_ndarray(format="rgb24"))) for frame in film.decode(video=0)]
    for clip, (first, _) in zip(clips, wanted, strict=True):
        at = next(number for time, number in shown if time > clip["summary_start"] - 1e-3)
        in_editor = max(n for n, time in enumerate(times) if time <= (first + 0.5) / rate)
        assert in_editor == at


def test_an_edl_has_pictures_and_sound_end_to_end(made):
    _, summary, _ = made
    rate = editing_rate(summary.data["source"]["fps"])
    lines = summary.files["edl"].read_text(encoding="utf-8").splitlines()
    assert lines[1] == "FCM: NON-DROP FRAME"
    events = [line.split() for line in lines if line[:3].isdigit()]
    assert [event[1:4] for event in events] == [["AX", "AA/V", "C"]] * len(_clips(summary.data))
    frames = [[frames_of(code, rate)[0] for code in event[4:]] for event in events]
    assert all(out - into == until - at for into, out, at, until in frames)
    assert frames[0][2] == 0
    assert all(before[3] == after[2] for before, after in pairwise(frames))
    assert "* FROM CLIP NAME: a = b.mp4" in lines


def test_where_the_source_lies_and_its_chapters(made):
    clip, summary, _ = made
    for name, adapter in (("otio", "otio_json"), ("fcpxml", "fcpx_xml")):
        timeline = _timeline(otio.adapters.read_from_file(str(summary.files[name]), adapter))
        (reference,) = {c.media_reference.target_url for c in timeline.video_tracks()[0].find_clips()}
        assert reference == clip.as_uri()
    timeline = otio.adapters.read_from_file(str(summary.files["otio"]))
    assert len(timeline.audio_tracks()) == 1
    marked = [marker.name for c in timeline.video_tracks()[0].find_clips() for marker in c.markers]
    titles = [chapter["title"] for chapter in summary.data["chapters"]]
    assert [title for title in titles if title in marked] == marked


def _ffprobe_chapters(path: Path) -> list[tuple[float, float, str]]:
    command = ["ffprobe", "-v", "error", "-show_chapters", "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    chapters = json.loads(done.stdout)["chapters"]
    return [(float(c["start_time"]), float(c["end_time"]), c["tags"]["title"]) for c in chapters]


def test_chapters_on_both_clocks(made, tmp_path):
    clip, summary, _ = made
    data = summary.data
    assert len(data["chapters"]) >= 2
    clips = _clips(data)
    ends = [chapter["start"] for chapter in data["chapters"][1:]] + [data["source"]["duration"]]
    shown = []
    for chapter, end in zip(data["chapters"], ends, strict=True):
        inside = [c for c in clips if c["end"] > chapter["start"] and c["start"] < end]
        if inside:
            late = max(chapter["start"] - inside[0]["start"], 0.0)
            shown.append((inside[0]["summary_start"] + late, chapter["title"]))
    assert [(start, title) for start, _, title in _ffprobe_chapters(summary.files["mp4"])] == [
        (pytest.approx(start, abs=1e-3), title) for start, title in shown
    ]
    export(data, ["ffmetadata", "chapters"], tmp_path, clock="source")
    told = tmp_path / "told.mp4"
    tell = ["-i", str(clip), "-i", str(tmp_path / "source.ffmetadata"), "-map_metadata", "1", "-c", "copy", str(told)]
    subprocess.run(["ffmpeg", "-v", "error", *tell], check=True)
    found = _ffprobe_chapters(told)
    assert found == [
        (pytest.approx(c["start"], abs=1e-3), pytest.approx(end, abs=1e-3), c["title"])
        for c, end in zip(data["chapters"], ends, strict=True)
    ]
    with av.open(str(told)) as film:
        assert film.metadata["title"] == data["title"]["text"]
    lines = (tmp_path / "source.chapters.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "CHAPTER01=00:00:00.000"
    assert [line.split("NAME=", 1)[1] for line in lines[1::2]] == [c["title"] for c in data["chapters"]]


def test_subtitles_on_both_clocks(made, tmp_path):
    _, summary, _ = made
    export(summary.data, ["srt", "vtt"], tmp_path, clock="source")
    for name in ("source.srt", "source.vtt"):
        with av.open(str(tmp_path / name)) as file:
            starts = [float(p.pts * p.time_base) for p in file.demux() if p.pts is not None]
        spoken = [u["words"][0]["start"] for u in summary.data["speech"]["utterances"]]
        assert set(np.round(spoken, 3)) <= set(np.round(starts, 3))
    assert "= 100% &amp; more" in (tmp_path / "source.vtt").read_text(encoding="utf-8")
    with av.open(str(summary.files["srt"])) as file:
        ends = [float((p.pts + p.duration) * p.time_base) for p in file.demux() if p.pts is not None]
    assert ends
    assert max(ends) <= summary.duration + 0.002
    assert summary.files["vtt"] == summary.output / "summary.vtt"


def test_the_table_has_a_row_for_each_shot(made):
    _, summary, _ = made
    with open(summary.files["csv"], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, shot in zip(rows, summary.shots, strict=True):
        assert (float(row["start"]), float(row["end"]), row["reason"]) == (shot["start"], shot["end"], shot["reason"])
        clip = shot["clip"]
        assert row["summary_end"] == ("" if clip is None else str(clip["summary_end"]))


def _long(data: dict, starts: list[float]) -> dict:
    """The same summary, of a video whose chapters begin there."""
    chapters = [{"start": start, "title": f"C{n}", "origin": "number"} for n, start in enumerate(starts)]
    return {**data, "chapters": chapters}


def test_what_youtube_shows(made, tmp_path):
    _, summary, _ = made
    path = tmp_path / "source.youtube.txt"
    export(_long(summary.data, [0.0, 30.0, 35.0, 60.5, 145.0]), ["youtube"], tmp_path, clock="source")
    assert path.read_text(encoding="utf-8") == "0:00 C0\n0:30 C1\n1:00 C3\n"  # the others are too short for it
    hours = _long(summary.data, [0.0, 30.0, 3700.0])
    hours["source"] = {**hours["source"], "duration": 4000.0}
    export(hours, ["youtube"], tmp_path, clock="source", overwrite=True)
    assert path.read_text(encoding="utf-8") == "0:00:00 C0\n0:00:30 C1\n1:01:40 C2\n"
    with pytest.raises(VTSumError, match="YouTube wants 3 chapters of at least 10 s, got 2"):
        export(_long(summary.data, [0.0, 30.0, 35.0]), ["youtube"], tmp_path, clock="source")


def test_a_command_exports_a_finished_summary(made, tmp_path):
    _, summary, _ = made
    words = ["export", str(summary.output), "-f", "edl,srt", "-f", "csv", "--clock", "source", "-o", str(tmp_path)]
    done = forked.run([*VTSUM, *words], env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(tmp_path)) == ["source.srt", "summary.csv", "summary.edl"]
    assert done.stdout.split() == [str(tmp_path / n) for n in ("summary.edl", "source.srt", "summary.csv")]
    assert (tmp_path / "summary.edl").read_text() == summary.files["edl"].read_text()
    refused = {
        "-f avi": "format must be among edl, otio, fcpxml, csv, srt, vtt, chapters, ffmetadata, youtube, got 'avi'",
        "-f srt --clock mine": "clock must be summary or source, got 'mine'",
        f"-f edl --video {Path(__file__)}": "must be a video file",
        f"-f csv,edl --video {summary.files['mp4']}": "must be the video that was summarised, of ",
    }
    for options, reason in refused.items():
        words = ["export", str(summary.output), *options.split(), "-o", str(tmp_path / "none")]
        done = forked.run([*VTSUM, *words], env=ENVIRONMENT)
        assert done.returncode == 2
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "none").exists()


def test_nothing_to_hold_is_told(clip, tmp_path):
    """In a run it is a warning, and the summary is there; the command that was asked for nothing else refuses."""
    made = vtsum.summarize(
        clip,
        tmp_path / "o",
        model=ColourModel(),
        speech=None,
        ocr=False,
        formats=["json", "html", "srt", "youtube", "edl"],
    )
    assert sorted(made.files) == ["edl", "html", "json"]
    assert "srt was not written" in made.files["html"].read_text(encoding="utf-8")
    assert [w for w in made.warnings if "not written" in w] == [
        "srt was not written: something must be heard in the summary's clips for subtitles, got no words",
        "youtube was not written: the summary must have chapters, got none: its video is of two minutes or less",
    ]
    assert schema.read(made.files["json"])["warnings"] == made.warnings
    vtsum.summarize(clip, tmp_path / "o", model=ColourModel(), speech=None, ocr=False, formats=["json"], overwrite=True)
    assert os.listdir(tmp_path / "o") == ["summary.json"]  # exports are ours to replace


def test_a_source_with_a_timecode(made, tmp_path):
    """A camera's first frame is not 00:00:00:00; editors find material by its timecode."""
    _, summary, _ = made
    coded = tmp_path / "coded.mov"
    drawn = ["-f", "lavfi", "-i", "testsrc=d=1:r=25:s=64x48", "-metadata", "timecode=01:02:03:04"]
    subprocess.run(["ffmpeg", "-v", "error", *drawn, str(coded)], check=True)
    data = {**summary.data, "source": {**summary.data["source"], "size_bytes": coded.stat().st_size, "fps": 25.0}}
    files = export(data, ["edl", "otio", "fcpxml"], tmp_path, video=coded)
    start = ((3600 + 2 * 60 + 3) * 25 + 4) + round(_clips(data)[0]["start"] * 25)
    first = files["edl"].read_text().splitlines()[3].split()[4]
    assert first == timecode_of(start, Fraction(25))
    assert _spans(otio.adapters.read_from_file(str(files["otio"])))[0][0] == start
    assert _spans(otio.adapters.read_from_file(str(files["fcpxml"]), "fcpx_xml"))[0][0] == start


def test_a_strangers_summary_commands_nothing(made, tmp_path):
    _, summary, _ = made
    title = "\x1b[31mA\n\n--> \u202e <b>&\x00]]>"
    data = {**_long(summary.data, [0.0, 20.0, 90.0]), "title": {**summary.data["title"], "text": title}}
    data["chapters"] = [{**chapter, "title": title} for chapter in data["chapters"]]
    for path in export(
        data, ["edl", "otio", "fcpxml", "chapters", "ffmetadata", "youtube"], tmp_path, clock="source"
    ).values():
        text = path.read_text(encoding="utf-8")
        assert not {"\x1b", "\u202e", "\x00"} & set(text), path
    otio.adapters.read_from_file(str(tmp_path / "summary.fcpxml"), "fcpx_xml")
    for fps in (0.0, -1.0, 1e300):
        with pytest.raises(VTSumError, match=r"frame rate must be 0\.001 to 1000, got"):
            export({**data, "source": {**data["source"], "fps": fps}}, ["edl"], tmp_path)


@pytest.mark.parametrize(("rate", "drop"), [(Fraction(30000, 1001), True), (Fraction(60000, 1001), True), (25, False)])
def test_timecodes_are_opentimelineios(rate, drop):
    rate = Fraction(rate)
    for frames in (0, 1, 1799, 1800, 1801, 17981, 17982, 35963, 35964, 107892, 1234567):
        code = timecode_of(frames, rate, drop)
        theirs = otio.opentime.RationalTime(frames, float(rate)).to_timecode(float(rate), drop)
        assert code == theirs
        assert frames_of(code, rate) == (frames, drop)


def test_rates_that_editors_know():
    known = {
        23.976: (24000, 1001),
        24.9706: 25,
        14.985: (30000, 1001),
        29.97: (30000, 1001),
        30.01: 30,
        59.94: (60000, 1001),
        119.88: 60,
        10.0: 30,
        12.5: 25,
    }
    for fps, rate in {**known, 7.3: 24, 27.5: 30, 53.0: 60}.items():
        assert editing_rate(fps) == (Fraction(*rate) if isinstance(rate, tuple) else rate), fps
    assert frames_of("00:00:60:00", Fraction(25)) is None
    assert frames_of("00:00:10:25", Fraction(25)) is None
    assert frames_of("now", Fraction(25)) is None
