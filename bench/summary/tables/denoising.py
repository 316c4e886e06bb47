"""The tables and the picture of the denoiser, from its records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.kit.plot import pyplot, save
from bench.kit.tables import Records, Tables, formatted, newest, records

DENOISING = {
    "heard by PocketSphinx": "{topic}, {words} words",
    "white noise": "{level}",
    "WER, %": "{before[wer]:.1f} → {after[wer]:.1f}",
    "Flesch ease": "{before[reading_ease]:.0f} → {after[reading_ease]:.0f}",
    "words a sentence": "{before[words_a_sentence]:.0f} → {after[words_a_sentence]:.0f}",
    "sentence ends, F": "{before[sentence_break_f]:.0f} → {after[sentence_break_f]:.0f}",
}
CLEAN = {
    "text without an error": "{topic}, {words} words",
    "confidence of every word": "{sure}",
    "WER after, %": "{after[wer]:.2f}",
}


def _newest(lines: Records | None) -> list[dict[str, Any]]:
    return list(newest(records("denoising", lines), "topic", "noise").values())


def denoising(lines: Records | None = None) -> str:
    """Word error rate and readability before and after, by topic and noise."""
    heard = [r for r in _newest(lines) if not isinstance(r["noise"], str)]
    heard.sort(key=lambda r: (r["topic"], -(1e9 if r["noise"] is None else r["noise"])))
    return formatted(DENOISING, [{**r, "level": "none" if r["noise"] is None else f"{r['noise']:g} dB"} for r in heard])


def clean(lines: Records | None = None) -> str:
    """What the denoiser does to texts without an error."""
    texts = [r for r in _newest(lines) if isinstance(r["noise"], str)]
    return formatted(CLEAN, [{**r, "sure": r["noise"].rpartition(" ")[2]} for r in texts])


def draw(path: Path, lines: Records | None = None) -> None:
    """WER and agreement of sentence ends against the noise, before and after, a panel each."""
    colors = {"captions": "#0b6", "other topics": "#06b"}
    heard = [r for r in _newest(lines) if r["topic"] in colors and not isinstance(r["noise"], str)]
    levels = sorted({r["noise"] for r in heard}, key=lambda noise: -1e9 if noise is None else -noise)
    figure, axes = pyplot().subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    panels: list[tuple[str, Callable[[dict[str, Any]], float]]] = [
        ("word error rate, %", lambda side: side["wer"]),
        ("sentence ends found (F), %", lambda side: side["sentence_break_f"]),
    ]
    for axis, (label, value) in zip(axes, panels, strict=True):
        for topic, color in colors.items():
            rows = sorted((r for r in heard if r["topic"] == topic), key=lambda r: levels.index(r["noise"]))
            for side, dashes in (("before", "--"), ("after", "-")):
                x = [levels.index(r["noise"]) for r in rows]
                axis.plot(x, [value(r[side]) for r in rows], dashes, color=color, marker="o", label=f"{topic}, {side}")
        axis.set_xticks(range(len(levels)), ["none" if n is None else f"{n:g} dB" for n in levels])
        axis.set(xlabel="speech over white noise", ylabel=label, ylim=(0, 100))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    save(figure, path)


TABLES: Tables = {"denoising": denoising, "denoising_clean": clean}
