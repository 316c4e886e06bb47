"""Memory retrieval: the numbers of both ops, folded and not, against an oracle in float64; masks; every message."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import vtsum_kernels as vk
from torch import Tensor

from tests.kernels.oracle import gradients, hold

BACKENDS = ["reference", "cpp"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "cpp":
        request.getfixturevalue("cpp")
    return str(request.param)


def eager(
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: int,
    scale: float | Tensor,
    normalize: bool,
    slot_mask: Tensor | None,
    query_mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Retrieval head by head, in the inputs' dtype throughout: the oracle in float64, eager PyTorch else."""
    outs, lses, usages = [], [], []
    for q, k, v in zip(x.chunk(heads, -1), keys.chunk(heads, -1), values.chunk(heads, -1), strict=True):
        if normalize:
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        scores = q @ k.t() * scale
        dead = torch.zeros_like(scores, dtype=torch.bool)
        if slot_mask is not None:
            dead |= ~slot_mask
        if query_mask is not None:
            dead |= ~query_mask[:, None]
        scores = scores.masked_fill(dead, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, -1).masked_fill(dead, 0.0)
        outs.append(weights @ v)
        lses.append(torch.logsumexp(scores, -1).masked_fill(dead.all(-1), -math.inf))
        usages.append(weights.sum(0))
    return torch.cat(outs, -1), torch.stack(lses), torch.stack(usages)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("frames", "slots", "dim", "heads"), [(130, 33, 24, 1), (70, 64, 48, 4), (1, 1, 8, 1), (9, 100, 20, 2)]
)
def test_attention_matches_the_oracle(
    backend: str, dtype: torch.dtype, normalize: bool, masked: bool, frames: int, slots: int, dim: int, heads: int
) -> None:
    if backend == "cpp" and dtype in (torch.bfloat16, torch.float16):
        x = torch.zeros(2, 4, dtype=dtype)
        with pytest.raises(NotImplementedError, match="takes float32 and float64"):
            vk.memory_attention(x, x, backend="cpp")
        return
    x, keys, values = (torch.randn(rows, dim).to(dtype) for rows in (frames, slots, slots))
    temperature = torch.tensor([3.0], dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    slot_mask = torch.rand(slots) > 0.3 if masked else None
    query_mask = torch.rand(frames) > 0.3 if masked else None
    results = []
    for kind in ("got", "exact", "eager"):
        wide = kind == "exact"
        tensors = [(t.double() if wide else t).detach().requires_grad_() for t in (x, keys, values, temperature)]
        if kind == "got":
            outputs = vk.memory_attention(
                *tensors[:3],
                num_heads=heads,
                scale=tensors[3],
                normalize=normalize,
                slot_mask=slot_mask,
                query_mask=query_mask,
                return_lse=True,
                return_usage=True,
                backend=backend,
            )
        else:
            scale = tensors[3] if wide else tensors[3].to(dtype)
            outputs = eager(*tensors[:3], heads, scale, normalize, slot_mask, query_mask)
        results.append([*outputs, *gradients(outputs, tensors, 1)])
    for name, *three in zip(("out", "lse", "usage", "dx", "dkeys", "dvalues"), *results, strict=False):
        # A mass is a sum over frames and lse may be near 0: both are held relative to their largest element.
        hold(name, *three)
    got, exact, plain = (result[-1].double().item() for result in results)
    # One number, a sum of terms of both signs: eager may be right by luck, so its dtype's rounding is allowed too.
    assert abs(got - exact) <= 2 * abs(plain - exact) + max(1e-5, torch.finfo(dtype).eps) * (1 + abs(exact))


def split(bank: Tensor, heads: int) -> Tensor:
    return bank.unflatten(1, (heads, bank.shape[1] // heads)).transpose(0, 1)


@pytest.mark.parametrize("fold", [True, False, "auto"])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_fuse_is_the_linear_layer_on_what_was_read(
    backend: str, fold: bool | str, heads: int, normalize: bool, projected: bool, masked: bool
) -> None:
    frames, slots, dim, value_dim, out_dim = 50, 13, 16, 12, 10
    shapes = [
        (frames, dim),
        (slots, dim),
        (slots, value_dim),
        (out_dim, dim + value_dim),
        (out_dim,),
        (frames, out_dim),
    ]
    tensors = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]
    x, keys, values, weight, bias, residual = tensors
    projection = torch.randn(dim, dim, dtype=torch.float64).requires_grad_() if projected else None
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    inputs = [*tensors, temperature, *([] if projection is None else [projection])]
    masks: dict[str, Any] = {}
    if masked:
        masks = {"slot_mask": torch.rand(slots) > 0.3, "query_mask": torch.rand(frames) > 0.3}
    options: dict[str, Any] = {"query_weight": projection, "residual": residual, "scale": temperature, **masks}
    got = vk.memory_fuse(
        *tensors[:5],
        **options,
        normalize=normalize,
        num_heads=heads,
        fold=fold,
        return_usage=True,
        backend=backend,
    )
    exact = vk.memory_fuse_reference(
        x, split(keys, heads), split(values, heads), weight, bias, **options, normalize=normalize
    )
    for ours, theirs in zip([*got, *gradients(got, inputs, 1)], [*exact, *gradients(exact, inputs, 1)], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_folded_layer_is_as_exact_as_an_unfolded_one(dtype: torch.dtype) -> None:
    frames, slots, dim = 200, 40, 64
    x, keys, weight = (torch.randn(s).to(dtype) for s in ((frames, dim), (slots, dim), (dim, 2 * dim)))
    exact = vk.memory_fuse_reference(
        x.double(), keys.double()[None], keys.double()[None], weight.double(), scale=16.0, normalize=True
    )[0]
    unfolded, folded = (
        vk.memory_fuse(x, keys, None, weight, scale=16.0, normalize=True, fold=fold) for fold in (False, True)
    )
    hold("folded", folded, exact, unfolded)


def test_auto_folds_only_where_it_saves_work() -> None:
    from vtsum_kernels.memory_retrieval.fuse import OP

    weight = torch.zeros(64, 128)
    for frames, slots, heads, folds in ((1000, 16, 1, True), (8, 512, 1, False), (1000, 512, 8, False)):
        call = OP.check(torch.zeros(frames, 64), torch.zeros(slots, 64), None, weight, num_heads=heads)
        assert call.fold_values is folds, (frames, slots, heads)


def test_the_published_scale_leaves_the_weights_nearly_even_and_they_are_still_right(backend: str) -> None:
    """Cosine over sqrt(768): every weight is within 4% of 1/S, and what depends on x is all in the last digits."""
    x, bank = torch.randn(50, 768), torch.randn(512, 768) * 0.02
    out = vk.memory_attention(x, bank, scale=768**-0.5, normalize=True, backend=backend)
    exact = eager(x.double(), bank.double(), bank.double(), 1, 768**-0.5, True, None, None)[0]
    mean = bank.double().mean(0)
    error = (out.double() - exact).norm() / (exact - mean).norm()
    assert error < 1e-3


def test_values_default_to_the_unnormalised_keys(backend: str) -> None:
    x, bank = torch.randn(5, 8), 3 * torch.randn(6, 8)
    with_default = vk.memory_attention(x, bank, normalize=True, backend=backend)
    assert torch.equal(with_default, vk.memory_attention(x, bank, bank, normalize=True, backend=backend))
    assert with_default.norm(dim=-1).max() > 1


def test_banks_by_head_are_the_split_of_flat_ones(backend: str) -> None:
    x, bank = torch.randn(2, 7, 12), torch.randn(5, 12)
    flat = vk.memory_attention(x, bank, num_heads=3, return_lse=True, return_usage=True, backend=backend)
    heads = vk.memory_attention(x, split(bank, 3), num_heads=3, return_lse=True, return_usage=True, backend=backend)
    for a, b in zip(flat, heads, strict=True):
        assert torch.equal(a, b)
    assert flat[1].shape == (2, 3, 7)
    assert flat[2].shape == (3, 5)
    torch.testing.assert_close(flat[2].sum(-1), torch.full((3,), 14.0))


@pytest.mark.parametrize(("frames", "slots"), [(0, 5), (4, 0), (0, 0)])
def test_nothing_to_read_or_nobody_to_read_it(backend: str, frames: int, slots: int) -> None:
    x, bank = torch.randn(frames, 8, requires_grad=True), torch.randn(slots, 8, requires_grad=True)
    out, lse, usage = vk.memory_attention(x, bank, return_lse=True, return_usage=True, backend=backend)
    assert out.shape == (frames, 8)
    assert (out == 0).all()
    assert (lse == -torch.inf).all()
    assert usage.shape == (1, slots)
    for gradient in torch.autograd.grad(out.sum(), (x, bank)):
        assert (gradient == 0).all()


def test_left_out_frames_and_slots_pass_nothing_on(backend: str) -> None:
    x, bank = torch.randn(6, 8), torch.randn(5, 8)
    query_mask = torch.tensor([True, True, False, True, False, True])
    slot_mask = torch.tensor([True, False, True, True, False])
    clean = vk.memory_attention(x, bank, slot_mask=slot_mask, query_mask=query_mask, backend=backend)
    x[~query_mask] = torch.nan
    x.requires_grad_()
    bank.requires_grad_()
    out, usage = vk.memory_attention(
        x, bank, slot_mask=slot_mask, query_mask=query_mask, return_usage=True, backend=backend
    )
    torch.testing.assert_close(out, clean)
    assert (out[~query_mask] == 0).all()
    assert (usage[0, ~slot_mask] == 0).all()
    torch.testing.assert_close(usage.sum(), torch.tensor(4.0))
    dx, dbank = torch.autograd.grad(out.square().sum(), (x, bank))
    assert (dx[~query_mask] == 0).all()
    assert (dbank[~slot_mask] == 0).all()
    assert dx[query_mask].abs().min() > 0
    none = vk.memory_attention(
        x, bank, slot_mask=torch.zeros(5, dtype=torch.bool), query_mask=query_mask, backend=backend
    )
    assert (none == 0).all()


def test_zero_rows_have_no_direction_and_no_nan(backend: str) -> None:
    x, bank = torch.zeros(3, 8, requires_grad=True), torch.randn(5, 8)
    bank[2] = 0
    out = vk.memory_attention(x, bank, normalize=True, backend=backend)
    torch.testing.assert_close(out, bank.mean(0).expand(3, 8))
    assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


def test_the_same_bits_with_any_number_of_threads(cpp: None) -> None:
    x, bank = torch.randn(1000, 16), torch.randn(70, 16)
    threads, results = torch.get_num_threads(), []
    scores = torch.randn(1, 1000, 70)
    try:
        for count in (1, 1, 2, 3):
            torch.set_num_threads(count)
            results.append(torch.ops.vtsum_kernels.memory_softmax_fwd(scores, torch.ones(1, 1000), None, None))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert vk.memory_attention(x, bank, backend="cpp").shape == (1000, 16)


X, BANK, WEIGHT = torch.zeros(4, 8), torch.zeros(5, 8), torch.zeros(6, 16)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": 1.0}, TypeError, "x must be a torch.Tensor, got float"),
        ({"x": X.long()}, TypeError, "x must be float32, float16, bfloat16 or float64, got torch.int64"),
        ({"x": X[0]}, ValueError, r"x must be of shape \[..., T, D\], got \[8\]"),
        (
            {"x": X[:, :6]},
            ValueError,
            r"x must be of shape \[..., T, [CD]\] with [CD] = 8, as the keys have, got \[4, 6\]",
        ),
        ({"keys": BANK.double()}, TypeError, "keys must be of the dtype of x, torch.float32, got torch.float64"),
        ({"keys": BANK[0]}, ValueError, r"keys must be of shape \[S, D\] or \[H, S, d\], got \[8\]"),
        ({"num_heads": 3}, ValueError, r"keys must be \[S, D\] with D divisible by num_heads = 3, got \[5, 8\]"),
        (
            {"keys": BANK[None], "num_heads": 2},
            ValueError,
            r"keys must be \[H, S, d\] with H = num_heads = 2, got \[1, 5",
        ),
        ({"num_heads": 0}, ValueError, "num_heads must be at least 1, got 0"),
        ({"values": BANK[:4]}, ValueError, "values must be of as many slots as keys, 5, got 4"),
        ({"scale": "x"}, TypeError, "scale must be a float, a tensor of one element or None .*, got str"),
        ({"scale": float("inf")}, ValueError, "scale must be finite, got inf"),
        ({"scale": torch.ones(2)}, ValueError, r"scale must be a float or a tensor of one element, got \[2\]"),
        ({"scale": torch.tensor(1)}, TypeError, "scale must be of a floating dtype, got torch.int64"),
        ({"slot_mask": torch.ones(5)}, TypeError, "slot_mask must be bool"),
        (
            {"slot_mask": torch.ones(4, dtype=torch.bool)},
            ValueError,
            r"slot_mask must be of shape \[S\] = \[5\], got \[4\]",
        ),
        (
            {"query_mask": torch.ones(5, dtype=torch.bool)},
            ValueError,
            r"query_mask must be of shape x's \[..., T\] = \[4\]",
        ),
        ({"backend": "triton"}, ValueError, "backend must be one of auto, cpp, reference, got triton"),
    ],
)
@pytest.mark.parametrize("op", ["memory_attention", "memory_fuse"])
def test_message(op: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    values = options.pop("values", None) if "values" in (options := dict(options)) else None
    arguments = [options.pop("x", X), options.pop("keys", BANK), values]
    if op == "memory_fuse":
        arguments.append(WEIGHT)
    with pytest.raises(error, match=f"^{op}: {message}"):
        getattr(vk, op)(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": WEIGHT[:, :9]}, r"weight must be of shape \[O, C \+ E\] = \[6, 16\], got \[6, 9\]"),
        ({"weight": WEIGHT[0]}, r"weight must be of shape \[O, C \+ E\], got \[16\]"),
        ({"bias": torch.zeros(5)}, r"bias must be of shape \[O\] = \[6\], got \[5\]"),
        ({"residual": X}, r"residual must be of shape \[..., T, O\] = \[4, 6\], got \[4, 8\]"),
        ({"query_weight": torch.zeros(8, 7)}, r"query_weight must be of shape \[keys' D, C\] = \[8, 8\], got \[8, 7\]"),
        ({"fold": "yes"}, "fold must be \"auto\", True or False, got 'yes'"),
    ],
)
def test_message_of_fuse(options: dict[str, Any], message: str) -> None:
    options = dict(options)
    with pytest.raises(ValueError, match=f"^memory_fuse: {message}"):
        vk.memory_fuse(X, BANK, None, options.pop("weight", WEIGHT), **options)
