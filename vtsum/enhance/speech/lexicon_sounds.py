"""How a word sounds, roughly, from its letters; and which known words sound like it.

A recogniser that mishears gives a word that sounds like the one said: "whole" for "hole", "four" for "for". To find
what was said, words are compared by sounds, not letters. The rules below turn English spelling into some twenty-five
sounds; they miss much of the vowels, which is why one vowel for another costs little.

    distance = the cheapest way to turn one word's sounds into the other's, by the prices below

found for all words of a lexicon at once: the table of Levenshtein's distance, a column of all words at a time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

# Spelling to sounds, the first that fits at a place is taken; - for none, = for the letter itself. Sounds: a e i o u
# short, A E Y O U long as in day, see, my, go, do; W as in now, Q as in boy, R as in her; T th, S sh, C ch, J j, N ng.
_SPELLINGS = r"""
    ^(?:kn|gn|pn) n    ^wr r    ^ps s    ^wh(?=o) h    wh w    ^x z
    tch|ch(?!r|l) C    ch k    sch sk    sh|(?<=[a-z])(?:ti|ci|ssi)(?=[oa]) S    th T    ph f
    eigh A    igh Y    (?:au|ou)gh(?=t) o    augh$ af    ough O    gh(?=[aeio]) g    gh -
    dg(?=[eiy]) J    g(?=[eiy])(?<!^g)(?<!gg) J    ng$|ng(?=[^aeiouy]) N    n(?=[kx]) N
    qu kw    ck|cc(?![eiy])|c(?![eiyc]) k    c s    x ks    mb$|mn$ m
    (?<=[aeiou])s(?=[aeiou])|(?<=[aeioubdglmnrvwy])s$ z
    (?<=[^aeiou][^aeiou])ed$|(?<=[aeiou][bglmnrvwyz])ed$ d    (?<=[aeiou][pksxf])ed$ t
    ture CR    (?<=[^aeiou])le$ l    ^y|(?<=[aeiou])y(?=[aeiou]) y
    ee|ea(?!r)|ie(?=[^r])|ei|ey$ E    ai|ay|ey|a(?=[^aeiouyrwx](?:e$|es$|ed$|ing$)) A
    i(?=[^aeiouyx](?:e$|es$|ed$)) Y    oa|oe$|o$|o(?=[^aeiouyrwx](?:e$|es$|ed$)) O
    ou(?=r) o    oo|ew|ue$|ui|u(?=[^aeiouyrx](?:e$|es$)) U    ou|ow(?!n$|$) W    ow O    oi|oy Q    au|aw|al(?=[kl]) o
    (?:ear|er|ir|ur|yr)(?![aeiou])|(?<=w)or R    (?<=^[^aeiou])y$|(?<=^[^aeiou][^aeiou])y$ Y    y E
    (?<=^[^aeiou])e$ E    e$ -    (?<=[^aeiou])es$ z    j J    q k    [a-z] =
"""
_RULES = tuple((re.compile(a), b) for a, b in zip(*[iter(_SPELLINGS.split())] * 2, strict=True))
_VOWELS = "aeiouAEYOUWQR"
_LIKE = ("td", "pb", "kg", "szS", "fv", "fT", "dT", "tT", "sT", "SCJ", "mn", "nN", "rl", "wl", "vw", "tC", "dJ", "bv")
_VOWEL_PRICE, _LIKE_PRICE, _OTHER_PRICE = 0.3, 0.4, 1.0
_WEAK = "hywtdaeiou"  # sounds that are easily missed or imagined
_MISS_WEAK, _MISS = 0.5, 0.9
_ALPHABET = "\0" + "aeiouAEYOUWQR" + "bdfghklmnprstvwyzTSCJN"


@lru_cache(maxsize=65536)
def sounds(word: str) -> str:
    """The sounds of a plain lowercase word; letters that English does not know are left out."""
    letters = re.sub(r"[^a-z]", "", word)
    letters = re.sub(r"(?<=[bdfgklmnprstvz])([bdfgklmnprtvz])(?=\1)", "", letters)
    letters = re.sub(r"([bdfklmnprtvz])\1", r"\1", letters)
    found, at = [], 0
    while at < len(letters):
        for pattern, sound in _RULES:
            if match := pattern.match(letters, at):
                found.append({"-": "", "=": match.group()}.get(sound, sound))
                at += max(len(match.group()), 1)
                break
    return re.sub(r"(.)\1", r"\1", "".join(found))


def _prices() -> tuple[np.ndarray, np.ndarray]:
    size = len(_ALPHABET)
    swap = np.full((size, size), _OTHER_PRICE, np.float32)
    index = {c: i for i, c in enumerate(_ALPHABET)}
    for group, price in ((_VOWELS, _VOWEL_PRICE), *((g, _LIKE_PRICE) for g in _LIKE)):
        for a in group:
            for b in group:
                swap[index[a], index[b]] = min(swap[index[a], index[b]], price)
    np.fill_diagonal(swap, 0.0)
    miss = np.array([_MISS_WEAK if c in _WEAK else _MISS for c in _ALPHABET], np.float32)
    return swap, miss


_SWAP, _MISSING = _prices()
_INDEX = {c: i for i, c in enumerate(_ALPHABET)}


class SoundIndex:
    """The words of a lexicon by their sounds.

    Args:
        words (Sequence[str]): [V] plain lowercase words; those without sounds (signs) are never found.
    """

    def __init__(self, words: Sequence[str]) -> None:
        keys = [sounds(word) for word in words]
        self._length = np.array([len(key) for key in keys], np.int64)
        self._codes = np.zeros((len(keys), max(map(len, keys), default=0)), np.int64)
        for i, key in enumerate(keys):
            self._codes[i, : len(key)] = [_INDEX[c] for c in key]

    def distances(self, heard: str) -> np.ndarray:
        """[V] float32: the price of turning the sounds `heard` into those of each word; infinite for those without."""
        steps = _MISSING[self._codes]  # [V, L]
        row = np.concatenate([np.zeros((len(steps), 1), np.float32), np.cumsum(steps, 1)], 1)
        for sound in heard:
            code = _INDEX[sound]
            new = np.empty_like(row)
            new[:, 0] = row[:, 0] + _MISSING[code]
            new[:, 1:] = np.minimum(row[:, :-1] + _SWAP[code][self._codes], row[:, 1:] + _MISSING[code])
            for j in range(steps.shape[1]):  # sounds added: each cell waits for the one before
                np.minimum(new[:, j + 1], new[:, j] + steps[:, j], out=new[:, j + 1])
            row = new
        found = row[np.arange(len(row)), self._length]
        return np.where(self._length > 0, found, np.float32(np.inf))

    def near(self, heard: str, most: float, count: int) -> list[tuple[int, float]]:
        """At most `count` words whose distance is at most `most`, nearest first, with their distances."""
        found = self.distances(heard)
        best = np.argsort(found, kind="stable")[:count]
        return [(int(i), float(found[i])) for i in best if found[i] <= most]
