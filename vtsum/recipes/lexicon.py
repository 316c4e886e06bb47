"""Learn the lexicon and the trigram model of the embedded denoiser from ActivityNet Captions.

    python -m vtsum.recipes.lexicon --shared ../shared [--install] [--out lexicon.npz]

Every sentence of the training videos is counted; words seen fewer than `LEAST` times become `<unk>`, figures `<num>`.
With D the discount of a count (three of them: for 1, 2 and more, estimated from the numbers of n-grams seen one to four
times), N(h) the number of different words after h, and ' the lower order, whose counts are numbers of contexts:

    p(w | h) = max(c(h w) - D(c), 0) / c(h) + (sum over w of D(c(h w))) / c(h) * p(w | h')

Triples seen once, and pairs seen once, are then left out, and the back-off weights computed anew, so that the
probabilities of all words after any context still sum to one. The held-out perplexity is printed and stored nowhere:
the benchmark measures it again.

Source: Chen and Goodman, "An empirical study of smoothing techniques for language modeling", TR-10-98, Harvard 1998,
equations 26 and 27; pruning after Stolcke, "Entropy-based pruning of backoff language models", 1998, section 2.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vtsum.data.activitynet import load_activitynet_captions
from vtsum.enhance.speech.lexicon import ASSET, END, NUMBER, SPECIAL, START, UNIT, UNKNOWN, Lexicon, plain
from vtsum.files import check_inputs, check_new, written
from vtsum.recipes.command import status

LEAST = 3  # times a word must be seen: most of what is rarer is misspelt
LEAST_TRIPLE = 2
LEAST_PAIR = 1
CASED_SHARE, CASED_LEAST = (
    0.7,
    4,
)  # a word is a name when so many of its uses inside sentences, and at least so many, are
_STOP = re.compile(r"(?<=[a-z0-9][.!?])\s+|(?<=[.!?][\"')])\s+")
_WORD = re.compile(r"[A-Za-z0-9]+(?:['’][A-Za-z]+)*")
_FLOOR = -32767 * UNIT

Ngram = tuple[int, ...]


def split_sentences(text: str) -> list[list[str]]:
    """The sentences of a caption, each as its words in their own casing, without punctuation; short ones left out."""
    found = (_WORD.findall(piece) for piece in _STOP.split(text))
    return [words for words in found if len(words) >= 2]


def learn_casing(sentences: Iterable[Sequence[str]], known: set[str]) -> dict[str, str]:
    """Words that are mostly written with a capital where no sentence begins, with that writing."""
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    for words in sentences:
        if sum(w[0].isupper() for w in words) * 2 > len(words):  # a sentence in capitals says nothing
            continue
        for word in words[1:]:
            forms[plain(word)][word.replace("’", "'")] += 1
    cased = {}
    for word, seen in forms.items():
        form, times = max(seen.items(), key=lambda item: (item[1], item[0]))
        if word in known and form != word and times >= CASED_LEAST and times >= CASED_SHARE * seen.total():
            cased[word] = form
    return cased


def discounts(counts: Iterable[int]) -> tuple[float, float, float]:
    """The three discounts of modified Kneser-Ney smoothing for n-grams seen once, twice, and more often."""
    seen = Counter(c for c in counts if c <= 4)
    n1, n2, n3, n4 = (max(seen[c], 1) for c in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return tuple(min(max(d, 0.05), i + 0.95) for i, d in enumerate(found))  # type: ignore[return-value]


def smooth(counts: Counter[Ngram], lower: dict[Ngram, float]) -> tuple[dict[Ngram, float], dict[Ngram, float]]:
    """One order of the model: p(w | h) of every n-gram counted, and the weight of the lower order after each h.

    Args:
        counts: of n-grams h w.
        lower: p(w | h') of every h' w that can occur, h' being h without its first word.
    Returns:
        (probabilities by h w, weights by h); p(w | h) of an n-gram never counted is weight(h) * lower(h' w).
    """
    one, two, more = discounts(counts.values())
    total: dict[Ngram, int] = defaultdict(int)
    spare: dict[Ngram, float] = defaultdict(float)
    for gram, c in counts.items():
        total[gram[:-1]] += c
        spare[gram[:-1]] += (one, two, more)[min(c, 3) - 1]
    weight = {h: spare[h] / total[h] for h in total}
    p = {}
    for gram, c in counts.items():
        h = gram[:-1]
        p[gram] = (c - (one, two, more)[min(c, 3) - 1]) / total[h] + weight[h] * lower[gram[1:]]
    return p, weight


def backoffs(kept: dict[Ngram, float], lower: dict[Ngram, float]) -> dict[Ngram, float]:
    """The weight after each h by which p over the words not kept with h sums to what those kept leave over."""
    left: dict[Ngram, float] = defaultdict(lambda: 1.0)
    below: dict[Ngram, float] = defaultdict(lambda: 1.0)
    for gram, p in kept.items():
        left[gram[:-1]] -= p
        below[gram[:-1]] -= lower[gram[1:]]
    return {h: max(left[h], 1e-9) / max(below[h], 1e-9) for h in left}


def learn(texts: Iterable[str], least: int = LEAST) -> Lexicon:
    """Count, smooth, prune, and make the lexicon.

    Args:
        texts: English, each of one or several sentences.
        least (int): times a word must be seen.
    Raises:
        ValueError: no word is seen so often.
    """
    sentences = [words for text in texts for words in split_sentences(text)]
    seen = Counter(plain(w) for words in sentences for w in words if not any(c.isdigit() for c in w))
    words = [*SPECIAL, *sorted((w for w, c in seen.items() if c >= least), key=lambda w: (-seen[w], w))]
    if len(words) == len(SPECIAL):
        raise ValueError(f"learn: texts must hold words seen {least} times, got {len(sentences)} sentences without")
    ids = {word: i for i, word in enumerate(words)}
    unknown, start, end, number = (ids[w] for w in (UNKNOWN, START, END, NUMBER))
    triples: Counter[Ngram] = Counter()
    first: Counter[Ngram] = Counter()
    for sentence in sentences:
        inside = [number if any(c.isdigit() for c in w) else ids.get(plain(w), unknown) for w in sentence]
        row = [start, *inside, end]
        triples.update(zip(row, row[1:], row[2:], strict=False))
        first[start, inside[0]] += 1
    # Lower orders count contexts, not uses; but a sentence's first word has no word before its start: uses are counted.
    pairs = Counter(gram[1:] for gram in triples) + first
    singles = Counter(w for _, w in pairs)
    for w in range(len(words)):  # every word can occur; a sentence's start never follows anything
        singles[w] += w != start
    p1: dict[Ngram, float] = {(w,): c / singles.total() for w, c in singles.items() if c}
    p2, weight2 = smooth(pairs, p1)
    p3, _ = smooth(triples, _Lower(p2, weight2, p1))
    kept2 = {gram: p for gram, p in p2.items() if pairs[gram] >= LEAST_PAIR}
    back2 = backoffs(kept2, p1)
    kept3 = {gram: p for gram, p in p3.items() if triples[gram] >= LEAST_TRIPLE and gram[:2] in kept2}
    back3 = backoffs(kept3, _Lower(kept2, back2, p1))
    return _pack(words, learn_casing(sentences, set(words)), p1, (kept2, back2), (kept3, back3))


class _Lower(dict[Ngram, float]):
    """p(w | v) by (v, w) of a bigram model; those not stored come from the lower order."""

    def __init__(self, p2: dict[Ngram, float], weight: dict[Ngram, float], p1: dict[Ngram, float]) -> None:
        super().__init__(p2)
        self.weight, self.p1 = weight, p1

    def __missing__(self, gram: Ngram) -> float:
        return self.weight.get(gram[:1], 1.0) * self.p1[gram[1:]]


def _pack(
    words: list[str],
    cased: dict[str, str],
    p1: dict[Ngram, float],
    two: tuple[dict[Ngram, float], dict[Ngram, float]],
    three: tuple[dict[Ngram, float], dict[Ngram, float]],
) -> Lexicon:
    size = len(words)

    def logs(values: Iterable[float]) -> np.ndarray:
        found = np.log(np.maximum(np.fromiter(values, np.float64), 1e-300))
        return np.rint(np.maximum(found, _FLOOR) / UNIT).clip(-32767, 32767).astype(np.int16)

    pairs = sorted(two[0])
    index = {pair: i for i, pair in enumerate(pairs)}
    triples = sorted(three[0])
    arrays = {
        "uni": logs(p1.get((w,), 0.0) for w in range(size)),
        "uni_back": logs(two[1].get((w,), 1.0) for w in range(size)),
        "bi_key": np.array([v * size + w for v, w in pairs], np.uint32),
        "bi": logs(two[0][pair] for pair in pairs),
        "bi_back": logs(three[1].get(pair, 1.0) for pair in pairs),
        "tri_key": np.array([index[u, v] * size + w for u, v, w in triples], np.uint32),
        "tri": logs(three[0][triple] for triple in triples),
    }
    return Lexicon(words, dict(sorted(cased.items())), arrays)


def held_out(shared: Path, name: str = "val_1.json.gz") -> list[list[str]]:
    """Sentences of videos that the lexicon was not learned from."""
    videos = load_activitynet_captions(shared / "activitynet" / name)
    return [words for video in videos for text in video.sentences for words in split_sentences(text)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="holds activitynet/")
    parser.add_argument("--out", type=Path, default=Path("lexicon.npz"))
    parser.add_argument("--install", action="store_true", help="write into the package instead of --out")
    parser.add_argument("--overwrite", action="store_true", help="replace an older file")
    options = parser.parse_args(arguments)

    def work() -> None:
        path = ASSET if options.install else options.out
        check_inputs("lexicon", path, [options.shared])
        check_new("lexicon", path, options.overwrite or options.install)
        videos = load_activitynet_captions(options.shared / "activitynet" / "train.json.gz")
        lexicon = learn(text for video in videos for text in video.sentences)
        check_new("lexicon", path, options.overwrite or options.install)  # somebody may have put it there meanwhile
        with written(path) as part:
            lexicon.write(part)
        unseen = held_out(options.shared)
        print(f"{path}: {path.stat().st_size:,} bytes, {len(lexicon):,} words")
        print(f"held-out perplexity a word: {lexicon.perplexity(unseen):.1f} over {len(unseen):,} sentences")

    return status(work)


if __name__ == "__main__":
    raise SystemExit(main())
