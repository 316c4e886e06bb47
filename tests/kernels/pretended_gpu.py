"""A GPU that is none, to try out tests that want one: tensors that say they are on cuda:0, their numbers on the CPU.

Operators are computed on the CPU: the ops of the backend "cuda" by the compiled CPU kernels, those of "triton" in
Triton's interpreter. What a GPU refuses is refused: tensors of both devices in one operator, a generator of the other
device and, while a graph is captured, whatever waits for the device. A captured graph is the list of its operators,
which a replay computes again into the same memory. Streams order nothing, since every operator is done at once.

    VTSUM_PRETENDED_GPU=1 TRITON_INTERPRET=1 python -m pytest -m gpu tests/kernels
"""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

PRETENDED = os.environ.get("VTSUM_PRETENDED_GPU") == "1"
GPU = torch.device("cuda:0")
_OPS = torch.ops.vtsum_kernels
_ATEN = torch.ops.aten
#: Operators that take tensors of both devices on a real GPU too.
_MIXING = ("aten::copy_", "aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_WAITING = ("aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::masked_select", "aten::_unique2")
#: Sizes that a GPU takes in its stride and the pretended one does not.
_MOST = 90
_to, _tensor, _tolist, _data_ptr = Tensor.to, torch.tensor, Tensor.tolist, Tensor.data_ptr


def large(count: int) -> int:
    """A size for a GPU; a small one where it is pretended."""
    return min(count, _MOST) if PRETENDED else count


class OnGpu(Tensor):
    """A tensor that says it is on the GPU; `inner` holds its numbers."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made: OnGpu = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
        )
        made.inner = inner
        return made

    device = GPU  # type: ignore[assignment]
    is_cuda = True  # type: ignore[assignment]
    is_cpu = False  # type: ignore[assignment]

    def get_device(self) -> int:
        return 0

    def __format__(self, spec: str) -> str:
        return format(self.inner.item() if self.dim() == 0 else self.inner, spec)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"on the pretended GPU: {self.inner!r}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Sees the operators that make tensors, which none of our tensors take part in."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class Graph:
    """In place of torch.cuda.CUDAGraph."""

    capturing: Graph | None = None

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self.fresh: list[Tensor] = []

    def replay(self) -> None:
        for func, args, kwargs, before in self.calls:
            for to, now in zip(tree_leaves(before), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(to, Tensor) and to.numel() and to.data_ptr() != now.data_ptr():
                    to.copy_(now)


@contextlib.contextmanager
def _graph(graph: Graph, *_: Any, **__: Any) -> Iterator[None]:
    """Captures. Nothing has been computed by then on a real GPU: what was made holds NaN."""
    Graph.capturing = graph
    try:
        yield
    finally:
        Graph.capturing = None
    for made in graph.fresh:
        if made.is_floating_point():
            made.fill_(torch.nan)


def _keep(graph: Graph, call: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
    graph.calls.append((call, args, kwargs, result))
    given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
    made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
    graph.fresh += [t for t in made if t.untyped_storage().data_ptr() not in given]


def _refuse_in_capture() -> None:
    if Graph.capturing is not None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


def _check(func: Any, tensors: list[Tensor], kwargs: dict[str, Any], on_gpu: bool) -> None:
    name = func._schema.name
    there = [t for t in tensors if isinstance(t, OnGpu)]
    here = [t for t in tensors if not isinstance(t, OnGpu) and t.dim() > 0]
    mixes = name in _MIXING
    if there and here and not mixes:
        raise RuntimeError(
            f"{name}: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
        )
    if on_gpu and kwargs.get("generator") is not None:
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    by_mask = name.startswith("aten::index") and any(t.dtype == torch.bool for t in tree_leaves(tensors[1:]))
    if name in _WAITING or (there and here) or (by_mask and name != "aten::index_fill_"):
        _refuse_in_capture()


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operator on the tensors' numbers. Its results are on the GPU where one of its tensors is."""
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    device = kwargs.get("device")
    on_gpu = any(isinstance(t, OnGpu) for t in tensors) or (device is not None and torch.device(device).type == "cuda")
    if not on_gpu:
        return func(*args, **kwargs)
    _check(func, tensors, kwargs, on_gpu)
    known = {id(t.inner if isinstance(t, OnGpu) else t): t for t in tensors}
    args, kwargs = tree_map_only(OnGpu, lambda t: t.inner, (args, kwargs))
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    call = _STANDINS.get(func._schema.name, lambda f: f)(func)
    result = call(*args, **kwargs)
    if Graph.capturing is not None:
        _keep(Graph.capturing, call, args, kwargs, result)
    return tree_map_only(Tensor, lambda t: known[id(t)] if id(t) in known else OnGpu(t), result)


def _as_on_gpu(func: Any) -> Callable[..., Any]:
    """An op of memory attention or fusion whose form on the CPU takes float32 where that on a GPU takes 16 bits, too.

    The op's fake says of which sizes and dtypes its results are.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        fake = func(*tree_map_only(Tensor, lambda t: t.to("meta"), args), **kwargs)
        halves = (torch.float16, torch.bfloat16)
        wide = tree_map_only(Tensor, lambda t: t.float() if t.dtype in halves else t, args)
        wide = tree_map_only(torch.dtype, lambda dtype: torch.float32 if dtype in halves else dtype, wide)
        result = func(*wide, **kwargs)
        pairs = list(zip(tree_leaves(fake), tree_leaves(result), strict=True))
        assert all(now.shape == meta.shape for meta, now in pairs), func
        made = tuple(now.to(meta.dtype) for meta, now in pairs)
        return made if isinstance(result, tuple) else made[0]

    return call


def _flash_forward(func: Any) -> Callable[..., Any]:
    """aten's flash attention: [B, T, H, D], and a window."""

    def call(q: Tensor, k: Tensor, v: Tensor, *rest: Any, scale: float, **kwargs: Any) -> Any:
        left, right = kwargs["window_size_left"], kwargs["window_size_right"]
        rows = [x.transpose(1, 2) for x in (q, k, v)]
        options = (None, None, None, None, left, right, 1, False, scale, 0.0, 0)
        out, lse = _OPS.sliding_window_attention_fwd(*rows, *options, True)
        nothing = q.new_empty(0, dtype=torch.int64)
        return out.transpose(1, 2), lse, nothing, nothing, q.new_empty(0)

    return call


def _flash_backward(func: Any) -> Callable[..., Any]:
    def call(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any, scale: float, **kwargs: Any) -> Any:
        left, right = kwargs["window_size_left"], kwargs["window_size_right"]
        rows = [x.transpose(1, 2) for x in (dout, q, k, v)]
        options = (None, None, None, None, None, None, None, left, right, 1, False, scale, 0.0, 0)
        dq, dk, dv, *_ = _OPS.sliding_window_attention_bwd(*rows, *options)
        shared = (x.unflatten(1, (k.shape[2], -1)).sum(2) for x in (dk, dv))
        return tuple(x.transpose(1, 2) for x in (dq, *shared))

    return call


_MEMORY = (
    "weights_fwd",
    "weights_bwd",
    "flash_fwd",
    "flash_bwd",
    "join_fwd",
    "topk",
    "gather",
    "gather_dot",
    "scatter",
)
_STANDINS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    **{f"vtsum_kernels::memory_{name}": _as_on_gpu for name in _MEMORY},
    "vtsum_kernels::sliding_window_attention_form": lambda func: lambda *args: "pretended kernels",
    "aten::_flash_attention_forward": _flash_forward,
    "aten::_flash_attention_backward": _flash_backward,
}


class _Move(torch.autograd.Function):
    """A copy on the other device."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.inner.clone() if isinstance(x, OnGpu) else OnGpu(x.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Move.apply(gradient)


def _patched_to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Tensor.to, which moves between the devices first."""
    device, rest, named = kwargs.get("device"), list(args), {k: v for k, v in kwargs.items() if k != "device"}
    if rest and isinstance(rest[0], Tensor):
        device, rest = rest[0].device, [rest[0].dtype, *rest[1:]]
    elif rest and isinstance(rest[0], (str, torch.device, int)):
        device, rest = rest[0], rest[1:]
    elif rest and rest[0] is None:
        rest = rest[1:]
    if rest and rest[0] is None:  # no dtype, as modules say it
        rest = [self.dtype, *rest[1:]]
    if device is not None and torch.device(device).type not in (self.device.type, "meta"):
        _refuse_in_capture()
        self = _Move.apply(self)
    elif device is not None and torch.device(device).type == "meta":
        return _to(self, *args, **kwargs)
    return _to(self, *rest, **named) if rest or named else self


def _patched_tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    if device is None:
        modes = reversed(_get_current_function_mode_stack())
        device = next((mode.device for mode in modes if isinstance(mode, DeviceContext)), "cpu")
    made = _tensor(data, dtype=dtype, device="cpu").to(device)
    return made.requires_grad_() if requires_grad else made


def _patched_as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    if isinstance(data, Tensor):
        return data.to(device or data.device, dtype or data.dtype)
    return _patched_tensor(data, dtype=dtype, device=device)


def _patched_tolist(self: Tensor) -> Any:
    if isinstance(self, OnGpu):
        _refuse_in_capture()
        return _tolist(self.inner)
    return _tolist(self)


class _AsItIs(contextlib.nullcontext[None], contextlib.ContextDecorator):
    """In place of torch.inference_mode(False); inference mode's tensors can wrap none, so gradients alone are off."""


class _Stream:
    """In place of torch.cuda.Stream."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.cuda_stream = id(self)

    def wait_stream(self, other: _Stream) -> None:
        assert isinstance(other, _Stream)

    def synchronize(self) -> None:
        _refuse_in_capture()


def _start(kernel: Any, grid: Any, arguments: dict[str, Any], config: Any) -> None:
    """As the launchers' own, of the numbers themselves."""
    from vtsum_kernels.triton_kit import launch

    plain = {name: x.inner if isinstance(x, OnGpu) else x for name, x in arguments.items()}
    kernel[grid](**plain, **launch.options(config))


def install() -> None:
    """From here on this process believes in a GPU; its tensors can be made inside `pretending`."""
    from vtsum_kernels import library
    from vtsum_kernels.triton_kit import launch

    standard = _Stream()
    cuda: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "synchronize": lambda device=None: _refuse_in_capture(),
        "get_device_name": lambda device=None: "pretended",
        "get_device_properties": lambda device=None: types.SimpleNamespace(L2_cache_size=50 << 20),
        "get_device_capability": lambda device=None: (9, 0),
        "is_bf16_supported": lambda *_: True,
        "is_current_stream_capturing": lambda: Graph.capturing is not None,
        "device": lambda device: contextlib.nullcontext(),
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device=None: standard,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (1 << 32, 1 << 32),
        "_sleep": lambda cycles: None,
        "Stream": _Stream,
        "CUDAGraph": Graph,
        "graph": _graph,
    }
    for name, value in cuda.items():
        setattr(torch.cuda, name, value)
    Tensor.to = _patched_to  # type: ignore[method-assign]
    Tensor.cpu = lambda self: _patched_to(self, "cpu")  # type: ignore[method-assign,misc]
    Tensor.cuda = lambda self: _patched_to(self, "cuda")  # type: ignore[method-assign,misc]
    Tensor.tolist = _patched_tolist  # type: ignore[method-assign]
    Tensor.data_ptr = lambda self: _data_ptr(self.inner if isinstance(self, OnGpu) else self)  # type: ignore[method-assign]
    torch.tensor = _patched_tensor  # type: ignore[assignment]
    torch.as_tensor = _patched_as_tensor  # type: ignore[assignment]
    # It asks what its input's device is below Python, where that is the CPU.
    one_hot = torch.nn.functional.one_hot
    torch.nn.functional.one_hot = lambda x, n=-1: one_hot(x.cpu(), n).to(x.device)
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # no tensor becomes one of another kind
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else _AsItIs()  # type: ignore[misc,assignment]
    library._refused["_cuda"] = None
    launch.start = _start


def pretending() -> contextlib.AbstractContextManager[Any]:
    """Tensors made on cuda inside are those of the pretended GPU, where that is wanted; for one thread."""
    return _Mode() if PRETENDED else contextlib.nullcontext()
