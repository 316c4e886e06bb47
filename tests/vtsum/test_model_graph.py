"""The default memory model as one graph: torch.compile(fullgraph=True) and torch.export, with a mask and any T."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from vtsum.config import VTSumConfig
from vtsum.model import VTSum


class Saliency(nn.Module):
    def __init__(self, model: VTSum) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        return self.model.saliency_logits(self.model.encode(frames, mask))


@pytest.fixture(scope="module")
def saliency() -> Saliency:
    torch.manual_seed(0)
    model = VTSum(VTSumConfig(width=32, num_heads=2, memory_slots=8, max_positions=128)).eval()
    nn.init.normal_(model.saliency_head.weight)
    return Saliency(model)


def videos(frames: int, real: int) -> tuple[Tensor, Tensor]:
    """Two videos, the second of `real` frames."""
    mask = torch.ones(2, frames, dtype=torch.bool)
    mask[1, real:] = False
    return torch.randn(2, frames, 32), mask


@torch.no_grad()
def same(graph: nn.Module, eager: Saliency, frames: int, real: int) -> None:
    x, mask = videos(frames, real)
    ours, theirs = graph(x, mask), eager(x, mask)
    torch.testing.assert_close(ours[mask], theirs[mask], atol=1e-5, rtol=1e-5)
    assert float(theirs[mask].std()) > 0.1


def test_the_whole_model_compiles_as_one_graph(saliency: Saliency) -> None:
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    graph = torch.compile(saliency, fullgraph=True, dynamic=True, backend=counter)
    counts = []
    for frames, real in ((20, 15), (33, 1), (100, 100), (120, 64)):  # the third has no padding: the same graph
        same(graph, saliency, frames, real)
        counts.append(counter.frame_count)
    assert counts == counts[:1] * 4, "compiled again for another length"


def test_the_whole_model_is_exported_for_any_length(saliency: Saliency) -> None:
    time = torch.export.Dim("T", min=2, max=128)
    shapes = {"frames": {1: time}, "mask": {1: time}}
    graph = torch.export.export(saliency, videos(20, 15), dynamic_shapes=shapes).module()
    for frames, real in ((20, 15), (33, 1), (100, 100), (128, 64)):
        same(graph, saliency, frames, real)
