"""What is wrong in a file is told in the file's words: "got null", never "got NoneType" or KeyError('x')."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vtsum
from tests.vtsum.clips import write_clip
from tests.vtsum.drawn_stream import drawn
from tests.vtsum.fakes import ColourModel
from tests.vtsum.hostile import refused
from vtsum.errors import VTSumError
from vtsum.reading import as_said, misfit, parse_json
from vtsum.recipes.synthetic import FORMAT
from vtsum.training.deepspeed_config import read


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 3}, 'got: 3 in "format", which must be text'),
        ({"seed": "x"}, 'got: "x" in "seed", which must be a whole number'),
        ({}, 'got: no "seed"'),
    ],
)
def test_a_corpus_of_another_make(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"format": FORMAT} | changes))
    assert f"must be a corpus's manifest, {said}" in refused("data", "synth", str(tmp_path), names=path)


@pytest.mark.parametrize(("entry", "said"), [(None, "null"), (3, "a whole number"), ([], "a list"), (True, "true")])
def test_an_entry_of_annotations(entry: object, said: str, tmp_path: Path) -> None:
    (tmp_path / "anno").mkdir()
    path = tmp_path / "anno/test_videoxum.json"
    path.write_text(json.dumps([entry]))
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps({"a": {"saliency": [1.0], "text": "a"}}))
    words = ("score", str(predictions), "--data", str(tmp_path), "--caption_tokenizer", "plain")
    assert f"entry must be an object, got {said}" in refused(*words, "-o", str(tmp_path / "e.json"), names=path)


def test_a_null_in_ratings_and_settings(tmp_path: Path) -> None:
    path, out = tmp_path / "a.json", str(tmp_path / "a.h5")
    path.write_text(json.dumps({"clip": {"a": [[None, 1]]}}))
    words = ("data", "ratings", str(path), "--features", str(tmp_path), "-o", out)
    assert "start must be a number from 0 to 10,000,000, got null" in refused(*words, names=path)
    path.write_text(json.dumps({"data_types": {"grad_accum_dtype": None}, "zero_optimization": {"stage": 1}}))
    with pytest.raises(VTSumError, match=r"grad_accum_dtype of .*a\.json must be text, got null$"):
        read(path)


def test_values_are_said_as_the_file_has_them() -> None:
    assert [as_said(value) for value in (None, True, [None], 1.5)] == ["null", "true", "[null]", "1.5"]
    assert as_said({1: "x"}) == '{"1": "x"}'
    assert as_said("x") == "'x'"


def test_a_state_that_does_not_fit(tmp_path: Path) -> None:
    film, out = tmp_path / "film.ts", tmp_path / "out"
    pictures = [picture for _, picture in drawn(5, 40)]
    write_clip(film, [float(n) for n in range(40)], lambda n, _: pictures[n], rate=1, format="mpegts", gop=10)
    options: dict[str, Any] = {"model": ColourModel(), "patience": 0.3, "every": 0.1, "output": out}
    summaries = vtsum.stream(film, **options)
    for summary in summaries:
        if summary.data["frames"] >= 20:
            break
    summaries.close()
    with np.load(out / "live.npz") as stored:
        arrays = dict(stored)
    for name, value, said in (
        ("window_window", None, 'no "window"'),
        ("window_window", np.arange(3), '\\[0, 1, 2\\] in "window", which must be 4 whole numbers'),
        ("shots_counts", np.zeros(3), '\\[0.0, 0.0, 0.0\\] in "counts", which must be 3 whole numbers'),
        ("shots_rows.f64", np.zeros((1, 48), np.int64), "means and rows must be of 48 numbers"),
        ("shots_rows.f64", np.zeros(3, np.int64), "means and rows must be of 48 numbers"),
        ("window_features", arrays["window_features"][:, :3], "features must be rows of 48 numbers, got 3"),
        ("window_known.f64", np.array(3), "known must be a row, got shape \\[\\]"),
        ("shots_edges", np.array(3), "values that do not belong together"),
    ):
        kept = {key: array for key, array in arrays.items() if key != name}
        np.savez(out / "live.npz", **kept, **({} if value is None else {name: value}))
        with pytest.raises(VTSumError, match=rf"live\.npz must be whole, as vtsum writes it, got: {said}$"):
            list(vtsum.stream(film, **options))


def test_null_and_what_python_says() -> None:
    for text, said in (("null", "null"), ("true", "true"), ("3", "a whole number"), ("[]", "a list")):
        with pytest.raises(VTSumError, match=rf"must hold an object, got {said}$"):
            parse_json(text, dict, "a")
    assert misfit(KeyError("x")) == 'no "x"'
    assert misfit(TypeError("'NoneType' object is not iterable")) == "values that do not belong together"
