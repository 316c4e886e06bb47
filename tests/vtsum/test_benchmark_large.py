"""Mr. HiSum and S-VideoXum in `vtsum benchmark`: small files in the published layouts, whole and broken."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.vtsum.annotated import plain_rho, plain_tau_b
from tests.vtsum.hostile import ENVIRONMENT
from tests.vtsum.test_benchmark import cells, lines
from vtsum import cli
from vtsum.data.large_sets import load_mrhisum, load_script_videoxum
from vtsum.data.tvsum import Split, load_splits
from vtsum.errors import VTSumError
from vtsum.evaluation.baselines import score_video

SECONDS = 60
KEYS = ["video_2", "video_10", "video_1", "video_7", "video_31", "video_5"]
SPLIT = {"train_keys": KEYS[:3], "val_keys": KEYS[3:4], "test_keys": KEYS[4:]}

Change = Callable[[h5py.Group], Any]


def write_mrhisum(path: Path, change: Change = lambda group: None, after: int = 1) -> Path:
    """A row a second, shots of 4 s; the first feature is the replayed score, nearly.

    Args:
        after: 1: change points name the first second after each shot; 0: its last one.
    """
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for key in KEYS:
            group = file.create_group(key)
            score = np.convolve(rng.random(SECONDS + 4), np.ones(5) / 5, "valid").astype(np.float32)
            starts = np.arange(0, SECONDS, 4)
            group["gtscore"] = score
            group["change_points"] = np.stack([starts, starts + 3 + after], axis=1)
            best = np.argsort(score.reshape(-1, 4).mean(axis=1))[-2:]
            group["gt_summary"] = np.repeat(np.isin(np.arange(len(starts)), best), 4).astype(np.float32)
            group["features"] = np.column_stack([score, rng.random((SECONDS, 7))]).astype(np.float32)
            change(group)
    return path


def write_script_videoxum(path: Path, change: Change = lambda group: None) -> Path:
    """Ten annotators' marks; the first embedding is how many of them want the second."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for key in KEYS:
            group = file.create_group(f"v_{key[6:]}aB-")
            liked = rng.random(SECONDS)
            group["n_frames"] = SECONDS
            group["gtscores"] = (rng.random((10, SECONDS)) < liked**3).astype(np.float32)
            group["video_embeddings"] = np.column_stack([liked, rng.random((SECONDS, 7))]).astype(np.float32)
            group["text_embeddings"] = np.zeros((10, 2, 8), np.float32)
            change(group)
    return path


def run(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vtsum.cli", "benchmark", *words],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


SPY = """
SEEN = []


class Spy:
    def fit(self, videos, validation, seed):
        with open("seen.txt", "a") as file:
            print(sorted(v.key for v in videos), sorted(v.key for v in validation), file=file)

    def predict(self, features):
        return features[:, 0]
"""


def test_mrhisum_is_selected_on_its_own_validation_videos(tmp_path: Path) -> None:
    write_mrhisum(tmp_path / "mr_hisum.h5", lambda group: group.create_group("more"))
    with h5py.File(tmp_path / "mr_hisum.h5", "a") as file:
        file.create_group("video_99")  # in no split: it is not read, so that nothing of it is missed
    (tmp_path / "split.json").write_text(json.dumps(SPLIT))
    (tmp_path / "spy.py").write_text(SPY)
    words = ["mrhisum", "--h5", "mr_hisum.h5", "--splits", "split.json", "--seeds", "1"]
    table = run(*words, "--method", "spy:Spy", "--method", "spy:Spy@test", cwd=tmp_path)
    assert (
        "Mr. HiSum, 2 videos tested, 3 to learn from, 1 to select on. tau-b and rho of raw scores against each "
        "second's most-replayed score; F of keyshot summaries of 15%, against the file's own. Epochs selected on the "
        "validation videos; with @test" in table
    )
    assert (tmp_path / "seen.txt").read_text().splitlines() == [
        "['video_1', 'video_10', 'video_2'] ['video_7']",
        "['video_1', 'video_10', 'video_2', 'video_7'] ['video_31', 'video_5']",
    ]
    # One score cannot be held against another: no human row; and against itself it is perfect, its summary too.
    assert "| human |" not in table
    assert cells(table, "ceiling")[2:5] == ["1.000", "1.000", "100.0"]
    assert cells(table, "spy:Spy")[2:4] == ["1.000", "1.000"]
    assert abs(float(cells(table, "random")[2].split()[0])) < 0.3
    head, *rows = lines(str(tmp_path / "benchmark_mrhisum.jsonl"))
    assert head["folds"] == [{"train": KEYS[:3], "test": KEYS[4:], "val": KEYS[3:4]}]
    assert {row["method"] for row in rows} == {"random", "uniform", "ceiling", "ridge", "spy:Spy", "spy:Spy@test"}
    assert run(*words, cwd=tmp_path) == table  # all is done, and the records are those of this split


def test_mrhisum_is_read_as_it_says(tmp_path: Path) -> None:
    after, last = (load_mrhisum(write_mrhisum(tmp_path / f"{n}.h5", after=n)) for n in (1, 0))
    assert [video.key for video in after] == sorted(KEYS, key=lambda key: int(key[6:]))
    for one, other in zip(after, last, strict=True):
        assert one.change_points.tolist() == other.change_points.tolist() == [[s, s + 3] for s in range(0, 60, 4)]
    video = after[0]
    assert (video.fps, video.n_frames, video.ratings.shape, video.user_summary.sum()) == (1.0, 60, (1, 60), 8)
    named = load_mrhisum(tmp_path / "1.h5", only=["video_7"])
    assert [video.key for video in named] == ["video_7"]
    write_mrhisum(tmp_path / "2.h5", lambda group: group.move("gt_summary", "gtsummary"))
    assert np.array_equal(load_mrhisum(tmp_path / "2.h5")[0].user_summary, video.user_summary)
    write_mrhisum(tmp_path / "3.h5", lambda group: group.pop("features"))
    assert load_mrhisum(tmp_path / "3.h5")[0].features is None


def test_script_videoxum_is_measured_by_its_annotators(tmp_path: Path) -> None:
    path = write_script_videoxum(tmp_path / "script_videoxum.h5")
    keys = [f"v_{key[6:]}aB-" for key in KEYS]
    (tmp_path / "s.json").write_text(json.dumps({"train": keys[:3], "val": keys[3:4], "test": keys[4:]}))
    table = run("s-videoxum", "--h5", path.name, "--splits", "s.json", "--seeds", "1", cwd=tmp_path)
    assert "S-VideoXum, 2 videos tested, 3 to learn from, 1 to select on." in table
    assert "annotator's marks of the seconds, the mean; F of the best 15% of the seconds, mean over" in table
    assert float(cells(table, "ridge")[3].split()[0]) > float(cells(table, "random")[3].split()[0]) + 0.2
    assert "human" in table
    video = load_script_videoxum(path)[0]
    scores = video.features[:, 0].astype(np.float64)
    with h5py.File(path) as file:
        marks = file[video.key]["gtscores"][()]
    found = score_video(scores, video)
    assert found.tau == pytest.approx(np.mean([plain_tau_b(scores, own) for own in marks]))
    assert found.rho == pytest.approx(np.mean([plain_rho(scores, own) for own in marks]))
    kept = scores >= np.sort(scores)[-9]  # 15% of 60
    fs = [2 * (kept * own).sum() / (kept.sum() + own.sum()) for own in marks]
    assert found.f == pytest.approx(np.mean(fs), abs=1e-6)


def put(name: str, value: Any) -> Change:
    def change(group: h5py.Group) -> None:
        del group[name]
        group[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda group: group.pop("gtscore"), "must have the field gtscore, got"),
        (lambda group: group.pop("change_points"), "must have the field change_points, got"),
        (lambda group: group.pop("gt_summary"), "must have the field gt_summary, got"),
        (put("gt_summary", np.ones(59)), r"gt_summary must be of shape \[60\], got \[59\]"),
        (put("features", np.ones((59, 8))), r"features must be of shape \[60, 8\], got \[59, 8\]"),
        (put("gtscore", np.full(60, np.nan)), "gtscore must be finite, got nan"),
        (put("change_points", np.array([[0, 30], [31, 61]])), "change_points must tile frames 0 to 59, got"),
        (put("change_points", np.array([[0, 60], [60, 60]])), "change_points must tile frames 0 to 59, got"),
        (put("change_points", np.zeros((0, 2), int)), "change_points must tile frames 0 to 59, got"),
        (put("change_points", np.arange(3)), "change_points must have 2 dimensions, got shape"),
        (put("gtscore", h5py.ExternalLink("other.h5", "x")), "gtscore must lie in the file itself, got a link"),
        (put("gtscore", "high"), "gtscore must hold numbers, got text"),
    ],
)
def test_what_mrhisum_lacks_is_named(tmp_path: Path, change: Change, told: str) -> None:
    path = write_mrhisum(tmp_path / "broken.h5", change)
    with pytest.raises(VTSumError, match=f"load_mrhisum: .*broken.h5.*{told}"):
        load_mrhisum(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda group: group.pop("gtscores"), "must have the field gtscores, got"),
        (lambda group: group.pop("n_frames"), "must have the field n_frames, got"),
        (put("n_frames", 61), r"gtscores must be of shape \[10, 61\], got \[10, 60\]"),
        (put("gtscores", np.zeros((0, 60))), "gtscores must be of at least 1 annotator, got none"),
        (put("gtscores", np.full((10, 60), 0.5)), "gtscores must be 0 or 1, got 0.5"),
        (put("video_embeddings", np.ones((60,))), "video_embeddings must have 2 dimensions"),
    ],
)
def test_what_script_videoxum_lacks_is_named(tmp_path: Path, change: Change, told: str) -> None:
    path = write_script_videoxum(tmp_path / "broken.h5", change)
    with pytest.raises(VTSumError, match=f"load_script_videoxum: .*broken.h5: v_.*{told}"):
        load_script_videoxum(path)


def test_splits_that_do_not_go_with_the_file_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_mrhisum(Path("a.h5"), lambda group: group.pop("features"))
    assert load_splits(_json(SPLIT)) == {"split": [Split(tuple(KEYS[:3]), tuple(KEYS[4:]), tuple(KEYS[3:4]))]}
    for split, told in (
        ({**SPLIT, "val_keys": ["video_3"]}, "split must name videos of a.h5, got ['video_3']"),
        ({**SPLIT, "val_keys": KEYS[4:]}, "val must be videos of neither train nor test, got ['video_31', 'video_5']"),
        ({**SPLIT, "val_keys": []}, "must have the lists train and test"),
        ({"train": KEYS[:3]}, "must have the lists train and test"),
        ({"train": ["video_3"], "test": ["video_4"]}, "must have groups of videos, got ['video_1', "),
    ):
        assert cli.main(["benchmark", "mrhisum", "--h5", "a.h5", "--splits", _json(split)]) == 2
        assert told in capsys.readouterr().err
    assert cli.main(["benchmark", "mrhisum", "--h5", "a.h5", "--splits", _json(SPLIT), "--seeds", "1"]) == 0
    said = capsys.readouterr()
    assert "no ridge: the h5 file has no features of video_1, video_2, video_5" in said.err
    assert "tested in no fold" not in said.err
    assert cli.main(["benchmark", "mosu", "--h5", "a.h5"]) == 2
    assert "name must be tvsum or summe or mrhisum or s-videoxum, got 'mosu'" in capsys.readouterr().err


def _json(content: Any) -> str:
    Path("s.json").write_text(json.dumps(content))
    return "s.json"
