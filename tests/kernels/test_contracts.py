"""What torch asks of an op on every backend: opcheck, one compiled graph, strides, autocast, one device for all."""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import vtsum_kernels as vk
from torch import Tensor
from vtsum_kernels.memory_attention import products
from vtsum_kernels.nn import MemoryBank, SlidingWindowAttention

from tests.kernels.conftest import needs_library
from tests.kernels.pretended_gpu import PRETENDED

OPS = torch.ops.vtsum_kernels
GPU = pytest.mark.gpu
#: A backend of the registered ops and the device it is tried on.
CPU = ("cpp", "cpu")
PLACES = {"cpp": CPU, "cuda": ("cuda", "cuda"), "triton": ("triton", "cuda")}


def on(*others: list[Any]) -> list[Any]:
    """Each backend with every combination of the others."""

    def case(place: str, *values: Any) -> Any:
        words = [getattr(value, "__name__", str(value)) for value in values]
        return pytest.param(PLACES[place], *values, marks=[] if place == "cpp" else GPU, id="-".join((place, *words)))

    return [case(place, *values) for place in PLACES for values in itertools.product(*others)]


@pytest.fixture(params=[CPU, *(pytest.param(PLACES[name], marks=GPU) for name in ("cuda", "triton"))], ids=PLACES)
def compiled_place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A backend and its device. opcheck and torch.compile take no pretended tensors."""
    backend, device = request.param
    if device == "cuda" and PRETENDED:
        pytest.skip("torch's compiler sees through tensors of a pretended GPU")
    needs_library(backend)
    torch.use_deterministic_algorithms(False)  # opcheck compares with its own empty tensors: no poison there
    return backend, device


@pytest.fixture
def place(compiled_place: tuple[str, str]) -> Iterator[str]:
    """A backend; tensors are made on its device."""
    with torch.device(compiled_place[1]):
        yield compiled_place[0]


def random(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = True) -> Tensor:
    return torch.randn(shape, dtype=dtype).requires_grad_(grad)


def op(name: str, place: str) -> Any:
    """A registered op by the name it has for a backend."""
    stem, _, direction = name.rpartition("_")
    return getattr(OPS, f"{stem}_triton_{direction}" if place == "triton" else name)


def still(*tensors: Any) -> list[Any]:
    return [t.detach() if isinstance(t, Tensor) else t for t in tensors]


@pytest.mark.parametrize(
    ("compiled_place", "dtype", "full"), on([torch.bfloat16, torch.float32], [False, True]), indirect=["compiled_place"]
)
def test_opcheck_of_the_window(place: str, dtype: torch.dtype, full: bool) -> None:
    """full: with a mask, packed sequences, a bias, dropout, shifted windows, fewer key heads and lse."""
    q = random(1, 4, 20, 16, dtype=dtype)
    k = random(1, 2 if full else 4, 20, 16, dtype=dtype)
    v = random(1, 20, k.shape[1], 16, dtype=dtype).detach().transpose(1, 2).requires_grad_()
    extras: tuple[Any, ...] = (None, None, None, None)
    if full:
        cu_seqlens = torch.tensor([0, 12, 20], dtype=torch.int32)
        extras = (torch.rand(1, 20) > 0.3, cu_seqlens, random(4, 7), torch.tensor([7]))
    options = (2, 1, 1, full, 0.25, 0.3 if full else 0.0, 5)
    for need_lse in (False, True):
        torch.library.opcheck(op("sliding_window_attention_fwd", place), (q, k, v, *extras, *options, need_lse))
    dlse = random(1, 4, 20, grad=False) if full else None
    grads = [x.detach() for x in (random(1, 4, 20, 16, dtype=dtype), q, k, v)]
    tail = (*still(*extras), dlse, None, None, *options)
    torch.library.opcheck(op("sliding_window_attention_bwd", place), (*grads, *tail))


def test_opcheck_of_the_whole_sequences_lse(place: str) -> None:
    if place == "triton":
        pytest.skip("plain PyTorch, the same for every backend")
    q, k, bias = random(1, 4, 12, 8), random(1, 2, 12, 8), random(4, 4)
    for ends in (None, torch.tensor([0, 5, 12], dtype=torch.int32)):
        torch.library.opcheck(OPS.global_lse_fwd, (q, k, torch.rand(1, 12) > 0.3, ends, bias, 2, 1, 1, False, 0.25))


@pytest.mark.parametrize(
    ("compiled_place", "dtype", "full"), on([torch.bfloat16, torch.float32], [False, True]), indirect=["compiled_place"]
)
def test_opcheck_of_the_dense_read(place: str, dtype: torch.dtype, full: bool) -> None:
    """full: a bank a group, several heads, a bias, a mask."""
    groups, heads = (2, 3) if full else (1, 1)
    x = random(groups, 9, heads, 8, dtype=dtype)
    keys, values = (random(groups, heads, 7, 8, dtype=dtype) for _ in "kv")
    factor = random(groups, heads, 9)
    bias, mask = (random(1, heads, 7), torch.rand(groups, 9) > 0.3) if full else (None, None)
    forward, tensors = op("memory_weights_fwd", place), (x, keys, factor, bias, mask)
    torch.library.opcheck(forward, (*tensors, torch.float32))
    weights, lse, usage = still(*forward(*tensors, torch.float32))
    gradients = (weights, lse.clamp(-1, 1), usage, weights)
    torch.library.opcheck(op("memory_weights_bwd", place), (*gradients, *still(x, keys, factor, mask), full))
    forward, tensors = op("memory_flash_fwd", place), (x, keys, values, factor, bias, mask)
    torch.library.opcheck(forward, (*tensors, True))
    out, lse, usage = still(*forward(*tensors, True))
    torch.library.opcheck(op("memory_flash_bwd", place), (out, lse.clamp(-1, 1), usage, *still(*tensors), out, lse))


@pytest.mark.parametrize(("compiled_place", "full"), on([False, True]), indirect=["compiled_place"])
def test_opcheck_of_the_joined_product(place: str, full: bool) -> None:
    x, weights, weight, bank = random(9, 8), random(9, 7), random(5, 8), random(7, 5)
    bias, residual = (random(5), random(9, 5)) if full else (None, None)
    torch.library.opcheck(op("memory_join_fwd", place), (x, weights, weight, bank, bias, residual))


@pytest.mark.parametrize("full", [False, True])
def test_opcheck_of_the_folded_layer(cpp: None, full: bool) -> None:
    torch.use_deterministic_algorithms(False)  # opcheck compares with its own empty tensors: no poison there
    x, weight, bank, bias = random(9, 8), random(5, 8), random(7, 5), random(5) if full else None
    keys, scale = random(7, 8), torch.tensor(2.0, requires_grad=True)
    slot_bias, mask = (random(7), torch.rand(9) > 0.3) if full else (None, None)
    inputs = (x, keys, bank, weight, bias, scale, slot_bias, mask, full)
    for rounds in (False, True):
        torch.library.opcheck(OPS.memory_layer_fwd, (*inputs, rounds))
        if torch.bfloat16 in products.OURS:
            halves = (x.bfloat16(), keys, bank, weight.bfloat16(), *inputs[4:])
            torch.library.opcheck(OPS.memory_layer_fwd, (*halves, rounds))
            assert OPS.memory_layer_fwd(*halves, rounds)[0].dtype == (torch.bfloat16 if rounds else torch.float32)
    y, kept, usage, inverse = OPS.memory_layer_fwd(*inputs, False)
    saved = still(y, usage, x, keys, bank, weight, scale, mask, kept, inverse)
    for wanted in ([True] * 7, [full, False, True, False, False, full, False]):
        torch.library.opcheck(OPS.memory_layer_bwd, (*saved, full, wanted))


def test_opcheck_of_the_sparse_read(place: str) -> None:
    if place == "triton":
        pytest.skip("Triton has no form of top_k")
    x, keys, factor = random(2, 9, 3, 8), random(2, 3, 7, 8), random(2, 3, 9)
    bias = random(1, 3, 7)
    torch.library.opcheck(OPS.memory_topk, (x, keys, factor, bias, 4))
    _, index = OPS.memory_topk(x, keys, factor, bias, 4)
    weights = random(2, 3, 9, 4)
    torch.library.opcheck(OPS.memory_gather, (weights, index, keys))
    torch.library.opcheck(OPS.memory_gather_dot, (x, index, keys))
    torch.library.opcheck(OPS.memory_scatter, (weights, index, x, 7))


#: What is compiled: of rows x, keys, a weight and a mask.
CALLS: dict[str, Callable[..., Any]] = {
    "window": lambda x, keys, weight, mask, backend: vk.sliding_window_attention(
        *(x.unflatten(2, (2, 16)).transpose(1, 2),) * 3, 5, key_mask=mask, return_lse=True, backend=backend
    ),
    "read": lambda x, keys, weight, mask, backend: vk.memory_attention(
        x, keys, normalize=True, num_heads=2, query_mask=mask, return_lse=True, return_usage=True, backend=backend
    ),
    "layer": lambda x, keys, weight, mask, backend: vk.memory_fuse(
        x, keys, None, weight, normalize=True, scale=4.0, query_mask=mask, fold=True, return_usage=True, backend=backend
    ),
    "best": lambda x, keys, weight, mask, backend: vk.memory_attention(
        x, keys, top_k=3, query_mask=mask, return_usage=True, backend=backend
    ),
    "heads": lambda x, keys, weight, mask, backend: vk.memory_fuse(
        x, keys, None, weight, num_heads=2, residual=x[..., :16], fold=True, return_usage=True, backend=backend
    ),
    "unfolded": lambda x, keys, weight, mask, backend: vk.memory_fuse(
        x, keys, None, weight, norm=(None, None, 1e-5), return_usage=True, backend=backend
    ),
}
#: Those that compile what no other does; on a GPU each takes a minute of a machine that is there for minutes.
ON_A_GPU = ("best", "read", "layer", "window")


def compiles_to_one_graph(plain: Any, compiler: str, inputs: list[list[Tensor]], parameters: list[Tensor]) -> None:
    """Results and gradients for each of the inputs, whose first has another length every time."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(plain, fullgraph=True, dynamic=True, backend=compiler)
    for given in inputs:
        results = []
        for form in (compiled, plain):
            outputs = form(*given)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            total = sum(output.masked_fill(output.isinf(), 0.0).square().sum() for output in outputs)
            found = torch.autograd.grad(total, [given[0], *parameters], allow_unused=True)
            results.append([*outputs, *(g for g in found if g is not None)])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(("compiled_place", "name"), on(list(CALLS)), indirect=["compiled_place"])
def test_compiles_to_one_graph_for_every_length(compiled_place: tuple[str, str], name: str) -> None:
    """Not inside of a `with torch.device`, which torch's compiler cannot see through."""
    backend, device = compiled_place
    if device == "cuda" and (name not in ON_A_GPU or (name == "best" and backend == "triton")):
        pytest.skip("tried on the CPU" if name != "best" else "Triton has no form of top_k")
    # On the CPU inductor compiles C++ for each. A choice of slots has nothing that it would change.
    compiler = "aot_eager" if name == "best" or (device == "cpu" and name != "window") else "inductor"
    if device == "cpu" and compiler == "inductor" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("inductor needs a C++ compiler on the CPU, none was found")
    with torch.device(device):
        keys, weight = random(9, 32), random(16, 64)
        inputs = [[random(2, frames, 32), keys, weight, torch.rand(2, frames) > 0.2] for frames in (12, 31)]
    compiles_to_one_graph(functools.partial(CALLS[name], backend=backend), compiler, inputs, [keys])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_modules_compile_to_one_graph_for_every_length(device: str) -> None:
    """With the backend that `auto` takes; the weights learn as they do without."""
    needs_library("cpp" if device == "cpu" else "cuda")
    if device == "cuda" and PRETENDED:
        pytest.skip("torch's compiler sees through tensors of a pretended GPU")
    with torch.device(device):
        attention, bank = SlidingWindowAttention(32, 2, 5), MemoryBank(16, 32)
        lengths = [torch.tensor([[frames], [frames - 9]]) for frames in (40, 25)]
        inputs = [[random(2, int(n[0]), 32), torch.arange(int(n[0])) < n] for n in lengths]
    compiler = "aot_eager" if device == "cpu" else "inductor"
    parameters = [attention.qkv.weight, *bank.parameters()]
    compiles_to_one_graph(lambda x, mask: bank(attention(x, mask), mask), compiler, inputs, parameters)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_autocast_and_inference_mode(device: str) -> None:
    needs_library("cpp" if device == "cpu" else "cuda")
    with torch.device(device):
        attention, bank = SlidingWindowAttention(16, 2, 5), MemoryBank(8, 16, fuse="gate")
        x = torch.randn(2, 12, 16)
        exact = bank(attention(x))
        with torch.inference_mode():
            torch.testing.assert_close(bank(attention(x)), exact)
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16):
            rough = bank(attention(x))
        with torch.autocast(device, dtype=torch.bfloat16):
            y = bank(attention(x))
        y.float().square().sum().backward()
    assert (rough.float() - exact).norm() < 0.02 * exact.norm()
    assert (y.float() - exact).norm() < 0.02 * exact.norm()
    for name, parameter in [*attention.named_parameters(), *bank.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("batched", [False, True])
def test_strides_do_not_matter(cpp: None, batched: bool) -> None:
    x = random(2, 12, 30).transpose(1, 2)[:, ::2] if batched else random(12, 30).t()[::2]
    views = [x, random(12, 7).t(), random(10, 7).t(), random(22, 5).t()]
    for options in ({}, {"num_heads": 2}, {"normalize": True}, {"top_k": 3}):
        results = []
        for tensors in (views, [t.contiguous() for t in views]):
            outputs = [
                vk.memory_attention(*tensors[:3], **options),  # type: ignore[arg-type]
                vk.memory_fuse(*tensors[:3], tensors[3], **options),  # type: ignore[arg-type]
            ]
            total = outputs[0].square().sum() + outputs[1].sum()
            results.append([*outputs, *torch.autograd.grad(total, tensors)])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected)


@GPU
def test_devices_may_not_be_mixed(cuda: None) -> None:
    q, mask = torch.zeros(1, 2, 9, 8), torch.ones(1, 9, dtype=torch.bool, device="cpu")
    for arguments in ((q, q.cpu(), q), (q, q, q.cpu()), (q.cpu(), q, q)):
        with pytest.raises(ValueError, match="must be on the device of q"):
            vk.sliding_window_attention(*arguments, 5)
    for name, tensor in (("key_mask", mask), ("bias", torch.zeros(2, 5, device="cpu"))):
        with pytest.raises(ValueError, match=f"{name} must be on the device"):
            vk.sliding_window_attention(q, q, q, 5, **{name: tensor})
    x, keys, weight, mask = torch.zeros(9, 8), torch.zeros(5, 8), torch.zeros(4, 16), torch.ones(9, dtype=torch.bool)
    there = [t.cpu() for t in (x, keys, weight, mask)]
    for arguments, name in (((x, there[1]), "keys"), ((x, keys, there[1]), "values"), ((there[0], keys), "keys")):
        with pytest.raises(ValueError, match=f"memory_attention: {name} must be on the device of x"):
            vk.memory_attention(*arguments)
    with pytest.raises(ValueError, match="memory_fuse: weight must be on the device of x"):
        vk.memory_fuse(x, keys, None, there[2])
    with pytest.raises(ValueError, match="query_mask must be on the device of the input"):
        vk.memory_attention(x, keys, query_mask=there[3])
    with pytest.raises(ValueError, match="slot_mask must be on the device of the input"):
        vk.memory_attention(x, keys, slot_mask=there[3][:5])
    with pytest.raises(ValueError, match="slot_bias must be on the device of x"):
        vk.memory_attention(x, keys, slot_bias=torch.zeros(5, device="cpu"))
    with pytest.raises(ValueError, match="scale must be on the device of x"):
        vk.memory_attention(x, keys, scale=torch.ones(1, device="cpu"))


@GPU
def test_the_registered_ops_refuse_tensors_of_another_device(cuda: None) -> None:
    """What calls them without the public functions' checks must not make a kernel read the host's memory."""
    if PRETENDED:
        pytest.skip("a pretended GPU says so itself")
    q = torch.randn(1, 2, 9, 16)
    mask = torch.ones(1, 9, dtype=torch.bool, device="cpu")
    options = (1, 1, 1, False, 0.25, 0.0, 0)
    with pytest.raises(RuntimeError, match="key_mask must be on the device of q, cuda:0, got cpu"):
        OPS.sliding_window_attention_fwd(q, q, q, mask, None, None, None, *options, False)
    x, keys, factor = torch.randn(1, 9, 2, 8), torch.randn(1, 2, 5, 8), torch.ones(1, 2, 9, device="cpu")
    with pytest.raises(RuntimeError, match="factor must be on the device of x, cuda:0, got cpu"):
        OPS.memory_weights_fwd(x, keys, factor, None, None, torch.float32)
    index = torch.zeros(1, 2, 9, 3, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="weights must be on the device of table, cuda:0, got cpu"):
        OPS.memory_gather(torch.ones(1, 2, 9, 3, device="cpu"), index, keys)
