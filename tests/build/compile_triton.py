"""Compiles every Triton kernel to a cubin for each architecture, without a GPU, and looks for spilled registers.

The calls are real ones, on the CPU, up to the launch: each kernel is compiled with the types, the constants and the
alignments that the launcher gives it, in the sizes it takes by default.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from vtsum_kernels.sliding_window_attention import triton as sliding
from vtsum_kernels.triton_kit import launch as kit

from tests.build import triton_memory

ARCHITECTURES = (80, 90, 100)
#: Shared memory of a block: GA100, GH100, GB100.
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.int32: "i32",
    torch.int64: "i64",
}


class Case(NamedTuple):
    dtype: torch.dtype
    dim: int
    window: int
    options: bool  # all of them: padding, packed, bias, dropout, shifted, dilated, dlse
    capped: bool = False  # and sinks and a softcap

    def __str__(self) -> str:
        told = f"{TYPES[self.dtype]} D={self.dim} w={self.window}"
        told = f"{told} with options" if self.options else told
        return f"{told} and a softcap" if self.capped else told


CASES = [
    Case(dtype, dim, window, options)
    for dtype in (torch.float32, torch.bfloat16)
    for dim, options in ((64, False), (64, True), (128, False))
    for window in (5, 33, 257)
] + [
    Case(torch.bfloat16, 40, 9, True),
    Case(torch.bfloat16, 128, 33, True),
    Case(torch.float16, 256, 5, False),
    Case(torch.float16, 256, 33, True),
    Case(torch.float32, 256, 257, True),
    Case(torch.float16, 256, 257, True),
    Case(torch.float32, 64, 5, True, True),
    Case(torch.bfloat16, 64, 33, True, True),
    Case(torch.bfloat16, 64, 129, False, True),
    Case(torch.bfloat16, 128, 129, False, True),
    Case(torch.bfloat16, 256, 257, False, True),
    Case(torch.float16, 256, 33, True, True),
    Case(torch.float32, 256, 257, True, True),
]


class Launch(NamedTuple):
    kernel: Any
    arguments: dict[str, Any]
    config: Any


def launches(case: Case | triton_memory.Case) -> list[Launch]:
    """What a forward and backward call launches."""
    made: list[Launch] = []

    def record(kernel: Any, grid: Any, arguments: dict[str, Any], config: Any) -> None:
        made.append(Launch(kernel, arguments, config))

    if isinstance(case, triton_memory.Case):
        triton_memory.calls(case, record)
        return made
    heads, frames = 4, 1024
    qkv = [torch.zeros(1, heads, frames, case.dim, dtype=case.dtype) for _ in range(3)]
    side, shape = case.window // 2, (1, heads, frames)
    mask = torch.ones(1, frames, dtype=torch.bool) if case.options else None
    sequences = torch.tensor([0, frames], dtype=torch.int32) if case.options else None
    bias = torch.zeros(heads, 2 * case.window - 1) if case.options else None
    seed = torch.zeros(1, dtype=torch.int64) if case.options else None
    dlse = torch.zeros(shape) if case.options else None
    variants = (torch.zeros(heads), 30.0) if case.capped else (None, 0.0)
    inputs = (*qkv, mask, sequences, bias, seed)
    options = (side, side, 2 if case.options else 1, case.options, 0.1, 0.2 if case.options else 0.0, 7)

    with mock.patch.object(kit, "start", record):
        sliding.forward(*inputs, *options, True, *variants)
        sliding.backward(qkv[0], *inputs, dlse, qkv[0], torch.zeros(shape), *options, *variants)
    return made


def source(kernel: Any, arguments: dict[str, Any]) -> ASTSource:
    """A kernel specialised on its arguments, as a call on a GPU would."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for position, parameter in enumerate(kernel.params):
        name, plain = parameter.name, parameter.do_not_specialize
        value = arguments[name]
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1 and not plain):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = f"*{TYPES[value.dtype]}"
            attributes[(position,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if -(1 << 31) <= value < 1 << 31 else "i64"
            if value % 16 == 0 and not plain:
                attributes[(position,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constants, attributes)


class Usage(NamedTuple):
    registers: int
    stored: int  # bytes that spilled registers take
    loaded: int


def usage(told: str) -> Usage:
    """What the assembler said of a kernel."""
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", told)
    registers = re.search(r"Used (\d+) registers", told)
    if spilled is None or registers is None:
        raise ValueError(f"ptxas said nothing of registers: {told[-500:]}")
    return Usage(int(registers[1]), int(spilled[1]), int(spilled[2]))


def compiled(architecture: int, launch: Launch) -> tuple[Any, Usage]:
    """The kernel in all its forms, down to the cubin, and what it uses."""
    told = io.StringIO()
    with knobs.compilation.scope(), knobs.nvidia.scope(), contextlib.redirect_stdout(told):
        knobs.compilation.always_compile, knobs.nvidia.dump_ptxas_log = True, True
        made = triton.compile(
            source(launch.kernel, launch.arguments),
            target=GPUTarget("cuda", architecture, 32),
            options=kit.options(launch.config),
        )
    return made, usage(told.getvalue())


def compile_for(architecture: int, launch: Launch) -> tuple[str | None, str]:
    """What went wrong (None: nothing), and what the kernel uses."""
    try:
        made, used = compiled(architecture, launch)
    except Exception as error:  # the compiler fails in many ways; each is a finding
        return f"{type(error).__name__}: {str(error)[-1500:]}", ""
    shared = made.metadata.shared
    detail = f"{used.registers} registers, {shared} bytes shared"
    if used.stored or used.loaded:
        return f"{used.stored} bytes of spill stores, {used.loaded} of loads, {detail}", detail
    return (f"too much shared memory: {detail}" if shared > SHARED_MEMORY[architecture] else None), detail


def compile_all(
    cases: Sequence[Case | triton_memory.Case] = (*CASES, *triton_memory.CASES),
    architectures: tuple[int, ...] = ARCHITECTURES,
) -> Iterator[tuple[str, str | None, str]]:
    """For each case and architecture: its name, what went wrong (None: nothing), and what its kernels use."""
    for case in cases:
        made = launches(case)
        for architecture in architectures:
            problems, details = [], []
            for launch in made:
                problem, detail = compile_for(architecture, launch)
                form = launch.kernel.__name__.removesuffix("_kernel")
                form = form.removeprefix("sliding_window_attention_").removeprefix("memory_")
                details.append(f"{form} {detail}")
                if problem is not None:
                    problems.append(f"  {form} {launch.config}: {problem}")
            yield f"triton {case} sm_{architecture}", "\n".join(problems) or None, "; ".join(details)
