"""Another summary from a stored analysis: the same choice as a fresh run's, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vtsum
from tests import forked
from tests.vtsum.fakes import ColourModel
from tests.vtsum.samples import ENVIRONMENT, decode
from vtsum.enhance.speech import Transcript, Utterance, Word
from vtsum.errors import VTSumError
from vtsum.summary.analysis import Analysis, HeardAgain
from vtsum.video import probe

VTSUM = [sys.executable, "-m", "vtsum.cli"]
SRT = (
    "1\n00:00:00,500 --> 00:00:03,500\nThe first scene has balls.\n\n2\n00:00:04,200 --> 00:00:07,600\nStripes come.\n"
)
FIRST = {"budget": "5s", "ocr": False}


@pytest.fixture(scope="module", params=["spoken", "silent"])
def first(request, clip, tmp_path_factory) -> tuple[Path, vtsum.Summary, dict]:
    folder = tmp_path_factory.mktemp(request.param)
    source = Path(shutil.copy(clip, folder / "small.mp4"))
    (folder / "t.srt").write_text(SRT, encoding="utf-8")
    options = {"transcript": folder / "t.srt"} if request.param == "spoken" else {"speech": None, "captioner": "none"}
    return source, vtsum.summarize(source, folder / "o", model="embedded", **FIRST, **options), options


def _chosen(summary: vtsum.Summary) -> dict:
    """All of summary.json that is not of the run itself."""
    return {k: v for k, v in summary.data.items() if k not in ("created", "timings")}


@pytest.mark.parametrize("change", [{}, {"budget": "3s"}, {"budget": "60%", "refine": "knapsack", "segmenter": "cuts"}])
def test_the_choice_is_a_fresh_runs(first, tmp_path, change):
    source, made, options = first
    again = vtsum.recut(made.output, tmp_path / "again", **change)
    fresh = vtsum.summarize(source, tmp_path / "fresh", model="embedded", **{**FIRST, **options, **change})
    assert _chosen(again) == _chosen(fresh)
    assert sorted(os.listdir(again.output)) == sorted(os.listdir(fresh.output))
    assert probe(again.files["mp4"]).duration == probe(fresh.files["mp4"]).duration  # x264's bytes vary by themselves
    assert (again.output / "summary.txt").read_text() == (fresh.output / "summary.txt").read_text()


def test_what_is_stored_comes_back_to_the_bit(first, tmp_path):
    _, made, _ = first
    read = Analysis.load(made.files["analysis"])
    read.save(tmp_path / "again.npz")
    with np.load(made.files["analysis"]) as one, np.load(tmp_path / "again.npz") as other:
        assert sorted(one.files) == sorted(other.files)
        assert json.loads(one["facts"].tobytes()) == json.loads(other["facts"].tobytes())
        for name in set(one.files) - {"facts"}:
            assert one[name].tobytes() == other[name].tobytes(), name


def test_a_command_cuts_again_without_watching(first, tmp_path):
    """No model is loaded: where no captioner is to be looked for, PyTorch is not even imported."""
    _, made, options = first
    if options.get("captioner") == "none":
        (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])}
    words = ["recut", str(made.output), "-o", str(tmp_path / "short"), "--budget", "2s", "-f", "mp4,json,edl"]
    done = subprocess.run([*VTSUM, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted({*os.listdir(tmp_path / "short")} - {"summary.vtt"}) == ["summary.edl", "summary.json", "summary.mp4"]
    assert decode(tmp_path / "short" / "summary.mp4")[1] == pytest.approx(2, abs=0.1)
    assert json.loads((tmp_path / "short" / "summary.json").read_text())["settings"]["budget"] == "2s"
    assert "0:02 of 0:12" in done.stdout


def test_the_result_can_be_cut_again(first, tmp_path):
    _, made, _ = first
    once = vtsum.recut(made.output, tmp_path / "once", budget="3s", video=made.output.parent / "small.mp4")
    twice = vtsum.recut(once.output, tmp_path / "twice", budget="5s", video=made.output.parent / "small.mp4")
    assert _chosen(twice) == _chosen(made)


def test_captions_of_the_model_want_the_model(clip, tmp_path):
    source = Path(shutil.copy(clip, tmp_path / "small.mp4"))
    made = vtsum.summarize(source, tmp_path / "o", speech=None, captioner="embedded", **FIRST)
    again = vtsum.recut(made.output, tmp_path / "again")
    assert _chosen(again) == _chosen(made)
    assert {sentence["origin"] for sentence in again.data["text"]} == {"seen"}


def _command(*words: str) -> tuple[int, str]:
    done = forked.run([*VTSUM, "recut", *words], env=ENVIRONMENT)
    return done.returncode, done.stderr


@pytest.mark.parametrize("beside", [[], [b"a\xfe.mp4"]], ids=["alone", "beside one alike"])
def test_a_video_whose_name_is_no_text_is_found(beside: list[bytes], first: tuple, tmp_path: Path) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.mp4"))
    shutil.copy(first[1].files["mp4"], source)
    for name in beside:
        shutil.copy(source, os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    vtsum.summarize(source, tmp_path / "o", model=ColourModel(), formats=["analysis"])
    status, told = _command(str(tmp_path / "o"), "-f", "txt", "--budget", "1s", "-o", str(tmp_path / "again"))
    if beside:
        assert (status, told) == (
            2,
            f"vtsum: recut: a\ufffd.mp4 must lie beside {tmp_path / 'o'} or be named by --video, got neither\n",
        )
    else:
        assert status == 0, told


def test_what_is_refused(first, tmp_path):
    _, made, _ = first
    away = tmp_path / "away"
    away.mkdir()
    stored = Path(shutil.copy(made.files["analysis"], away / "analysis.npz"))
    other = Path(shutil.copy(made.files["mp4"], tmp_path / "other.mp4"))
    (tmp_path / "bare").mkdir()
    broken = tmp_path / "broken.npz"
    broken.write_bytes(stored.read_bytes()[:3000])
    for words, reason in {
        (str(away),): "small.mp4 must lie beside",
        (str(away), "--video", str(other)): "must be the video that was summarised, of ",
        (str(tmp_path / "bare"),): "must hold analysis.npz, as vtsum summarize -f analysis writes it, got none",
        (str(broken),): "must be a whole npz file, got one that is cut off at 3000 bytes",
        (str(made.output), "--budget", "60min"): "budget must be at most the length of the video",
        (str(made.output), "--refine", "best"): "refine must be one of dpp, knapsack, none, got 'best'",
        (str(made.output), "-o", str(made.output)): "",
    }.items():
        status, told = _command(*words)
        assert status == 2, words
        assert reason in told
        assert len(told.splitlines()) == 1, told
    assert stored.exists()


@pytest.mark.parametrize(("inside", "named"), [("", "."), ("", "analysis.npz"), ("keyframes", "..")])
def test_a_folder_is_named_from_within(first, tmp_path, inside, named):
    source, made, _ = first
    here = Path(shutil.copytree(made.output, tmp_path / "o")) / inside
    done = forked.run([*VTSUM, "recut", named, "--video", str(source), "-f", "txt"], env=ENVIRONMENT, cwd=here)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o", "o_recut"]


def _changed(path: Path, **arrays) -> Path:
    with np.load(path) as stored:
        kept = {**stored, **arrays}
    changed = path.with_name("changed.npz")
    np.savez(changed, **{name: array for name, array in kept.items() if array is not None})
    return changed


def test_a_strangers_analysis_is_checked(first, tmp_path):
    _, made, _ = first
    path = Path(shutil.copy(made.files["analysis"], tmp_path / "analysis.npz"))
    with np.load(path) as stored:
        arrays = dict(stored)
    facts = json.loads(arrays["facts"].tobytes())

    def text(**change) -> np.ndarray:
        return np.frombuffer(json.dumps({**facts, **change}).encode(), np.uint8)

    objects = tmp_path / "objects.npz"
    np.savez(objects, facts=np.array([{"a": 1}], dtype=object))
    for changed in (
        {"saliency": arrays["saliency"][:-1]},
        {"features": np.full_like(arrays["features"], np.nan)},
        {"features": None},
        {"encoded": np.zeros_like(arrays["encoded"])},
        {"times": arrays["times"][::-1].copy()},
        {"kept": arrays["kept"][:-5]},
        {"kept_runs": np.array([[0, 1 << 40, 1 << 40]])},
        {"kept_runs": arrays["kept_runs"] + 1},
        {"facts": text(format="vtsum-analysis/9")},
        {"facts": text(watched=[])},
        {"facts": text(model={"name": "x"})},
        {"facts": text(settings={})},
        {"facts": text(said={"utterances": [{"words": [{"text": "a b", "start": 1, "end": 0, "confidence": 9}]}]})},
        {"facts": np.frombuffer(b"[" * 1000, np.uint8)},
    ):
        with pytest.raises(VTSumError):
            vtsum.recut(_changed(path, **changed), tmp_path / "o", video=made.output.parent / "small.mp4")
    with pytest.raises(VTSumError, match=r"must be a whole NumPy array|must hold real numbers"):
        vtsum.recut(objects, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_an_own_model_is_asked_once(clip, tmp_path):
    """A model object is gone by the next day; what it found is not."""
    source = Path(shutil.copy(clip, tmp_path / "small.mp4"))
    made = vtsum.summarize(source, tmp_path / "o", model=ColourModel(), speech=None, captioner="none", **FIRST)
    again = vtsum.recut(made.output, tmp_path / "again", budget="8s")
    fresh = vtsum.summarize(
        source, tmp_path / "f", model=ColourModel(), speech=None, captioner="none", **{**FIRST, "budget": "8s"}
    )
    assert _chosen(again) == _chosen(fresh)


def test_what_was_heard_again_is_kept(first, tmp_path):
    """A sentence is quoted where it was heard twice; the second hearing is not repeated either."""
    _, made, _ = first
    asked = []

    def ask(spans):
        asked.append(list(spans))
        return [[Word("balls", 0.0, 1.0, 0.5)] for _ in spans]

    once = Analysis.load(made.files["analysis"])
    said = Transcript((Utterance((Word("Balls", 0.1 + 0.2, 1.0, 0.9),)),), "fake", "en", again=HeardAgain(ask))
    assert said.again([(0.1 + 0.2, 1.0), (2.0, 3.0)]) == said.again([(0.1 + 0.2, 1.0), (2.0, 3.0)])
    assert asked == [[(0.1 + 0.2, 1.0), (2.0, 3.0)]]
    dataclasses.replace(once, said=said).save(tmp_path / "a.npz")
    read = Analysis.load(tmp_path / "a.npz").said
    assert read == said
    assert [[w.text for w in words] for words in read.again([(0.1 + 0.2, 1.0), (5.0, 6.0)])] == [["balls"], []]
