"""The model that ships: its size, and that its weights give the figures which the documentation claims for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vtsum.data.frames import FRAME_INDEX_RATE, read_frames
from vtsum.data.tvsum import load_tvsum
from vtsum.evaluation.baselines import evaluate_scores, every_fifth
from vtsum.model import load
from vtsum.model.summarizer import EMBEDDED
from vtsum.summary.text import Moment, describe

ROOT = Path(__file__).resolve().parents[2]


def facts() -> dict:
    return json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))["facts"]


def test_what_ships_is_small():
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir()) <= 12_000_000
    assert (ROOT / "vtsum" / "assets" / "film.mp4").stat().st_size <= 2_000_000


def test_the_model_card_says_what_was_measured():
    card = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    figures = facts()["held_out_figures"] | {"shipped": facts()["saliency"]["held_out"]}
    for row in ("shipped", "model", "ridge_encoder", "ridge_teacher", "ridge_colours", "random"):
        tau, rho, f = (figures[row][name] for name in ("tau", "rho", "f"))
        cells = [f"{tau:.3f}".lstrip("0"), f"{rho:.3f}".lstrip("0"), f"{100 * f:.1f}"]
        line = "| " + " | ".join(cells) + " |"
        assert line in card.replace("**", ""), row
        if row in ("shipped", "model", "ridge_encoder", "random"):
            assert line in readme.replace("**", ""), row
    ridge = facts()["saliency"]["ridge_on_held_out"], facts()["saliency"]["ridge_on_disjoint_folds"]
    assert f"tau {ridge[0]['tau']:.3f}, and {ridge[1]['tau']:.3f} on five disjoint folds".replace("0.", ".") in readme
    for found in ridge:
        line = f"tau {found['tau']:.3f}, rho {found['rho']:.3f} and F {100 * found['f']:.1f}".replace("0.", ".")
        assert line.replace("tau", "tau is", 1) in card or line in card
    assert f"{facts()['encoder']['cosine']:.3f}" in card
    assert f"{figures['caption_nll']:.2f}" in card


def test_the_documented_tables_are_those_of_the_records():
    assert subprocess.run([sys.executable, "-m", "bench.report", "--check"], cwd=ROOT).returncode == 0


def test_the_shipped_weights_give_the_reported_figures(shared):
    """From the stored frames of the ten held-out videos, through the summarizer that users call."""
    videos = load_tvsum(shared / "tvsum" / "tvsum.h5")
    held_out = every_fifth(videos).test
    assert list(held_out) == facts()["held_out"]
    model = load("embedded")
    scores = {}
    for video in videos:
        if video.key not in held_out:
            continue
        index, images = read_frames(shared / "tvsum" / "frames" / f"{video.name}.zip")
        times = np.arange(0.0, video.duration, 1.0)
        nearest = np.abs(index / FRAME_INDEX_RATE - times[:, None]).argmin(1)
        saliency = model.saliency(model.encode(images[nearest]))
        scores[video.key] = np.interp(video.picks / video.fps, times, saliency)
    result = evaluate_scores(scores, [v for v in videos if v.key in held_out])
    reported = facts()["saliency"]["held_out"]
    assert result.tau == pytest.approx(reported["tau"], abs=0.005)
    assert result.rho == pytest.approx(reported["rho"], abs=0.005)
    assert result.tau - 2 * result.standard_error("tau") > 0


def test_sentences_are_sentences():
    model = load("embedded")
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(4, 256)), 8, 0).astype(np.float32)
    features *= 16 / np.linalg.norm(features, axis=1, keepdims=True)
    assert model.text_is_guess
    moments = [Moment(i, (8 * i, 8 * i + 8), (8.0 * i, 8.0 * i + 8), 1.0) for i in range(4)]
    sentences = describe(model, features, moments)
    assert sentences
    for sentence in sentences:
        words = sentence.text.split()
        assert 4 <= len(words) <= 32
        assert sentence.text[0].isupper()
        assert sentence.text.endswith(".")
        assert "[" not in sentence.text
        assert "##" not in sentence.text
        assert 0 < sentence.confidence < 1
