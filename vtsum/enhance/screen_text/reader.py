"""Reading one picture: PP-OCR's detection and recognition, by RapidOCR, from the files that its wheel carries."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vtsum.errors import VTSumError
from vtsum.reuse import reused

DETECTS_AT = 736  # pixels of the longer side at which letters are looked for; they are read at full size
NAME = "PP-OCRv6 small"
_GET_IT = "pip install 'vtsum[ocr]'"
# The models know Greek letters as signs of formulas, without accents: a word is never whole, and alike in each reading.
_GREEK = re.compile("[\u0370-\u03ff]{2}")
_DETECTION, _RECOGNITION = "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"


@dataclass(frozen=True)
class Reading:
    """A row of letters: its text, how sure the reader is (0..1), and its box (left, top, right, bottom) in pixels."""

    text: str
    score: float
    box: tuple[float, float, float, float]


class RapidReader:
    """Reads Latin letters, Chinese and Japanese, each picture by itself; lines with Greek words are left out.

    Attributes:
        name (str): of the models, with the version of the package that carries them.
    Raises:
        VTSumError: RapidOCR or its models are not installed; it says how to get them.
    """

    def __init__(self) -> None:
        from vtsum.extras import require, version_of

        require("ocr", "words on the screen")
        spec = importlib.util.find_spec("rapidocr")
        self._folder = Path((spec and spec.origin) or "").parent / "models"
        for name in (_DETECTION, _RECOGNITION):
            # RapidOCR itself would download it.
            if not (self._folder / name).is_file():
                raise VTSumError(f"{self._folder / name} must be there, got none: {_GET_IT}")
        self.name = f"{NAME} (rapidocr {version_of('rapidocr')})"

    @cached_property
    def sha256(self) -> dict[str, str]:
        """The hashes of the files of weights, by name."""
        found = {}
        for name in (_DETECTION, _RECOGNITION):
            with (self._folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    @cached_property
    def _engine(self) -> Any:
        return _load(self._folder)

    def read(self, picture: np.ndarray) -> list[Reading]:
        """What is written in a picture, uint8 [H, W, 3] RGB, from top to bottom.

        Raises:
            VTSumError: RapidOCR failed.
        """
        try:
            found = self._engine(np.ascontiguousarray(picture[..., ::-1]))
        except Exception as error:  # OpenCV, ONNX Runtime and RapidOCR have errors of many kinds
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise VTSumError(f"{self.name} failed: {reason[-1]}") from None
        if getattr(found, "boxes", None) is None or not found.txts:
            return []
        readings = []
        for text, score, box in zip(found.txts, found.scores, found.boxes, strict=True):
            (left, top), (right, bottom) = box.min(0).tolist(), box.max(0).tolist()
            readings.append(Reading(text, float(score), (left, top, right, bottom)))
        return [row for row in rows(readings) if not _GREEK.search(row.text)]


@reused
def _load(folder: Path) -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(
        params={
            "Global.use_cls": False,  # writing upside down is not looked for
            "Global.log_level": "critical",  # that a picture holds no text is no news
            "Det.limit_side_len": DETECTS_AT,
            "Det.limit_type": "max",
            "Det.model_path": str(folder / _DETECTION),
            "Rec.model_path": str(folder / _RECOGNITION),
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,  # the other cores decode, encode and listen
        }
    )


def rows(words: list[Reading]) -> list[Reading]:
    """Readings that stand in one row, less than a letter's height apart, as one: large words are found one by one."""
    joined: list[Reading] = []
    for word in sorted(words, key=lambda w: (w.box[0], w.box[1])):
        for i, row in enumerate(joined):
            (_, top, right, bottom), high = row.box, word.box[3] - word.box[1]
            beside = min(bottom, word.box[3]) - max(top, word.box[1]) >= 0.6 * max(bottom - top, high)
            if beside and -0.5 * high <= word.box[0] - right < high:
                box = (row.box[0], min(top, word.box[1]), word.box[2], max(bottom, word.box[3]))
                joined[i] = Reading(f"{row.text} {word.text}", min(row.score, word.score), box)
                break
        else:
            joined.append(word)
    return sorted(joined, key=lambda r: (r.box[1], r.box[0]))
