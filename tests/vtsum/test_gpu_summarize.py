"""The main job on a GPU: the same choices as on the CPU, and every kind of model there.

Without one, on the pretended GPU: VTSUM_PRETENDED_GPU=1 python -m pytest -m gpu tests/vtsum/test_gpu_summarize.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernels import pretended_gpu

ROOT = Path(__file__).resolve().parents[2]
FILM = ROOT / "vtsum" / "assets" / "film.mp4"


@pytest.fixture
def gpu() -> Iterator[str]:
    pytest.importorskip("av")
    with pretended_gpu.pretending():
        yield "cuda:0"


@pytest.mark.gpu
def test_the_choices_are_those_of_the_cpu(gpu: str, clip: Path, tmp_path: Path) -> None:
    """Encoder, temporal model and boundaries in float32 on both: what is shown is the same to the millisecond."""
    import vtsum

    video = clip if pretended_gpu.PRETENDED else FILM
    options: dict[str, Any] = {"speech": None, "ocr": False, "captioner": "embedded", "formats": ["json"]}
    here, there = (vtsum.summarize(video, tmp_path / d[:4], device=d, **options).data for d in ("cpu", gpu))
    assert [m["device"] for m in (*here["models"], *there["models"])] == ["cpu", gpu]
    for before, now in zip(here["shots"], there["shots"], strict=True):
        assert {k: v for k, v in now.items() if k in ("start", "end", "chosen", "rank", "clip")} == {
            k: v for k, v in before.items() if k in ("start", "end", "chosen", "rank", "clip")
        }
    np.testing.assert_allclose(there["frames"]["saliency"], here["frames"]["saliency"], atol=1e-3)
    np.testing.assert_allclose(there["frames"]["boundary"], here["frames"]["boundary"], atol=1e-3)
    assert [s["text"] for s in there["text"]] == [s["text"] for s in here["text"]]


@pytest.mark.gpu
def test_blip_sees_on_the_gpu(gpu: str, tmp_path: Path) -> None:
    """As the model and as the captioner of another."""
    from tests.vtsum.test_checkpoint import tiny_blip
    from vtsum.model import load
    from vtsum.model.captioners import make_captioner

    tiny_blip(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    here, there = load(str(tmp_path)), load(str(tmp_path), device=gpu)
    assert there.weights_sha256 == here.weights_sha256
    features = here.encode(pictures)
    np.testing.assert_allclose(there.encode(pictures), features, atol=1e-3)
    spans = [(0, 1), (1, 3)]
    said = [model.describe(features, spans, list(pictures[:2])) for model in (here, there)]
    assert [caption.text for caption in said[1]] == [caption.text for caption in said[0]]

    class Scene:
        pictures, heard = (np.zeros((40, 60, 3), np.uint8),), ""

    made = [make_captioner(str(tmp_path), device) for device in ("cpu", gpu)]
    assert [captioner.device for captioner in made] == ["cpu", gpu]
    assert made[1].describe([Scene()])[0].text == made[0].describe([Scene()])[0].text


@pytest.mark.gpu
def test_checkpoints_that_talk_answer_on_the_gpu(gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.vtsum.image_text_checkpoints import make_image_text, make_instruct
    from vtsum.model.captioners import make_captioner
    from vtsum.model.writers import make_writer

    monkeypatch.setattr("vtsum.model.writers.LONGEST", 4)
    monkeypatch.setattr("vtsum.model.image_text.WORDS", 4)
    writer = make_writer(str(make_instruct(tmp_path / "writer")), gpu)
    assert (writer.device, type(writer.write("Say a word."))) == (gpu, str)
    pytest.importorskip("torchvision")

    class Scene:
        pictures, heard = (np.zeros((40, 60, 3), np.uint8),) * 3, "We bake bread."

    captioner = make_captioner(str(make_image_text(tmp_path / "captioner", "llava_onevision")), gpu)
    (caption,) = captioner.describe([Scene()])
    assert captioner.device == gpu
    assert 0 <= caption.chance <= 1


@pytest.mark.gpu
def test_whisper_listens_on_the_gpu(gpu: str, tmp_path: Path) -> None:
    from tests.vtsum.speech_checkpoints import make_whisper
    from vtsum.enhance.speech import Stretch
    from vtsum.enhance.speech.recognisers import make_recogniser

    sound = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    here, there = (make_recogniser(f"whisper:{make_whisper(tmp_path)}", device) for device in ("cpu", gpu))
    heard = [[w.text for u in r.recognise([Stretch(0.0, sound)]) for w in u.words] for r in (here, there)]
    assert there.device == gpu
    assert heard[1] == heard[0]


def test_these_tests_on_a_pretended_gpu() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "gpu", __file__]
    environment = {**os.environ, "VTSUM_PRETENDED_GPU": "1", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"\b4 passed", done.stdout), done.stdout[-2000:]
