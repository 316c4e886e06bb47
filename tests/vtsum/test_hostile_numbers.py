"""Numbers in a stranger's model folder by which so much would be made that memory, or time, ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.vtsum.hostile import changed_json, refused
from tests.vtsum.samples import small_clip
from tests.vtsum.test_checkpoint import model_folder, tiny_blip, tiny_clip
from vtsum.errors import VTSumError
from vtsum.model.encoders import load_frame_encoder
from vtsum.model.vtsum import VTSum


def test_labels_without_end_are_refused_before_they_are_named(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    changed_json(tmp_path, "config.json", num_labels=10**9)
    with pytest.raises(VTSumError, match=r"config\.json must have at most 100000 for num_labels, got 1000000000"):
        load_frame_encoder(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("generation_config.json", "encoder_no_repeat_ngram_size"),
        ("preprocessor_config.json", "n_fft"),
        ("processor_config.json", "image_seq_len"),
    ],
)
def test_a_small_file_has_nothing_made_without_end(name: str, key: str, tmp_path: Path) -> None:
    """Each was made in so great a number, until memory ended."""
    video = str(small_clip(tmp_path / "clip.mp4").path)
    folder = tmp_path / "blip"
    folder.mkdir()
    tiny_blip(folder)
    (folder / name).write_text(json.dumps({key: 10**6}))
    words = ["--captioner", str(folder), "--no-speech", "--no-ocr"]
    message = refused("summarize", video, "-o", str(tmp_path / "o"), *words, names=folder / name)
    assert message.endswith(f"{folder / name} must have at most 100000 for {key}, got 1000000")


def test_layers_without_end_are_refused_before_they_are_made(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 10**7
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(VTSumError, match=r"config\.json must have at most 1000 for num_hidden_layers, got 10000000"):
        load_frame_encoder(str(tmp_path))


def test_sizes_that_fit_one_by_one_must_fit_together(tmp_path: Path) -> None:
    """A long row of zeros among the weights does not let all sizes be as long: 10^6 x 10^6 numbers."""
    folder = model_folder(tmp_path)
    save_file(load_file(folder / "model.safetensors") | {"x": torch.zeros(10**6)}, folder / "model.safetensors")
    data = json.loads((folder / "config.json").read_text())
    data["model"] |= {"width": 10**6}
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(VTSumError, match=r"sizes of .*config\.json must fit its weights, got [0-9,]{17,} numbers for"):
        VTSum.load_checkpoint(folder)


def test_colours_of_a_hundred_bits_are_one_line(tmp_path: Path) -> None:
    """It "should not have happened"."""
    video = str(small_clip(tmp_path / "clip.mp4").path)
    folder = tmp_path / "clip"
    folder.mkdir()
    tiny_clip(folder)
    changed_json(folder, "preprocessor_config.json", image_mean=[2**120] * 3, image_std=[1e-6] * 3)
    message = refused("extract", video, "-o", str(tmp_path / "o"), "--encoder", str(folder), names=folder)
    assert "must be finite, got NaN or infinity" in message
