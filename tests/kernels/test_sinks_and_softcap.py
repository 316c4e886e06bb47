"""Attention sinks and a softcap, with every other option: all numbers and gradients against the definition.

tests/emulator and test_triton_numbers.py have the same of the kernels for GPUs.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from torch.func import grad, vmap

from tests.kernels.window_calls import compare

#: One that weighs less than a key, and one that outweighs most rows.
SINKS = torch.tensor([-1.0, 2.0], device="cpu")
PACKED: dict[str, Any] = {"shape": (1, 2, 90, 32), "ends": [0, 1, 1, 20, 90]}
CALLS: dict[str, dict[str, Any]] = {
    "rows that see nothing": {"shape": (3, 2, 60, 13), "padded": 0.2},
    "grouped": {"shape": (2, 4, 70, 32), "key_heads": 2, "padded": 0.2},
    "bias": {"with_bias": True, "padded": 0.2},
    "shift": {"border": "shift", "with_bias": True, "padded": 0.2},
    "dilation": {"dilation": 3, "sides": (3, 1)},
    "packed": {**PACKED, "padded": 0.2},
    "packed shift": {**PACKED, "border": "shift", "dilation": 2},
    "dropout": {"shape": (2, 2, 24, 16), "dropout_p": 0.3, "with_bias": True},
    "wide": {"sides": (30, 0), "padded": 0.2},
    "unbounded": {"sides": (-1, 0), "padded": 0.2},
    "few queries": {"queries": 8, "sides": (40, 0), "condition": 2.0},  # of so few rows, one decides the largest error
    "fewer queries": {"queries": 50},
    "packed queries": {**PACKED, "query_ends": [0, 1, 1, 9, 50]},
    "large": {"factor": 4.0, "condition": 4.0},
}
both = pytest.mark.parametrize(("sinks", "softcap"), [(True, None), (False, 1.5), (True, 1.5)], ids=str)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)


def sinks_of(options: dict[str, Any], device: torch.device | str = "cpu") -> Tensor:
    heads = options.get("shape", (2, 2, 70, 32))[1]
    return SINKS.to(device).repeat(heads // 2)


def device_of(backend: str) -> str:
    return "cuda" if backend in ("cuda", "triton") else "cpu"


@both
@pytest.mark.parametrize("name", CALLS)
def test_with_each_option(backend: str, name: str, sinks: bool, softcap: float | None) -> None:
    options = CALLS[name]
    given = sinks_of(options, device_of(backend)) if sinks else None
    compare(backend, torch.float32, **options, sinks=given, softcap=softcap)


@both
@pytest.mark.parametrize("backend", ["blockwise"])
@pytest.mark.parametrize("name", CALLS)
def test_with_each_option_blockwise(backend: str, name: str, sinks: bool, softcap: float | None) -> None:
    compare(backend, torch.float32, **CALLS[name], sinks=sinks_of(CALLS[name]) if sinks else None, softcap=softcap)


@both
@dtypes
def test_each_dtype(backend: str, dtype: torch.dtype, sinks: bool, softcap: float | None) -> None:
    given = SINKS.to(device_of(backend)) if sinks else None
    compare(backend, dtype, padded=0.2, with_bias=True, sinks=given, softcap=softcap)
    compare(backend, dtype, shape=(1, 2, 70, 64), sides=(20, 20), with_bias=True, sinks=given, softcap=softcap)


@dtypes
def test_each_dtype_blockwise(dtype: torch.dtype) -> None:
    compare("blockwise", dtype, padded=0.2, with_bias=True, sinks=SINKS, softcap=1.5)


@dtypes
def test_sinks_in_the_global_softmax(backend: str, dtype: torch.dtype) -> None:
    sinks = SINKS.to(device_of(backend))
    compare(backend, dtype, sides=(3, 1), normalize="global", padded=0.2, with_bias=True, sinks=sinks)
    compare(backend, torch.float32, shape=(3, 2, 60, 13), normalize="global", padded=0.2, sinks=sinks)


@pytest.mark.parametrize("name", ["reference", "cpp", "blockwise"])
@pytest.mark.parametrize("normalize", ["window", "global"])
def test_a_row_that_sees_nothing_gives_its_sink(name: str, normalize: str) -> None:
    """out = 0 and lse = the sink, whose gradient the row's lse alone has; -inf is no sink."""
    q = torch.randn(1, 3, 8, 4, requires_grad=True)
    sinks = torch.tensor([0.5, -3.0, -torch.inf], requires_grad=True)
    nothing = torch.zeros(1, 8, dtype=torch.bool)
    options: dict[str, Any] = {"normalize": normalize, "return_lse": True, "backend": name}
    out, lse = vk.sliding_window_attention(q, q, q, 3, key_mask=nothing, sinks=sinks, **options)
    assert (out == 0).all()
    assert torch.equal(lse, sinks.detach()[None, :, None].expand(1, 3, 8))
    dq, dsinks = torch.autograd.grad([out.sum() + lse[:, :2].sum()], [q, sinks])
    assert (dq == 0).all()
    torch.testing.assert_close(dsinks, torch.tensor([8.0, 8.0, 0.0]))
    none = vk.sliding_window_attention(q, q, q, 3, sinks=torch.full((3,), -torch.inf), **options)
    for got, wanted in zip(none, vk.sliding_window_attention(q, q, q, 3, **options), strict=True):
        torch.testing.assert_close(got, wanted)
        gradients = [torch.autograd.grad(x.sum(), q, retain_graph=True)[0] for x in (got, wanted)]
        torch.testing.assert_close(*gradients)


def test_a_softcap_of_zero_is_none(backend: str) -> None:
    q = torch.randn(1, 2, 20, 8)
    plain, zero, capped = (
        vk.sliding_window_attention(q, q, q, 5, softcap=cap, backend=backend) for cap in (None, 0.0, 0.5)
    )
    assert torch.equal(plain, zero)
    assert not torch.allclose(plain, capped)
    # Capped at next to nothing, all scores are alike.
    mean = vk.sliding_window_attention(q, q, q, 5, scale=0.0, backend=backend)
    torch.testing.assert_close(vk.sliding_window_attention(q, q, q, 5, softcap=1e-6, backend=backend), mean)


def test_small_scores_are_capped_without_loss(backend: str) -> None:
    """Gemma's cap of 50 changes a score of 0.1 by 1e-7: a tanh that were right to 1e-7 of 1 would be off by 5e-6."""
    compare(backend, torch.float32, factor=0.3, softcap=50.0)
    compare(backend, torch.float32, factor=6.0, softcap=50.0, condition=8.0)


@pytest.mark.parametrize("sides", [(1, 1), (20, 20)])
@pytest.mark.parametrize("name", ["reference", "cpp", "blockwise"])
def test_gradcheck(name: str, sides: tuple[int, int]) -> None:
    torch.use_deterministic_algorithms(False)  # gradcheck compares against its own empty tensors: no poison there
    leaves = [torch.randn(1, heads, 7, 2, dtype=torch.float64, requires_grad=True) for heads in (2, 1, 1)]
    leaves.append(SINKS.double().requires_grad_())

    def call(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> Any:
        options: dict[str, Any] = {"sinks": sinks, "softcap": 0.7, "return_lse": True, "backend": name}
        return vk.sliding_window_attention(q, k, v, sides, **options)

    assert torch.autograd.gradcheck(call, leaves)
    if name == "reference":
        assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize("mapped", ["x", "sinks", "both", "masks"])
def test_transforms(cpp: None, mapped: str) -> None:
    """vmap over rows, sinks and masks, and per-sample gradients: as one call after another."""
    x, sinks = torch.randn(3, 1, 2, 9, 4), torch.randn(3, 2)
    masks = torch.rand(3, 1, 9) > 0.3

    def loss(x: Tensor, sinks: Tensor, mask: Tensor) -> Tensor:
        out, lse = vk.sliding_window_attention(
            x, x, x, 3, key_mask=mask, sinks=sinks, softcap=2.0, return_lse=True, backend="cpp"
        )
        return out.square().sum() + lse.sum()

    over = [mapped in ("x", "both", "masks"), mapped in ("sinks", "both"), mapped == "masks"]
    given = [t if many else t[0] for t, many in zip((x, sinks, masks), over, strict=True)]
    found = vmap(grad(loss, argnums=(0, 1)), in_dims=tuple(0 if many else None for many in over))(*given)
    for n in range(3):
        alone = [t[n] if many else t for t, many in zip(given, over, strict=True)]
        leaves = [t.detach().clone().requires_grad_() for t in alone[:2]]
        wanted = torch.autograd.grad(loss(*leaves, alone[2]), leaves)
        for got, exact in zip(found, wanted, strict=True):
            torch.testing.assert_close(got[n], exact)


def test_compiled_and_opcheck(cpp: None) -> None:
    torch.use_deterministic_algorithms(False)
    q, sinks = torch.randn(1, 2, 20, 8, requires_grad=True), SINKS.clone().requires_grad_()

    def call(q: Tensor, sinks: Tensor) -> Tensor:
        return vk.sliding_window_attention(q, q, q, 5, sinks=sinks, softcap=1.5)

    results = []
    for function in (call, torch.compile(call, backend="aot_eager", fullgraph=True)):
        out = function(q, sinks)
        results.append([out, *torch.autograd.grad(out.square().sum(), (q, sinks))])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted)
    ops, options = torch.ops.vtsum_kernels, (2, 2, 1, False, 0.3, 0.0, 0)
    for form in ("", "_blockwise"):
        forward, backward = (getattr(ops, f"sliding_window_attention{form}_{way}") for way in ("fwd", "bwd"))
        torch.library.opcheck(forward, (q, q, q, *[None] * 4, *options, True, sinks, 1.5))
        still, fixed = q.detach(), sinks.detach()
        out, lse = forward(still, still, still, *[None] * 4, *options, True, fixed, 1.5)
        torch.library.opcheck(backward, (*[still] * 4, *[None] * 5, out, lse, *options, fixed, 1.5))


def test_gradients_are_the_same_bits_each_time(cpp: None) -> None:
    q, sinks = torch.randn(2, 2, 200, 16, requires_grad=True), SINKS.clone().requires_grad_()
    found = []
    for threads in (1, 2, 1):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        out = vk.sliding_window_attention(q, q, q, 9, sinks=sinks, softcap=2.0, backend="cpp")
        found.append(torch.autograd.grad(out.square().sum(), (q, sinks)))
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for again in found[1:] for a, b in zip(found[0], again, strict=True))


def test_a_half_precision_sink_has_its_gradient_summed_in_float32(backend: str) -> None:
    """4,000 rows that each give 2^-4: a sum in bfloat16 stops at 16."""
    q, v = torch.zeros(1, 1, 4000, 8), torch.full((1, 1, 4000, 8), -1.0)
    inputs = [x.to(torch.bfloat16) for x in (q, q, v)]
    sinks = torch.zeros(1, dtype=torch.bfloat16, device=inputs[0].device, requires_grad=True)
    out = vk.sliding_window_attention(*inputs, (0, 0), sinks=sinks, backend=backend)
    dsinks = torch.autograd.grad(out[..., 0].sum(), sinks)[0]
    assert dsinks.dtype == torch.bfloat16
    torch.testing.assert_close(dsinks, torch.full_like(sinks, 1000.0))  # each row: 0.5 * 0.5


@pytest.mark.parametrize("name", ["reference", "cpp", "blockwise"])
def test_a_padded_query_may_hold_nan(name: str) -> None:
    """Its row has no gradient, and gives the sinks none."""
    rows = [torch.randn(1, 2, 20, 8) for _ in range(3)]
    found = []
    for value in (0.0, torch.nan):
        q, k, v = (x.clone().requires_grad_() for x in rows)
        sinks = SINKS.clone().requires_grad_()
        with torch.no_grad():
            q[:, :, 17:] = value
        out, lse = vk.sliding_window_attention(q, k, v, 5, sinks=sinks, softcap=2.0, return_lse=True, backend=name)
        found.append(torch.autograd.grad(out[:, :, :17].sum() + lse[:, :, :17].sum(), (k, v, sinks)))
    for got, wanted in zip(*found[::-1], strict=True):
        torch.testing.assert_close(got, wanted)


def test_autocast_leaves_sinks_as_they_are(cpp: None) -> None:
    q, sinks = torch.randn(1, 2, 20, 8, requires_grad=True), SINKS.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = vk.sliding_window_attention(q, q, q, 5, sinks=sinks, softcap=1.5)
    assert out.dtype == torch.bfloat16
    assert torch.autograd.grad(out.float().sum(), sinks)[0].dtype == torch.float32
    low = q.detach().bfloat16()
    assert torch.equal(out, vk.sliding_window_attention(low, low, low, 5, sinks=sinks.detach(), softcap=1.5))


def test_explain_says_who_does_not_serve_them() -> None:
    q = torch.randn(1, 2, 600, 8)
    said = vk.explain("sliding_window_attention", q, q, q, (-1, -1), sinks=SINKS)
    assert "flash: cannot: it does not serve sinks" in said
    assert "-> blockwise" in said
    said = vk.explain("sliding_window_attention", q, q, q, (-1, -1), softcap=30.0)
    assert "flash: cannot: it does not serve softcap" in said


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sinks": 0.5}, TypeError, "sinks must be a torch.Tensor, got float"),
        ({"sinks": torch.zeros(3)}, ValueError, r"sinks must be of shape \[H\] = \[2\], got \[3\]"),
        ({"sinks": torch.zeros(2, 1)}, ValueError, r"sinks must be of shape \[H\] = \[2\], got \[2, 1\]"),
        ({"sinks": torch.zeros(2, dtype=torch.int32)}, TypeError, "sinks must be float32, float16, bfloat16"),
        ({"sinks": torch.zeros(2, device="meta")}, ValueError, "sinks must be on the device of q, cpu, got meta"),
        ({"softcap": "50"}, TypeError, r"softcap must be a float or None \(none\), got str"),
        ({"softcap": True}, TypeError, r"softcap must be a float or None \(none\), got bool"),
        ({"softcap": -1.0}, ValueError, r"softcap must be between 1e-30 and 1e30, or None or 0.0 \(none\), got -1.0"),
        ({"softcap": float("nan")}, ValueError, "softcap must be between"),
        ({"softcap": float("inf")}, ValueError, "softcap must be between"),
        ({"softcap": 1.0, "normalize": "global"}, ValueError, 'normalize must be "window" where there is a softcap'),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    q = torch.zeros(1, 2, 5, 4)
    with pytest.raises(error, match=message):
        vk.sliding_window_attention(q, q, q, 3, **options)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((torch.zeros(3), 0.0), r"sinks must be \[H\] in the dtype of lse"),
        ((torch.zeros(2).double(), 0.0), r"sinks must be \[H\] in the dtype of lse"),
        ((None, -1.0), "softcap must be 0 or from 1e-30 to 1e30"),
        ((None, 1e39), "softcap must be 0 or from 1e-30 to 1e30"),
        ((None, float("nan")), "softcap must be 0 or from 1e-30 to 1e30"),
    ],
)
def test_the_compiled_op_checks_again(cpp: None, more: tuple[Any, float], message: str) -> None:
    q = torch.zeros(1, 2, 5, 4)
    arguments = (q, q, q, None, None, None, None, 1, 1, 1, False, 0.3, 0.0, 0, True, *more)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.vtsum_kernels.sliding_window_attention_fwd(*arguments)
