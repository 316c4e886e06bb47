"""The main job on clips made here, with a stand-in for the model."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import threading
from pathlib import Path

import av
import numpy as np
import pytest

import vtsum
from tests.vtsum.fakes import ColourModel, FakeCaption
from tests.vtsum.samples import decode, remux
from vtsum.errors import VTSumError
from vtsum.summary import schema
from vtsum.summary.text import Moment, clock_time, describe, text_file

pytestmark = pytest.mark.usefixtures("nobody_listens")


@pytest.fixture(scope="module")
def made(clip: Path, nobody_listens: None, tmp_path_factory: pytest.TempPathFactory) -> vtsum.Summary:
    out = tmp_path_factory.mktemp("made") / "out"
    return vtsum.summarize(clip, out, budget="5s", model=ColourModel(), captioner="embedded")


def test_files(made):
    names = ["analysis.npz", "keyframes", "report.html", "summary.json", "summary.mp4", "summary.txt"]
    assert sorted(os.listdir(made.output)) == names
    assert made.files.keys() == {"mp4", "txt", "json", "keyframes", "html", "analysis"}
    assert all(path.exists() for path in made.files.values())
    assert not [p for p in made.output.parent.iterdir() if p != made.output], "no temporary folder stays"
    chosen = [shot for shot in made.shots if shot["chosen"]]
    assert sorted(os.listdir(made.files["keyframes"])) == sorted(Path(shot["clip"]["keyframe"]).name for shot in chosen)


def test_summary_plays_and_uses_the_budget(made):
    pictures, seconds, sound = decode(made.files["mp4"])
    assert 0.8 * 5 <= seconds <= 5 + 1 / 25
    assert pictures == round(seconds * 25)
    assert seconds == pytest.approx(made.duration, abs=0.05)
    assert sound == pytest.approx(seconds, abs=0.1)


def test_a_cut_between_scenes_is_a_boundary(made):
    ends = [shot["end"] for shot in made.shots]
    assert 4.0 in ends
    assert ends[-1] == pytest.approx(12.0, abs=0.05)


def test_json_is_valid_and_says_why(made):
    data = schema.read(made.files["json"])
    assert data == made.data
    assert data["settings"] == {
        "budget": "5s",
        "budget_seconds": 5.0,
        "model": "colour",
        "fps": 1.0,
        "formats": ["mp4", "txt", "json", "keyframes", "html", "analysis"],
        "sampler": "coverage",
        "segmenter": "joint",
        "refine": "dpp",
        "about": None,
        "keep": [],
        "drop": [],
        "margin": [0.0, 0.0],
        "min_shot": None,
        "start": 0.0,
        "end": None,
        "title": None,
        "fade": 0.005,
        "loudness": None,
        "encoder": "libx264",
        "crf": None,
        "preset": None,
        "tracks": "best",
        "stream_copy": False,
        "crop": None,
        "speech": "auto",
        "transcript": None,
        "denoiser": "embedded",
        "captioner": "embedded",
        "speech_limit": 3600.0,
        "ocr": True,
        "writer": None,
        "clock": "summary",
        "offline_default": False,
        "device": "auto",
    }
    assert len(data["frames"]["time"]) == 12
    assert data["frames"]["encoded_share"] == 1.0  # a short video is encoded whole
    assert data["frames"]["boundary"] is None
    assert data["source"]["duration"] == pytest.approx(12, abs=0.05)
    best = min(data["shots"], key=lambda shot: shot["rank"])
    assert best["chosen"]
    assert f"rank 1 of {len(data['shots'])}" in best["reason"]
    assert all("left out" in shot["reason"] for shot in data["shots"] if not shot["chosen"])
    assert data["timings"]["total"] >= max(v for k, v in data["timings"].items() if k != "total")


def test_clip_times_are_those_of_the_summary(clip, made):
    """A picture of the summary is the picture of the source that summary.json says it is."""

    def picture(path: Path, time: float) -> np.ndarray:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                if frame.time >= time - 1e-3:
                    return frame.to_ndarray(format="gray").astype(float)
        raise AssertionError(f"no picture at {time}")

    for shot in made.shots:
        if shot["clip"]:
            c = shot["clip"]
            for share in (0.1, 0.9):
                at = math.floor((c["summary_end"] - c["summary_start"]) * share * 25) / 25
                ours = picture(made.files["mp4"], c["summary_start"] + at)
                theirs = picture(clip, c["start"] + at)
                assert np.abs(ours - theirs).mean() < 6


def test_text(made):
    text = made.files["txt"].read_text(encoding="utf-8")
    assert text.startswith("small.mp4\n0:05 of 0:12\n") or text.startswith("small.mp4\n0:04 of 0:12\n")
    assert "Something" in text
    assert "most of it is not true" in text
    assert all(sentence["guess"] for sentence in made.data["text"])


@pytest.mark.parametrize("names", [("json",), ("txt", "mp4"), ("html",), ("keyframes",), "json"])
def test_only_the_formats_asked_for(clip, tmp_path, names):
    made = vtsum.summarize(clip, tmp_path / "o", model=ColourModel(), formats=names)
    files = {"mp4": "summary.mp4", "txt": "summary.txt", "json": "summary.json", "html": "report.html"}
    wanted = [names] if isinstance(names, str) else names
    assert sorted(os.listdir(tmp_path / "o")) == sorted(files.get(name, name) for name in wanted)
    schema.validate(made.data)
    assert (made.data["summary"]["file"] is None) == ("mp4" not in wanted)


def test_default_folder_is_in_the_current_one(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = vtsum.summarize(clip, model=ColourModel(), formats=["json"])
    assert made.output == tmp_path / "small_summary"


def test_an_older_summary_needs_overwrite(clip, tmp_path):
    out = tmp_path / "o"
    vtsum.summarize(clip, out, model=ColourModel(), formats=["txt"])
    with pytest.raises(VTSumError, match="must not exist yet"):
        vtsum.summarize(clip, out, model=ColourModel(), formats=["json"])
    assert os.listdir(out) == ["summary.txt"]
    vtsum.summarize(clip, out, model=ColourModel(), formats=["json"], overwrite=True)
    assert os.listdir(out) == ["summary.json"]
    assert os.listdir(tmp_path) == ["o"]


def test_a_folder_with_other_things_is_never_replaced(clip, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(VTSumError, match=r"with thesis\.txt in it"):
        vtsum.summarize(clip, tmp_path, model=ColourModel(), overwrite=True)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_an_empty_folder_and_missing_parents_are_fine(clip, tmp_path):
    (tmp_path / "empty").mkdir()
    vtsum.summarize(clip, tmp_path / "empty", model=ColourModel(), formats=["json"])
    vtsum.summarize(clip, tmp_path / "a" / "b" / "c", model=ColourModel(), formats=["json"])
    assert (tmp_path / "a" / "b" / "c" / "summary.json").exists()


class Failing(ColourModel):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def describe(self, features, spans, key_frames=None):
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("inner"), VTSumError("outer")])
def test_nothing_is_left_after_a_failure(clip, tmp_path, error):
    before = threading.active_count()
    with pytest.raises(type(error)):
        vtsum.summarize(clip, tmp_path / "deep" / "out", model=Failing(error), captioner="embedded")
    assert os.listdir(tmp_path) == []
    assert threading.active_count() == before


def test_a_full_disk_is_one_line(clip, tmp_path, monkeypatch):
    real = Path.write_text

    def full(self, *args, **options):
        if self.name == "summary.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(VTSumError, match="must have room for the summary, the disk is full"):
        vtsum.summarize(clip, tmp_path / "o", model=ColourModel())
    assert os.listdir(tmp_path) == []


def test_errors_name_the_folder_asked_for(clip, tmp_path, monkeypatch):
    def cut(path, segments, out_path, **options):
        raise VTSumError(f"cut: {Path(out_path).parent}: cannot be written to: No space left on device")

    monkeypatch.setattr("vtsum.video.cut", cut)
    with pytest.raises(VTSumError, match="No space left") as error:
        vtsum.summarize(clip, tmp_path / "o", model=ColourModel())
    assert str(error.value) == f"cut: {tmp_path / 'o'}: cannot be written to: No space left on device"
    assert os.listdir(tmp_path) == []


def test_a_failed_swap_brings_the_old_summary_back(clip, tmp_path, monkeypatch):
    out = tmp_path / "o"
    vtsum.summarize(clip, out, model=ColourModel(), formats=["txt"])
    real = os.rename

    def rename(source, target):
        if Path(target) == out.resolve() and ".old" not in str(source):
            raise OSError(errno.EACCES, "Permission denied")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(VTSumError, match="must be writable"):
        vtsum.summarize(clip, out, model=ColourModel(), formats=["json"], overwrite=True)
    assert os.listdir(tmp_path) == ["o"]
    assert os.listdir(out) == ["summary.txt"]


def test_the_whole_video_when_the_budget_allows(clip, tmp_path):
    made = vtsum.summarize(clip, tmp_path / "o", budget="100%", model=ColourModel(), formats=["mp4"])
    assert made.duration == pytest.approx(12, abs=0.05)
    assert all(shot["chosen"] for shot in made.shots)


def write_plain(path: Path, frames: int, size: tuple[int, int] = (64, 48), rate: int = 25) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(frames):
            image = np.full((size[1], size[0], 3), (i * 9) % 255, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("frames", "size", "rate"),
    [(1, (64, 48), 25), (2, (64, 48), 25), (25, (64, 48), 25), (90, (36, 90), 30), (4, (64, 48), 1)],
)
def test_very_short_videos(tmp_path, frames, size, rate):
    video = write_plain(tmp_path / "v.mkv", frames, size, rate)
    made = vtsum.summarize(video, tmp_path / "o", model=ColourModel())
    pictures, seconds, _ = decode(made.files["mp4"])
    assert 1 <= pictures <= frames
    assert seconds <= 0.15 * frames / rate + 1.001 / rate
    schema.read(made.files["json"])


def test_a_file_broken_in_the_middle(clip, tmp_path):
    data = remux(clip, tmp_path / "whole.mkv").read_bytes()
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(data[: len(data) // 2])
    made = vtsum.summarize(broken, tmp_path / "o", model=ColourModel())
    assert made.data["broken"]
    assert 3 < made.data["truncated_at"] < 9
    assert any("breaks off" in warning for warning in made.warnings)
    assert made.shots[-1]["end"] == pytest.approx(made.data["truncated_at"], abs=0.05)
    assert "breaks off" in made.files["txt"].read_text()
    assert "breaks off" in made.files["html"].read_text()
    schema.read(made.files["json"])
    # A budget that fits the file as stated, but not what is left of it, takes all there is.
    most = vtsum.summarize(broken, tmp_path / "p", budget="11s", model=ColourModel(), formats=["mp4"])
    assert most.duration <= made.data["truncated_at"] + 0.1
    assert any("longer than" in warning for warning in most.warnings)


def test_progress_runs_through_the_stages(clip, tmp_path):
    seen: list[tuple[str, float]] = []
    vtsum.summarize(clip, tmp_path / "o", model=ColourModel(), progress=lambda *step: seen.append(step))
    assert {stage for stage, _ in seen} == {"read", "listen", "shots", "text", "cut", "page"}
    for stage in ("read", "listen", "cut"):
        shares = [share for name, share in seen if name == stage]
        assert shares == sorted(shares)
        assert shares[0] == 0
        assert shares[-1] == 1
        assert len(shares) > 4 or stage == "listen"  # which goes by what is said, here nothing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": float("nan")}, "fps must be 0.0001 to 30, got nan"),
        ({"formats": []}, "must name at least one"),
        ({"budget": 15}, "budget must be text"),
    ],
)
def test_wrong_options(clip, tmp_path, options, message):
    with pytest.raises(VTSumError, match=message):
        vtsum.summarize(clip, tmp_path / "o", model=ColourModel(), **options)
    assert os.listdir(tmp_path) == []


class Wordy(ColourModel):
    """Says what it is told to."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def describe(self, features, spans, key_frames=None):
        return [FakeCaption(text, 0.2 + 0.1 * i) for i, text in enumerate(self.texts[: len(spans)])]


def test_sentences_that_say_the_same_become_one():
    moments = [Moment(i, (i, i + 1), (float(i), i + 1.0), score) for i, score in enumerate((0.1, 0.9, 0.5, 0.8))]
    said = describe(Wordy("a dog runs", "A  dog runs .", "\n", "a cat sleeps"), np.zeros((4, 2)), moments)
    assert [(s.text, [m.shot for m in s.moments]) for s in said] == [("A dog runs.", [0, 1]), ("A cat sleeps.", [3])]
    assert said[0].confidence == pytest.approx(0.25)
    assert [m.shot for s in describe(Wordy("x y", "z w"), np.zeros((4, 2)), moments, limit=2) for m in s.moments] == [
        1,
        3,
    ]
    assert describe(Wordy(), np.zeros((4, 2)), moments) == []


def test_clock():
    times = {0: "0:00", 59.99: "0:59", 60: "1:00", 3599.9: "59:59", 3600: "1:00:00", 7384: "2:03:04"}
    assert [clock_time(t) for t in times] == list(times.values())


def test_text_file_keeps_control_characters_out(made):
    data = copy.deepcopy(made.data)
    data["title"] = {"text": "evil\x1b[2J\ntitle", "origin": "file", "times": []}
    assert text_file(data).splitlines()[0] == "evil [2J title"


def _break(data, path, value):
    *inner, last = path
    for key in inner:
        data = data[key]
    if value is KeyError:
        del data[last]
    else:
        data[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), "vtsum-summary/9", "schema must be 'vtsum-summary/2', got 'vtsum-summary/9'"),
        (("source", "duration"), "12", "source.duration must be a finite number"),
        (("source", "duration"), float("nan"), "finite number"),
        (("source", "extra"), 1, "source.extra is unknown"),
        (("model",), KeyError, "document.model is missing"),
        (("shots", 1, "start"), 1.0, "must start where the one before ended"),
        (("shots", 0, "rank"), 99, "ranks must be"),
        (("shots", 0, "index"), 5, r"shots\[0\].index must be 0"),
        (("frames", "saliency", 0), 1.5, "must lie in 0..1"),
        (("frames", "time"), [0.0], "equally long"),
        (("text", 0, "times"), [], "times must not be empty"),
        (("broken",), True, "truncated_at"),
        (("damaged",), [{"start": 5.0, "end": 1.0}], r"damaged\[0\] must lie in the video"),
        (("warnings",), "none", "must be a list"),
        (("settings", "formats", 0), 3, "must be text, got 3"),
    ],
)
def test_the_schema_is_strict(made, path, value, message):
    data = json.loads(json.dumps(made.data))
    schema.validate(data)
    _break(data, path, value)
    with pytest.raises(VTSumError, match=message):
        schema.validate(data)
