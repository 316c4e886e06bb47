"""`vtsum data ratings`: from clips and what raters said of them to the benchmark's table, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.vtsum.clips import write_clip
from tests.vtsum.hostile import ENVIRONMENT, ROOT
from vtsum import cli
from vtsum.data.feature_files import write_npz
from vtsum.data.ratings import load_ratings
from vtsum.data.tvsum import load_tvsum
from vtsum.errors import VTSumError
from vtsum.evaluation.fscore import machine_summary

CLIPS, RATERS, SCENE = 6, 3, 4.0
COLOURS = {1: (30, 30, 40), 3: (40, 160, 60), 5: (230, 60, 40)}
"""What each score looks like."""


def scenes_of(clip: int) -> list[int]:
    """Scores of a clip's five scenes; no two clips have the same."""
    return [int(score) for score in np.random.default_rng(clip).choice([1, 3, 5], 5)]


def run(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vtsum.cli", *words],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_clips_and_ratings_to_the_table(tmp_path: Path) -> None:
    """Drawn clips, whose colour says what raters think of them: a ridge on their features learns it."""
    lines = ["video,rater,start,score"]
    for clip in range(CLIPS):
        scenes = scenes_of(clip)

        def picture(number: int, time: float, scenes: list[int] = scenes) -> np.ndarray:
            image = np.full((54, 96, 3), COLOURS[scenes[int(time // SCENE)]], np.uint8)
            image[number % 54] = 128  # a line that wanders
            return image

        write_clip(tmp_path / f"clip{clip}.mp4", [n / 5 for n in range(100)], picture, rate=5, last_duration=0.2)
        for rater in range(RATERS):
            lines += [
                f"clip{clip},rater {rater},{SCENE * i},{max(1, score - (rater == i % RATERS))}"
                for i, score in enumerate(scenes)
            ]
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    run("extract", ".", "-o", "feats", "--fps", "2", "--quiet", cwd=tmp_path)
    told = run("data", "ratings", "ratings.csv", "--features", "feats", "-o", "mine.h5", cwd=tmp_path)
    assert told.startswith(f"{CLIPS} videos, 2.0 minutes, ")
    assert told.endswith(f" shots, {RATERS} raters each, in mine.h5\n")
    table = run("benchmark", "tvsum", "--h5", "mine.h5", "--seeds", "1", cwd=tmp_path)
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in table.splitlines() if line[:2] == "| "}
    assert f"TVSum, {CLIPS} videos, 5 disjoint folds" in table
    assert float(rows["ridge"][2]) > 0.5 > abs(float(rows["random"][2]))
    # The raters' order of the scenes is nearly one: between any two of them, and of their mean with each.
    assert float(rows["human"][2]) > 0.7
    assert float(rows["ceiling"][2]) > 0.8
    video = load_tvsum(tmp_path / "mine.h5")[0]
    assert (video.name, video.fps, video.n_frames, len(video.picks)) == ("clip0", 30.0, 600, 40)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: features of two videos at 2 a second, of 10 and 4.6 s, each with two scenes."""
    monkeypatch.chdir(tmp_path)
    videos = {}
    for name, frames, cut, duration in (("a", 20, 12, 10.0), ("b", 9, 4, 4.6)):
        features = np.zeros((frames, 4), np.float32)
        features[:cut, 0], features[cut:, 1] = 1, 1
        write_npz(Path("feats", f"{name}.npz"), features=features)
        videos[name] = {"source": f"{name}.mp4", "bytes": 1, "frames": frames, "duration": duration}
    head = {"format": "vtsum-features/1", "encoder": "x", "weights_sha256": "a", "fps": 2.0, "image_size": 64, "dim": 4}
    Path("feats", "manifest.json").write_text(json.dumps({**head, "videos": videos}))
    return tmp_path


GOOD = {"b": {"x": [[0, 2], [2.5, 4]], "y": [[0, 3], [2, 1]]}, "a": {"x": [[6, 4], [0, 2]], "y": [[0, 3]]}}


def test_every_field_is_as_its_definition_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.json").write_text(json.dumps(GOOD))
    assert cli.main(["data", "ratings", "r.json", "--features", "feats", "-o", "m.h5"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("2 videos, 0.2 minutes, 4 shots, 2 raters each, in m.h5\n", "")
    b, a = load_tvsum("m.h5")
    assert [(v.key, v.name, v.fps, v.n_frames) for v in (b, a)] == [
        ("video_1", "b", 30.0, 138),
        ("video_2", "a", 30.0, 300),
    ]
    assert b.picks.tolist() == [0, 15, 30, 45, 60, 75, 90, 105, 120]
    assert a.change_points.tolist() == [[0, 179], [180, 299]]
    assert b.change_points.tolist() == [[0, 59], [60, 137]]
    # From frame 75 on, which is 2.5 s, x says 4; from frame 60 on y says 1.
    assert b.user_scores[0].tolist() == [2] * 75 + [4] * 63
    assert b.user_scores[1].tolist() == [3] * 60 + [1] * 78
    assert a.user_scores.tolist() == [[2] * 180 + [4] * 120, [3] * 300]
    # 1 is the lowest of all and 4 the highest: the mean of (2 - 1) / 3 and (3 - 1) / 3, and so on.
    assert b.gtscore.tolist() == pytest.approx([1 / 2] * 4 + [1 / 6] + [1 / 2] * 4)
    for video in (a, b):
        for own, kept in zip(video.user_scores, video.user_summary, strict=True):
            assert np.array_equal(kept, machine_summary(own[video.picks], video))
        assert not video.user_summary.any()  # no shot of theirs is as short as 15%
    with h5py.File("m.h5") as file:
        fields = "features gtscore gtsummary user_summary user_scores change_points n_frame_per_seg n_frames n_steps"
        assert set(file["video_1"]) == {*fields.split(), "picks", "fps", "video_name"}
        assert file["video_1/n_steps"][()] == 9


def test_a_user_keeps_what_they_rate_highest(here: Path) -> None:
    """Ten scenes of 2 s: two of them make 15% of 22 s, and by the layout's knapsack the two of the highest scores."""
    features = np.repeat(np.eye(11, dtype=np.float32), 4, axis=0)
    write_npz(Path("feats", "c.npz"), features=features)
    manifest = json.loads(Path("feats", "manifest.json").read_text())
    manifest["videos"] = {"c": {"source": "c.mp4", "bytes": 1, "frames": 44, "duration": 22.0}}
    Path("feats", "manifest.json").write_text(json.dumps(manifest))
    lines = [f"7,{2 * i},x,c" for i in (3,)] + [f"1,{2 * i},x,c" for i in range(11) if i != 3]
    lines += [f"{1 + (i == 8)},{2 * i},y,c" for i in range(11)]
    Path("r.csv").write_text("\ufeffscore,start,rater,video\r\n" + "\r\n".join(lines) + "\r\n\r\n")
    assert cli.main(["data", "ratings", "r.csv", "--features", "feats", "-o", "m.h5", "-q"]) == 0
    (video,) = load_tvsum("m.h5")
    assert len(video.change_points) == 11
    kept = [set(map(int, np.flatnonzero(own) // 60)) for own in video.user_summary]
    assert [3 in kept[0], 8 in kept[1], *map(len, kept)] == [True, True, 1, 1]


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


HEAD = "video,rater,start,score\n"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("r.txt", HEAD, "must end in .csv or .json, got '.txt'"),
        ("r.csv", "video,rater,score\na,x,1\n", "line 1 must be video,rater,start,score, in any order, got 'video,"),
        ("r.csv", HEAD, "must hold ratings, got none"),
        ("r.csv", HEAD + "a,x,0\n", "line 2 must have 4 cells, got 3"),
        ("r.csv", HEAD + "a,x,0,high\n", "line 2: score must be a number from 0 to 1,000,000, got 'high'"),
        ("r.csv", HEAD + "a,x,0,nan\n", "line 2: score must be a number from 0 to 1,000,000, got 'nan'"),
        ("r.csv", HEAD + "a,x,-1,2\n", "line 2: start must be a number from 0 to 10,000,000, got '-1'"),
        ("r.csv", HEAD + "a,,0,2\n", "line 2: rater must have a name, got none"),
        ("r.csv", HEAD + "../a,x,0,2\n", "line 2: video must be a file's name without its folder"),
        ("r.csv", HEAD + "a,x,1,2\n", "a: x: the first score must be at 0 seconds, got 1"),
        ("r.csv", HEAD + "a,x,0,2\na,x,3,2\na,x,3,4\n", "a: x must have one score at a time, got several at 3"),
        ("r.csv", HEAD + 'a,x,0,"2\n', "must be CSV, got: "),
        ("r.json", '{"a": [1]}', "a must be an object, its raters' scores, got [1]"),
        ("r.json", '{"a": {"x": []}}', "a: x must be a list of start and score, got []"),
        ("r.json", '{"a": {"x": [[0]]}}', "a: x must hold pairs of start and score, got [0]"),
        ("r.json", '{"a": {"x": [[0, true]]}}', "a: x: score must be a number from 0 to 1,000,000, got true"),
        ("r.json", json.dumps({"a": GOOD["a"], "z": GOOD["b"]}), "z must have features in feats, got those of a, b"),
        ("r.json", '{"a": {"x": [[0, 1], [1, 2]]}}', "a must have at least 2 raters and 2 frames of features, got 1"),
        ("r.json", '{"b": {"x": [[0, 1], [5, 2]], "y": [[0, 1]]}}', "b: x: start must lie within the video's 4.6 s"),
        (
            "r.json",
            json.dumps({"a": {f"r{i}": [[0, i]] for i in range(501)}}),
            "ratings: a: raters must be at most 500, got 501",
        ),
        ("r.json", '{"a": {"x": [[0, 3]], "y": [[0, 3]]}}', "scores must differ, got 3 throughout"),
    ],
)
def test_what_cannot_be_is_one_line(
    here: Path, name: str, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "ratings", write(name, text), "--features", "feats", "-o", "m.h5"]) == 2
    said = capsys.readouterr().err.strip()
    assert told in said
    assert "\n" not in said
    assert sorted(path.name for path in here.iterdir()) == ["feats", name]


def test_files_are_left_alone_and_other_videos_are_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.json").write_text(json.dumps({"a": GOOD["a"]}))
    words = ["data", "ratings", "r.json", "--features", "feats", "-o"]
    assert cli.main([*words, "r.json", "--overwrite"]) == 2
    assert "output r.json must not be an input" in capsys.readouterr().err
    assert cli.main([*words, "m.h5"]) == 0
    assert "note: left out, as nobody rated them: b" in capsys.readouterr().err
    before = Path("m.h5").read_bytes()
    assert cli.main([*words, "m.h5"]) == 2
    assert "m.h5 must not exist yet (--overwrite replaces it)" in capsys.readouterr().err
    assert cli.main([*words, "m.h5", "--overwrite"]) == 0
    assert Path("m.h5").read_bytes() == before
    Path("feats", "manifest.json").write_text('{"format": "vtsum-features/1", "fps": "x", "videos": {}}')
    assert cli.main([*words, "n.h5"]) == 2
    assert (
        'manifest.json must be a manifest of features, got: "x" in "fps", which must be a number'
        in capsys.readouterr().err
    )
    Path("feats", "manifest.json").unlink()
    assert cli.main([*words, "n.h5"]) == 2
    assert "features must be a folder that vtsum extract made, got feats without" in capsys.readouterr().err


def test_csv_and_json_say_the_same(here: Path) -> None:
    rows = [(v, r, s, score) for v, raters in GOOD.items() for r, points in raters.items() for s, score in points]
    csv = load_ratings(Path(write("r.csv", HEAD + "".join(f"{','.join(map(str, row))}\n" for row in rows))))
    of_json = load_ratings(Path(write("r.json", json.dumps(GOOD))))
    assert list(csv) == list(of_json) == ["b", "a"]
    for video, raters in of_json.items():
        for rater, rating in raters.items():
            other = csv[video][rater]
            assert (rating.starts.tolist(), rating.scores.tolist()) == (other.starts.tolist(), other.scores.tolist())
    with pytest.raises(VTSumError, match="must be a readable file, got: no such file"):
        load_ratings(Path("gone.csv"))


def test_the_page_shows_the_command() -> None:
    assert "vtsum data ratings ratings.csv --features feats -o mine.h5" in (ROOT / "docs/benchmark.md").read_text()
