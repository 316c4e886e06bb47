"""Where networks run: one word for it in every command."""

from __future__ import annotations

from vtsum.errors import VTSumError


def device_of(wanted: str, what: str, rank: int = 0) -> str:
    """What PyTorch calls the device that is meant.

    Args:
        wanted: "auto", a GPU where PyTorch sees one, else the CPU; "cpu", "cuda", "cuda:1", ...
        what: begins the message of an error. rank: of this process on its machine; "auto" deals GPUs out by it.
    Raises:
        VTSumError: PyTorch cannot use it here.
    """
    import torch

    if wanted == "auto":
        return f"cuda:{rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise VTSumError(f"{what}: device must be one that PyTorch can use here, got {wanted!r}: {reason}") from None
    return wanted
