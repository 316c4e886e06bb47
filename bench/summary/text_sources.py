"""What each source of words gives a summary's text: everything on, speech off, the screen off, both off.

    python -m bench.summary.text_sources [--shared DIR]

The film that comes along and, with DIR, the clips in its media/: sentences of the text by their origin, and where the
title is from. Nobody describes the pictures (there is no captioner at hand). One JSON line for each file and variant
goes to results/text_sources.jsonl.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.kit.command import keep, parser
from bench.kit.record import ROOT, machine

FILM = ROOT / "vtsum" / "assets" / "film.mp4"
CLIPS = (
    "big_buck_bunny_0_30.webm",
    "chaplin.mp4",
    "flipping_a_pancake.mkv",
    "nasa_13013.mp4",
    "skateboarding_dog.mp4",
    "speech_and_silence.mp4",
)
VARIANTS: dict[str, dict[str, Any]] = {
    "everything on": {},
    "speech off": {"speech": None},
    "screen off": {"ocr": False},
    "both off": {"speech": None, "ocr": False},
}


def measure(files: list[Path]) -> Iterator[dict[str, Any]]:
    """One record for each file and variant."""
    from vtsum import summarize

    for path in files:
        for variant, options in VARIANTS.items():
            with tempfile.TemporaryDirectory() as folder:
                made = summarize(path, Path(folder) / "o", formats=["json"], offline_default=True, **options)
            origins = Counter(sentence["origin"] for sentence in made.data["text"])
            yield {"file": path.name, "variant": variant, "title": made.data["title"]["origin"], "origins": origins}


def main() -> None:
    given = parser(__doc__, "text_sources", shared=None)
    options = given.parse_args()
    clips = [] if options.shared is None else [options.shared / "media" / name for name in CLIPS]
    keep(options.results, machine(("faster-whisper", "rapidocr", "numpy")), measure([FILM, *clips]))


if __name__ == "__main__":
    main()
