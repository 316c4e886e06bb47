"""A stranger's CLIP that reads texts for an evaluation: what it makes no numbers of, or is too large, is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.vtsum.hostile import changed_json, refused
from tests.vtsum.test_clip_score import openai_weights, write_tokenizer
from tests.vtsum.videoxum_corpus import write_clip, write_corpus, write_model
from vtsum.errors import VTSumError
from vtsum.evaluation.clip_score import load_clip_text


def evaluated(clip: Path, tmp_path: Path) -> str:
    corpus, model = write_corpus(tmp_path / "data", 2, clip=False), write_model(tmp_path / "net")
    words = ["--checkpoint", str(model), "--data", str(corpus), "--clip", str(clip), "-o", str(tmp_path / "e.json")]
    plain = ["--caption_tokenizer", "plain", "--device", "cpu", "--resamples", "20", "-q"]
    said = refused("evaluate", *words, *plain, names=clip)
    assert not (tmp_path / "e.json").exists()
    return said


@pytest.mark.parametrize("wrong", ["weights", "heads", "words"])
def test_a_clip_whose_parts_do_not_fit_is_one_line(wrong: str, tmp_path: Path) -> None:
    """It was told as what nobody foresaw: exit status 70."""
    write_clip(tmp_path / "clip")
    if wrong == "weights":
        weights = load_file(tmp_path / "clip/model.safetensors")
        save_file({k: v * torch.nan for k, v in weights.items()}, tmp_path / "clip/model.safetensors", {"format": "pt"})
    elif wrong == "heads":
        changed_json(tmp_path / "clip", "config.json", num_attention_heads=-2)
    else:
        changed_json(tmp_path / "clip", "tokenizer_config.json", model_max_length="x")
    told = f"vtsum: evaluate: '{tmp_path / 'clip'}' must be a whole checkpoint whose parts fit, got: "
    assert evaluated(tmp_path / "clip", tmp_path).startswith(told)


def changed(tmp_path: Path, **weights: Tensor) -> Path:
    write_tokenizer(tmp_path)
    torch.save({"model": openai_weights() | weights}, tmp_path / "vt_clip.pth")
    return tmp_path / "vt_clip.pth"


def test_layers_that_are_only_named_are_not_made(tmp_path: Path) -> None:
    """A file of a few megabytes kept a process for minutes."""
    path = changed(tmp_path, **{f"transformer.resblocks.{i}.x": torch.zeros(0) for i in range(5000)})
    said = evaluated(path, tmp_path)
    assert said == f"vtsum: load_clip_text: {path} must have at most 1000 for num_hidden_layers, got 5000"


def test_a_width_that_is_only_stated_takes_no_memory(tmp_path: Path) -> None:
    """Layers of its square were made before the file's were looked at: 10^12 numbers and more."""
    path = changed(tmp_path, **{"token_embedding.weight": torch.zeros(1, 64 * 10**5)})
    with pytest.raises(VTSumError, match=r"vt_clip\.pth must hold one CLIP's weights: Error"):
        load_clip_text(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("token_embedding.weight", torch.zeros(5)), ("transformer.resblocks.0.attn.in_proj_weight", torch.zeros(2, 3))],
)
def test_weights_of_another_shape_are_one_line(name: str, value: Tensor, tmp_path: Path) -> None:
    with pytest.raises(VTSumError, match=r"vt_clip\.pth' must be a whole checkpoint whose parts fit, got: "):
        load_clip_text(changed(tmp_path, **{name: value}))
