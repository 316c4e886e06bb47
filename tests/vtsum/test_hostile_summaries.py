"""What others left beside a summary (analysis.npz, summary.json, a batch's ledger and folders), read by the command."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import pytest

import vtsum
from tests import forked
from tests.vtsum.clips import numbered_clip
from tests.vtsum.hostile import ENVIRONMENT, ROOT, refused

QUIET: dict[str, Any] = {"speech": None, "ocr": False, "captioner": "none"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A video and its summary."""
    folder = tmp_path_factory.mktemp("summary")
    numbered_clip(folder / "a.mp4", 75)
    vtsum.summarize(folder / "a.mp4", folder / "a", budget="50%", formats=["json", "analysis"], **QUIET)
    return folder / "a.mp4", folder / "a"


def _recut(
    made: tuple[Path, Path],
    folder: Path,
    facts: Callable[[dict[str, Any]], Any],
    names: Path | None = None,
    **arrays: np.ndarray,
) -> str:
    with np.load(made[1] / "analysis.npz") as stored:
        all_arrays = {**stored, **arrays}
    stated = json.loads(all_arrays["facts"].tobytes())
    facts(stated)
    path = folder / "analysis.npz"
    np.savez(path, **{**all_arrays, "facts": np.frombuffer(json.dumps(stated).encode(), np.uint8)})
    return refused("recut", str(folder), "-f", "json", "--video", str(made[0]), names=names or path)


@pytest.mark.parametrize(
    ("part", "name", "value", "said"),
    [
        ("model", "weights_sha256", True, "facts.model.weights_sha256 must be text, got true"),
        ("watched", "broken_at", "x", "facts.watched.broken_at must be a finite number"),
        ("watched", "broken_at", -1, "must be whole, as vtsum summarize writes it, got: broken_at -1"),
        ("watched", "damaged", None, "facts.watched.damaged must be a list, got null"),
        ("watched", "largest", [2**62, 2**62], "largest"),
        ("watched", "duration", 1e300, "frames"),
        # A line from before there was a second reading is taken, but for its box.
        ("watched", "screen", [{"text": "a", "start": 0.0, "end": 1.0, "score": 1.0, "box": []}], "screen[0].box"),
        ("settings", "fps", 1e-300, "fps"),
    ],
)
def test_what_an_analysis_states_has_its_type_and_range(
    made: tuple[Path, Path], tmp_path: Path, part: str, name: str, value: object, said: str
) -> None:
    assert said in _recut(made, tmp_path, lambda facts: facts[part].update({name: value}))


@pytest.mark.parametrize("frames", [2, 9])
def test_an_analysis_is_of_a_video_of_its_length(made: tuple[Path, Path], tmp_path: Path, frames: int) -> None:
    """Of nine frames, the last of a video of three seconds was shown for as long as shots were chosen behind it."""
    with np.load(made[1] / "analysis.npz") as stored:
        of_frames = ("features", "event_features", "saliency", "encoded", "boundaries")
        arrays = {
            name: np.resize(stored[name], (frames, *stored[name].shape[1:])) for name in of_frames if name in stored
        }
    said = _recut(made, tmp_path, lambda facts: facts["watched"].update(duration=frames), made[0], **arrays)
    assert f"must be the video that was summarised, of {frames}.0 s, got 3.0 s" in said


def test_a_video_that_states_another_length_than_it_has_is_cut_again(made: tuple[Path, Path], tmp_path: Path) -> None:
    whole = numbered_clip(tmp_path / "whole.mkv", 125).read_bytes()
    (tmp_path / "a.mkv").write_bytes(whole[: len(whole) * 3 // 5])
    vtsum.summarize(tmp_path / "a.mkv", tmp_path / "a", budget="50%", formats=["json", "analysis"], **QUIET)
    done = _run("recut", str(tmp_path / "a"), "-f", "json")
    assert done.returncode == 0, done.stderr
    first, again = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("a", "a_recut"))
    assert first["truncated_at"] < 4
    assert again["shots"] == first["shots"]


def test_an_array_of_an_analysis_has_its_type_and_range(made: tuple[Path, Path], tmp_path: Path) -> None:
    with np.load(made[1] / "analysis.npz") as stored:
        boundaries, kept = stored["boundaries"], stored["kept"]
    assert "boundaries" in _recut(made, tmp_path, dict, boundaries=boundaries - 2)
    assert "kept" in _recut(made, tmp_path, dict, kept=kept.astype(np.int64))


@pytest.mark.parametrize("kind", ["segmenter", "captioner", "writer", "model"])
def test_a_class_that_only_an_analysis_names_is_not_imported(
    made: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    said = _recut(made, tmp_path, lambda facts: facts["settings"].update({kind: "tests.vtsum.hostile:Payload"}))
    assert f"{kind} must not be a class that neither you name" in said


def test_an_analysis_names_no_file_elsewhere(made: tuple[Path, Path], tmp_path: Path) -> None:
    said = _recut(made, tmp_path, lambda facts: facts.update(name=f"../{made[0].name}"))
    assert "without its folder" in said


def test_a_stretch_of_any_end_is_cut_to_the_video(made: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["recut", str(made[1]), "-o", str(tmp_path / "o"), "-f", "json", "--drop"]
    done = _run(*words, f"0:01-{'9' * 18}")
    assert done.returncode == 0, done.stderr
    done = _run(*words, f"0:01-{'9' * 308}")
    assert done.returncode == 2
    assert "drop must be stretches such as 0:10-0:20" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        [{"text": "a", "start": 0.5, "end": 0.5, "confidence": 7.0}],
        [{"text": "a", "start": t, "end": t, "confidence": 1.0} for t in (1.0, 0.5)],
    ],
)
def test_words_of_a_strangers_summary_are_checked(
    made: tuple[Path, Path], tmp_path: Path, words: list[dict[str, Any]]
) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(_spoken(made[1], words)))
    done = _run("export", str(tmp_path), "-f", "srt", "--clock", "source")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "speech.utterances[0]" in done.stderr


def test_a_word_that_is_two_is_exported_as_two(made: tuple[Path, Path], tmp_path: Path) -> None:
    words = [{"text": " a b", "start": 0.1, "end": 0.5, "confidence": 1.0}]
    (tmp_path / "summary.json").write_text(json.dumps(_spoken(made[1], words)))
    done = _run("export", str(tmp_path), "-f", "srt", "--clock", "source")
    assert done.returncode == 0, done.stderr
    assert "a b\n" in (tmp_path / "source.srt").read_text()


def test_a_strangers_words_are_read_as_words(made: tuple[Path, Path], tmp_path: Path) -> None:
    """By a spreadsheet, which would run a formula; by XML, which has no such letters; by FFmpeg, to which an arrow says
    that a subtitle begins."""
    arrow = [
        {"text": text, "start": 0.1, "end": 0.9, "confidence": 1.0} for text in ["0:00:05,000", "-->", "0:00:09,000"]
    ]
    document = _spoken(made[1], arrow)
    document["title"]["text"] = document["source"]["name"] = "a\ufffe\uffffb"
    document["shots"][0]["reason"] = "=cmd|'/c calc'!A1"
    (tmp_path / "summary.json").write_text(json.dumps(document))
    done = _run("export", str(tmp_path), "-f", "csv,fcpxml,srt", "--clock", "source")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "summary.csv", newline="") as file:
        assert next(csv.DictReader(file))["reason"] == "'=cmd|'/c calc'!A1"
    found = ElementTree.parse(tmp_path / "summary.fcpxml").find(".//asset")
    assert found is not None
    assert found.get("name") == "ab"
    with av.open(str(tmp_path / "source.srt")) as subtitles:
        (words,) = (bytes(packet) for packet in subtitles.demux() if packet.size)
    assert words.decode() == "0:00:05,000 → 0:00:09,000"


def test_pictures_without_a_size_are_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    document = json.loads((made[1] / "summary.json").read_text())
    document["source"]["width"] = -320
    (tmp_path / "summary.json").write_text(json.dumps(document))
    done = _run("export", str(tmp_path), "-f", "csv,fcpxml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "source.width and source.height must be at least 1, got -320 x " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def _changed(made: tuple[Path, Path], folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A folder with the summary.json, changed."""
    document = json.loads((made[1] / "summary.json").read_text())
    change(document)
    (folder / "summary.json").write_text(json.dumps(document))
    return folder


def _beyond(document: dict[str, Any]) -> None:
    clip = document["shots"][-1]["clip"]
    clip["asked"], clip["end"] = {"start": clip["start"], "end": clip["end"]}, 1e15


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d["summary"].update(duration=1e308), "summary.duration must be 0 to 10,000,000,000 s, got 1e+308"),
        (lambda d: d["source"].update(duration=1e308), "source.duration must be 0 to 10,000,000,000 s, got 1e+308"),
        (lambda d: d["source"].update(duration=-1.0), "source.duration must be 0 to 10,000,000,000 s, got -1"),
        (_beyond, "clip must lie in the video"),
        (
            lambda d: d.update(chapters=[{"start": -0.5, "title": "a", "origin": "number"}]),
            "chapters[0] must begin after the one before, in the video",
        ),
    ],
)
def test_times_of_a_strangers_summary_are_those_of_a_video(
    change: Callable[[dict[str, Any]], Any], told: str, made: tuple[Path, Path], tmp_path: Path
) -> None:
    """The first was told as what nobody foresaw, exit status 70; others were exported."""
    done = _run("export", str(_changed(made, tmp_path, change)), "-f", "edl,otio,fcpxml,csv,chapters")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert told in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("name", ["//elsewhere.example/share/a.mp4", "../../../etc/a.mp4", "/etc/a.mp4"])
def test_an_export_leads_to_no_place_that_a_stranger_names(name: str, made: tuple[Path, Path], tmp_path: Path) -> None:
    """An editor would have looked for the video there, on another machine even."""
    folder = _changed(made, tmp_path, lambda document: document["source"].update(name=name))
    assert _run("export", str(folder), "-f", "otio,fcpxml").returncode == 0
    assert '"target_url": "a.mp4"' in (tmp_path / "summary.otio").read_text()
    assert 'src="a.mp4"' in (tmp_path / "summary.fcpxml").read_text()


def test_an_export_replaces_nothing_unasked(made: tuple[Path, Path], tmp_path: Path) -> None:
    mine = tmp_path / "summary.edl"
    mine.write_text("mine")
    assert "--overwrite" in refused("export", str(made[1]), "-o", str(tmp_path), "-f", "csv,edl", names=mine)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"summary.edl": "mine"}
    assert _run("export", str(made[1]), "-o", str(tmp_path), "-f", "csv,edl", "--overwrite").returncode == 0
    assert mine.read_text() != "mine"


def test_an_export_replaces_no_input(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Neither the summary.json nor the video, under whatever name."""
    shutil.copy(made[1] / "summary.json", tmp_path / "summary.otio")
    os.link(made[0], tmp_path / "summary.csv")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name, words in {
        "summary.otio": ["-f", "edl,otio"],
        "summary.csv": ["-f", "edl,csv", "--video", str(made[0])],
    }.items():
        given = ["export", str(tmp_path / "summary.otio"), "-o", str(tmp_path), "--overwrite", *words]
        assert f"{name} must not be an input" in refused(*given, names=tmp_path / name)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_batch_goes_on_after_a_name_that_is_no_unicode_and_leaves_the_users_folders(tmp_path: Path) -> None:
    video = os.fsencode(tmp_path) + b"/\xff.mp4"
    numbered_clip(tmp_path / "a.mp4", 25)
    os.rename(tmp_path / "a.mp4", video)
    mine = tmp_path / "o" / ".\ufffd.part-mine1234" / "mine"
    mine.parent.mkdir(parents=True)
    mine.touch()
    words = ["batch", os.fsdecode(video), "-o", str(tmp_path / "o"), "-f", "json", "--no-speech", "--no-ocr"]
    for said in ("1 video summarised", "1 there already"):
        done = _run(*words, "--captioner", "none")
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
        assert "Traceback" not in done.stderr
    assert mine.exists()


def _spoken(folder: Path, words: list[dict[str, Any]]) -> dict[str, Any]:
    document = json.loads((folder / "summary.json").read_text())
    utterance = {"start": 0.0, "end": 1.0, "words": words}
    return {**document, "speech": {"source": "x", "language": None, "utterances": [utterance], "warnings": []}}


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return forked.run(
        [sys.executable, "-m", "vtsum.cli", *words],
        cwd=ROOT,
        env=ENVIRONMENT,
        timeout=240,
    )
