"""The tables of the denoiser, from its records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.kit.record import RESULTS, read
from bench.kit.tables import table

NOTHING = "Not measured yet."


def denoising(lines: list[dict[str, Any]] | None = None) -> str:
    """Word error rate and readability before and after, by topic and noise; the newest record of each."""
    newest = _newest(lines)
    heard = [r for r in newest if not isinstance(r["noise"], str)]
    if not heard:
        return NOTHING
    rows = []
    for r in sorted(heard, key=lambda r: (r["topic"], -(1e9 if r["noise"] is None else r["noise"]))):
        a, b = r["before"], r["after"]
        noise = "none" if r["noise"] is None else f"{r['noise']:g} dB"
        rows.append(
            [
                f"{r['topic']}, {r['words']} words",
                noise,
                f"{a['wer']:.1f} → {b['wer']:.1f}",
                f"{a['reading_ease']:.0f} → {b['reading_ease']:.0f}",
                f"{a['words_a_sentence']:.0f} → {b['words_a_sentence']:.0f}",
                f"{a['sentence_break_f']:.0f} → {b['sentence_break_f']:.0f}",
            ]
        )
    head = ["heard by PocketSphinx", "white noise", "WER, %", "Flesch ease", "words a sentence", "sentence ends, F"]
    return table(head, rows)


def clean(lines: list[dict[str, Any]] | None = None) -> str:
    """What the denoiser does to texts without an error."""
    rows = [
        [f"{r['topic']}, {r['words']} words", r["noise"].rpartition(" ")[2], f"{r['after']['wer']:.2f}"]
        for r in _newest(lines)
        if isinstance(r["noise"], str)
    ]
    return table(["text without an error", "confidence of every word", "WER after, %"], rows) if rows else NOTHING


def _newest(lines: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    lines = read(RESULTS / "denoising.jsonl") if lines is None else lines
    return list({(r["topic"], r["noise"]): r for r in lines}.values())


TABLES: dict[str, Callable[[], str]] = {"denoising": denoising, "denoising_clean": clean}
