"""The bytes of a text file as text, whatever its encoding."""

from __future__ import annotations

import codecs

from vtsum.errors import VTSumError

_MARKS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_OTHERS = ["gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp874"]
_FEW = 0.3  # of a text's letters
_SAMPLE = 1 << 16  # bytes by which an encoding is guessed


def decoded(data: bytes, where: str) -> tuple[str, str | None]:
    """The text, and the encoding's name where it was guessed.

    Raises:
        VTSumError: there is nothing in it, or it is no text; `where` begins the message.
    """
    if not data.strip(b" \t\r\n\0"):
        raise VTSumError(f"{where}: must hold a transcript, got an empty file")
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace"), None
    if b"\0" in data:
        for encoding in _WIDE:
            if (text := _as_wide(data, encoding)) is not None:
                return text, None
        raise VTSumError(f"{where}: must be text (subtitles or plain), got binary data")
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError:
        encoding = _guessed(data[:_SAMPLE])
        return data.decode(encoding, "replace"), encoding


def _guessed(sample: bytes) -> str:
    """Of text with few signs above ASCII, Western Europe's; else that of another script."""
    high = sum(byte >= 128 for byte in sample)
    ascii_letters = sum(bytes([byte]).isalpha() for byte in sample if byte < 128)
    if high < _FEW * (high + ascii_letters):
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=_OTHERS).best()
    return "cp1252" if best is None else best.encoding


def _as_wide(data: bytes, encoding: str) -> str | None:
    """UTF-16 or UTF-32 without a mark, if that is what it is: without zeros and mostly of signs below U+0300 or of
    letters."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    sample = text[:_SAMPLE]
    good = sum(c.isalnum() or c.isspace() or (c.isprintable() and c < "\u0300") for c in sample)
    return text if "\0" not in text and good >= 0.9 * len(sample) else None
