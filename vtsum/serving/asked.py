"""What the page asks for, as words of a command; every value is checked, and none can be taken for an option."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtsum.enhance.summary_refinement import parse_budget
from vtsum.errors import VTSumError
from vtsum.summary.by_hand import parse_ranges

_PROGRESS = ("--progress", "json")


def summarize_words(video: Path, output: Path, asked: Mapping[str, Any]) -> list[str]:
    """`vtsum summarize`.

    Args:
        asked: "budget"; "speech" and "ocr", false for neither.
    Raises:
        VTSumError: a value that cannot be.
    """
    words = ["summarize", f"--output={_plain(output)}", f"--budget={_budget(asked)}", *_PROGRESS]
    for name in ("speech", "ocr"):
        if asked.get(name) is False:
            words.append(f"--no-{name}")
    return [*words, "--", str(video)]


def recut_words(folder: Path, video: Path, output: Path, asked: Mapping[str, Any]) -> list[str]:
    """`vtsum recut`.

    Args:
        asked: "budget"; "keep" and "drop", lists of [start, end] in seconds.
    Raises:
        VTSumError: a value that cannot be.
    """
    words = ["recut", f"--output={_plain(output)}", f"--video={video}", f"--budget={_budget(asked)}", *_PROGRESS]
    for name in ("keep", "drop"):
        given = asked.get(name) or []
        if not isinstance(given, list) or not all(map(_is_pair, given)):
            raise VTSumError(f"serve: {name} must be a list of pairs of seconds, got {given!r:.60}")
        ranges = parse_ranges([(a, b) for a, b in given], f"serve: {name}")
        # Nothing stays as it was before: what is not named now is neither kept nor dropped.
        words.append(f"--{name}=" + ",".join(f"{start:.3f}-{end:.3f}" for start, end in ranges))
    return [*words, "--", str(folder)]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(number) in (int, float) for number in value)


def _plain(output: Path) -> str:
    """A path in which braces stand for themselves."""
    return str(output).replace("{", "{{").replace("}", "}}")


def _budget(asked: Mapping[str, Any]) -> str:
    return parse_budget(asked.get("budget", "15%")).text
