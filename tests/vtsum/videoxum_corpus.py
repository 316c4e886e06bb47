"""A tiny data set in VideoXum's layout, with a CLIP and two models, for the tests of evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from vtsum_kernels.integrations import torchvision_free

from tests.vtsum.training_corpus import entry
from vtsum.config import TextConfig, VTSumConfig
from vtsum.data.feature_files import write_npz
from vtsum.model import VTSum
from vtsum.model.tokenizer import load_tokenizer

WIDTH, CLIP_WIDTH, VIDEOS = 32, 16, 11
WORDS = "a man dog runs plays in the street and then guitar red room is seen".split()  # noqa: SIM905


def write_corpus(
    root: Path, videos: int = VIDEOS, split: str = "test", *, clip: bool = True, width: int = WIDTH
) -> Path:
    """Videos of 8 to 40 frames, ten annotators who agree in part, texts of known words."""
    rng = np.random.default_rng(5)
    entries = []
    for i in range(videos):
        frames = int(rng.integers(8, 41))
        worth = np.convolve(rng.random(frames + 4), np.ones(5) / 5, "valid")
        labels = (worth + 0.15 * rng.random((10, frames)) > np.quantile(worth, 0.85)).astype(int)
        # Durations fall: the data set must sort them.
        tsum = [" ".join(rng.choice(WORDS, int(rng.integers(6, 14))).tolist()).capitalize() + "."]
        entries.append(entry(f"v_{i:03d}", 100.0 - i, frames, tsum=tsum, vsum_onehot=labels.tolist()))
        name = f"v_{i:03d}.npz"
        write_npz(root / "feat/blip" / name, features=rng.normal(size=(frames, width)).astype(np.float32))
        vision = rng.normal(size=(frames, CLIP_WIDTH)).astype(np.float32) + 0.3
        text = rng.normal(size=(1, CLIP_WIDTH)).astype(np.float32)
        write_npz(root / "feat/vt_clipscore" / name, vision=vision, text=text)
    (root / "anno").mkdir(exist_ok=True)
    (root / f"anno/{split}_videoxum.json").write_text(json.dumps(entries))
    if clip:
        write_clip(root / "clip")
    return root


def write_clip(folder: Path) -> None:
    torchvision_free.prepare()
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    letters = sorted(set("".join(WORDS)))
    tokens = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    end = len(tokens) - 1
    torch.manual_seed(1)
    config = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, projection_dim=CLIP_WIDTH, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=40, bos_token_id=end - 1, eos_token_id=end,
    )  # fmt: skip
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(str(folder)).save_pretrained(str(folder))


def write_model(folder: Path, seed: int = 0, width: int = WIDTH, max_positions: int = 512) -> Path:
    """Random weights, large enough that texts and saliency differ from video to video."""
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(["a", "video", "of", *WORDS])]
    (folder / "words.txt").write_text("".join(word + "\n" for word in words))
    tokenizer = load_tokenizer(folder / "words.txt")
    (folder / "words.txt").unlink()
    text = TextConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, max_positions=64
    )
    config = VTSumConfig(
        frame_encoder="none", width=width, num_heads=2, kernel_size=3, memory_slots=0, max_text_length=16, text=text,
        max_positions=max_positions,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = VTSum(config, tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    model.eval().save_pretrained(folder)
    return folder
