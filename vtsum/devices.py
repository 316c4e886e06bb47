"""Where networks run: one word for it in every command, and what is said where it has too little memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from vtsum.errors import VTSumError

# Of CUDA itself, and of its libraries where they find no room for themselves.
_FULL = re.compile(
    r"CUDA.*out of memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED|cu(BLAS|DNN) failed with status .*ALLOC_FAIL"
)


def device_of(wanted: str, what: str, rank: int = 0) -> str:
    """What PyTorch calls the device that is meant.

    Args:
        wanted: "auto", a GPU where PyTorch can use one, else the CPU; "cpu", "cuda", "cuda:1", ...
        what: begins the message of an error. rank: of this process on its machine; "auto" deals GPUs out by it.
    Raises:
        VTSumError: PyTorch cannot use it here.
    """
    import torch

    if wanted == "auto":
        if not torch.cuda.is_available():
            return "cpu"
        device = f"cuda:{rank % torch.cuda.device_count()}"
        return "cpu" if _unusable(device) else device
    if reason := _unusable(wanted):
        raise VTSumError(f"{what}: device must be one that PyTorch can use here, got {wanted!r}: {reason}")
    return wanted


def gpu_left_unused() -> str | None:
    """Why "auto" takes the CPU on a machine whose GPU PyTorch sees; None where it sees none, or takes it."""
    import torch

    return _unusable("cuda:0") if torch.cuda.is_available() else None


def _unusable(device: str) -> str | None:
    """Why PyTorch cannot compute there; a GPU that is seen may be too old for it, or full."""
    import torch

    try:
        (torch.ones(1, device=device) + 1).item()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0]
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's memory was too small; of PyTorch or CTranslate2."""
    return isinstance(error, RuntimeError) and _FULL.search(str(error)) is not None


@contextlib.contextmanager
def memory_told(what: str, remedy: str, kind: type[VTSumError] = VTSumError) -> Iterator[None]:
    """One line in place of a GPU's "out of memory".

    Args:
        what: begins the message. remedy: besides closing other programs and --device cpu, what helps.
        kind: what is raised.
    Raises:
        VTSumError: the GPU's memory was too small for what was done meanwhile.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        full = str(error).strip().splitlines()[0]
        raise kind(
            f"{what}: the GPU's memory must be large enough, got: {full} Close what else uses the GPU, {remedy}, or "
            "use --device cpu"
        ) from None
