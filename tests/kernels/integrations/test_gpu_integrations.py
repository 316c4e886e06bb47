"""The adapters on a GPU: what they give there is what they give on the CPU, where each has its tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from vtsum_kernels.integrations import flash_attn, natten, sdpa

from tests.kernels.conftest import needs_library
from tests.kernels.pretended_gpu import PRETENDED

pytestmark = pytest.mark.gpu


def as_on_the_cpu(call: Callable[..., Tensor], inputs: Sequence[Tensor], *others: Any) -> None:
    """Result and gradients of `inputs`, by a GPU and by the CPU. `others` are moved along."""
    needs_library("cpp")
    along, results = None, []
    for device in ("cpu", "cuda"):
        leaves = [x.detach().to(device).requires_grad_() for x in inputs]
        out = call(*leaves, *(x.to(device) if isinstance(x, Tensor) else x for x in others))
        assert out.device.type == device
        along = torch.randn(out.shape) if along is None else along
        results.append([out, *torch.autograd.grad(out, leaves, along.to(device))])
    for ours, wanted in zip(*reversed(results), strict=True):
        torch.testing.assert_close(ours.cpu(), wanted, rtol=1e-4, atol=1e-4)


def rows(*shape: int) -> list[Tensor]:
    return [torch.randn(shape) for _ in range(3)]


@pytest.mark.parametrize("dilation", [1, 2])
def test_masks_of_torchs_attention(dilation: int) -> None:
    at = torch.arange(30)
    offset = at - at[:, None]
    mask = (offset.abs() <= 3 * dilation) & (offset % dilation == 0)
    mask = mask & (at < torch.tensor([30, 17])[:, None])[:, None, None]
    as_on_the_cpu(sdpa.scaled_dot_product_attention, rows(2, 4, 30, 16), mask)
    band = sdpa.window_from_mask(mask.cuda())
    assert band is not None
    assert (band.left, band.right, band.dilation) == (3, 3, dilation)
    assert torch.equal(band.mask().cpu(), mask)


def test_flash_attns_calls() -> None:
    def call(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> Tensor:
        out: Tensor = flash_attn.flash_attn_func(q, k, v, window_size=(5, 2), alibi_slopes=slopes)
        return out

    q, k, v = rows(2, 40, 4, 16)
    as_on_the_cpu(call, [q[:, :33], k[:, :, :2], v[:, :, :2]], torch.rand(4))


@pytest.mark.parametrize("same", [True, False])
def test_flash_attns_packed_calls(same: bool) -> None:
    def call(q: Tensor, k: Tensor, v: Tensor, of_queries: Tensor, of_keys: Tensor) -> Tensor:
        out: Tensor = flash_attn.flash_attn_varlen_func(
            q, k, v, of_queries, of_keys, 30, 30, causal=True, window_size=(4, -1)
        )
        return out

    of_keys = torch.tensor([0, 13, 13, 40], dtype=torch.int32)
    of_queries = of_keys if same else torch.tensor([0, 10, 12, 40], dtype=torch.int32)
    as_on_the_cpu(call, rows(40, 2, 16), of_queries, of_keys)


def test_nattens_call() -> None:
    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = natten.na1d(q, k, v, 7, dilation=3)
        return out

    as_on_the_cpu(call, rows(2, 40, 4, 16))


@pytest.mark.parametrize("name", ["modernbert", "mistral", "gemma3"])
def test_transformers_models(name: str) -> None:
    pytest.importorskip("transformers", reason="the package transformers is not installed (pip install transformers)")
    if PRETENDED:
        pytest.skip("transformers asks CUDA itself what it is")
    from vtsum_kernels.integrations.transformers import register

    from tests.kernels.integrations import models, test_transformers

    register()
    with torch.device("cuda"):
        test_transformers.same(name, models.padded(), models.tokens().cuda())
