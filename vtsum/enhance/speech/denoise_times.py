"""Times for words that came from other words: a rewriting keeps the clock of what was heard."""

from __future__ import annotations

from collections.abc import Sequence

from vtsum.enhance.speech.plain_words import plain
from vtsum.enhance.speech.transcript import Word
from vtsum.enhance.speech.wer import align


def spread(texts: Sequence[str], heard: Sequence[Word]) -> list[Word]:
    """`texts` over the time of `heard`, each as long as its letters; their confidence is the least of those heard."""
    if not texts:
        return []
    start, end = heard[0].start, max(w.end for w in heard)
    total = sum(map(len, texts))
    confidence = min(w.confidence for w in heard)
    words, passed = [], 0
    for text in texts:
        a = start + (end - start) * passed / total
        passed += len(text)
        words.append(Word(text, a, max(start + (end - start) * passed / total, a), confidence))
    return words


def retime(heard: Sequence[Word], texts: Sequence[str]) -> list[Word]:
    """Give rewritten words the times of those heard.

    Words are aligned as for the word error rate, capitals and punctuation aside. A word that is the same, or that took
    another's place, has its times; words added share the time of the neighbours they stand beside.

    Args:
        heard: [N] words, N >= 1.
        texts: [M] words without white space.
    Returns:
        list[Word]: [M] in order of their starts, within the time of `heard`.
    Raises:
        ValueError: no words heard.
    """
    if not heard:
        raise ValueError("retime: heard must be at least one word, got none")
    pairs = align([plain(w.text) or w.text for w in heard], [plain(t) or t for t in texts])
    groups: list[tuple[list[Word], list[str]]] = []
    loose: list[str] = []  # added before any word was heard
    for i, j in pairs:
        if i is not None and j is not None:
            groups.append(([heard[i]], [*loose, texts[j]]))
            loose = []
        elif j is not None and groups:
            groups[-1][1].append(texts[j])
        elif j is not None:
            loose.append(texts[j])
    if loose:  # nothing heard is left
        groups.append((list(heard), loose))
    return [word for group, written in groups for word in spread(written, group)]
