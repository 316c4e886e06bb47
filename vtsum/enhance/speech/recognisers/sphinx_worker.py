"""The process that runs PocketSphinx: sound in on standard input, words out on standard output.

It is started by its path and imports nothing of VTSum, so that it starts quickly, and so that an abort inside the C
library ends it and not the job. Each request is the number of samples (uint32, little-endian) and as many int16 samples
at 16 kHz; each answer is one line of JSON: {"words": [[text, first frame, last frame, posterior]], "alternatives":
[[text, ...]]}, a frame being 10 ms. The first line, {"ready": ...} or {"error": ...}, says whether the models loaded.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from typing import Any, BinaryIO

_NO_WORD = re.compile(r"[<\[+]")  # <s>, <sil>, [NOISE], ++BREATH++
_VARIANT = re.compile(r"\(\d+\)$")  # a second pronunciation: "the(2)"


def recognise(decoder: Any, sound: bytes, readings: int) -> dict[str, Any]:
    """One stretch's words, and up to `readings` other readings."""
    decoder.start_utt()
    decoder.process_raw(sound, full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return {"words": [], "alternatives": []}
    words = [
        [_VARIANT.sub("", part.word), part.start_frame, part.end_frame, part.prob]
        for part in decoder.seg()
        if not _NO_WORD.match(part.word)
    ]
    said = [word[0] for word in words]
    alternatives: list[list[str]] = []
    for tried, found in enumerate(decoder.nbest() if readings and words else ()):
        if found is None or len(alternatives) == readings or tried == 4 * readings:
            break  # many differ in fillers and pronunciations alone
        other = [_VARIANT.sub("", word) for word in found.hypstr.split() if not _NO_WORD.match(word)]
        if other and other != said and other not in alternatives:
            alternatives.append(other)
    return {"words": words, "alternatives": alternatives}


def _read(source: BinaryIO, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = source.read(count - len(data))
        if not piece:
            return b""
        data += piece
    return data


def _answer(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> int:
    settings = json.loads(sys.argv[1])
    readings = settings.pop("readings")
    try:
        from pocketsphinx import Decoder

        decoder = Decoder(loglevel="FATAL", **settings)
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        _answer({"error": f"{type(error).__name__}: {error}"})
        return 1
    _answer({"ready": True})
    while len(head := _read(sys.stdin.buffer, 4)) == 4:
        (count,) = struct.unpack("<I", head)
        sound = _read(sys.stdin.buffer, 2 * count)
        if len(sound) != 2 * count:
            return 0
        _answer(recognise(decoder, sound, readings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
