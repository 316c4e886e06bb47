"""A step is the same step however its videos are dealt out: ranks, passes one after the other, padded or packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.once import once
from tests.vtsum.training_corpus import SMALL, write_corpus
from vtsum.config import VTSumConfig
from vtsum.data.collate import collate
from vtsum.data.videoxum import VideoXumDataset
from vtsum.model import VTSum
from vtsum.model.tokenizer import load_tokenizer
from vtsum.training.engine import PlainEngine
from vtsum.training.sampler import StepSampler, spread
from vtsum.training.settings import TrainSettings, build

VIDEOS = 8  # a step
SPLITS = [(1, 8), (1, 2), (2, 4), (2, 2), (4, 2), (4, 1)]
"""Ranks, and videos a pass."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "corpus_of_16", write_corpus)


def two_steps(data: Path, ranks: int, micro: int, packed: bool = False, **model: Any) -> dict[str, Any]:
    """Losses of two steps and the first one's gradients. One process takes all ranks' passes: the mean over ranks is
    the mean over passes, and each rank knows the whole step's counts (test_training_sharded.py: two real ranks)."""
    tokenizer = load_tokenizer(data / "vocab.txt")
    text = {**SMALL["text"], "dropout": 0.0, "vocab_size": len(tokenizer)}
    config: VTSumConfig = build(VTSumConfig, {**SMALL, "boundary_head": True, "text": text, **model})
    videos = VideoXumDataset(data)
    layout = spread(VIDEOS, micro, ranks)
    assert (layout.micro_batch, layout.ranks) == (micro, ranks)
    torch.manual_seed(3)
    settings = TrainSettings(model=config, init_lr=1e-3, gradient_clipping=0.0)
    engine = PlainEngine(VTSum(config, tokenizer), settings, layout.accumulation * ranks)
    found: dict[str, Any] = {}
    for number, step in enumerate(StepSampler(len(videos), layout, 5).epoch(0)[:2]):
        batches = [collate([videos[i] for i in part], packed=packed) for part in step]
        assert len(batches) == VIDEOS // micro
        result = engine.step(batches, 1e-3)
        for name in ("loss", "loss_vsum", "loss_tsum", "loss_boundary"):
            found[f"{name}, step {number}"] = getattr(result, name)
        if number == 0:
            found["gradients"] = {n: p.grad.clone() for n, p in engine.model.named_parameters() if p.grad is not None}
    return found


@pytest.mark.parametrize("loss_type", ["cross_entropy", "l2"])
def test_losses_and_gradients_do_not_depend_on_the_split(data, loss_type):
    whole = two_steps(data, 1, 8, loss_type=loss_type)
    assert whole["loss, step 1"] != whole["loss, step 0"]
    for ranks, micro in SPLITS:
        for packed in (False, True):
            split = two_steps(data, ranks, micro, packed, loss_type=loss_type)
            where = f"{ranks} ranks, {micro} videos a pass, {'packed' if packed else 'padded'}"
            for name, value in whole.items():
                if name != "gradients":
                    assert split[name] == pytest.approx(value, rel=1e-5), f"{name}, {where}"
            for name, gradient in whole["gradients"].items():
                error = (split["gradients"][name] - gradient).abs().max()
                assert error <= 1e-4 * gradient.abs().max() + 1e-7, f"{name}, {where}"


def test_the_released_losses_do(data):
    """The original's means over a pass: the weight of video against text changes with ranks and with --packed."""
    losses = {
        (ranks, packed): two_steps(data, ranks, VIDEOS // ranks, packed, loss_mean="released")
        for ranks, packed in ((1, False), (4, False), (1, True))
    }
    videos = [found["loss_vsum, step 0"] for found in losses.values()]
    assert videos[0] < 0.95 * videos[1] < 0.95 * videos[2]
    texts = [found["loss_tsum, step 0"] for found in losses.values()]
    assert texts[0] == pytest.approx(texts[2], rel=1e-5)
    assert abs(texts[1] - texts[0]) > 1e-5 * texts[0]
