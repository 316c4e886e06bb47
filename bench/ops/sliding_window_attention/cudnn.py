"""cuDNN's attention with a window on both sides, through its Python frontend: a rival on NVIDIA's GPUs.

Source: the frontend's documentation of `sdpa` (docs/operations/Attention.md). Its left bound counts the row itself, its
right bound does not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.kit.comparison import Absent
from bench.ops.sliding_window_attention.setting import Setting


def graphs(cudnn: Any, setting: Setting, handle: Any, q: Tensor) -> tuple[Any, list[Any], Any, list[Any]]:
    """The graph of the forward pass and its tensors (q, k, v, out, and, where autograd records, statistics); the
    backward's, (q, k, v, out, dout, statistics, dq, dk, dv). Not yet built for a GPU."""
    kind = {"float16": cudnn.data_type.HALF, "bfloat16": cudnn.data_type.BFLOAT16}[setting.dtype]
    single = cudnn.data_type.FLOAT
    shape, strides = list(q.shape), list(q.stride())
    batch, heads, frames, _ = shape
    reach = setting.window // 2
    options = {
        "attn_scale": setting.dim**-0.5,
        "diagonal_band_left_bound": reach + 1,
        "diagonal_band_right_bound": reach,
    }

    def graph() -> Any:
        types = {"io_data_type": kind, "intermediate_data_type": single, "compute_data_type": single}
        return cudnn.pygraph(handle=handle, **types)

    def tensors(of: Any, count: int) -> list[Any]:
        return [of.tensor(dim=shape, stride=strides, data_type=kind) for _ in range(count)]

    forward, backward = graph(), graph()
    q_, k_, v_ = tensors(forward, 3)
    recorded = setting.direction != "fwd"
    out, statistics = forward.sdpa(name="sdpa", q=q_, k=k_, v=v_, generate_stats=recorded, **options)
    out.set_output(True).set_dim(shape).set_stride(strides)
    ends = [q_, k_, v_, out]
    if recorded:
        ends.append(statistics.set_output(True).set_data_type(single))
    inputs = tensors(backward, 5)
    size = {"dim": [batch, heads, frames, 1], "stride": [heads * frames, frames, 1, 1], "data_type": single}
    read = backward.tensor(**size)
    names = dict(zip(("q", "k", "v", "o", "dO"), inputs, strict=True))
    gradients = list(backward.sdpa_backward(name="sdpa_backward", stats=read, **names, **options))
    for gradient in gradients:
        gradient.set_output(True).set_dim(shape).set_stride(strides)
    return forward, ends, backward, [*inputs, read, *gradients]


def cudnn_window(setting: Setting) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    if importlib.util.find_spec("cudnn") is None:
        raise Absent("not installed; pip install nvidia-cudnn-frontend")
    if setting.dtype not in ("float16", "bfloat16"):
        raise NotImplementedError("it takes float16 and bfloat16")
    import cudnn

    handle = cudnn.create_handle()
    sizes = (setting.batch, setting.heads, setting.frames, setting.dim)
    like = torch.empty(sizes, dtype=getattr(torch, setting.dtype), device=setting.device)
    if setting.layout == "bthd":
        like = like.transpose(1, 2).contiguous().transpose(1, 2)
    forward, ends, backward, back_ends = graphs(cudnn, setting, handle, like)
    build(cudnn, forward)
    run_forward = runner(cudnn, forward, ends, handle, setting.device)
    run_backward: Callable[[Sequence[Tensor]], None] | None = None
    if setting.gradients:
        build(cudnn, backward)
        run_backward = runner(cudnn, backward, back_ends, handle, setting.device)

    class Attend(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = torch.empty_like(q)
            statistics = torch.empty(*q.shape[:3], 1, dtype=torch.float32, device=q.device)
            run_forward((q, k, v, out, statistics)[: len(ends)])
            ctx.save_for_backward(q, k, v, out, statistics)
            return out

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v, out, statistics = ctx.saved_tensors
            if run_backward is None:
                raise NotImplementedError("it was built for the forward pass")
            made = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
            run_backward((q, k, v, out, grads[0], statistics, *made))
            return made

    return lambda q, k, v: Attend.apply(q, k, v)


def build(cudnn: Any, graph: Any) -> None:
    """Chooses and compiles a plan for the GPU."""
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    graph.check_support()
    graph.build_plans()


def runner(cudnn: Any, graph: Any, ends: Sequence[Any], handle: Any, device: str) -> Callable[[Sequence[Tensor]], None]:
    """A function that runs a built graph on tensors, one for each of its ends, on the current stream."""
    workspace = torch.empty(max(int(graph.get_workspace_size()), 1), dtype=torch.uint8, device=device)

    def run(tensors: Sequence[Tensor]) -> None:
        cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream().cuda_stream)
        graph.execute(dict(zip(ends, tensors, strict=True)), workspace, handle=handle)

    return run
