"""The memory-augmented transformer: where frames read the bank, and the loss that balances it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from vtsum_kernels.nn import MemoryBank

from vtsum.config import TextConfig, VTSumConfig
from vtsum.errors import VTSumError
from vtsum.model import VTSum
from vtsum.model.summarizer import EMBEDDED, load


def small(**changes: Any) -> VTSum:
    torch.manual_seed(5)
    return VTSum(VTSumConfig(**({"width": 32, "num_heads": 4, "max_positions": 24, "memory_slots": 8} | changes)))


def by_hand(model: VTSum, x: Tensor, mask: Tensor) -> Tensor:
    """`encode`, said in order."""
    position = model.position_embeddings(x.shape[1])
    where = model.config.memory_position
    if where == "before":
        x = model.memory(x, mask)
    x = x + position
    for block in model.temporal.blocks:
        x = x + block.attn(block.norm1(x), mask)
        if where == "inside":
            x = block.memory(x, mask)
        x = x + block.mlp(block.norm2(x))
    x = model.temporal.norm(x) + position
    if where == "after":
        x = model.memory(x, mask)
    return model.local_attention(x, mask)


@pytest.mark.parametrize("position", ["before", "inside", "after"])
@pytest.mark.parametrize("form", ["default", "student"])
def test_frames_read_the_bank_where_the_configuration_says(position: str, form: str) -> None:
    model = small(memory_position=position, memory_form=form, depth=2).eval()
    assert len(model.banks()) == (2 if position == "inside" else 1)
    x, mask = torch.randn(2, 11, 32), torch.ones(2, 11, dtype=torch.bool)
    mask[1, 7:] = False
    found, expected = model.encode(x, mask), by_hand(model, x, mask)
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-5, atol=1e-5)
    for bank in model.banks():  # every bank is read: without what is in it the frames are others
        with torch.no_grad():
            kept = bank.memory.clone()
            bank.memory.zero_()
            assert (model.encode(x, mask) - found)[mask].abs().max() > 1e-4
            bank.memory.copy_(kept)
    packed = model.encode(torch.cat((x[0], x[1, :7])), cu_seqlens=torch.tensor([0, 11, 18], dtype=torch.int32))
    torch.testing.assert_close(packed, torch.cat((found[0], found[1, :7])), rtol=1e-5, atol=1e-5)


def test_the_best_slots_alone_are_read() -> None:
    model = small(memory_top_k=1)
    model.encode(torch.randn(1, 3, 32))
    (bank,) = model.banks()
    assert int((bank.usage().mass > 0).sum()) <= 3
    assert bank.usage().mass.sum().item() == pytest.approx(3)
    with pytest.raises(VTSumError, match="memory_top_k must be at least 1, or None, got 0"):
        small(memory_top_k=0)


@pytest.mark.parametrize("position", ["inside", "after"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_balance_loss_joins_the_loss(position: str, recompute: bool) -> None:
    x, labels = torch.randn(2, 9, 32), (torch.rand(2, 10, 9) < 0.3).float()
    losses, grads = [], []
    for weight in (0.0, 0.5):
        model = small(memory_position=position, lambda_balance=weight).train()
        if recompute:
            model.gradient_checkpointing_enable()
        loss = model(x, vsum_labels=labels).loss
        loss.backward()
        losses.append(loss.item())
        grads.append(model.banks()[0].memory.grad)
    model = small(memory_position=position)
    model(x)
    expected = 0.5 * model.banks()[0].balance_loss()
    expected.backward()
    assert losses[1] - losses[0] == pytest.approx(expected.item(), rel=1e-3)
    torch.testing.assert_close(grads[1] - grads[0], model.banks()[0].memory.grad, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        assert model(x, vsum_labels=labels).loss is not None


def test_a_bank_inside_survives_saving(tmp_path: Path) -> None:
    model = small(memory_position="inside", depth=2, text=TextConfig(vocab_size=30, hidden_size=16)).eval()
    model.save_pretrained(tmp_path / "model")
    again = VTSum.from_pretrained(tmp_path / "model")
    x = torch.randn(1, 9, 32)
    assert torch.equal(again.encode(x), model.encode(x))
    assert all(isinstance(bank, MemoryBank) for bank in again.banks())


def test_a_loaded_summarizer_has_folded_its_banks() -> None:
    loaded, plain = load("embedded"), VTSum.from_pretrained(EMBEDDED)
    assert loaded.model.banks()
    x = torch.randn(1, 9, loaded.model.config.width)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model.encode(x), plain.encode(x))
    for bank in loaded.model.banks():
        bank.fold_check()
        bank.memory.data.mul_(2.0)
        with pytest.raises(RuntimeError, match="fold_check"):  # so there is a snapshot
            bank.fold_check()
