"""The examples of `examples/` for one's own videos and encoders: as processes, from the files that a user has."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from safetensors.torch import save_file

from tests import forked
from tests.vtsum.clips import write_clip
from tests.vtsum.hostile import ENVIRONMENT, ROOT

EXAMPLES = ROOT / "examples"
PATH = f"{EXAMPLES}:{ENVIRONMENT['PYTHONPATH']}"


def command(*words: object, **environment: str) -> str:
    """`vtsum WORDS`; what it prints."""
    own = ENVIRONMENT | {"PYTHONPATH": PATH} | environment
    done = forked.run([sys.executable, "-m", "vtsum.cli", *map(str, words)], env=own, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def clip(path: Path, bright: int, seconds: int = 6) -> Path:
    """Dark, and bright for one second."""
    times = [n / 5 for n in range(5 * seconds)]
    return write_clip(path, times, lambda n, _: np.full((64, 64, 3), 220 if n // 5 == bright else 40, np.uint8))


def table(path: Path, *rows: tuple[object, ...]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_own_videos_become_a_corpus_that_is_trained_on(tmp_path: Path) -> None:
    kept, texts = [("video", "viewer", "start", "end")], [("video", "text")]
    (tmp_path / "videos").mkdir()
    for number in range(5):
        clip(tmp_path / "videos" / f"c{number}.mp4", bright=number)
        kept += [(f"c{number}", "a", number, number + 2), (f"c{number}", "b", number, number + 1)]
        texts.append((f"c{number}", f"It is bright after {number} seconds."))
    corpus, run = tmp_path / "corpus", tmp_path / "run"
    command("extract", tmp_path / "videos", "-o", corpus / "feat" / "blip", "-q")
    words = [table(tmp_path / "kept.csv", *kept), table(tmp_path / "texts.csv", *texts), corpus]
    done = forked.run([sys.executable, str(EXAMPLES / "own_videos.py"), *map(str, words)], env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "train: 3 videos, val: 1 videos, test: 1 videos\n"
    (first,) = json.loads((corpus / "anno" / "test_videoxum.json").read_text())
    assert first["vsum_onehot"] == [[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert "all good" in command("data", "check", corpus)
    small = ["--max_epoch", "1", "--batch_size", "3", "--warmup_steps", "0", "--num_workers", "0"]
    config = ["--config", ROOT / "configs" / "synthetic.yaml", "--data", corpus, "--output_dir", run]
    command("train", *config, *small, "--val_every", "1", "--best_by", "f1")
    quick = ["--budget", "2s", "--no-speech", "--no-ocr", "-f", "json"]
    command("summarize", tmp_path / "videos" / "c1.mp4", "-o", tmp_path / "s", "--model", run / "best", *quick)
    assert json.loads((tmp_path / "s" / "summary.json").read_text())["summary"]["duration"] > 0


def test_a_backbone_of_timm_is_an_encoder(tmp_path: Path) -> None:
    """With a small network of timm's in a cache such as the hub's client keeps, since nothing is downloaded here."""
    from vtsum_kernels.integrations import torchvision_free

    torchvision_free.prepare()
    import timm

    name, version = "test_resnet.r160_in1k", "0" * 40
    stored = tmp_path / "hub" / f"models--timm--{name}"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text(version)
    (stored / "snapshots" / version).mkdir(parents=True)
    network = timm.create_model(name)
    save_file(network.state_dict(), stored / "snapshots" / version / "model.safetensors")
    (tmp_path / "small.py").write_text(
        f"from timm_encoder import TwoStages\n\n\nclass Small(TwoStages):\n    backbone = {name!r}\n"
    )
    video, feats = clip(tmp_path / "c.mp4", bright=2), tmp_path / "feats"
    own = {"PYTHONPATH": f"{tmp_path}:{PATH}", "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command("extract", video, "-o", feats, "--encoder", "small:Small", "-q", **own)
    with np.load(feats / "c.npz") as file:
        features = file["features"]
    assert features.shape == (6, sum(stage["num_chs"] for stage in network.feature_info[-2:]))
    apart = np.linalg.norm(features - features[0], axis=1)
    assert int(apart.argmax()) == 2


@pytest.mark.slow
def test_a_library_is_summarised_on_ray(tmp_path: Path) -> None:
    """And the table of what became of it does not stand in the way of the next run."""
    good, bad = clip(tmp_path / "good.mp4", bright=2), tmp_path / "bad.mp4"
    bad.write_text("no video")
    parquet.write_table(pa.table({"path": [str(good), str(bad)]}), tmp_path / "library.parquet")
    words = [str(EXAMPLES / "ray_batch.py"), str(tmp_path / "library.parquet"), str(tmp_path / "out"), "1"]
    for status in ("done", "skipped"):
        done = forked.run([sys.executable, *words], env=ENVIRONMENT, timeout=300)
        assert done.returncode == 0, done.stderr
        *_, counted, failed = done.stdout.splitlines()
        assert counted in (f"{{'{status}': 1, 'failed': 1}}", f"{{'failed': 1, '{status}': 1}}")
        assert failed.startswith(f"{bad}: ")
        assert (tmp_path / "out" / "good" / "summary.mp4").exists()
