"""The op's backends: which calls each can serve, and how it is called."""

from __future__ import annotations

from typing import Any

import torch

from .. import dispatch
from ..tensors import MAX_STEP, acc_dtype
from . import cpu as _cpu  # noqa: F401  (registers the dense ops on the CPU)
from . import plan
from . import search as _search  # noqa: F401  (registers memory_topk on the CPU)
from .call import Call, usable
from .read import read, ready_keys
from .reference import dropout_keep, memory_attention_reference

#: Suffix of the names of the registered ops by which a backend is called.
SUFFIX = {"cpp": "", "cuda": "", "triton": "_triton"}


#: VTS_MEMORY_TOPK_MOST: what a block of CUDA threads sorts.
TOP_K_MOST_CUDA = 1024
#: A grid's, of one row or slot each and more.
MAX_PROGRAMS_TRITON = 2**31 - 1


def _too_many_choices(call: Any) -> str | None:
    """Scatter, which usage and the backward pass need, counts the choices of a head in 32 bits."""
    rows, top_k = call.x.shape[1], call.options.top_k
    if top_k is None or torch.compiler.is_exporting() or rows * top_k < 2**31:  # exported, it says so when it is run
        return None
    return f"rows that share a bank times top_k must be less than 2^31, got {rows} * {top_k}"


def _cpp_can_run(call: Any) -> str | None:
    return dispatch.cpp_can_run(call.x) or _too_many_choices(call)


def _cuda_can_run(call: Any) -> str | None:
    reason, top_k = dispatch.cuda_can_run(call.x) or _too_many_choices(call), call.options.top_k
    if reason is not None or top_k is None:
        return reason
    keys = call.bank.keys if isinstance(call.bank.keys, tuple) else (call.bank.keys,)
    most = max(min(top_k, half.shape[2]) for half in keys)  # of product keys either half is searched for its k best
    return f"top_k must be at most {TOP_K_MOST_CUDA}, got {most}" if most > TOP_K_MOST_CUDA else None


def _triton_can_run(call: Any) -> str | None:
    reason = dispatch.triton_can_run(call.x)
    if reason is None and call.options.top_k is not None:
        return "it has no form of the ops that top_k needs"
    return reason or _beyond_triton(call)


def _beyond_triton(call: Any) -> str | None:
    """Which size of a call is more than Triton's kernels count in 32 bits: a grid's programs, a tile's offsets."""
    bank, (groups, rows) = call.bank, call.x.shape[:2]
    heads, slots, value_dim = bank.values.shape[1:]
    if torch.compiler.is_exporting():
        return None
    programs = groups * heads * max(rows, slots)
    if programs > MAX_PROGRAMS_TRITON:
        return f"B * H * max(T, S) must be at most {MAX_PROGRAMS_TRITON}, got {programs}"
    widths = [call.x.shape[-1], heads * bank.key_dim, heads * value_dim]
    if call.options.dropout_p > 0 or max(bank.key_dim, value_dim) > plan.FLASH_DIM_GPU:
        widths.append(heads * slots)  # weights are kept
    if isinstance(weight := getattr(call, "weight", None), torch.Tensor):
        widths.append(weight.shape[0])
    return f"rows must be of less than {MAX_STEP} numbers, got {max(widths)}" if max(widths) >= MAX_STEP else None


#: Those of `memory_fuse` too, whose call has the same x, bank and options.
BACKENDS: dict[str, dispatch.Predicate] = {
    "cpp": _cpp_can_run,
    "cuda": _cuda_can_run,
    "triton": _triton_can_run,
    "reference": lambda call: None,
}


def preferred(call: Call) -> str | None:
    """Flash attention over many slots is Triton's: the compiled library's stores the scores of a block of rows."""
    return prefers_triton(call, call.bank.key_dim, call.bank.values.shape[3])


def prefers_triton(call: Any, key_dim: int, value_dim: int) -> str | None:
    """The same of `memory_fuse` too, whose rows are compared with keys and read values of these widths."""
    (groups, rows), (heads, slots), options = call.x.shape[:2], call.bank.values.shape[1:3], call.options
    if options.top_k is not None or options.dropout_p > 0 or _cuda_can_run(call) is not None:
        return None
    fused = plan.fuses(call.x.dtype, groups * rows, heads, slots, max(key_dim, value_dim))
    return "triton" if fused and _triton_can_run(call) is None else None


def holds(backend: str, call: Any) -> str:
    """What a backend holds beside inputs and results, in words; of `memory_fuse` too."""
    bank, options, item = call.bank, call.options, acc_dtype(call.x.dtype).itemsize
    heads, slots = bank.values.shape[1:3]
    rows = call.x.shape[0] * call.x.shape[1]
    all_scores = rows * heads * slots * item
    if backend == "reference":
        return f"holds {dispatch.amount(all_scores)} of scores, several times"
    if options.top_k is not None:
        # Of product keys, the pairs of their halves' best: k log k, in 64 bits.
        pairs = options.top_k.bit_length() * 4 if isinstance(bank.keys, tuple) else 1
        return f"holds {dispatch.amount(rows * heads * options.top_k * pairs * (item + 4))} of scores and slots"
    widest = max(bank.key_dim, bank.values.shape[3])
    kept = plan.keeps_weights(call.x.device, rows, heads, slots, widest, item, torch.is_grad_enabled())
    if kept or options.dropout_p > 0:
        return f"holds {dispatch.amount(all_scores)} of weights"
    if backend == "triton":
        return "holds no weights"
    if backend == "cpp":
        block = heads * slots * item * min(plan.block_rows(slots), call.x.shape[1])
    else:  # and of as many in the dtype of x
        together = call.x.shape[0] * heads * slots
        block = together * (item + call.x.dtype.itemsize) * min(plan.block_rows_cuda(together), call.x.shape[1])
    return f"holds {dispatch.amount(block)} of weights at a time"


def run(backend: str, call: Call) -> Any:
    """The call by a backend: out, with lse and usage where they are wanted."""
    x, bank, options = call.x, usable(call.bank), call.options
    groups, rows, heads, _ = x.shape
    if backend == "reference":
        out, lse, usage = memory_attention_reference(
            x,
            bank.keys,
            bank.values,
            scale=options.scale,
            normalize=options.normalize,
            slot_bias=bank.slot_bias,
            query_mask=options.query_mask,
            top_k=options.top_k,
            keep=dropout_keep(x, (groups, heads, rows, bank.slots), options.dropout_p),
        )
    else:
        bank = bank._replace(keys=ready_keys(bank.keys, options.normalize))
        out, lse, usage = read(x, bank, options, SUFFIX[backend], call.return_usage)
    results = [out.reshape(*call.leading, heads * out.shape[3])]
    if call.return_lse:
        results.append(lse if bank.batched else lse[0].reshape(heads, *call.leading).movedim(0, -2))
    if call.return_usage:
        results.append(usage if bank.batched else usage[0])
    return results[0] if len(results) == 1 else tuple(results)
