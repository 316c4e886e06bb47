"""The lexicon: Kneser-Ney against a naive form, its file and its errors, sounds against a plain table."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtsum.enhance.speech import lexicon_sounds
from vtsum.enhance.speech.lexicon import ASSET, END, SPECIAL, START, Lexicon, embedded_lexicon, plain
from vtsum.enhance.speech.lexicon_sounds import SoundIndex, sounds
from vtsum.errors import VTSumError
from vtsum.recipes import lexicon as training
from vtsum.recipes.lexicon import discounts, learn, learn_casing, main, split_sentences

TEXTS = [
    "A man walks to the door. The man opens the door.",
    "A dog walks to the man and the man gives the dog a bone.",
    "The dog runs to the door and a man opens the door.",
    "A woman walks a dog in Paris. The woman loves Paris and the dog.",
    "We see a man in Paris and a woman in Paris.",
] * 2 + ["A man walks in the rain and the rain stops."]


@pytest.fixture(scope="module")
def small() -> Lexicon:
    return learn(TEXTS, least=2)


def naive(texts: list[str], least: int) -> tuple[list[str], dict[tuple[str, str, str], float]]:
    """p(w | u v) of every triple seen, straight from the formulas, without pruning."""
    sentences = [[plain(w) for w in s] for t in texts for s in split_sentences(t)]
    seen = Counter(w for s in sentences for w in s)
    words = [w for w, c in seen.items() if c >= least]
    rows = [[START, *(w if w in words else "<unk>" for w in s), END] for s in sentences]
    three = Counter(g for row in rows for g in itertools.pairwise(itertools.pairwise(row)))
    triples = {(a, b, c): n for ((a, b), (_, c)), n in three.items()}
    two = {(v, w): len({u for u, b, c in triples if (b, c) == (v, w)}) for _, v, w in triples}
    two |= {(START, row[1]): sum(other[1] == row[1] for other in rows) for row in rows}
    every = [*SPECIAL, *words]
    one = {w: len({v for v, c in two if c == w}) + 1 for w in every if w != START}

    def p1(w: str) -> float:
        return one[w] / sum(one.values())

    def mix(counts: dict, context: tuple, w: str, lower: float) -> float:
        d = discounts(counts.values())
        after = {g[-1]: n for g, n in counts.items() if g[:-1] == context}
        n = after.get(w, 0)
        spare = sum(d[min(m, 3) - 1] for m in after.values())
        return (max(n - d[min(n, 3) - 1], 0) if n else 0) / sum(after.values()) + spare / sum(after.values()) * lower

    p2 = {(v, w): mix(two, (v,), w, p1(w)) for v, w in two}
    first = {(START, START, w): p for (v, w), p in p2.items() if v == START}
    return every, first | {(u, v, w): mix(triples, (u, v), w, p2[v, w]) for u, v, w in triples}


def test_kept_triples_have_the_naive_probability(small):
    words, expected = naive(TEXTS, 2)
    assert sorted(words) == sorted(small.words)
    counted = Counter()
    for text in TEXTS:
        for sentence in split_sentences(text):
            row = [START, START, *(plain(w) if plain(w) in small else "<unk>" for w in sentence), END]
            counted.update(zip(row, row[1:], row[2:], strict=False))
    kept = [g for g, n in counted.items() if n >= training.LEAST_TRIPLE]
    assert len(kept) > 20
    for gram in kept:
        assert small.log_p(*map(small.id, gram)) == pytest.approx(math.log(expected[gram]), abs=1e-3)


def test_probabilities_sum_to_one_after_any_context(small):
    known = [i for i in range(len(small)) if i not in (small.start, small.end)]
    contexts = [(small.start, small.start), *((small.start, v) for v in known), *itertools.product(known, known)]
    for before, last in contexts:
        total = sum(math.exp(small.log_p(before, last, w)) for w in range(len(small)) if w != small.start)
        assert total == pytest.approx(1, abs=0.01)


def test_likelier_sentences_are_likelier(small):
    assert small.sentence(["the", "man", "opens", "the", "door"]) > small.sentence(
        ["door", "the", "the", "opens", "man"]
    )
    assert small.perplexity([["a", "man", "walks"]]) < small.perplexity([["walks", "man", "a"]])
    with pytest.raises(ValueError, match="perplexity: sentences must be at least one"):
        small.perplexity([])


def test_casing_is_learned_inside_sentences_only(small):
    assert small.cased("paris") == "Paris"
    assert small.cased("a") == "a"
    assert learn_casing([["EVERY", "WORD", "IS", "LARGE"]] * 9, {"word", "is", "large"}) == {}


def test_sentences_are_split_and_figures_are_one_word(small):
    assert split_sentences("He runs. He, too, can't stop! Ok.") == [["He", "runs"], ["He", "too", "can't", "stop"]]
    assert small.id("1961") == small.id("21st") == small.number
    assert small.id("zebra") == small.unknown
    assert "zebra" not in small
    assert plain("“Don’t,”") == "don't"
    with pytest.raises(ValueError, match="learn: texts must hold words seen 3 times"):
        learn(["just once"])


def test_discounts_of_counts_too_few_to_tell_stay_in_range():
    for counts in ([], [1], [5, 6], [1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4]):
        for i, d in enumerate(discounts(counts)):
            assert 0 < d < i + 1


def test_the_file_round_trips_and_is_the_same_each_time(small, tmp_path):
    small.write(tmp_path / "a.npz")
    learn(TEXTS, least=2).write(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = Lexicon.read(tmp_path / "a.npz")
    assert again.words == small.words
    assert again.cased("paris") == "Paris"
    grams = list(itertools.product(range(len(small)), repeat=3))[::7]
    assert [again.log_p(*g) for g in grams] == [small.log_p(*g) for g in grams]


def test_broken_files_are_named(small, tmp_path):
    path = tmp_path / "lexicon.npz"
    with pytest.raises(VTSumError, match=r"read_lexicon: path must be a lexicon of VTSum: .*lexicon\.npz must exist"):
        Lexicon.read(path)
    small.write(path)
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(VTSumError, match=r"read_lexicon: path must be a lexicon of VTSum: .*lexicon\.npz must be "):
            Lexicon.read(path)
    path.write_bytes(whole)
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files}
    for change, message in (
        ({"format": np.int64(9)}, "must be of format 1"),
        ({"uni": arrays["uni"][1:]}, "must have arrays of fitting lengths"),
        ({"uni": arrays["uni"].astype(np.float32)}, "uni .* must be int16, got float32"),
        ({"words": np.frombuffer(b"a\nb", np.uint8)}, "must have arrays of fitting lengths"),
    ):
        np.savez(path, **(arrays | change))
        with pytest.raises(VTSumError, match=message):
            Lexicon.read(path)
    del arrays["tri"]
    np.savez(path, **arrays)
    with pytest.raises(VTSumError, match=r"must be a lexicon of VTSum: .* must hold an array .tri."):
        Lexicon.read(path)


def test_the_command_names_what_is_missing(tmp_path, capsys):
    assert main(["--shared", str(tmp_path), "--out", str(tmp_path / "x.npz")]) == 2
    assert "train.json.gz" in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()


def test_the_shipped_lexicon_knows_english():
    lexicon = embedded_lexicon()
    assert ASSET.stat().st_size < 3_000_000
    assert len(lexicon) > 4000
    assert lexicon.words[4] == "the"
    assert lexicon.cased("olympics") == "Olympics"
    assert lexicon.cased("man") == "man"
    playing, flaying = (["a", "man", "is", w, "the", "guitar"] for w in ("playing", "flaying"))
    assert lexicon.sentence(playing) > lexicon.sentence(flaying) + 3


def test_the_shipped_lexicon_fits_unseen_captions(shared):
    held = training.held_out(shared)[:2000]
    assert embedded_lexicon().perplexity(held) < 110


def test_sounds_of_spelling():
    def sound_distance(one: str, other: str) -> float:
        return float(SoundIndex([other]).distances(sounds(one))[0])

    for one, other in (("whole", "hole"), ("knight", "night"), ("wait", "weight"), ("write", "right"), ("sea", "see")):
        assert sound_distance(one, other) == 0, (one, sounds(one), other, sounds(other))
    assert sound_distance("speech", "beach") < sound_distance("speech", "garden")
    assert sounds("") == sounds("42") == ""
    assert sound_distance("a", "!") == math.inf


@given(st.text("abdeghkmnoprstuwyz", min_size=1, max_size=7), st.text("abdeghkmnoprstuwyz", min_size=1, max_size=7))
def test_sound_distances_equal_a_plain_table(one, other):
    a, b = sounds(one), sounds(other)
    if not b:
        return
    index, swap, miss = lexicon_sounds._INDEX, lexicon_sounds._SWAP, lexicon_sounds._MISSING
    row = [0.0]
    for y in b:
        row.append(row[-1] + miss[index[y]])
    for x in a:
        new = [row[0] + miss[index[x]]]
        for j, y in enumerate(b):
            new.append(min(row[j] + swap[index[x], index[y]], row[j + 1] + miss[index[x]], new[j] + miss[index[y]]))
        row = new
    found = SoundIndex(["cat", other, "", "a"]).distances(a)
    assert found[1] == pytest.approx(row[-1], abs=1e-5)
    assert found[2] == math.inf
