"""Recognisers of speech behind one interface, by name."""

from __future__ import annotations

from vtsum import plugins
from vtsum.enhance.speech.recognisers.base import is_understood
from vtsum.errors import VTSumError
from vtsum.protocols import Recogniser

NAMES = ("auto", "carried", "whisper:NAME_OR_FOLDER", "faster-whisper:NAME_OR_FOLDER", "module:Class")

__all__ = ["NAMES", "Recogniser", "is_understood", "make_recogniser"]


def make_recogniser(name: str) -> Recogniser:
    """The recogniser of that name, loaded as far as it must be to know that it can be had.

    Args:
        name (str): "auto" (the best Whisper that is at hand without a download: `at_hand`), "carried" (the one that
            `vtsum[speech]` brings, on the CPU, whatever else is at hand), "whisper:NAME_OR_FOLDER" (a checkpoint of
            transformers), "faster-whisper:NAME_OR_FOLDER" (one converted for CTranslate2), or one of
            the user's own (`vtsum.plugins`).
    Raises:
        VTSumError: another name, a package that is not installed, or a checkpoint that cannot be had.
    """
    kind, _, source = name.partition(":")
    if name == "auto":
        from vtsum.enhance.speech.recognisers.at_hand import best_at_hand

        return best_at_hand()
    if name == "carried":
        from vtsum.enhance.speech.recognisers.at_hand import carried

        return carried(device="cpu")
    if kind == "whisper" and source:
        from vtsum.enhance.speech.recognisers.whisper import Whisper

        return Whisper(source)
    if kind == "faster-whisper" and source:
        from vtsum.enhance.speech.recognisers.faster_whisper import FasterWhisper

        return FasterWhisper(source)
    if (own := plugins.find("recogniser", name)) is not None:
        return own
    raise VTSumError(f"make_recogniser: recogniser must be one of {', '.join(NAMES)}, got {name!r}")
