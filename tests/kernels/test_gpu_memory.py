"""Memory retrieval on a GPU, through the public ops: every backend, dtype and option against the definitions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.memory_attention import plan

from tests.kernels import definitions, test_memory_banks, test_memory_retrieval
from tests.kernels.comparisons import gradients, hold
from tests.kernels.pretended_gpu import large

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(130, 33, 24, 1), (70, 64, 48, 4), (1, 1, 8, 1), (9, 100, 20, 2)]  # frames, slots, dim, heads


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("top_k", [None, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_by_cuda(
    cuda: None, dtype: torch.dtype, normalize: bool, masked: bool, top_k: int | None, shape: tuple[int, int, int, int]
) -> None:
    test_memory_retrieval.test_attention_matches_the_definition("cuda", dtype, normalize, masked, top_k, *shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "normalize"), [(SHAPES[0], True), (SHAPES[1], False)], ids=str)
def test_attention_by_triton(dtype: torch.dtype, normalize: bool, shape: tuple[int, int, int, int]) -> None:
    with torch.device("cuda"):
        test_memory_retrieval.test_attention_matches_the_definition("triton", dtype, normalize, True, None, *shape)


#: memory_fuse's options; [frames, slots, dim, values' dim, out dim] are those of `SIZES`.
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
    "sparse unfolded": {"top_k": 4, "fold": False, "num_heads": 2, "residual": True},
}  # fmt: skip
SIZES = (150, 40, 32, 48, 24)
BY_TRITON = ("plain", "everything", "everything unfolded", "projected cosine", "flash")


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


def fuse_case(backend: str, dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of memory_fuse, its results and all gradients."""
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
        inputs["slot_bias"] = torch.randn(heads, slots)
    if asked.get("top_k"):  # the best slots are the same in every dtype
        inputs["slot_bias"] = 4.0 * torch.randperm(slots).float().expand(heads, slots).clone()
    if asked.get("temperature"):
        inputs["scale"] = torch.tensor(0.7)
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
            assert abs(three[0] - three[1]) <= 2e-2 * (1 + abs(three[1]))
        else:
            # Folding rounds K' and V' in place of what is read, and gradients carry the scores' rounding.
            hold(
                f"{name} {part}", *three, condition=1.0 if part == "y" and dtype == torch.float32 else 4.0, dtype=dtype
            )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FUSE)
def test_fuse_by_cuda(cuda: None, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, name: str) -> None:
    fuse_case("cuda", dtype, name, monkeypatch)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, torch.bfloat16) for name in BY_TRITON] + [("plain", torch.float32), ("everything", torch.float16)],
)
def test_fuse_by_triton(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, name: str) -> None:
    with torch.device("cuda"):
        fuse_case("triton", dtype, name, monkeypatch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(5_001, 4_099, 64, 2), (20_000, 600, 64, 8), (700, 20_000, 32, 1)], ids=str)
def test_large_banks(gpu_backend: str, dtype: torch.dtype, shape: tuple[int, int, int, int]) -> None:
    """Several blocks of rows, and slots enough for the form that keeps no weights."""
    frames, slots, dim, heads = (large(shape[0]), large(shape[1]), *shape[2:])
    x, keys, values = (torch.randn(rows, dim).to(dtype) for rows in (frames, slots, slots))
    results = []
    for kind in ("got", "exact", "eager"):
        tensors = [(t.double() if kind == "exact" else t).detach().requires_grad_() for t in (x, keys, values)]
        if kind == "got":
            options: dict[str, Any] = {"num_heads": heads, "return_lse": True, "return_usage": True}
            out, lse, usage = vk.memory_attention(*tensors, **options, backend=gpu_backend)
            outputs = (out, lse.t(), usage) if lse.shape == (frames, heads) else (out, lse, usage)
        else:
            outputs = definitions.memory_attention(*tensors, heads, (dim // heads) ** -0.5)
        results.append([*outputs, *gradients(outputs[:1], tensors, 1)])
    for name, *three in zip(("out", "lse", "usage", "dx", "dkeys", "dvalues"), *results, strict=True):
        hold(name, *three, condition=1.0 if name in ("out", "lse") else 4.0, dtype=dtype)


@pytest.mark.parametrize("path", ["dense", "sparse", "joined", "batched"])
def test_dropout_drops_its_share_and_repeats(cuda: None, path: str) -> None:
    """What is left is multiplied by 1 / (1 - p): with values of one the mean stays; usage is that before dropout."""
    x, keys, values = torch.randn(3, 400, 16), torch.randn(50, 16), torch.ones(50, 4)
    options: dict[str, Any] = {"dropout_p": 0.4, "return_usage": True, "top_k": 40 if path == "sparse" else None}
    if path == "batched":
        keys, values = keys.expand(3, -1, -1), values.expand(3, -1, -1)

    def call(seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        if path == "joined":
            weight = torch.cat((torch.zeros(4, 16), torch.eye(4)), 1)
            return vk.memory_fuse(x, keys, values, weight, backend="cuda", **options)
        return vk.memory_attention(x, keys, values, backend="cuda", **options)

    (first, usage), (again, _), (other, _) = call(1), call(1), call(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(usage.sum(), torch.tensor(1200.0), rtol=1e-4, atol=0)
    assert first.mean().item() == pytest.approx(1.0, abs=0.03)
    assert first.std().item() > 0.05


def test_the_published_scale_in_bfloat16(gpu_backend: str) -> None:
    test_memory_banks.test_the_published_scale_in_bfloat16(gpu_backend, "attention")


def test_rows_and_slots_left_out_pass_nothing_on(gpu_backend: str) -> None:
    test_memory_retrieval.test_left_out_frames_and_slots_pass_nothing_on(gpu_backend)


def test_zero_rows_have_no_direction_and_no_nan(gpu_backend: str) -> None:
    test_memory_retrieval.test_zero_rows_have_no_direction_and_no_nan(gpu_backend)


@pytest.mark.parametrize(("frames", "slots"), [(0, 5), (4, 0), (0, 0)])
@pytest.mark.parametrize("top_k", [None, 3])
def test_nothing_to_read_or_nobody_to_read_it(gpu_backend: str, frames: int, slots: int, top_k: int | None) -> None:
    if gpu_backend == "triton" and slots and top_k:
        pytest.skip("Triton has no form of top_k")
    x, bank = torch.randn(frames, 8, requires_grad=True), torch.randn(slots, 8, requires_grad=True)
    out, lse, usage = vk.memory_attention(x, bank, top_k=top_k, return_lse=True, return_usage=True, backend=gpu_backend)
    assert out.shape == (frames, 8)
    assert (out == 0).all()
    assert (lse == -math.inf).all()
    assert torch.equal(usage, torch.zeros(1, slots))
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(out.sum(), (x, bank)))
    y = vk.memory_fuse(x, bank, None, torch.ones(3, 16), top_k=top_k, backend=gpu_backend)
    torch.testing.assert_close(y, x.sum(1, keepdim=True).expand(frames, 3))


def test_banks_by_batch_and_by_head_are_those_of_each_alone(gpu_backend: str) -> None:
    x, banks = torch.randn(3, 20, 12), torch.randn(3, 9, 12)
    options: dict[str, Any] = {"num_heads": 2, "normalize": True, "return_usage": True, "backend": gpu_backend}
    out, usage = vk.memory_attention(x, banks, **options)
    by_head = vk.memory_attention(x, banks.unflatten(2, (2, 6)).transpose(1, 2), **options)
    torch.testing.assert_close(by_head, (out, usage))
    for b in range(3):
        torch.testing.assert_close(vk.memory_attention(x[b], banks[b], **options), (out[b], usage[b]))


def test_a_folded_bank_is_taken_as_it_is(gpu_backend: str) -> None:
    x, keys, weight, projection = (torch.randn(shape) for shape in ((20, 6), (5, 6), (4, 12), (6, 6)))
    folded = vk.fold_bank(keys, None, weight, query_weight=projection)

    def call(backend: str, fold: Any) -> Tensor:
        return vk.memory_fuse(x, keys, None, weight, query_weight=projection, fold=fold, backend=backend)

    assert torch.equal(call(gpu_backend, folded), call(gpu_backend, True))
    for tensor in (keys, weight, projection):
        tensor.data.mul_(2.0)
        torch.testing.assert_close(call(gpu_backend, True), call("reference", False), rtol=1e-4, atol=1e-4)


def test_which_backend_serves_a_call(cuda: None) -> None:
    x, bank = torch.randn(9, 16), torch.randn(5, 16)
    assert "-> cuda: serves this call" in vk.explain("memory_attention", x, bank)
    assert "-> cuda: serves this call" in vk.explain("memory_fuse", x, bank, None, torch.randn(4, 32), top_k=2)
    assert "-> reference: serves this call" in vk.explain("memory_attention", x.double(), bank.double())
    exact = vk.memory_attention(x.double().cpu(), bank.double().cpu(), backend="reference")
    torch.testing.assert_close(vk.memory_attention(x.double(), bank.double()).cpu(), exact)
    with pytest.raises(NotImplementedError, match="backend triton cannot serve this call: it has no form of the ops"):
        vk.memory_attention(x, bank, top_k=2, backend="triton")
