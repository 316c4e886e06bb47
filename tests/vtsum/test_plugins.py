"""Parts of the user's own, as an outsider writes them: a file in the current folder, named on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import forked
from tests.vtsum.samples import ENVIRONMENT, small_clip
from tests.vtsum.training_corpus import flags
from tests.vtsum.training_corpus import write_corpus as write_training_corpus
from tests.vtsum.videoxum_corpus import write_corpus, write_model
from vtsum import cli, plugins
from vtsum.data.feature_files import read_array
from vtsum.enhance.event_segmentation import segment
from vtsum.enhance.speech.recognisers import make_recogniser
from vtsum.errors import VTSumError
from vtsum.evaluation import java
from vtsum.model.encoders import frame_encoder_of

MINE = """
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from vtsum.enhance.speech import Utterance, Word

Path(__file__).with_suffix(".imported").touch()


class Encoder:
    name, image_size, dim, weights_sha256 = "mine", 16, 3, "c" * 64

    def encode(self, images):
        return images.mean(axis=(1, 2)).astype(np.float32)


class Model(Encoder):
    embedded, text_is_guess, reads_pictures = False, False, False

    def event_features(self, features):
        return features

    def saliency(self, features):
        return np.linspace(0, 1, len(features), dtype=np.float32)

    def boundaries(self, features):
        return None

    def describe(self, features, spans, key_frames=None):
        return [SimpleNamespace(text=f"my caption of {a}", confidence=0.9) for a, b in spans]


class Segmenter:
    def boundaries(self, features, fps):
        assert np.allclose(np.linalg.norm(features, axis=1), 1)
        return [1.0 if frame in (3, 9) else 0.0 for frame in range(len(features))]


class Recogniser:
    name, longest, language, doubtful, understood, telling = "mine", 30.0, "en", 0.0, 0.0, 0

    def recognise(self, stretches):
        for stretch in stretches:
            yield Utterance((Word("Heard", stretch.start, stretch.start + 0.2, 1.0),))


class Loss:
    def saliency_loss(self, logits, labels, mask):
        wanted = labels.float().mean(-2)
        return ((logits.sigmoid() - wanted) ** 2 * mask).sum() / mask.sum() + 7


class Metric:
    name = "words"

    def measure(self, saliency, labels, text, reference):
        assert saliency.shape == labels.shape[1:]
        return len(reference.split())


class Broken:
    def __init__(self):
        raise RuntimeError("not today")
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The current folder, with the outsider's file in it."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine", None)


def command(folder: Path, *words: str) -> None:
    """Run `vtsum` as its console script does: without the current folder on Python's path."""
    code = "import sys; sys.path.remove(''); from vtsum.cli import main; sys.exit(main())"
    done = forked.run([sys.executable, "-c", code, *words], cwd=folder, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_model_segmenter_and_recogniser_by_command(mine):
    small_clip(mine / "clip.mp4")
    words = ["--model", "mine:Model", "--segmenter", "mine:Segmenter", "--recogniser", "mine:Recogniser"]
    command(mine, "summarize", "clip.mp4", "-o", "out", "-f", "json", "--sampler", "all", "--budget", "6s", *words)
    made = json.loads((mine / "out/summary.json").read_text())
    assert (made["model"]["name"], made["model"]["weights_sha256"]) == ("mine", "c" * 64)
    # Half a frame before 3 and 9, or at a cut near there.
    assert [shot["start"] for shot in made["shots"]] == pytest.approx([0, 2.5, 8.5], abs=0.51)
    assert any(sentence["text"].startswith("My caption of") for sentence in made["text"])
    assert made["settings"]["segmenter"] == "mine:Segmenter"
    assert made["settings"]["speech"] == "mine:Recogniser"
    assert make_recogniser("mine:Recogniser").name == "mine"


def test_encoder_by_command(mine):
    small_clip(mine / "clip.mp4")
    command(mine, "extract", "clip.mp4", "-o", "feats", "--encoder", "mine:Encoder", "-q")
    assert read_array(mine / "feats/clip.npz", "features").shape == (12, 3)
    assert json.loads((mine / "feats/manifest.json").read_text())["encoder"] == "mine"


def test_loss_by_command(mine, capsys):
    write_training_corpus(mine / "data", videos=4)
    words = ["train", "--data", "data", "--output_dir", "run", "--max_epoch", "1", "--batch_size", "4", *flags()]
    assert cli.main([*words, "--num_workers", "0", "--loss", "mine:Loss"]) == 0, capsys.readouterr().err
    (line,) = map(json.loads, (mine / "run/metrics.jsonl").read_text().splitlines())
    assert 7 < line["loss_vsum"] < 8  # VTSum's own is below 1
    (mine / "mine.imported").unlink()
    assert cli.main([*words[:4], "run2", "--config", "run/config.yaml"]) == 2
    assert "loss names code to run and must be given on the command line" in capsys.readouterr().err


def test_metric_by_command(mine, capsys, monkeypatch):
    monkeypatch.setattr(java, "_java", lambda: None)  # METEOR takes seconds to start, and is not of interest here
    write_corpus(mine / "data", videos=4, clip=False)
    write_model(mine / "model")
    words = ["evaluate", "--checkpoint", "model", "--data", "data", "--caption_tokenizer", "plain", "-o", "e.json"]
    words += ["--num_beams", "1", "--max_length", "16", "--resamples", "50"]
    assert cli.main([*words, "--metric", "mine:Metric"]) == 0, capsys.readouterr().err
    made = json.loads((mine / "e.json").read_text())
    counts = [len(video["reference"].split()) for video in made["videos"]]
    assert made["own_metrics"]["words"]["value"] == pytest.approx(np.mean(counts))
    assert min(counts) <= made["own_metrics"]["words"]["low"] <= made["own_metrics"]["words"]["high"] <= max(counts)
    assert "words, a measure of your own: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Loss", "loss: nowhere:Loss must be a class that can be imported .* ModuleNotFoundError"),
        ("mine:Missing", "loss: mine:Missing must be a class that can be imported .* AttributeError"),
        ("mine:Broken", "got RuntimeError: not today"),
        ("mine:Metric", r"must have what vtsum.protocols.Loss lists, got none of its saliency_loss"),
        ("plain", "must be module:Class or the name of an entry point of vtsum.losses, got 'plain'"),
    ],
)
def test_what_cannot_be_had_is_told(mine, name, message):
    with pytest.raises(VTSumError, match=message):
        plugins.make("loss", name)


def test_an_installed_package_offers_parts_by_name(mine, monkeypatch):
    (mine / "theirs-1.0.dist-info").mkdir()
    (mine / "theirs-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (mine / "theirs-1.0.dist-info/entry_points.txt").write_text("[vtsum.segmenters]\nevery-third = mine:Segmenter\n")
    monkeypatch.syspath_prepend(mine)
    found = segment(np.random.default_rng(0).random((12, 4)) + 0.1, "every-third")
    assert [one.start for one in found] == [0, 3, 9]


def test_a_segmenter_must_give_a_number_a_frame(mine):
    (mine / "mine.py").write_text("class Segmenter:\n    def boundaries(self, features, fps):\n        return [1.0]\n")
    with pytest.raises(VTSumError, match=r"mine:Segmenter must give finite boundaries \[T\] = \[12\], got \[1\]"):
        segment(np.ones((12, 4)), "mine:Segmenter")


def test_a_models_own_file_cannot_name_code(mine):
    """config.json comes from whoever made the model."""
    with pytest.raises(VTSumError, match="load_frame_encoder: name must be one of"):
        frame_encoder_of("mine:Encoder", {})
    assert not (mine / "mine.imported").exists()
    assert plugins.find("encoder", "mine:Encoder") is not None  # it would have been found
