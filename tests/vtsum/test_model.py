"""What must hold of the summarizer's network at any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vtsum.config import TextConfig, VTSumConfig, from_dict, to_dict
from vtsum.errors import VTSumError
from vtsum.model.checkpoint import load_tokenizer
from vtsum.model.spans import gather_spans
from vtsum.model.temporal import PositionEmbedding
from vtsum.model.vtsum import VTSum

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "man", "runs", "fast", ".", "dog"]


def small_model(tmp_path: Path, **changes: Any) -> VTSum:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n")
    text = TextConfig(len(WORDS), 16, 1, 2, 32, 32, 0.0, "")
    config = VTSumConfig(
        **({"width": 32, "num_heads": 4, "max_positions": 24, "memory_slots": 8, "text": text} | changes)
    )
    torch.manual_seed(3)
    return VTSum(config, load_tokenizer(vocabulary)).eval()


def test_padding_changes_nothing(tmp_path: Path) -> None:
    """A short video beside a long one gives the numbers it gives alone: saliency, text loss and sentences."""
    model = small_model(tmp_path)
    x = torch.randn(2, 40, 32)
    mask = torch.ones(2, 40, dtype=torch.bool)
    mask[1, 13:] = False
    x[1, 13:] = 1e3  # what stands in the padding must not matter
    frames = model.encode(x, mask)
    alone = model.encode(x[1:, :13])
    # Positions of a video do not depend on its neighbours: 40 frames stretch the table of 24, 13 do not.
    short = model.encode(torch.cat([x[1:, :13], torch.zeros(1, 7, 32)], 1), mask[1:, :20])
    torch.testing.assert_close(model.saliency_logits(short)[:, :13], model.saliency_logits(alone), atol=1e-5, rtol=1e-5)
    assert model.text_decoder is not None
    text = model.text_decoder.batch(["a man runs fast."], 16, x.device)
    padded = torch.full((1, 20, 32), 50.0)
    padded[:, :13] = alone
    loss, _ = model.text_decoder(padded, mask[1:, :20], text)
    expected, _ = model.text_decoder(alone, torch.ones(1, 13), text)
    torch.testing.assert_close(loss, expected)
    assert torch.isfinite(model.saliency_logits(frames)[mask]).all()


def test_every_part_learns(tmp_path: Path) -> None:
    model = small_model(tmp_path).train()
    mask = torch.ones(2, 9, dtype=torch.bool)
    out = model(torch.randn(2, 9, 32), mask, torch.rand(2, 3, 9), ["a man runs.", "a dog runs fast."])
    assert out.loss is not None
    torch.testing.assert_close(out.loss, 15.0 * out.loss_vsum + out.loss_tsum)
    out.loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A head's output does not depend on its keys' biases: a constant in all scores. Nothing else may stay silent.
    assert silent == [] or all(n.endswith("key.bias") for n in silent), silent


def test_local_attention_reaches_two_frames(tmp_path: Path) -> None:
    model = small_model(tmp_path)
    assert model.local_attention is not None
    x = torch.randn(1, 15, 32, requires_grad=True)
    model.local_attention(x, None)[0, 7].sum().backward()
    assert x.grad is not None
    assert x.grad[0].abs().sum(1).nonzero().flatten().tolist() == [5, 6, 7, 8, 9]


def test_positions_stretch_beyond_the_table() -> None:
    table = PositionEmbedding(16, 4)
    with torch.no_grad():
        table.weight.copy_(torch.linspace(0, 1, 16)[:, None].expand(16, 4))
    assert torch.equal(table(9), table.weight[:9])
    long = table(64)
    assert long.shape == (64, 4)
    torch.testing.assert_close(long[10:54, 0], (torch.arange(10, 54) + 0.5) / 60 - 1 / 30, atol=0.01, rtol=0)


def test_gather_spans() -> None:
    frames = torch.arange(100.0)[:, None]
    x, mask = gather_spans(frames, [(3, 6), (0, 100), (99, 100)], limit=10)
    assert x.shape == (3, 10, 1)
    assert mask.sum(1).tolist() == [3, 10, 1]
    assert x[0, :3, 0].tolist() == [3, 4, 5]
    assert x[1, :, 0].tolist() == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    for bad in ((3, 3), (-1, 2), (90, 101)):
        with pytest.raises(VTSumError, match="spans must lie within"):
            gather_spans(frames, [bad])


def test_bad_input_is_named(tmp_path: Path) -> None:
    model = small_model(tmp_path)
    with pytest.raises(VTSumError, match=r"video_embeddings must be \[B, T, 32\], got \[2, 5, 31\]"):
        model.encode(torch.zeros(2, 5, 31))
    with pytest.raises(VTSumError, match=r"video_mask must be \[B, T\] = \[2, 5\], got \[2, 4\]"):
        model.encode(torch.zeros(2, 5, 32), torch.ones(2, 4))
    with pytest.raises(VTSumError, match="kernel_size must be odd"):
        VTSumConfig(kernel_size=4)
    with pytest.raises(VTSumError, match="width must be a multiple"):
        VTSumConfig(width=10, num_heads=4)
    with pytest.raises(VTSumError, match=r"keys must be among .* got \['kernelsize'\]"):
        from_dict(VTSumConfig, {"kernelsize": 5})


def test_config_goes_through_plain_data() -> None:
    config = VTSumConfig(width=64, num_heads=4, kernel_size=None, text=TextConfig(vocab_size=99))
    assert from_dict(VTSumConfig, to_dict(config)) == config
