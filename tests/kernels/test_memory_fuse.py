"""memory_fuse: the numbers against the definition in float64 by every backend and option, folded and not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.memory_attention import plan, products
from vtsum_kernels.tensors import acc_dtype

from tests.kernels import definitions
from tests.kernels.comparisons import gradients, hold

#: memory_fuse's options, every pair of them; [frames, slots, dim, values' dim, out dim] are those of `SIZES`.
FUSE: dict[str, dict[str, Any]] = {
    "plain": {},
    "unfolded": {"fold": False},
    "auto": {"fold": "auto"},
    "cosine": {"normalize": True, "scale": 4.0},
    "heads": {"num_heads": 4},
    "projected": {"projected": True},
    "projected cosine": {"projected": True, "normalize": True, "num_heads": 2},
    "norm": {"fold": False, "norm": True},
    "masks": {"masked": True},
    "everything": {"projected": True, "num_heads": 2, "masked": True, "residual": True, "temperature": True},
    "everything unfolded": {
        "fold": False, "projected": True, "num_heads": 2, "masked": True, "residual": True, "norm": True,
    },
    "flash": {"flash": True, "num_heads": 2, "masked": True},
    "sparse": {"top_k": 4, "masked": True},
    "sparse heads": {"top_k": 4, "num_heads": 4},
    "sparse cosine": {"fold": "auto", "top_k": 4, "normalize": True, "scale": 4.0, "projected": True},
    "sparse unfolded": {"top_k": 4, "fold": False, "num_heads": 2, "residual": True},
    "auto heads": {"fold": "auto", "num_heads": 4, "masked": True},
    "cosine unfolded": {"fold": False, "normalize": True, "num_heads": 4, "masked": True},
}  # fmt: skip
SIZES = (150, 40, 32, 48, 24)
BY_TRITON = ("plain", "everything", "everything unfolded", "projected cosine", "flash")  # each compiles kernels


def plain_fuse(leaves: dict[str, Tensor], heads: int, dtype: torch.dtype, options: dict[str, Any]) -> list[Tensor]:
    """The definition, in the tensors' dtype."""
    scale = leaves["scale"].to(dtype) if "scale" in leaves else options.get("scale") or (SIZES[2] // heads) ** -0.5
    return list(
        definitions.memory_fuse(
            leaves["x"], leaves["keys"], leaves["values"], leaves["weight"], leaves["bias"], heads, scale,
            query_weight=leaves.get("projection"), residual=leaves.get("residual"),
            norm=(leaves["gain"], leaves["shift"], 1e-5) if "gain" in leaves else None,
            slot_bias=leaves["slot_bias"].to(dtype) if "slot_bias" in leaves else None,
            **{key: value for key, value in options.items() if key != "scale"},
        )
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("name", FUSE)
def test_matches_the_definition(backend: str, dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The linear layer on what was read: its results and all gradients."""
    if backend == "triton" and (name not in BY_TRITON or (dtype == torch.float32 and name != "plain")):
        pytest.skip("each case compiles several kernels more")
    asked = {"fold": True, **FUSE[name]}
    frames, slots, dim, width, out_dim = SIZES
    heads = asked.get("num_heads", 1)
    if asked.get("flash"):
        monkeypatch.setattr(plan, "keeps_weights", lambda *_: False)
    shapes = {"x": (frames, dim), "keys": (slots, dim), "values": (slots, width), "weight": (out_dim, dim + width)}
    shapes["bias"] = (out_dim,)
    shapes |= {"projection": (dim, dim)} if asked.get("projected") else {}
    shapes |= {"residual": (frames, out_dim)} if asked.get("residual") else {}
    shapes |= {"gain": (width,), "shift": (width,)} if asked.get("norm") else {}
    inputs = {
        key: (torch.randn(shape) * (0.2 if key in ("weight", "projection") else 1.0)).to(dtype)
        for key, shape in shapes.items()
    }
    options = {key: asked[key] for key in ("normalize", "top_k", "scale") if key in asked}
    if asked.get("masked"):
        options |= {"slot_mask": torch.rand(slots) > 0.3, "query_mask": torch.rand(frames) > 0.3}
        inputs["slot_bias"] = torch.randn(heads, slots, dtype=acc_dtype(dtype))
    if asked.get("top_k"):  # the best slots are the same in every dtype
        inputs["slot_bias"] = 4.0 * torch.randperm(slots).to(acc_dtype(dtype)).expand(heads, slots).clone()
    if asked.get("temperature"):
        inputs["scale"] = torch.tensor(0.7, dtype=acc_dtype(dtype))
    results = []
    for kind in ("got", "exact", "eager"):
        leaves = {
            key: (t.double() if kind == "exact" else t).detach().clone().requires_grad_() for key, t in inputs.items()
        }
        if kind == "got":
            extra = {"query_weight": leaves.get("projection"), "residual": leaves.get("residual"), **options}
            extra |= {"slot_bias": leaves.get("slot_bias"), "scale": leaves.get("scale", options.get("scale"))}
            extra["norm"] = (leaves["gain"], leaves["shift"], 1e-5) if "gain" in leaves else None
            outputs = vk.memory_fuse(
                leaves["x"], leaves["keys"], leaves["values"], leaves["weight"], leaves["bias"], **extra,
                num_heads=heads, fold=asked["fold"], return_usage=True, backend=backend,
            )  # fmt: skip
        else:
            outputs = plain_fuse(leaves, heads, torch.float64 if kind == "exact" else dtype, options)
        results.append([*outputs, *gradients(outputs, list(leaves.values()), 1)])
    for part, *three in zip(("y", "usage", *(f"d{key}" for key in inputs)), *results, strict=True):
        if part == "dscale":  # one number, a sum of terms of both signs: eager may be right by luck
            slack = {torch.float64: 1e-10, torch.float32: 1e-4}.get(dtype, 2e-2)
            assert abs(three[0] - three[1]) <= slack * (1 + abs(three[1]))
        else:
            # Folding rounds K' and V' in place of what is read, and gradients carry the scores' rounding.
            hold(
                f"{name} {part}", *three, condition=1.0 if part == "y" and dtype == torch.float32 else 4.0, dtype=dtype
            )


@pytest.mark.parametrize(
    "options", [{}, {"normalize": True}, {"projected": True}, {"num_heads": 2, "projected": True}], ids=str
)
def test_a_folded_bank_is_taken_as_it_is(backend: str, options: dict[str, Any]) -> None:
    x, keys, values, weight, projection = (torch.randn(s) for s in ((20, 6), (5, 6), (5, 4), (4, 10), (6, 6)))
    asked = {name: value for name, value in options.items() if name != "projected"}
    if "projected" in options:
        asked["query_weight"] = projection
    folded = vk.fold_bank(keys, values, weight, **asked)

    def call(backend: str, fold: Any) -> Tensor:
        return vk.memory_fuse(x, keys, values, weight, fold=fold, backend=backend, **asked)

    torch.testing.assert_close(call(backend, folded), call(backend, True))
    if backend != "reference" and "num_heads" not in options:
        assert torch.equal(call(backend, folded), call(backend, True))  # of one head the same products
    for tensor in (keys, weight, projection):
        tensor.data.mul_(2.0)
        torch.testing.assert_close(call(backend, True), call("reference", False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_frames_without_direction_and_frames_of_nan_left_out(
    backend: str, dtype: torch.dtype, projected: bool, heads: int, fold: bool
) -> None:
    """Frames of zeros have no gradient by a cosine, and what a frame that is left out holds is in nobody's."""
    shapes = {"x": (7, 8), "keys": (5, 8), "weight": (4, 16), "projection": (8, 8)}
    inputs = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    inputs["x"][[1, 4]], inputs["keys"][2] = 0.0, 0.0
    mask = torch.arange(7) != 5
    results = []
    for kind in ("got", "exact", "eager"):
        leaves = {
            name: (t.double() if kind == "exact" else t).detach().clone().requires_grad_()
            for name, t in inputs.items()
            if name != "projection" or projected
        }
        x, keys, weight, *_ = leaves.values()
        options = {"query_weight": leaves.get("projection"), "query_mask": mask, "normalize": True}
        if kind == "got":
            x.data[5] = torch.nan
            options |= {"num_heads": heads, "scale": 3.0, "fold": fold, "return_usage": True, "backend": backend}
            outputs = vk.memory_fuse(x, keys, None, weight, **options)
        else:
            outputs = definitions.memory_fuse(x, keys, keys, weight, None, heads, 3.0, **options)
        results.append([*outputs, *gradients(outputs, list(leaves.values()), 1)])
    for name, *three in zip(("y", "usage", *(f"d{key}" for key in leaves)), *results, strict=True):
        hold(name, *three, condition=4.0, dtype=dtype)


@pytest.mark.parametrize("fold", [True, False])
def test_queries_next_to_zero_pass_a_finite_gradient_on(cpu_backend: str, fold: bool) -> None:
    """A query of norm 3e-7 has a gradient of millions, which float16 does not hold; that of the projection is ordinary.

    What a GPU multiplies is rounded to 16 bits between the two.
    """
    inputs = [torch.randn(shape).half() for shape in ((6, 8), (5, 8), (4, 16), (8, 8))]
    inputs[0][2] *= torch.tensor([1e-7, 0.0]).repeat(4)

    def dprojection(backend: str, dtype: torch.dtype) -> Tensor:
        x, keys, weight, projection = (t.to(dtype).requires_grad_() for t in inputs)
        options = {"normalize": True, "scale": 3.0, "fold": fold, "backend": backend}
        y = vk.memory_fuse(x, keys, None, weight, query_weight=projection, **options)
        return torch.autograd.grad(y.sum(), projection)[0]

    exact = dprojection("reference", torch.float64)
    torch.testing.assert_close(dprojection(cpu_backend, torch.float16).double(), exact, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("rounded", [torch.float16, torch.bfloat16])
def test_a_norm_of_two_features_that_are_alike(cpu_backend: str, rounded: torch.dtype) -> None:
    """Rounded to 16 bits before their norm, they would give a gradient of the rounding, the same one in every frame."""
    drawn = torch.randn(36, 8), torch.randn(1, 8), torch.tensor([[0.3, 0.35]]), torch.randn(4, 10)
    x, keys, values, weight = (t.to(rounded) for t in drawn)

    def dvalues(backend: str, dtype: torch.dtype) -> Tensor:
        leaf, norm = values.to(dtype).requires_grad_(), tuple(torch.tensor([2.0, -1.5]).to(dtype) for _ in range(2))
        y = vk.memory_fuse(x.to(dtype), keys.to(dtype), leaf, weight.to(dtype), norm=(*norm, 1e-3), backend=backend)
        along = torch.randn(36, 4, generator=torch.Generator().manual_seed(5)).to(rounded)
        return torch.autograd.grad((y * along.to(dtype)).sum(), leaf)[0]

    exact, got = dvalues("reference", torch.float64), dvalues(cpu_backend, rounded)
    torch.testing.assert_close(got.double(), exact, rtol=torch.finfo(rounded).eps, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_folded_layer_is_as_exact_as_an_unfolded_one(dtype: torch.dtype) -> None:
    frames, slots, dim = 200, 40, 64
    x, keys, weight = (torch.randn(s).to(dtype) for s in ((frames, dim), (slots, dim), (dim, 2 * dim)))
    wide = [t.double() for t in (x, keys, keys, weight)]
    exact = definitions.memory_fuse(*wide, None, 1, 16.0, normalize=True)[0]
    unfolded, folded = (
        vk.memory_fuse(x, keys, None, weight, scale=16.0, normalize=True, fold=fold) for fold in (False, True)
    )
    hold("folded", folded, exact, unfolded)


@pytest.mark.parametrize("form", ["folded", "apart", "keys folded"])
@pytest.mark.parametrize("top_k", [None, 2])
def test_results_on_the_cpu_are_rounded_once(form: str, top_k: int | None) -> None:
    """What was read and what a residual is added to stay float32. float16, of which no machine's products are ours."""
    generator = torch.Generator().manual_seed(1)
    sizes = ((60, 8), (40, 16), (40, 8), (6, 16), (60, 6), (16, 8))
    inputs = [torch.randn(size, generator=generator).half() for size in sizes]
    x, keys, values, weight, residual, projection = (t.double() for t in inputs)
    norm = (None, None, 1e-5) if form == "keys folded" else None  # of what was read, which keeps the values apart
    (exact, *_) = definitions.memory_fuse(
        x, keys, values, weight, weight.new_zeros(6), 1, 0.25, top_k=top_k, query_weight=projection, norm=norm,
        residual=residual,
    )  # fmt: skip
    fold = {"folded": True, "apart": False, "keys folded": "auto"}[form]
    got = vk.memory_fuse(
        *inputs[:4], query_weight=inputs[5], norm=norm, residual=inputs[4], fold=fold, top_k=top_k, backend="cpp"
    )
    error = (got.double() - exact.view_as(got)).abs() - exact.view_as(got).abs() * 2**-11
    assert error.max() < 1e-5


def test_auto_folds_only_where_it_saves_work() -> None:
    weight = torch.zeros(64, 128)
    for frames, slots, heads, folds in ((1000, 16, 1, True), (8, 512, 1, False), (1000, 512, 8, False)):
        check = vk.memory_fuse.__wrapped__  # type: ignore[attr-defined]
        call = check(torch.zeros(frames, 64), torch.zeros(slots, 64), None, weight, num_heads=heads)
        assert call.fold[1] is folds, (frames, slots, heads)


@pytest.mark.parametrize(
    ("dtype", "frames", "slots", "projected", "folds"),
    [
        (torch.bfloat16, 512, 512, False, True),
        (torch.bfloat16, 64, 512, False, True),  # 1.8 times the work
        (torch.bfloat16, 8, 512, False, False),
        (torch.bfloat16, 512, 512, True, False),
        (torch.float32, 512, 512, False, False),
    ],
)
def test_auto_folds_for_products_that_take_half_the_time(
    dtype: torch.dtype, frames: int, slots: int, projected: bool, folds: bool
) -> None:
    """What is not folded is multiplied in float32, and on other processors all is; numbers are those of either way."""
    check = vk.memory_fuse.__wrapped__  # type: ignore[attr-defined]
    x, bank, weight = (torch.randn(n, m).to(dtype) for n, m in ((frames, 64), (slots, 64), (64, 128)))
    query_weight = torch.randn(64, 64).to(dtype) if projected else None
    pays = folds and dtype in products.OURS
    assert check(x, bank, None, weight, query_weight=query_weight).fold[1] is pays
    exact = vk.memory_fuse(*(t.double() for t in (x, bank, bank, weight)), normalize=True, backend="reference")
    got = vk.memory_fuse(x, bank, bank, weight, normalize=True)
    rounding = torch.finfo(dtype).eps * exact.abs().max().item()  # of results; sums are float32 in either way
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=(2 if dtype == torch.bfloat16 else 32) * rounding)
