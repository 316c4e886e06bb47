"""The boundary head: its targets by hand, its borders, that it learns, and its way through training and evaluation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.vtsum.training_corpus import flags, write_corpus
from vtsum.config import VTSumConfig
from vtsum.errors import VTSumError
from vtsum.evaluation import java
from vtsum.evaluation.boundaries import average_precision
from vtsum.evaluation.videoxum_run import evaluate
from vtsum.evaluation.videoxum_settings import EvaluationSettings
from vtsum.model import VTSum, load
from vtsum.model.boundary import REACH, VIEW, VIEWS, WIDTHS, BoundaryHead, boundary_loss, boundary_targets
from vtsum.training.records import read_metrics
from vtsum.training.train import main


def small(**changes: Any) -> VTSum:
    torch.manual_seed(5)
    settings = {"width": 32, "num_heads": 4, "max_positions": 64, "memory_slots": 4, "boundary_head": True}
    return VTSum(VTSumConfig(**(settings | changes))).eval()


def test_targets_are_the_share_of_annotators_and_half_beside():
    labels = torch.tensor([[[1, 1, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1]]], dtype=torch.float32)
    expected = torch.tensor([[0, 0.25, 0.5, 0.25, 0.5, 1.0, 0.5, 0]])
    torch.testing.assert_close(boundary_targets(labels), expected)
    # A selection that runs to the end of a padded video does not end there, and padding is no boundary.
    padded = torch.nn.functional.pad(labels, (0, 3))
    mask = torch.arange(11)[None] < 8
    torch.testing.assert_close(boundary_targets(padded, mask), torch.nn.functional.pad(expected, (0, 3)))
    # Packed videos do not see each other: the second begins where the first one ends with another label.
    packed = torch.cat([labels[0], 1 - labels[0, :, :4]], 1)
    alone = boundary_targets(1 - labels[:, :, :4])
    found = boundary_targets(packed, cu_seqlens=torch.tensor([0, 8, 12]))
    torch.testing.assert_close(found, torch.cat([expected[0], alone[0]]))


def by_hand(head: BoundaryHead, x: Tensor, frames: Tensor) -> Tensor:
    """One video, [T, C]: the docstring's sums, frame by frame."""
    both = [torch.nn.functional.layer_norm(v, v.shape[-1:]) for v in (x, frames)]
    views = [*both, *head.views(torch.cat(both, 1)).split(VIEW, 1)]
    d = torch.zeros(len(x), len(views) * len(WIDTHS))
    for t in range(1, len(x)):
        for i, w in enumerate(WIDTHS):
            for j, v in enumerate(views):
                step = v[t : t + w].mean(0) - v[max(t - w, 0) : t].mean(0)
                # The columns: both plain views for each width, then the learned ones for each width.
                column = i * 2 + j if j < 2 else 2 * len(WIDTHS) + i * VIEWS + j - 2
                d[t, column] = step.square().mean()
    d = torch.cat([d, d / (d.mean(0) + 1e-3)], 1)
    padded = torch.nn.functional.pad(d, (0, 0, REACH, REACH))
    return torch.stack([head.mlp(padded[t : t + 2 * REACH + 1].flatten())[0] for t in range(len(x))])


def test_padded_packed_and_alone_are_the_same():
    head = BoundaryHead(16)
    lengths = [9, 1, 5]
    videos = [(torch.randn(n, 16), torch.randn(n, 16)) for n in lengths]
    expected = [by_hand(head, x, h) for x, h in videos]
    pad = torch.nn.utils.rnn.pad_sequence
    x, h = (pad([v[i] for v in videos], batch_first=True) for i in range(2))
    mask = torch.arange(9)[None] < torch.tensor(lengths)[:, None]
    x = torch.where(mask[..., None], x, torch.full_like(x, 7.0))  # what stands in the padding must not matter
    padded = head(x, h, mask)
    cu = torch.tensor([0, 9, 10, 15], dtype=torch.int32)
    packed = head(torch.cat([v[0] for v in videos]), torch.cat([v[1] for v in videos]), cu_seqlens=cu)
    for i, want in enumerate(expected):
        torch.testing.assert_close(padded[i, : lengths[i]], want, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(packed[cu[i] : cu[i + 1]], want, rtol=1e-5, atol=1e-5)


def test_the_loss_counts_real_frames_alone():
    logits, targets = torch.tensor([[0.3, -2.0, 9.0]]), torch.tensor([[1.0, 0.25, 0.0]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, :2], targets[:, :2])
    torch.testing.assert_close(boundary_loss(logits, targets, torch.tensor([[1, 1, 0]])), expected)
    with pytest.raises(VTSumError, match=r"boundary_loss: targets must be \[1, 3\], got \[1, 2\]"):
        boundary_loss(logits, targets[:, :2])


def test_a_model_without_a_head_is_what_it_was():
    plain, headed = small(boundary_head=False), small()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(headed.state_dict()[name], value, rtol=0, atol=0)
    x, labels = torch.randn(2, 12, 32), (torch.rand(2, 3, 12) > 0.5).float()
    without, with_head = plain(x, vsum_labels=labels), headed(x, vsum_labels=labels)
    assert without.boundary_logits is None
    assert without.loss_boundary is None
    torch.testing.assert_close(with_head.saliency_logits, without.saliency_logits, rtol=0, atol=0)
    torch.testing.assert_close(with_head.loss - with_head.loss_boundary, without.loss)
    with pytest.raises(VTSumError, match="boundary_logits: the model must have a boundary head"):
        plain.boundary_logits(x, without.frames)


def test_it_learns_where_events_begin():
    """Scenes of random looks whose annotators keep to them: on new videos nearly all boundaries rank first."""
    rng = np.random.default_rng(0)

    def video() -> tuple[Tensor, Tensor, np.ndarray]:
        lengths = rng.integers(3, 9, 8)
        scene = np.repeat(np.arange(8), lengths + 2)[:32]
        x = rng.normal(size=(8, 32))[scene] + 0.7 * rng.normal(size=(32, 32))
        return torch.tensor(x).float(), torch.tensor(scene % 2).float()[None], np.diff(scene, prepend=0) > 0

    model = small(lambda_vsum=0.0, lambda_boundary=2.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        videos = [video() for _ in range(8)]
        out = model(torch.stack([v[0] for v in videos]), vsum_labels=torch.stack([v[1] for v in videos]))
        torch.testing.assert_close(out.loss, 2.0 * out.loss_boundary)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    model.eval()
    found, chance = [], []
    for x, _, true in [video() for _ in range(8)]:
        logits = model.boundary_logits(x[None], model.encode(x[None]))[0].detach().numpy()
        found.append(average_precision(logits, true))
        chance.append(true.mean())
    assert np.mean(found) > 0.9
    assert np.mean(chance) < 0.3


def test_a_run_trains_the_head_saves_it_and_evaluation_measures_it(tmp_path, monkeypatch):
    monkeypatch.setattr(java, "_java", lambda: None)  # METEOR takes seconds to start, and is not of interest here
    data = write_corpus(tmp_path / "data")
    run = ["--data", str(data), *flags(), "--batch_size", "4", "--init_lr", "3e-3", "--num_workers", "0"]
    head = ["--model.boundary_head", "true", "--model.lambda_boundary", "3"]
    assert main([*run, *head, "--output_dir", str(tmp_path / "run"), "--max_epoch", "6"]) == 0
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert np.mean([line["loss_boundary"] for line in lines[-4:]]) < lines[0]["loss_boundary"]
    for line in lines:
        parts = 15 * line["loss_vsum"] + line["loss_tsum"] + 3 * line["loss_boundary"]
        assert line["loss"] == pytest.approx(parts, rel=1e-5)
    model = VTSum.from_pretrained(tmp_path / "run" / "model")
    assert model.boundary_head is not None

    (data / "anno" / "test_videoxum.json").write_bytes((data / "anno" / "train_videoxum.json").read_bytes())
    settings = EvaluationSettings(
        checkpoint=str(tmp_path / "run"),
        data=str(data),
        caption_tokenizer="plain",
        batch_size=4,
        resamples=100,
        num_beams=1,
        random_draws=1,
    )
    made = evaluate(settings, tmp_path / "made.json")
    boundaries = json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))["boundaries"]
    own = [video["boundary_average_precision"] for video in made["videos"]]
    measured = [value for value in own if value is not None]
    assert boundaries["average_precision"]["value"] == pytest.approx(np.mean(measured))
    assert boundaries["average_precision"]["low"] <= boundaries["average_precision"]["value"]
    assert boundaries["videos"] == len(measured) > 0
    assert any("event boundaries: average precision" in note for note in made["notes"])


def test_a_pretrained_model_gets_a_head_and_keeps_its_other_weights(tmp_path):
    data = write_corpus(tmp_path / "data", videos=4)
    run = ["--data", str(data), "--batch_size", "4", "--max_epoch", "1", "--num_workers", "0", "--init_lr", "1e-9"]
    assert main([*run, *flags(), "--output_dir", str(tmp_path / "plain")]) == 0
    pretrained = tmp_path / "plain" / "model"
    head = ["--pretrained", str(pretrained), "--model.boundary_head", "true"]
    assert main([*run, *head, "--output_dir", str(tmp_path / "headed")]) == 0
    before, after = VTSum.from_pretrained(pretrained), VTSum.from_pretrained(tmp_path / "headed" / "model")
    assert after.boundary_head is not None
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, rtol=0, atol=1e-6)
    back = ["--pretrained", str(tmp_path / "headed" / "model"), "--model.boundary_head", "false"]
    with pytest.raises(VTSumError, match=r"model\.boundary_head must be True, as the pretrained"):
        main([*run, *back, "--output_dir", str(tmp_path / "back")])


def test_the_embedded_model_tells_boundaries():
    """Scenes in the encoder's space: each planted boundary is likelier than every frame that is none."""
    model = load("embedded")
    rng = np.random.default_rng(0)
    lengths = [8, 12, 6, 10]
    x = np.repeat(rng.normal(size=(4, 256)), lengths, axis=0) + 0.2 * rng.normal(size=(36, 256))
    x = (16 * x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    found = model.boundaries(x)
    planted = np.cumsum(lengths)[:-1]
    assert found[planted].min() > np.delete(found, planted).max()
    assert model.boundaries(x[:1]).shape == (1,)
    assert model.boundaries(x[:0]).shape == (0,)


@pytest.mark.parametrize("packed", [False, True])
def test_parts_give_what_the_whole_gives(monkeypatch, packed):
    """Without a gradient hours are compared a part at a time; videos end inside parts and across them."""
    torch.manual_seed(0)
    head = BoundaryHead(24)
    shape = (57, 24) if packed else (3, 19, 24)
    x, y = torch.randn(shape), torch.randn(shape)
    mask = None if packed else torch.arange(19) < torch.tensor([[19], [7], [1]])
    cu = torch.tensor([0, 1, 30, 57]) if packed else None
    whole = head(x, y, mask, cu)
    monkeypatch.setattr("vtsum.model.boundary.PART", 8)
    with torch.no_grad():
        parts = head(x, y, mask, cu)
    torch.testing.assert_close(parts, whole.detach(), rtol=0, atol=1e-6)
