"""torch.func's transforms of every op, held to plain PyTorch: gradients, vmap, and derivatives of forward mode."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap
from vtsum_kernels.memory_attention import plan
from vtsum_kernels.nn import MemoryBank, SlidingWindowAttention

from tests.kernels.conftest import needs_library
from tests.kernels.pretended_gpu import PRETENDED

ENDS = torch.tensor([0, 4, 9])
MASK = torch.tensor([[True, True, False, True, True, True, False, True, True]] * 2)

Call = Callable[..., Tensor]
#: Of rows x [2, 9, 8], a bank [5, 8] and a weight [3, 16]. Each goes through other ops than the rest.
CALLS: dict[str, Callable[[str], Call]] = {
    "window": lambda backend: lambda x, bank, weight: vk.sliding_window_attention(
        *(x.unflatten(2, (2, 4)).transpose(1, 2),) * 3, 5, bias=bank[:2, :5], backend=backend
    ),
    "lse": lambda backend: lambda x, bank, weight: vk.sliding_window_attention(
        x[:, None], x[:, None], x[:, None], 3, key_mask=MASK.to(x.device), return_lse=True, backend=backend
    )[1],
    "global": lambda backend: lambda x, bank, weight: vk.sliding_window_attention(
        x[0, :, None], x[0, :, None], x[1, :, None], 3, cu_seqlens=ENDS.to(x.device), normalize="global",
        backend=backend,
    ),
    "read": lambda backend: lambda x, bank, weight: vk.memory_attention(
        x, bank, bank, slot_bias=weight[0, :5], query_mask=MASK.to(x.device), num_heads=2, backend=backend
    ),
    "usage": lambda backend: lambda x, bank, weight: vk.memory_attention(
        x, bank, normalize=True, scale=weight[0, 0], return_usage=True, backend=backend
    )[1],
    "best": lambda backend: lambda x, bank, weight: vk.memory_attention(x, bank, bank, top_k=3, backend=backend),
    "layer": lambda backend: lambda x, bank, weight: vk.memory_fuse(
        x, bank, None, weight, weight[:, 0], normalize=True, scale=4.0, fold=True, backend=backend
    ),
    "joined": lambda backend: lambda x, bank, weight: vk.memory_fuse(
        x, bank, None, weight, num_heads=2, residual=x[..., :3], fold=True, backend=backend
    ),
    "unfolded": lambda backend: lambda x, bank, weight: vk.memory_fuse(
        x, bank, None, weight, norm=(None, None, 1e-5), fold=False, backend=backend
    ),
}  # fmt: skip


def on(names: Sequence[str]) -> list[Any]:
    """Each call on each backend; Triton has no form of top_k."""
    places = {"cpp": [], "cuda": [pytest.mark.gpu], "triton": [pytest.mark.gpu]}
    return [
        pytest.param(place, name, marks=marks, id=f"{place}-{name}")
        for place, marks in places.items()
        for name in names
        if (place, name) != ("triton", "best")
    ]


each_call = pytest.mark.parametrize(("backend", "name"), on(list(CALLS)), indirect=["backend"])


@pytest.fixture(params=["cpp", *(pytest.param(name, marks=pytest.mark.gpu) for name in ("cuda", "triton"))])
def backend(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name in ("cuda", "triton") and PRETENDED:
        pytest.skip("transforms wrap tensors, and see through those of a pretended GPU")
    needs_library(name)
    return name


def inputs(backend: str) -> list[Tensor]:
    kind: dict[str, Any] = {"dtype": torch.float64} if backend == "cpp" else {"device": "cuda"}
    return [torch.randn(shape, **kind) for shape in ((2, 9, 8), (5, 8), (3, 16))]


def close(got: Any, expected: Any) -> None:
    """To float64, or to what a GPU computes in float32."""
    for a, b in zip(got, expected, strict=True):
        tolerance = 1e-9 if a.dtype == torch.float64 else 1e-3
        finite = a.masked_fill(a.isinf(), 0.0), b.masked_fill(b.isinf(), 0.0)
        torch.testing.assert_close(*finite, rtol=tolerance, atol=tolerance)


def total(call: Call) -> Call:
    return lambda *given: call(*given).square().sum()


@each_call
def test_gradients(backend: str, name: str) -> None:
    check_gradients(backend, name)


@pytest.mark.parametrize(("backend", "name"), on(["read", "usage"]), indirect=["backend"])
def test_gradients_of_flash_attention(backend: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "keeps_weights", lambda *_: False)
    check_gradients(backend, name)


def check_gradients(backend: str, name: str) -> None:
    given = inputs(backend)
    ours, plain = CALLS[name](backend), CALLS[name]("reference")
    every: dict[str, Any] = {"argnums": (0, 1, 2)}
    close(grad(total(ours), **every)(*given), grad(total(plain), **every)(*given))
    along = torch.randn_like(plain(*given))
    close(vjp(ours, *given)[1](along), vjp(plain, *given)[1](along))
    close(jacrev(ours, **every)(*given), jacrev(plain, **every)(*given))


@each_call
def test_gradients_of_each_sample_and_vmap(backend: str, name: str) -> None:
    """Every way that a tensor can be mapped or shared."""
    x, bank, weight = inputs(backend)
    ours, plain = CALLS[name](backend), CALLS[name]("reference")
    many = torch.stack([x, 2 * x, -x], 1), torch.stack([bank, bank + 1, -bank], 2), torch.stack([weight] * 3)
    for which in ((0,), (1,), (0, 1, 2), (2,)):
        given = [many[n] if n in which else single for n, single in enumerate((x, bank, weight))]
        dims = tuple((1, 2, 0)[n] if n in which else None for n in range(3))
        close([vmap(ours, dims)(*given)], [vmap(plain, dims)(*given)])
        gradients = [vmap(grad(total(call), argnums=(0, 1, 2)), dims)(*given) for call in (ours, plain)]
        close(*gradients)
    none = x.new_empty((0, *x.shape))
    assert vmap(ours, (0, None, None))(none, bank, weight).shape == (0, *plain(x, bank, weight).shape)


WINDOW = ["cpp", "blockwise", *(pytest.param(name, marks=pytest.mark.gpu) for name in ("cuda", "triton"))]


@pytest.mark.parametrize("backend", WINDOW, indirect=True)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("masks", ["none", "one", "each"])
@pytest.mark.parametrize("biases", ["none", "one", "each"])
def test_vmap_of_the_window(backend: str, packed: bool, masks: str, biases: str) -> None:
    """With fewer heads of keys. What is mapped becomes heads, batch entries or calls, by what each has of its own."""
    kind: dict[str, Any] = {"dtype": torch.float64} if backend in ("cpp", "blockwise") else {"device": "cuda"}
    frames = (9,) if packed else (2, 9)
    q, k, v = (torch.randn(shape, **kind) for shape in ((3, *frames, 4, 3), (*frames, 2, 3, 3), (*frames, 2, 3)))
    mask, bias = torch.rand(3, *frames, device=q.device) > 0.3, torch.randn(3, 4, 5, **kind)
    extras = ({"none": None, "one": x[0], "each": x}[how] for x, how in ((mask, masks), (bias, biases)))
    given = [q, k, v, *extras]
    dims = (0, -1, None, *(0 if how == "each" else None for how in (masks, biases)))

    def outputs(backend: str) -> list[Tensor]:
        def call(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> Any:
            if not packed:
                q, k, v = (x.transpose(1, 2) for x in (q, k, v))
            ends = ENDS.to(q.device) if packed else None
            options = {"key_mask": mask, "bias": bias, "cu_seqlens": ends, "return_lse": True}
            return vk.sliding_window_attention(q, k, v, 5, backend=backend, **options)

        def both(*given: Any) -> Tensor:
            out, lse = call(*given)
            return out.square().sum() + lse.masked_fill(lse.isinf(), 0.0).square().sum()

        learned = (0, 1, 2) if bias is None or biases == "none" else (0, 1, 2, 4)
        return [*vmap(call, dims)(*given), *vmap(grad(both, argnums=learned), dims)(*given)]

    close(outputs(backend), outputs("reference"))


def test_vmap_draws_as_torch_does(backend: str) -> None:
    """One choice for all where randomness is "same", another for each where it is "different"."""
    kind: dict[str, Any] = {} if backend == "cpp" else {"device": "cuda"}
    q = torch.ones(1, 2, 40, 8, **kind)

    def call(q: Tensor) -> Tensor:
        return vk.sliding_window_attention(q, q, q, 5, dropout_p=0.5, backend=backend)

    many = torch.stack([q, q, q])
    for randomness in ("same", "different"):
        out = vmap(call, randomness=randomness)(many)
        assert torch.equal(out[0], out[1]) == (randomness == "same")
        assert torch.equal(out[1], out[2]) == (randomness == "same")
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(call)(many)


@pytest.mark.parametrize("name", CALLS)
def test_forward_mode(name: str) -> None:
    """By plain PyTorch where nothing else is asked for, at first and at second order, and with dual tensors."""
    given = [x.double() for x in inputs("cpp")]
    call, plain = CALLS[name]("auto"), CALLS[name]("reference")
    along = [torch.randn_like(x) for x in given]
    out, slope = jvp(call, tuple(given), tuple(along))
    parts = jacrev(plain, argnums=(0, 1, 2))(*given)
    expected = sum(torch.tensordot(part, d, dims=d.dim()) for part, d in zip(parts, along, strict=True))
    close([out, slope], [plain(*given), expected])
    close([jacfwd(call)(*given)], [parts[0]])
    with forward_ad.dual_level():
        dual = call(*(forward_ad.make_dual(x, d) for x, d in zip(given, along, strict=True)))
        close(forward_ad.unpack_dual(dual), [out, slope])
    small = [x[:1] if n == 0 and name not in ("global", "lse", "read", "window") else x for n, x in enumerate(given)]
    second = hessian(total(call))(*small)
    assert second.abs().max() > 0
    close([second], [jacrev(jacrev(total(plain)))(*small)])


def test_forward_mode_of_wide_windows() -> None:
    """They are blockwise's, which has none: "auto" takes plain PyTorch, who asks for it is refused by name."""
    x, along = (torch.randn(1, 1, 300, 2, dtype=torch.float64) for _ in range(2))
    for window in (81, (-1, -1)):
        auto, plain, asked = (
            lambda x, backend=backend: vk.sliding_window_attention(x, x, x, window, backend=backend)  # noqa: B023
            for backend in ("auto", "reference", "blockwise")
        )
        close(jvp(auto, (x,), (along,)), jvp(plain, (x,), (along,)))
        with pytest.raises(NotImplementedError, match=r"blockwise cannot serve .*forward-mode.*reference"):
            jvp(asked, (x,), (along,))


@each_call
def test_forward_mode_is_refused_by_name_of_compiled_kernels(backend: str, name: str) -> None:
    given = inputs(backend)
    with pytest.raises(NotImplementedError, match=f"{backend} cannot serve .*forward-mode.*reference"):
        jvp(CALLS[name](backend), tuple(given), tuple(given))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        CALLS[name](backend)(*(forward_ad.make_dual(x, x) for x in given))
    # Forward mode over a gradient whose forward pass was before it: no zeros in silence either.
    x = given[0].requires_grad_()
    out = CALLS[name](backend)(*given)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        torch.autograd.grad(out, x, forward_ad.make_dual(torch.ones_like(out), torch.ones_like(out)))


MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "window": lambda: SlidingWindowAttention(8, 2, 5, relative_bias=True, sinks=True),
    "layer": lambda: MemoryBank(6, 8),
    "heads": lambda: MemoryBank(6, 8, num_heads=2),
    "best": lambda: MemoryBank(6, 8, top_k=3),
    "projected": lambda: MemoryBank(6, 8, query_proj=True, normalize=False),
    "gate": lambda: MemoryBank(6, 8, fuse="gate"),
    "product keys": lambda: MemoryBank(9, 8, product_keys=True, top_k=3),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_in_ensembles_and_for_each_sample(cpp: None, name: str) -> None:
    modules = [MODULES[name]().double() for _ in range(3)]
    x = torch.randn(3, 9, 8, dtype=torch.float64)
    parameters, buffers = stack_module_state(modules)
    skeleton = copy.deepcopy(modules[0]).to("meta")

    def loss(parameters: Any, buffers: Any, x: Tensor) -> Tensor:
        found: Tensor = functional_call(skeleton, (parameters, buffers), (x,))
        return found.square().sum()

    of_each = vmap(grad(loss), (0, 0, None))(parameters, buffers, x)
    first = modules[0]
    own = dict(first.named_parameters())

    def of_a_sample(parameters: Any, x: Tensor) -> Tensor:
        found: Tensor = functional_call(first, parameters, (x[None],))
        return found.square().sum()

    of_samples = vmap(grad(of_a_sample), (None, 0))(own, x)
    for n, module in enumerate(modules):
        for key, expected in plain_gradients(module, x).items():
            torch.testing.assert_close(of_each[key][n], expected)
        for key, expected in plain_gradients(first, x[n : n + 1]).items():
            torch.testing.assert_close(of_samples[key][n], expected)


def plain_gradients(module: torch.nn.Module, x: Tensor) -> dict[str, Tensor]:
    named = dict(module.named_parameters())
    return dict(zip(named, torch.autograd.grad(module(x).square().sum(), list(named.values())), strict=True))
