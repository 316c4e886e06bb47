"""Recognisers of speech behind one interface, by name."""

from __future__ import annotations

from vtsum import plugins
from vtsum.enhance.speech.recognisers.base import is_understood
from vtsum.errors import VTSumError
from vtsum.protocols import Recogniser
from vtsum.reuse import reused

NAMES = ("auto", "carried", "whisper:NAME_OR_FOLDER", "faster-whisper:NAME_OR_FOLDER", "module:Class")

__all__ = ["NAMES", "Recogniser", "is_understood", "make_recogniser"]


@reused
def make_recogniser(name: str, device: str = "auto") -> Recogniser:
    """The recogniser of that name, loaded as far as it must be to know that it can be had.

    Args:
        name (str): "auto" (the best Whisper that is at hand without a download: `at_hand`), "carried" (the one that
            `vtsum[speech]` brings, whatever else is at hand), "whisper:NAME_OR_FOLDER" (a checkpoint of
            transformers), "faster-whisper:NAME_OR_FOLDER" (one converted for CTranslate2), or one of
            the user's own (`vtsum.plugins`).
        device (str): "auto", a GPU where there is one that can be used, but for "carried", which is then on the CPU;
            "cpu", "cuda", "cuda:1", ... The user's own knows by itself.
    Raises:
        VTSumError: another name, a package that is not installed, a checkpoint that cannot be had, or a device that
            cannot be used; "auto" and "carried" then listen on the CPU.
    """
    kind, _, source = name.partition(":")
    if name == "auto":
        from vtsum.enhance.speech.recognisers.at_hand import best_at_hand

        return best_at_hand(device)
    if name == "carried":
        from vtsum.enhance.speech.recognisers.at_hand import carried

        return carried("cpu" if device == "auto" else device)
    if kind == "whisper" and source:
        from vtsum.enhance.speech.recognisers.whisper import Whisper

        return Whisper(source, device=device)
    if kind == "faster-whisper" and source:
        from vtsum.enhance.speech.recognisers.faster_whisper import FasterWhisper

        return FasterWhisper(source, device=device)
    if (own := plugins.find("recogniser", name)) is not None:
        return own
    raise VTSumError(f"make_recogniser: recogniser must be one of {', '.join(NAMES)}, got {name!r}")
