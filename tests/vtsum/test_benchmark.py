"""`vtsum benchmark`: the protocol, what is kept of it and what it refuses, on small files with a planted signal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests import forked
from tests.vtsum.annotated import plain_rho, plain_tau_b
from tests.vtsum.hostile import ENVIRONMENT, ROOT
from vtsum import cli
from vtsum.benchmarks.data import divide, draw_folds
from vtsum.benchmarks.figures import figures
from vtsum.benchmarks.records import Row, parse_records
from vtsum.benchmarks.table import table
from vtsum.data.tvsum import load_tvsum
from vtsum.evaluation.baselines import VideoScore

FRAMES, VIDEOS, RATERS = 600, 6, 3

SPY = """
import numpy as np

SEEN = []


class Spy:
    def fit(self, videos, validation, seed):
        SEEN.append(([v.key for v in videos], [v.key for v in validation], seed))

    def predict(self, features):
        return features[:, 0]


class Stops(Spy):
    def fit(self, videos, validation, seed):
        super().fit(videos, validation, seed)
        if len(SEEN) == 3:
            raise KeyboardInterrupt


class Short(Spy):
    def predict(self, features):
        return features[1:, 0]


class Nan(Spy):
    def predict(self, features):
        return np.full(len(features), np.nan)


class Ragged(Spy):
    def predict(self, features):
        return [[1.0], [1.0, 2.0]]


class Far(Spy):
    def predict(self, features):
        return np.where(np.arange(len(features)) % 2, 1.7e308, -1.7e308)


class Long(Spy):
    def predict(self, features):
        return np.full(len(features), np.longdouble("1e4000"))


class Wrong(Spy):
    def predict(self, features):
        return features @ np.ones(3)


class Halfway:
    def fit(self, videos, validation, seed):
        pass
"""


def write_h5(path: Path, change: Callable[[h5py.Group], None] = lambda group: None) -> Path:
    """Six videos of 20 seconds, shots of one second; the first of four features is the raters' mean, nearly, less 3."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for key in range(1, VIDEOS + 1):
            group = file.create_group(f"video_{key}")
            wanted = rng.integers(1, 6, FRAMES // 15)
            scores = np.clip(wanted + rng.integers(-1, 2, (RATERS, FRAMES // 15)), 1, 5).astype(np.uint8)
            starts = np.arange(0, FRAMES, 30)
            group["fps"], group["n_frames"], group["picks"] = 30.0, FRAMES, np.arange(0, FRAMES, 15)
            group["features"] = np.column_stack([wanted - 3.0, rng.random((FRAMES // 15, 3))]).astype(np.float32)
            group["user_scores"] = np.repeat(scores, 15, axis=1)
            group["user_summary"] = (np.repeat(scores, 15, axis=1) >= 4).astype(np.float32)
            group["change_points"] = np.stack([starts, starts + 29], axis=1)
            group["n_frame_per_seg"] = np.full(FRAMES // 30, 30)
            group["gtscore"] = (scores.mean(axis=0) / 5).astype(np.float32)
            change(group)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a.h5 and an outsider's spy.py."""
    write_h5(tmp_path / "a.h5")
    (tmp_path / "spy.py").write_text(SPY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("spy", None)
    yield tmp_path
    sys.modules.pop("spy", None)


def benchmark(*words: str, name: str = "tvsum") -> int:
    return cli.main(["benchmark", name, "--h5", "a.h5", *words])


def lines(path: str = "benchmark_tvsum.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def cells(table: str, method: str) -> list[str]:
    return next(line for line in table.splitlines() if line.startswith(f"| {method} |")).strip("| ").split(" | ")


def test_folds_are_disjoint_and_selection_is_on_training_videos() -> None:
    keys = [f"video_{i}" for i in range(1, 13)]
    folds = draw_folds(keys, 0)
    assert sorted(key for fold in folds for key in fold.test) == sorted(keys)
    assert all({*fold.train, *fold.test} == set(keys) for fold in folds)
    assert {len(fold.test) for fold in folds} == {2, 3}
    assert (draw_folds(keys, 0) == folds, draw_folds(keys, 1) == folds) == (True, False)
    learned, held = divide(folds[0].train, 3)
    assert sorted([*learned, *held]) == sorted(folds[0].train)
    assert len(held) == 2
    assert divide(folds[0].train, 4)[1] != held


def test_a_method_sees_no_test_video_unless_it_is_asked_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark("--method", "spy:Spy", "--method", "spy:Spy@test", "--seeds", "2") == 0
    import spy

    head, *rows = lines()
    assert [fold["test"] for fold in head["folds"]] == [list(fold.test) for fold in _folds()]
    tested = {(row["method"], row["fold"], row["seed"]): set(row["videos"]) for row in rows}
    seen = iter(spy.SEEN)
    for name in ("spy:Spy", "spy:Spy@test"):
        for seed in range(2):
            for i, fold in enumerate(_folds()):
                learned, held, given = next(seen)
                assert given == seed
                assert tested[name, i, seed] == set(fold.test)
                wanted = (set(fold.train), set(fold.test)) if name.endswith("@test") else None
                if wanted:
                    assert (set(learned), set(held)) == wanted
                else:
                    assert not {*learned, *held} & set(fold.test)
                    assert sorted([*learned, *held]) == sorted(fold.train)
    shown = capsys.readouterr().out
    assert "5 disjoint folds (drawn by seed 0)" in shown
    # Both know the raters' mean nearly; so does the ridge, whose smoothing does it harm here, and chance does not.
    assert cells(shown, "spy:Spy") == ["spy:Spy", "2", *cells(shown, "spy:Spy@test")[2:]]
    assert [cells(shown, name)[1] for name in ("random", "uniform", "ridge")] == ["2", "1", "1"]
    assert float(cells(shown, "spy:Spy")[2].split()[0]) > 0.5 > abs(float(cells(shown, "random")[2].split()[0]))


def test_what_selection_on_test_adds_is_of_the_seeds_that_both_have() -> None:
    head, _ = parse_records((ROOT / "bench/results/benchmark_tvsum.jsonl").read_bytes(), "benchmark")
    head = replace(head, folds=head.folds[:1])

    def row(method: str, seed: int, *f: float) -> Row:
        return Row(method, "c", 0, seed, 1.0, "", {f"v{i}": VideoScore(0.1, 0.2, one) for i, one in enumerate(f)})

    rows = [row("net", 0, 0.9, 0.9), row("net", 1, 0.5, 0.5), row("net", 2, 0.4, 0.6), row("other@test", 0, 0.5, 0.5)]
    rows += [row("net@test", 1, 0.6, 0.8), row("net@test", 2, 0.6, 0.6), row("net@test", 3, 0.1, 0.1)]
    found = {it.method: it.leak for it in figures(head, rows)}
    assert (found["net"], found["other@test"]) == (None, None)
    leak = found["net@test"]
    assert leak is not None
    assert leak.seeds == 2
    assert leak.differences["f"].mean == pytest.approx(0.15)  # of one video 0.15, of the other one 0.15
    assert leak.differences["tau"].mean == 0.0
    said = "seeds, paired by video: net tau +0.000 ± 0.000, rho +0.000 ± 0.000, F +15.0 ± 0.0 (2 seeds)."
    assert table(head, figures(head, rows)).endswith(said)


def _folds() -> list[Any]:
    return draw_folds([f"video_{i}" for i in range(1, VIDEOS + 1)], 0)


def test_the_figures_are_those_of_the_definitions(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark("--method", "spy:Spy", "--seeds", "1") == 0
    shown = cells(capsys.readouterr().out, "spy:Spy")
    videos = load_tvsum("a.h5")
    by_video = {
        measure: [np.mean([plain(v.features[:, 0], r) for r in v.ratings.astype(float)]) for v in videos]
        for measure, plain in (("tau", plain_tau_b), ("rho", plain_rho))
    }
    rows = lines()[1:]
    for at, measure in enumerate(("tau", "rho")):
        assert shown[2 + at] == f"{np.mean(by_video[measure]):.3f}"
        ridge = {key: scores[at] for row in rows if row["method"] == "ridge" for key, scores in row["videos"].items()}
        apart = np.array([by_video[measure][i] - ridge[video.key] for i, video in enumerate(videos)])
        assert shown[5 + at] == f"{apart.mean():+.3f} ± {apart.std(ddof=1) / len(apart) ** 0.5:.3f}"
    human = {key: scores for row in rows if row["method"] == "human" for key, scores in row["videos"].items()}
    ratings = videos[0].ratings.astype(float)
    pairs = [plain_tau_b(ratings[a], ratings[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert human["video_1"][0] == pytest.approx(np.mean(pairs))


def test_what_was_interrupted_goes_on_where_it_stood(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--method", "spy:Stops", "--seeds", "1"]
    assert benchmark(*words) == 130
    kept = lines()
    assert [row["fold"] for row in kept if row.get("method") == "spy:Stops"] == [0, 1]
    with open("benchmark_tvsum.jsonl", "ab") as file:
        file.write(b'{"method": "spy:St')  # a line broken off by a crash
    capsys.readouterr()
    assert benchmark(*words) == 0
    import spy

    assert len(spy.SEEN) == 6
    assert lines()[: len(kept)] == kept
    assert [row["fold"] for row in lines()[len(kept) :]] == [2, 3, 4]
    first = capsys.readouterr().out
    # All is done: the table is there at once, and with other seeds that of before is not made again.
    assert benchmark(*words) == 0
    assert (capsys.readouterr().out, len(spy.SEEN)) == (first, 6)
    # A class of the same name in another file is another method: its own rows count.
    Path("spy.py").write_text(SPY.replace("features[:, 0]", "-features[:, 0]"))
    sys.modules.pop("spy")
    assert benchmark("--method", "spy:Spy", "--seeds", "1") == 0
    Path("spy.py").write_text(SPY)
    sys.modules.pop("spy")
    before = cells(capsys.readouterr().out, "spy:Spy")
    assert benchmark("--method", "spy:Spy", "--seeds", "1") == 0
    after = cells(capsys.readouterr().out, "spy:Spy")
    assert before[2] == f"-{after[2]}"


def test_videos_that_no_fold_tests_are_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As with another data set's splits, whose keys are the same."""
    (here / "few.json").write_text(json.dumps({"folds": [{"train": ["video_1", "video_2"], "test": ["video_3"]}]}))
    assert benchmark("--splits", "few.json") == 0
    told = f"note: {VIDEOS - 1} of the h5 file's {VIDEOS} videos are tested in no fold; are these its splits?"
    assert told in capsys.readouterr().err


def test_the_page_says_what_the_records_do() -> None:
    head, rows = parse_records((ROOT / "bench/results/benchmark_tvsum.jsonl").read_bytes(), "benchmark")
    assert table(head, figures(head, rows)) in (ROOT / "docs/benchmark.md").read_text()


def test_summe_and_a_file_without_single_ratings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_h5(Path("a.h5"), lambda group: [group.pop(name) for name in ("user_scores", "fps")])
    assert benchmark("--method", "spy:Spy", "--seeds", "1") == 0
    shown = capsys.readouterr().out
    assert cells(shown, "ceiling")[2:4] == ["n/a", "n/a"]
    assert float(cells(shown, "ceiling")[4]) > float(cells(shown, "uniform")[4])
    assert "tau and rho need what each rater said (user_scores), which this h5 file has not." in shown
    assert benchmark("--seeds", "1", name="summe") == 0
    shown = capsys.readouterr().out
    assert "each user's binary summary" in shown
    assert 0.4 < float(cells(shown, "ceiling")[2]) < 1
    write_h5(Path("a.h5"), lambda group: group.pop("features"))
    assert benchmark("--records", "b.jsonl") == 0
    said = capsys.readouterr()
    assert "no ridge: the h5 file has no features of video_1" in said.err
    assert cells(said.out, "human")[5:] == []
    assert benchmark("--records", "c.jsonl", "--method", "vasnet") == 2
    assert "method vasnet must have the features of every video" in capsys.readouterr().err


SPLITS = {"disjoint_folds": [{"train": ["video_1", "video_2"], "test": ["video_3"]}], "other": []}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--method", "nobody"], "method must be one of random, uniform, human, ceiling, ridge, ridge-spread"),
        (["--method", "ridge@test"], "method must be without @test where nothing is selected, got ridge@test"),
        (["--method", "spy:Halfway"], "must have what vtsum.protocols.Method lists, got none of its predict"),
        (["--method", "spy:Short"], "spy:Short: predict must give 40 finite numbers for video_"),
        (["--method", "spy:Nan"], "spy:Nan: predict must give 40 finite numbers for video_"),
        (["--method", "spy:Wrong"], "spy:Wrong: predict must not raise, got ValueError: matmul: Input operand 1"),
        (["--method", "spy:Ragged"], "spy:Ragged: predict must give 40 finite numbers for video_"),
        (["--method", "spy:Far"], "spy:Far: predict must give 40 finite numbers for video_"),
        (["--method", "spy:Long"], "spy:Long: predict must give 40 finite numbers for video_"),
        (["--folds", "other"], "folds must come with --splits"),
        (["--splits", "s.json", "--folds", "other"], "folds must be among disjoint_folds of s.json, got 'other'"),
        (["--splits", "strange.json"], "strange.json: splits must name videos of a.h5, got ['video_9']"),
        (["--splits", "one.json"], "each fold must have 2 training videos or more, one of them to select on, got 1"),
        (["--records", "a.h5"], "output a.h5 must not be an input"),
        (["--records", "spy.py"], "spy.py must be a file of rows of a benchmark, or not there yet, got another file"),
        (["--records", "old.jsonl"], "must hold rows of the same h5 file and folds, got those of others"),
        (["--plot", "new.png", "--records", "new.png"], "--plot must be another file than --records, got new.png for"),
        (["--plot", "a.gif"], "file must end in .png or .svg"),
    ],
)
def test_what_cannot_be_is_one_line(
    here: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.json").write_text(json.dumps(SPLITS))
    Path("strange.json").write_text(json.dumps([{"train_keys": ["video_1", "video_9"], "test_keys": ["video_2"]}]))
    Path("one.json").write_text(json.dumps([{"train_keys": ["video_1"], "test_keys": ["video_2"]}]))
    Path("old.jsonl").write_text(
        json.dumps(
            {
                "format": "vtsum-benchmark/1",
                "benchmark": "tvsum",
                "h5_sha256": "0" * 64,
                "folds_name": "x",
                "folds": SPLITS["disjoint_folds"],
            }
        )
        + "\n"
    )
    before = {path.name: path.read_bytes() for path in here.iterdir() if path.is_file()}
    assert benchmark("--seeds", "1", *words) == 2
    said = capsys.readouterr().err.strip()
    assert told in said
    assert "\n" not in said
    assert {name: Path(name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda row: row.update(fold=7), "line 2 must be a row of a benchmark"),
        (lambda row: row["videos"].update(video_99=[0, 0, 0]), "line 2 must be a row of a benchmark"),
        (lambda row: row["videos"].update({key: [0, 0, 2] for key in row["videos"]}), "a score of 2"),
        (lambda row: row.pop("code"), "line 2 must be a row of a benchmark"),
    ],
)
def test_a_broken_row_is_named(here: Path, change: Any, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark("--seeds", "1", "--quiet") == 0
    assert capsys.readouterr().out == ""
    head, row, *rest = lines()
    change(row)
    Path("benchmark_tvsum.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (head, row, *rest)))
    assert benchmark("--seeds", "1") == 2
    assert told in capsys.readouterr().err
    before = Path("benchmark_tvsum.jsonl").read_bytes()
    assert benchmark("--seeds", "1", "--overwrite") == 2
    assert Path("benchmark_tvsum.jsonl").read_bytes() == before
    Path("benchmark_tvsum.jsonl").unlink()
    assert benchmark("--seeds", "1") == 0


def test_a_plot_is_replaced_and_no_row_is_lost(here: Path) -> None:
    """Rows are hours of work: who asks for another plot does not ask for their end."""
    assert benchmark("--seeds", "1", "--plot", "p.svg") == 0
    before, drawn = Path("benchmark_tvsum.jsonl").read_bytes(), Path("p.svg").stat().st_ino
    picture = Path("p.svg").read_bytes()
    assert benchmark("--seeds", "1", "--plot", "p.svg", "--overwrite") == 0
    assert Path("benchmark_tvsum.jsonl").read_bytes() == before
    assert Path("p.svg").stat().st_ino != drawn
    assert Path("p.svg").read_bytes() == picture  # the same rows, the same file


def test_the_example_joins_the_table_as_a_command(here: Path) -> None:
    """A process, in the folder of the example; the table, the records and the picture are there, nothing else."""
    code = "import sys; sys.path.remove(''); from vtsum.cli import main; sys.exit(main())"
    own = ["--method", "own_saliency:TwoLayers", "--method", "own_saliency:TwoLayers@test", "--seeds", "1"]
    files = ["--h5", str(here / "a.h5"), "--records", str(here / "r.jsonl"), "--plot", str(here / "p.svg")]
    done = forked.run(
        [sys.executable, "-c", code, "benchmark", "tvsum", *files, *own],
        cwd=ROOT / "examples",
        env=ENVIRONMENT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(cells(done.stdout, r"own\_saliency:TwoLayers")[2].split()[0]) > 0.3
    assert {row.get("method") for row in lines(str(here / "r.jsonl"))} >= {"own_saliency:TwoLayers@test", "ridge"}
    assert "<!-- own_saliency:TwoLayers -->" in (here / "p.svg").read_text()
    assert sorted(path.name for path in here.iterdir()) == ["a.h5", "p.svg", "r.jsonl", "spy.py"]
    assert len((ROOT / "examples" / "own_saliency.py").read_text().splitlines()) < 60
