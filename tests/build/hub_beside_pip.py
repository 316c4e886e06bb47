"""A program: imports a build for the hub, as the hub's loader does, beside pip's package, and compares the two.

python -m tests.build.hub_beside_pip FOLDER
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
import vtsum_kernels as pip
from torch import Tensor
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode


def imported(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(folder.name, folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[folder.name] = module
    spec.loader.exec_module(module)
    return module


def namespaces(run: profile) -> set[str]:
    """Those of our operators that ran, also within others; autograd's steps have the operators' names in theirs."""
    names = {event.name.partition("::")[0] for event in run.events() if "::" in event.name}
    return {name for name in names if "vtsum" in name}


def window(kernels: ModuleType, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> list[Tensor]:
    return list(
        kernels.sliding_window_attention(q, k, v, (4, 2), dilation=2, bias=bias, return_lse=True, backend="cpp")
    )


def read(kernels: ModuleType, x: Tensor, keys: Tensor, values: Tensor) -> list[Tensor]:
    whole = kernels.memory_attention(x, keys, values, num_heads=2, normalize=True, return_usage=True, backend="cpp")
    return [*whole, kernels.memory_attention(x, keys, values, num_heads=2, top_k=5, backend="cpp")]


def fuse(kernels: ModuleType, x: Tensor, bank: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    return [kernels.memory_fuse(x, bank, None, weight, bias, normalize=True, backend="cpp")]


CASES: dict[Callable[..., list[Tensor]], list[tuple[int, ...]]] = {
    window: [(2, 3, 70, 32), (2, 3, 70, 32), (2, 3, 70, 32), (3, 7)],
    read: [(2, 70, 32), (2, 200, 16), (2, 200, 12)],
    fuse: [(2, 70, 32), (200, 32), (24, 64), (24,)],
}


def with_gradients(op: Callable[..., list[Tensor]], kernels: ModuleType, tensors: list[Tensor]) -> list[Tensor]:
    results = op(kernels, *tensors)
    total = torch.stack([result.double().sin().sum() for result in results]).sum()
    return [*results, *torch.autograd.grad(total, tensors)]


def same(one: list[Tensor], other: list[Tensor]) -> None:
    """But for some roundings of the largest number: the two are not compiled with the same optimisations."""
    for x, y in zip(one, other, strict=True):
        torch.testing.assert_close(x, y, atol=2e-6 * float(y.detach().abs().max()), rtol=1e-5)


def main(folder: Path) -> None:
    hub = imported(folder)
    libraries = hub.build_info()["libraries"]
    assert libraries["_cpu"] == {"loaded": True, "reason": None}, libraries
    assert libraries["_cuda"] == {"loaded": False, "reason": "this build from the hub has no kernels for CUDA"}
    assert hub.build_info()["cpu_level"] == pip.build_info()["cpu_level"]
    for op, shapes in CASES.items():
        torch.manual_seed(0)
        tensors = [torch.randn(shape, requires_grad=True) for shape in shapes]
        found, counted = {}, {}
        for kernels in (hub, pip):
            with profile() as run, FlopCounterMode(display=False) as counter:
                found[kernels] = with_gradients(op, kernels, tensors)
            assert namespaces(run) == {kernels.library.NAMESPACE}, (kernels, namespaces(run))
            counted[kernels] = counter.get_total_flops()
        same(found[hub], found[pip])
        assert counted[hub] == counted[pip] > 0
        whole = torch.compile(lambda *given, op=op: op(hub, *given), fullgraph=True, backend="aot_eager")
        same(with_gradients(lambda _, *given, whole=whole: whole(*given), hub, tensors), found[hub])
    q = torch.randn(4, 2, 3, 20, 16)
    mapped = [
        torch.vmap(lambda x, kernels=kernels: kernels.sliding_window_attention(x, x, x, 5, backend="cpp"))(q)
        for kernels in (hub, pip)
    ]
    same(mapped[:1], mapped[1:])
    print(hub.library.NAMESPACE, pip.library.NAMESPACE, libraries["_cpu"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
