"""The likeliest words behind those heard: a search over what a recogniser offers and what sounds alike.

Nodes stand between the words heard, arcs are readings of one or more of them. The path kept is

    argmax  sum over arcs of log channel(arc) + weight * sum over words of (log p(w | two before) + bonus)

    channel(a word heard) = least + (1 - least) * c, with c the recogniser's confidence in it
    channel(another reading of the sound, from the n-best list) = (1 - c) * share of the list that has it, less for
        each word more or fewer
    channel(a word that sounds alike) = (1 - c) * exp(-steepness * distance)

with p the trigram model of the lexicon, where a sentence may end and another begin between any two words. A beam of the
best histories of two words is kept at each node.

How much the lexicon may say depends on how well it knows what is talked about: `weight` shrinks to nothing as the
share of confidently heard pairs of words that it has seen falls, and as the mean confidence of the transcript rises.

Source: Brill and Moore, "An improved error model for noisy channel spelling correction", 2000; Mangu et al., "Finding
consensus in speech recognition: word error minimization and other applications of confusion networks", 2000.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from vtsum.enhance.speech.lexicon import Lexicon, embedded_lexicon, plain
from vtsum.enhance.speech.lexicon_sounds import SoundIndex, sounds
from vtsum.enhance.speech.wer import align


@dataclass(frozen=True)
class Search:
    """Settings of the search; the defaults were chosen on narrated sentences that are in no other measurement."""

    weight: float = 1.2  # of the lexicon's model against the channel, where it knows the topic
    bonus: float = 1.0  # nats a word: without it fewer words always win
    unknown: float = 6.0  # nats that a word outside the lexicon costs beyond <unk>: there are many of them
    least: float = 0.3  # of what was heard, whatever the recogniser says: it is the best of its own list
    listed: float = 1.0  # of the n-best list's share
    uneven: float = 3.0  # nats for each word that a reading has more or fewer
    alike: float = 0.1  # of a word that sounds the same
    steepness: float = 1.0  # nats a sound
    trusted: float = 0.5  # words of at least this confidence are never replaced
    doubtful: float = 0.5  # mean confidence of a transcript up to which the lexicon's weight is whole
    certain: float = 0.65  # and from which it is nothing: what was heard well needs no second opinion
    reach: float = 0.4  # a word sounds alike if its distance is at most this share of the sounds heard
    neighbours: int = 8
    beam: int = 24
    known_low: float = 0.45  # share of known pairs where the lexicon's weight reaches nothing
    known_high: float = 0.65  # and where it is whole


@dataclass(frozen=True)
class Arc:
    """A reading `words` of the words heard from `start` up to `end`, at a log probability."""

    start: int
    end: int
    words: tuple[str, ...]
    cost: float


def topic_weight(words: Sequence[str], confidences: Sequence[float], lexicon: Lexicon, search: Search) -> float:
    """0..1: how far the lexicon knows what is talked about, from neighbouring words of at least middling confidence,
    times how little the recogniser trusts itself."""
    middle = sorted(confidences)[len(confidences) // 2] if confidences else 0.0
    sure = [c >= min(middle, search.trusted) for c in confidences]
    pairs = [
        lexicon.knows_pair(lexicon.id(words[i]), lexicon.id(words[i + 1])) and lexicon.unknown != lexicon.id(words[i])
        for i in range(len(words) - 1)
        if sure[i] and sure[i + 1]
    ]
    # Few pairs tell little: as if eight more had been seen, at the edge of what is known.
    share = (sum(pairs) + 8 * search.known_low) / (len(pairs) + 8)
    known = (share - search.known_low) / (search.known_high - search.known_low)
    doubt = (search.certain - sum(confidences) / max(len(words), 1)) / (search.certain - search.doubtful)
    return min(max(known, 0.0), 1.0) * min(max(doubt, 0.0), 1.0)


@cache
def _index(lexicon: Lexicon) -> SoundIndex:
    return SoundIndex([w if w.isalpha() or "'" in w else "" for w in lexicon.words])


def listed_arcs(
    words: Sequence[str], confidences: Sequence[float], alternatives: Sequence[Sequence[str]], search: Search
) -> list[Arc]:
    """What the n-best list reads differently: each stretch of difference is an arc, its share by the list's order."""
    found: dict[tuple[int, int, tuple[str, ...]], float] = defaultdict(float)
    total = 0.0
    for rank, other in enumerate(alternatives):
        vote = 1.0 / (rank + 1)
        total += vote
        for arc in _differences(words, [w for w in map(plain, other) if w]):
            found[arc] += vote
    arcs = []
    for (start, end, reading), votes in found.items():
        doubt = 1.0 - min(confidences[start:end])
        if doubt > 1.0 - search.trusted:
            uneven = abs(len(reading) - (end - start)) * search.uneven
            arcs.append(Arc(start, end, reading, math.log(doubt * search.listed * votes / total) - uneven))
    return arcs


def _differences(one: Sequence[str], other: Sequence[str]) -> list[tuple[int, int, tuple[str, ...]]]:
    """Stretches one[start:end] that `other` reads in other words; never empty on the left: a neighbour is taken in."""
    found: list[tuple[int, int, list[str]]] = []
    at = 0  # words of `one` passed
    last_same = False
    for i, j in align(one, other):
        same = i is not None and j is not None and one[i] == other[j]
        if not same:
            if last_same or not found or found[-1][1] < at:
                found.append((at, at, []))
            start, end, reading = found[-1]
            found[-1] = (start, end + (i is not None), [*reading, *([other[j]] if j is not None else [])])
        at += i is not None
        last_same = same
    whole = []
    for start, end, reading in found:
        if start == end and start > 0:
            whole.append((start - 1, end, (one[start - 1], *reading)))
        elif start == end and end < len(one):
            whole.append((start, end + 1, (*reading, one[end])))
        elif start < end:
            whole.append((start, end, tuple(reading)))
    return whole


def alike_arcs(words: Sequence[str], confidences: Sequence[float], lexicon: Lexicon, search: Search) -> list[Arc]:
    """Known words that sound like a doubtful word, or like two of them."""
    arcs = []
    for i in range(len(words)):
        for end in (i + 1, i + 2):
            if end > len(words) or max(confidences[i:end]) >= search.trusted:
                break
            doubt = math.log(1.0 - min(max(sum(confidences[i:end]) / (end - i), 0.02), 0.98))
            heard = "".join(map(sounds, words[i:end]))
            for word, distance in _near(lexicon, heard, search.reach * len(heard), search.neighbours):
                if (word,) != tuple(words[i:end]):
                    cost = doubt + math.log(search.alike) - search.steepness * distance
                    arcs.append(Arc(i, end, (word,), cost - (end - i - 1) * search.uneven))
    return arcs


_NEAR: dict[tuple[int, str, float, int], list[tuple[str, float]]] = {}


def _near(lexicon: Lexicon, heard: str, most: float, count: int) -> list[tuple[str, float]]:
    key = (id(lexicon), heard, most, count)
    if key not in _NEAR:
        if len(_NEAR) > 100_000:
            _NEAR.clear()
        _NEAR[key] = [(lexicon.words[i], d) for i, d in _index(lexicon).near(heard, most, count)]
    return _NEAR[key]


def decode(
    words: Sequence[str],
    confidences: Sequence[float],
    alternatives: Sequence[Sequence[str]] = (),
    *,
    weight: float = 1.0,
    lexicon: Lexicon | None = None,
    search: Search | None = None,
) -> list[tuple[int, int, tuple[str, ...]]]:
    """The likeliest reading of one utterance.

    Args:
        words, confidences: [N] plain lowercase words, and 0..1 for each.
        alternatives: other readings of the same sound, likeliest first.
        weight (float): 0..1, times `search.weight`: `topic_weight` of the whole transcript. At 0 nothing is changed.
    Returns:
        list of (start, end, reading): every word heard belongs to one of them, in order; a reading may be empty.
    """
    lexicon, search = lexicon or embedded_lexicon(), search or Search()
    if weight <= 0.0 or not words:
        return [(i, i + 1, (word,)) for i, word in enumerate(words)]
    arcs: dict[int, list[Arc]] = defaultdict(list)
    for i, word in enumerate(words):
        arcs[i].append(Arc(i, i + 1, (word,), math.log(search.least + (1.0 - search.least) * confidences[i])))
    others = [
        *listed_arcs(words, confidences, alternatives, search),
        *alike_arcs(words, confidences, lexicon, search),
    ]
    for arc in others:  # what the lexicon may not judge does not replace what was heard
        arcs[arc.start].append(replace(arc, cost=arc.cost + math.log(weight)))
    return best_path(len(words), arcs, lexicon, search, weight * search.weight)


def best_path(
    length: int, arcs: dict[int, list[Arc]], lexicon: Lexicon, search: Search, weight: float
) -> list[tuple[int, int, tuple[str, ...]]]:
    """The path of the greatest total from node 0 to node `length`; exact where the beam holds all histories.

    Args:
        length (int): number of words heard.
        arcs: by the node they leave; from every node one must lead on.
        weight (float): of the lexicon's log probabilities.
    """
    start = lexicon.start
    # At each node, by the last two words: (score, arc taken, history before it).
    nodes: list[dict[tuple[int, int], tuple[float, Arc | None, tuple[int, int]]]] = [{} for _ in range(length + 1)]
    nodes[0][start, start] = (0.0, None, (start, start))
    seen: dict[tuple[int, int, int], float] = {}

    def follows(before: int, last: int, word: int) -> float:
        key = (before, last, word)
        if key not in seen:
            on = lexicon.log_p(before, last, word)
            if last != start:
                on = max(on, lexicon.log_p(before, last, lexicon.end) + lexicon.log_p(start, start, word))
            seen[key] = on + search.bonus - (search.unknown if word == lexicon.unknown else 0.0)
        return seen[key]

    for at in range(length):
        best = sorted(nodes[at].items(), key=lambda item: -item[1][0])[: search.beam]
        nodes[at] = dict(best)
        for arc in arcs[at]:
            ids = [lexicon.id(w) for w in arc.words]
            there = nodes[arc.end]
            for history, (score, _, _) in best:
                before, last = history
                total = score + arc.cost
                for word in ids:
                    total += weight * follows(before, last, word)
                    before, last = last, word
                if (before, last) not in there or there[before, last][0] < total:
                    there[before, last] = (total, arc, history)
    history = max(nodes[length], key=lambda h: nodes[length][h][0])
    path, at = [], length
    while at:
        _, taken, history = nodes[at][history]
        assert taken is not None
        path.append((taken.start, taken.end, taken.words))
        at = taken.start
    return path[::-1]
