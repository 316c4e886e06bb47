"""The words of the embedded denoiser: a lexicon and a trigram model, learned from ActivityNet Captions.

    log p(w | u v) = tri(u v w)                  where that triple is stored
                   = back(u v) + log p(w | v)    else
    log p(w | v)   = bi(v w)                     where that pair is stored
                   = back(v) + uni(w)            else

The values are those of an interpolated Kneser-Ney model with three discounts; `vtsum.recipes.lexicon` counts,
smooths and prunes them and writes the file that ships, vtsum/assets/speech/lexicon.npz.

Source: Chen and Goodman, "An empirical study of smoothing techniques for language modeling", TR-10-98, Harvard 1998;
the stored form is ARPA's back-off form.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vtsum.data.feature_files import read_array
from vtsum.errors import VTSumError

UNKNOWN, START, END, NUMBER = "<unk>", "<s>", "</s>", "<num>"
SPECIAL = (UNKNOWN, START, END, NUMBER)
UNIT = 1 / 2000  # nats: log probabilities are stored as int16 multiples of this, down to -16.4
FORMAT = 1

ASSET = Path(__file__).resolve().parents[2] / "assets" / "speech" / "lexicon.npz"
_EDGES = re.compile(r"^\W+|(?<=\w)\W+$")
_ARRAYS: Mapping[str, tuple[type, str]] = {
    "format": (np.int64, "format"),
    "words": (np.uint8, "letters of the words, a line each"),
    "cased": (np.uint8, "letters of the words written with capitals, a line each"),
    "uni": (np.int16, "log probability of each word"),
    "uni_back": (np.int16, "back-off of each word"),
    "bi_key": (np.uint32, "v * words + w, ascending"),
    "bi": (np.int16, "log probability of each pair"),
    "bi_back": (np.int16, "back-off of each pair"),
    "tri_key": (np.uint32, "pair * words + w, ascending"),
    "tri": (np.int16, "log probability of each triple"),
}


def plain(word: str) -> str:
    """A word as the lexicon has it: lowercase, a straight apostrophe, no punctuation at its edges ("" for a sign)."""
    return _EDGES.sub("", word.replace("’", "'").lower())


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written with spaces."""
    return frozenset(text.split())


#: Words that hold a sentence together and tell nothing of its topic: half of any English text.
FUNCTION_WORDS = word_set(
    "a an the and or but nor if then than so as because while although though until unless of to in on at by for from "
    "with without into onto upon over under up down out off about above below after before between through during "
    "against among around is are was were be been being am have has had having do does did doing done will would can "
    "could shall should may might must i you he she it we they me him her us them my your his its our their mine "
    "yours hers ours theirs myself yourself himself herself itself ourselves themselves this that these those there "
    "here who whom whose which what when where why how all any both each few more most other some such no not only "
    "own same too very just now again also ever never once let get got go going gone come one i'm i've i'll i'd "
    "you're you've you'll he's she's it's we're we've we'll they're they've that's there's what's who's let's don't "
    "doesn't didn't isn't aren't wasn't weren't can't couldn't won't wouldn't shouldn't haven't hasn't hadn't ll ve re"
)


class Lexicon:
    """Known words, how they are written, and how likely one follows two others.

    Args:
        words (Sequence[str]): [V] lowercase, `SPECIAL` first; the rest by falling frequency.
        cased (Mapping[str, str]): words that are written with capitals inside a sentence, e.g. {"i": "I"}.
        arrays (Mapping[str, array]): uni, uni_back, bi_key, bi, bi_back, tri_key, tri as described in `_ARRAYS`.
    """

    def __init__(self, words: Sequence[str], cased: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
        self.words = tuple(words)
        self._ids = {word: i for i, word in enumerate(self.words)}
        self._cased = dict(cased)
        self._arrays = dict(arrays)
        self._uni = (arrays["uni"] * UNIT).tolist()
        self._uni_back = (arrays["uni_back"] * UNIT).tolist()
        self._bi_values = (arrays["bi"] * UNIT).tolist()
        self._bi_back = (arrays["bi_back"] * UNIT).tolist()
        # Dictionaries: a search in a sorted array costs several microseconds a call from Python, these a tenth.
        self._bi = {key: i for i, key in enumerate(arrays["bi_key"].tolist())}
        self._tri = dict(zip(arrays["tri_key"].tolist(), (arrays["tri"] * UNIT).tolist(), strict=True))
        self.unknown, self.start, self.end, self.number = (self._ids[w] for w in SPECIAL)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return self.id(word) != self.unknown

    def id(self, word: str) -> int:
        """The number of a word as `plain` gives it; anything with a digit is `number`, the rest `unknown`."""
        found = self._ids.get(word, self.unknown)
        if found == self.unknown and any(c.isdigit() for c in word):
            return self.number
        return found

    def cased(self, word: str) -> str:
        """How a lowercase word is written inside a sentence."""
        return self._cased.get(word, word)

    def log_p(self, before: int, last: int, word: int) -> float:
        """log p(word | before last), natural; numbers as `id` gives them. A sentence begins after (start, start)."""
        pair = self._bi.get(before * len(self.words) + last)
        if pair is None:
            return self._log_p2(last, word)
        found = self._tri.get(pair * len(self.words) + word)
        return found if found is not None else self._bi_back[pair] + self._log_p2(last, word)

    def _log_p2(self, last: int, word: int) -> float:
        pair = self._bi.get(last * len(self.words) + word)
        return self._bi_values[pair] if pair is not None else self._uni_back[last] + self._uni[word]

    def knows_pair(self, last: int, word: int) -> bool:
        """True if the two words were seen one after the other."""
        return last * len(self.words) + word in self._bi

    def sentence(self, words: Sequence[str]) -> float:
        """log p of a whole sentence, its end included."""
        total, before, last = 0.0, self.start, self.start
        for word in [*(self.id(plain(w)) for w in words), self.end]:
            total += self.log_p(before, last, word)
            before, last = last, word
        return total

    def perplexity(self, sentences: Sequence[Sequence[str]]) -> float:
        """exp of the mean negative log p a word, ends of sentences counted as words.

        Raises:
            ValueError: no sentences.
        """
        if not sentences:
            raise ValueError("perplexity: sentences must be at least one, got none")
        return math.exp(-sum(map(self.sentence, sentences)) / sum(len(s) + 1 for s in sentences))

    def write(self, path: Path) -> None:
        """Write the lexicon; the same lexicon gives the same bytes. `path` should be a temporary name."""
        lines = ("\n".join(self.words), "\n".join(self._cased.values()))
        words, cased = (np.frombuffer(text.encode(), np.uint8) for text in lines)
        with path.open("wb") as file:
            np.savez_compressed(
                file, allow_pickle=False, format=np.int64(FORMAT), words=words, cased=cased, **self._arrays
            )

    @classmethod
    def read(cls, path: str | Path) -> Lexicon:
        """Read what `write` wrote.

        Raises:
            VTSumError: the file is missing, broken, or of another format.
        """
        try:
            arrays = {name: read_array(path, name) for name in _ARRAYS}
        except VTSumError as error:
            raise VTSumError(f"read_lexicon: path must be a lexicon of VTSum: {error}") from None
        for name, (dtype, meaning) in _ARRAYS.items():
            if arrays[name].dtype != dtype:
                raise VTSumError(
                    f"read_lexicon: {path}: {name} ({meaning}) must be {np.dtype(dtype)}, got {arrays[name].dtype}"
                )
        if arrays.pop("format").tolist() != FORMAT:
            raise VTSumError(f"read_lexicon: {path} must be of format {FORMAT}")
        try:
            words, cased = (arrays.pop(name).tobytes().decode().split("\n") for name in ("words", "cased"))
        except UnicodeDecodeError:
            raise VTSumError(f"read_lexicon: {path} must hold words in UTF-8, got other bytes") from None
        sizes = {name: array.size for name, array in arrays.items()}
        if (
            tuple(words[: len(SPECIAL)]) != SPECIAL
            or not len(words) == sizes["uni"] == sizes["uni_back"]
            or not sizes["bi_key"] == sizes["bi"] == sizes["bi_back"]
            or sizes["tri_key"] != sizes["tri"]
        ):
            raise VTSumError(
                f"read_lexicon: {path} must have arrays of fitting lengths, got {len(words)} words, {sizes}"
            )
        return cls(words, {form.lower(): form for form in cased if form}, arrays)


@functools.cache
def embedded_lexicon() -> Lexicon:
    """The lexicon that ships, read once (some 0.2 s)."""
    return Lexicon.read(ASSET)
