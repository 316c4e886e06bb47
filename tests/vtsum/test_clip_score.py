"""VT-CLIPScore: the original's text tower against an independent one, long texts, and the score's definition."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vtsum.errors import VTSumError
from vtsum.evaluation.clip_score import load_clip_text, vt_clipscore

WIDTH, LAYERS, POSITIONS, OUT = 128, 2, 12, 24
WORDS = ["a", "man", "dog", "runs", "the", "street"]


def openai_weights() -> dict[str, Tensor]:
    torch.manual_seed(3)
    vocabulary = len(bpe())
    state = {
        "token_embedding.weight": torch.randn(vocabulary, WIDTH),
        "positional_embedding": torch.randn(POSITIONS, WIDTH),
        "ln_final.weight": torch.randn(WIDTH),
        "ln_final.bias": torch.randn(WIDTH),
        "text_projection": torch.randn(WIDTH, OUT),
        "logit_scale": torch.tensor(4.6),
        "visual.conv1.weight": torch.randn(4, 3, 2, 2),
    }
    for i in range(LAYERS):
        shapes = {"ln_1.": [WIDTH], "ln_2.": [WIDTH], "attn.in_proj_": [3 * WIDTH, WIDTH]}
        shapes |= {"attn.out_proj.": [WIDTH, WIDTH], "mlp.c_fc.": [4 * WIDTH, WIDTH], "mlp.c_proj.": [WIDTH, 4 * WIDTH]}
        for name, shape in shapes.items():
            state[f"transformer.resblocks.{i}.{name}weight"] = torch.randn(shape) * 0.1
            state[f"transformer.resblocks.{i}.{name}bias"] = torch.randn(shape[0]) * 0.1
    return state


def bpe() -> dict[str, int]:
    letters = sorted(set("".join(WORDS)))
    tokens = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}


def write_tokenizer(folder: Path) -> None:
    (folder / "vocab.json").write_text(json.dumps(bpe()))
    (folder / "merges.txt").write_text("#version: 0.2\n")


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path)
    torch.save({"model": openai_weights()}, tmp_path / "vt_clip.pth")
    return tmp_path / "vt_clip.pth"


def ids_of(text: str) -> list[int]:
    table = bpe()
    inner = [table[c + ("</w>" if i == len(w) - 1 else "")] for w in text.split() for i, c in enumerate(w)]
    return [table["<|startoftext|>"], *inner, table["<|endoftext|>"]]


def slow_text_features(state: dict[str, Tensor], ids: list[int]) -> Tensor:
    """The text tower written out with plain matrices, in float64, from OpenAI's names."""
    w = {k: v.double() for k, v in state.items()}
    n = len(ids)
    positions = w["positional_embedding"]
    if n > POSITIONS:
        image = positions.T[None, :, :, None]
        positions = F.interpolate(image, size=(n, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
    x = w["token_embedding.weight"][ids] + positions[:n]
    heads = WIDTH // 64
    for i in range(LAYERS):
        p = f"transformer.resblocks.{i}."
        y = F.layer_norm(x, [WIDTH], w[p + "ln_1.weight"], w[p + "ln_1.bias"])
        q, k, v = (y @ w[p + "attn.in_proj_weight"].T + w[p + "attn.in_proj_bias"]).split(WIDTH, 1)
        out = torch.zeros_like(x)
        for h in range(heads):
            part = slice(64 * h, 64 * (h + 1))
            for t in range(n):
                weights = (k[: t + 1, part] @ q[t, part] / math.sqrt(64)).softmax(0)
                out[t, part] = weights @ v[: t + 1, part]
        x = x + out @ w[p + "attn.out_proj.weight"].T + w[p + "attn.out_proj.bias"]
        y = F.layer_norm(x, [WIDTH], w[p + "ln_2.weight"], w[p + "ln_2.bias"])
        y = y @ w[p + "mlp.c_fc.weight"].T + w[p + "mlp.c_fc.bias"]
        x = x + (y * (1.702 * y).sigmoid()) @ w[p + "mlp.c_proj.weight"].T + w[p + "mlp.c_proj.bias"]
    x = F.layer_norm(x, [WIDTH], w["ln_final.weight"], w["ln_final.bias"])
    return x[ids.index(max(ids))] @ w["text_projection"]


@pytest.mark.parametrize("text", ["a man", "the dog", "a man runs the street a dog runs the street"])
def test_original_weights_give_the_original_features(pth, text):
    clip = load_clip_text(pth)
    assert (clip.dim, clip.limit) == (OUT, 256)
    expected = slow_text_features(openai_weights(), ids_of(text)).float().numpy()
    for _ in range(2):  # a longer text leaves no trace
        features, cut = clip.encode(text)
        assert not cut
        assert features == pytest.approx(expected, abs=2e-4 * float(np.abs(expected).max()))


def test_a_text_beyond_the_limit_is_cut_before_its_end(pth):
    clip = load_clip_text(pth)
    features, cut = clip.encode("a " * 300)
    assert cut
    assert np.array_equal(features, clip.encode("a " * 254)[0])
    assert not clip.encode("a " * 254)[1]


def test_a_folder_of_transformers(pth, tmp_path):
    """A whole CLIP, its picture tower ignored; its own number of positions is the limit."""
    from transformers import CLIPConfig, CLIPModel

    original = load_clip_text(pth)
    end = len(bpe()) - 1
    text = {**original.network.config.to_dict(), "eos_token_id": end}
    vision = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 32}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=OUT))
    model.text_model.load_state_dict(original.network.text_model.state_dict())
    model.text_projection.load_state_dict(original.network.text_projection.state_dict())
    folder = tmp_path / "clip"
    model.save_pretrained(folder)
    write_tokenizer(folder)
    clip = load_clip_text(folder)
    assert (clip.dim, clip.limit) == (OUT, POSITIONS)
    assert clip.encode("the dog")[0] == pytest.approx(original.encode("the dog")[0], abs=1e-4)
    assert clip.encode("a man runs the street")[1]
    assert clip.sha256 != original.sha256
    clip._end = end + 1
    with pytest.raises(VTSumError, match=f"must end texts with token {end + 1}, got {end}"):
        clip.encode("a")


def test_the_score_is_the_cosine_of_a_mean():
    vision = np.float32([[3, 0], [0, 1], [9, 9]])
    assert vt_clipscore(vision, np.float32([2, 0]), np.array([0, 1])) == pytest.approx(3 / math.sqrt(10))
    assert vt_clipscore(vision, np.zeros(2, np.float32), np.array([0])) == 0.0
    with pytest.raises(VTSumError, match=r"vision must be \[T, D\] and text \[D\], got \[3, 2\] and \[3\]"):
        vt_clipscore(vision, np.zeros(3, np.float32), np.array([0]))


def test_broken_files_are_named(pth, tmp_path):
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"no weights")
    with pytest.raises(VTSumError, match=r"must hold tensors and plain data alone"):
        load_clip_text(bad)
    torch.save({"model": {"visual.proj": torch.zeros(2)}}, bad)
    with pytest.raises(
        VTSumError, match=r"must hold CLIP's text tower, got no 'text_model\.embeddings\.token_embedding"
    ):
        load_clip_text(bad)
    torch.save({"model": {**openai_weights(), "extra": torch.zeros(2)}}, bad)
    with pytest.raises(VTSumError, match=r"missing \[\], unexpected \['extra'\]"):
        load_clip_text(bad)
    with pytest.raises(VTSumError, match=r"clip must be a CLIP folder or a \.pth file, got .*none, which is not there"):
        load_clip_text(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VTSumError, match="must hold a CLIP model of transformers, got no config or weights"):
        load_clip_text(tmp_path / "empty")
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(VTSumError, match=r"must hold CLIP's tokenizer: vocab\.json and merges\.txt"):
        load_clip_text(pth)
