"""Intervals, tables and the two commands."""

from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_ind, wilcoxon

from tests.vtsum.videoxum_corpus import write_corpus, write_model
from vtsum.cli import main
from vtsum.errors import VTSumError
from vtsum.evaluation import java
from vtsum.evaluation.captions import bleu_counts
from vtsum.evaluation.videoxum_file import read_evaluation
from vtsum.evaluation.videoxum_scores import (
    MEASURES,
    corpus_value,
    format_value,
    interval,
    resamples,
    with_interval,
)
from vtsum.evaluation.videoxum_seeds import differences, grouped
from vtsum.evaluation.videoxum_table import describe, results_table, row_names


def test_resampled_measures_equal_the_measure_of_the_resample():
    """Weights stand for repeated videos: means, and BLEU from counts."""
    rng = np.random.default_rng(0)
    weights = resamples(6, 4, seed=1)
    assert weights.shape == (4, 6)
    assert (weights.sum(1) == 6).all()
    f1 = rng.random(6)
    counts = np.array([bleu_counts("a b c d e f"[: 2 * k + 5], ["a b c d e f g"]) for k in range(6)])
    for row in weights:
        repeated = np.repeat(np.arange(6), row.astype(int))
        assert corpus_value("f1", f1, row) == pytest.approx(f1[repeated].mean(), abs=1e-15)
        assert corpus_value("bleu4", counts, row) == pytest.approx(
            float(corpus_value("bleu4", counts[repeated])), abs=1e-15
        )
    assert np.array_equal(weights, resamples(6, 4, seed=1))
    assert not np.array_equal(weights, resamples(6, 4, seed=2))


def test_intervals_hold_the_truth_as_often_as_they_say():
    """300 samples of 60 videos: the mean lies in about 95 of 100 intervals."""
    rng = np.random.default_rng(3)
    hits = 0
    for seed in range(300):
        values = rng.normal(0.3, 0.1, 60)
        cell = with_interval("f1", [values], resamples(60, 400, seed))
        hits += cell["low"] <= 0.3 <= cell["high"]
    assert 0.90 < hits / 300 < 0.99
    assert interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))


def test_a_small_steady_difference_is_seen_where_two_intervals_overlap():
    rng = np.random.default_rng(0)
    theirs = rng.normal(0.3, 0.1, 80)
    ours = theirs + rng.normal(0.01, 0.005, 80)
    weights = resamples(80, 500, 0)
    change = differences(*(pooled([values]) for values in (ours, theirs)), 1)["f1"]
    assert 0 < change["low"] < change["value"] < change["high"]
    assert change["value"] == pytest.approx((ours - theirs).mean())
    assert change["p_videos"] == pytest.approx(wilcoxon(ours, theirs).pvalue)
    assert change["p_seeds"] is None
    assert with_interval("f1", [ours], weights)["low"] < with_interval("f1", [theirs], weights)["high"]


def pooled(trainings: list[np.ndarray]) -> dict[str, Any]:
    """Trainings with these F1 of their videos, as one row."""
    members = []
    for number, values in enumerate(trainings):
        cells = {name: {"value": None, "reason": "not measured"} for name in MEASURES}
        cells["f1"] = {"value": float(values.mean())}
        videos = [{"video_id": f"v{i}", "f1": float(value)} for i, value in enumerate(values)]
        about = {"checkpoint": {"sha256": str(number)}, "settings": {"resamples": 1000, "seed": 0}}
        members.append({**about, "measures": cells, "videos": videos})
    return grouped(members, ["x"] * len(members))[0][0]


def test_several_trainings_are_one_row():
    """Of one model, one of them is far better: over videos alone it would be better than the other beyond doubt."""
    rng = np.random.default_rng(1)
    videos = rng.normal(0.3, 0.1, 80)
    theirs = pooled([videos + shift for shift in (0.0, 0.001, 0.002)])
    ours = pooled([videos + shift for shift in (-0.001, 0.0, 0.1)])
    cell = ours["measures"]["f1"]
    assert (cell["seeds"], cell["value"]) == (3, pytest.approx(videos.mean() + 0.033))
    assert cell["sd"] == pytest.approx(np.std([-0.001, 0, 0.1], ddof=1))
    change = differences(ours, theirs, 1)["f1"]
    assert change["value"] == pytest.approx(0.032)
    assert change["low"] < 0 < change["high"]
    assert change["p_videos"] < 1e-10
    assert change["p_seeds"] == pytest.approx(ttest_ind([-0.001, 0, 0.1], [0, 0.001, 0.002], equal_var=False).pvalue)
    steady = differences(pooled([videos + shift for shift in (0.05, 0.051, 0.049)]), theirs, 1)["f1"]
    assert steady["low"] > 0.045
    assert steady["p_seeds"] < 1e-4
    with pytest.raises(VTSumError, match="of different trainings, got one of x twice"):
        grouped([theirs["members"][0]] * 2, ["x", "x"])
    with pytest.raises(VTSumError, match="must be of the same videos, got others under x"):
        grouped([theirs["members"][0], pooled([videos, videos[1:]][1:])["members"][0] | {"checkpoint": {}}], ["x", "x"])


def test_trainings_of_several_seeds_in_the_table():
    files = [
        evaluation(shift, checkpoint={"name": f"memory seed {n}", "sha256": f"{n}"})
        for n, shift in ((0, 0.02), (1, 0.03))
    ]
    one = evaluation(checkpoint={"name": "tt_ca", "sha256": "x"})
    names = row_names([one, *files], [Path("a.json"), Path("b.json"), Path("c.json")])
    assert names == ["tt_ca", "memory", "memory"]
    text = results_table([one, *files], names)
    row = next(line for line in text.splitlines() if line.startswith("| memory |"))
    f1 = [e["measures"]["f1"]["value"] for e in files]
    assert row.split("|")[2].strip() == (
        f"**{format_value('f1', np.mean(f1))}** ± {format_value('f1', np.std(f1, ddof=1))}<sup>+</sup>"
    )
    assert "±: standard deviation over trainings of other seeds (memory 2)." in text
    assert r"$\pm$ 0.7" in results_table([one, *files], names, form="tex")
    rows = list(csv.DictReader(io.StringIO(results_table([one, *files], names, form="csv"))))
    assert [(r["name"], r["trainings"]) for r in rows] == [
        ("tt_ca", "1"),
        ("memory", "2"),
        ("random", ""),
        ("uniform", ""),
    ]
    assert float(rows[1]["f1_sd"]) == pytest.approx(np.std(f1, ddof=1))
    assert float(rows[1]["f1_difference_p_videos"]) < 1e-3
    assert rows[1]["f1_difference_p_seeds"] == ""  # the first row is one training


def evaluation(shift: float = 0.0, **other: Any) -> dict[str, Any]:
    """A whole evaluation of 30 videos, its values made up; `shift` moves F1 and tau."""
    rng = np.random.default_rng(7)
    videos = []
    for i in range(30):
        video: dict[str, Any] = {"video_id": f"v{i}", "meteor_counts": None}
        video |= {name: float(rng.normal(0.3, 0.02)) for name in ("f1", "kendall", "spearman", "rouge_l", "cider")}
        video["f1"] += shift
        video["kendall"] -= shift
        video["vt_clipscore"] = 0.25
        video["bleu_counts"] = bleu_counts("a man runs in the street", ["a man runs in the red street"]).tolist()
        videos.append(video)
    none = {"value": None, "low": None, "high": None, "reason": "needs a Java runtime"}
    measures = {}
    for name in MEASURES:
        values = None if name == "meteor" else [v["bleu_counts" if name == "bleu4" else name] for v in videos]
        measures[name] = with_interval(name, [np.array(values)], resamples(30, 100, 0)) if values else dict(none)
    row = {name: dict(measures[name]) for name in MEASURES}
    return {
        "format": "vtsum-evaluation/1",
        "protocol": "videoxum-strict",
        "protocol_revision": 2,
        "split": "test",
        "data": {"path": "../a_corpus", "name": "a_corpus", "annotations_sha256": "d", "videos": 30},
        "checkpoint": {"path": "x", "sha256": "c"},
        "clip": None,
        "settings": {"caption_tokenizer": "ptb", "resamples": 100, "seed": 0},
        "measures": measures,
        "baselines": {"random": row, "uniform": copy.deepcopy(row)},
        "videos": videos,
    } | other


def test_the_table_in_markdown():
    text = results_table([evaluation(), evaluation(0.02)], ["TT+CA", "TT+CA+memory"])
    lines = text.splitlines()
    assert lines[0] == (
        "Protocol videoxum-strict (revision 2), split test of a\\_corpus, 30 videos, captions by the PTB tokenizer. "
        "Rank correlations as they are, all others times 100."
    )
    rows = {
        cells[1].strip(): [c.strip() for c in cells[2:-1]]
        for cells in (line.split("|") for line in lines[2:])
        if len(cells) > 2
    }
    assert list(rows) == ["", "---", "TT+CA", "TT+CA+memory", "random", "uniform"]
    first, second = evaluation()["measures"], evaluation(0.02)["measures"]
    assert rows["TT+CA"][0] == format_value("f1", first["f1"]["value"])
    assert rows["TT+CA+memory"][0] == f"**{format_value('f1', second['f1']['value'])}**<sup>+</sup>"
    assert rows["TT+CA"][1] == f"**{first['kendall']['value']:.3f}**"
    assert rows["TT+CA+memory"][1] == f"{second['kendall']['value']:.3f}<sup>-</sup>"
    assert rows["TT+CA"][7] == rows["TT+CA+memory"][7] == "**25.0**"
    assert rows["TT+CA"][4] == ""
    assert "METEOR was not computed: needs a Java runtime." in lines
    assert "better or worse than TT+CA beyond chance" in text
    alone = results_table([evaluation()], ["one"], baselines=False)
    assert "**" not in alone
    assert "random" not in alone


def test_the_table_in_latex_and_csv():
    both = [evaluation(), evaluation(0.02)]
    tex = results_table(both, ["a_b", "100%"], form="tex")
    assert r"a\_b & " in tex
    assert r"100\% & \textbf{" in tex
    assert r"Kendall's $\tau$" in tex
    assert r"split test of a\_corpus" in tex
    assert tex.count(r"\\") == 5
    below = evaluation()
    below["baselines"]["random"]["kendall"]["value"] = -0.0312
    assert " & $-$0.031 & " in results_table([below], ["a"], form="tex")
    rows = list(csv.DictReader(io.StringIO(results_table(both, ["a", "b"], form="csv"))))
    assert [row["name"] for row in rows] == ["a", "b", "random", "uniform"]
    assert [row["protocol_revision"] for row in rows] == ["2"] * 4
    assert float(rows[1]["f1"]) == both[1]["measures"]["f1"]["value"]
    assert float(rows[1]["f1_difference"]) == pytest.approx(0.02)
    assert 0 < float(rows[1]["f1_difference_low"]) <= float(rows[1]["f1_difference_high"])
    assert rows[0]["f1_difference"] == rows[0]["meteor"] == ""


def test_what_differs_is_not_mixed():
    data = {"path": "b", "name": "b", "annotations_sha256": "e", "videos": 30}
    other = evaluation(split="val", data=data)
    with pytest.raises(VTSumError, match=r"got different split and data \(--mix allows it\)"):
        results_table([evaluation(), other], ["a", "b"])
    assert r"split test / val of a\_corpus / b" in results_table([evaluation(), other], ["a", "b"], mix=True)
    plain = evaluation(settings={"caption_tokenizer": "plain", "resamples": 100, "seed": 0})
    with pytest.raises(VTSumError, match="got different caption tokenizer"):
        results_table([evaluation(), plain], ["a", "b"])
    assert "not comparable with published ones" in results_table([plain], ["a"])
    with pytest.raises(VTSumError, match="names must be one for each of 2 evaluations, got 1"):
        results_table([evaluation(), evaluation()], ["a"])


def test_protocols_and_their_revisions_are_never_mixed():
    """Whatever is asked for: the figures of a column would mean different things."""
    old = evaluation()
    del old["protocol_revision"]
    for other, message in (
        (evaluation(protocol="videoxum-released"), "agree in protocol, got .*strict .revision 2., videoxum-released"),
        (evaluation(protocol_revision=3), r"agree in revision of the protocol, got .*revision 2\), .*revision 3\);"),
        (
            old,
            r"agree in revision of the protocol, got .*revision 2\), videoxum-strict \(no revision: an older file\);",
        ),
    ):
        for mix in (False, True):
            with pytest.raises(VTSumError, match=message):
                results_table([evaluation(), other], ["a", "b"], mix=mix)
    assert results_table([old, old], ["a", "b"]).startswith("Protocol videoxum-strict (no revision: an older file), ")


def test_files_that_are_no_evaluations_are_named(tmp_path):
    path = tmp_path / "e.json"
    for content, message in (
        ("{", "must be JSON"),
        ("[]", "must hold an object, got a list"),
        ('{"format": "vtsum-model/1"}', "got 'vtsum-model/1'"),
        ('{"format": "vtsum-evaluation/1", "measures": {}}', "must hold all fields, got none of"),
    ):
        path.write_text(content)
        with pytest.raises(VTSumError, match=message):
            read_evaluation(path)
    with pytest.raises(VTSumError, match="must be a readable file, got: no such file"):
        read_evaluation(tmp_path / "none.json")


def test_the_terminal_says_what_is_missing():
    text = describe(evaluation())
    assert "METEOR was not computed: needs a Java runtime" in text
    lines = {line[:15].strip(): line for line in text.splitlines()}
    assert lines["F1"].split()[1] == format_value("f1", evaluation()["measures"]["f1"]["value"])
    assert "not computed" in lines["METEOR"]


def test_the_commands(tmp_path, monkeypatch, capsys):
    """Two models evaluated, tabled and drawn; mistakes are one line and status 2."""
    monkeypatch.setattr(java, "_java", lambda: None)
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path, videos=4)
    for seed in (0, 1):
        write_model(tmp_path / f"run{seed}" / "model", seed)
    common = ["evaluate", "--data", ".", "--caption_tokenizer", "plain", "--resamples", "20", "--batch_size", "3"]
    assert main([*common, "--checkpoint", "run0", "--plot", "one.svg"]) == 0
    shown = capsys.readouterr()
    assert "captions by the plain tokenizer (not PTB: text figures are not comparable" in shown.out
    assert shown.out.splitlines()[-1] == "evaluation_run0_test_videoxum-strict.json"
    assert "Loading weights" not in shown.err
    assert main([*common, "--checkpoint", "run1/model", "-o", "b.json", "--quiet", "--kernel_size", "auto"]) == 0
    assert capsys.readouterr().out == ""
    files = ["evaluation_run0_test_videoxum-strict.json", "b.json"]
    assert main(["table", *files, "--names", "first, second", "--plot", "both.png"]) == 0
    printed = capsys.readouterr().out
    assert "| first | " in printed
    assert "| second | " in printed
    assert main(["table", *files]) == 0
    assert "| run1 | " in capsys.readouterr().out
    assert main(["table", files[0], files[0]]) == 0
    assert r"| evaluation\_run0\_test\_videoxum-strict | " in capsys.readouterr().out
    assert main(["table", *files, "-o", "t/table.csv", "--no_baselines"]) == 0
    assert (tmp_path / "t/table.csv").read_text().count("\n") == 3
    assert (tmp_path / "one.svg").read_text().count("<svg") == 1
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
    old = json.loads((tmp_path / "b.json").read_text())
    del old["protocol_revision"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    capsys.readouterr()
    for arguments, message in (
        (["table", *files, "-o", "t.doc"], r"table: output must end in .md, .tex or .csv, got t.doc"),
        (["table", *files, "--plot", "t.pdf"], "plot: file must end in .png or .svg, got t.pdf"),
        (["table", files[0], "old.json", "--mix"], "must agree in revision of the protocol, got videoxum-strict ("),
        (["table", *files, "--names", "a"], "names must be one for each of 2 evaluations, got 1"),
        ([*common, "--checkpoint", "run0", "--kernel_size", "wide"], "kernel_size must be an odd number, none or auto"),
        ([*common, "--checkpoint", "run0"], "must not exist yet (--overwrite replaces it)"),
    ):
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1
    assert json.loads((tmp_path / "b.json").read_text())["checkpoint"]["path"] == "run1/model"
