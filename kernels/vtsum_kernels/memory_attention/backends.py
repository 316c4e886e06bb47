"""The op's backends: which calls each can serve, and how it is called."""

from __future__ import annotations

from typing import Any

import torch

from .. import dispatch
from . import cpu as _cpu  # noqa: F401  (registers the dense ops on the CPU)
from . import search as _search  # noqa: F401  (registers memory_topk on the CPU)
from .call import Call
from .read import read, ready_keys
from .reference import dropout_keep, memory_attention_reference

#: Suffix of the names of the registered ops by which a backend is called.
SUFFIX = {"cpp": "", "cuda": "", "triton": "_triton"}


#: VTS_MEMORY_TOPK_MOST: what a block of CUDA threads sorts.
TOP_K_MOST_CUDA = 1024


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
    return "it has no form of the ops that top_k needs" if reason is None and call.options.top_k is not None else reason


#: Those of `memory_fuse` too, whose call has the same x, bank and options.
BACKENDS: dict[str, dispatch.Predicate] = {
    "cpp": _cpp_can_run,
    "cuda": _cuda_can_run,
    "triton": _triton_can_run,
    "reference": lambda call: None,
}


def run(backend: str, call: Call) -> Any:
    """The call by a backend: out, with lse and usage where they are wanted."""
    x, bank, options = call.x, call.bank, call.options
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
