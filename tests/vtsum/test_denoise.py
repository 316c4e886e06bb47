"""The embedded denoiser: each step against a brute-force form, and whole transcripts, clean ones among them."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtsum.enhance.speech import denoise_sentences
from vtsum.enhance.speech.denoise import denoise, is_english
from vtsum.enhance.speech.denoise_sentences import SHORT, SHORT_PENALTY, ends_sentence, split_words, write_sentence
from vtsum.enhance.speech.denoise_words import tidy, without_repeats
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.enhance.speech.wer import normalise, word_error_rate

HEARD = "faster-whisper:tiny.en"

# Written for this test: several topics.
CLEAN = [
    "The committee will meet on Thursday to discuss the budget for the coming year. Nobody expects an easy decision.",
    "I think that that was the best part of the film. It had had a slow beginning, but the end was very, very good.",
    "Electrons do not move around the nucleus like planets. Where they are can only be told with some probability.",
    "No, no, no! You should never open the window while the engine is running. Is it on fire? Then call us at once.",
    "Dr. Brown bought 25 books in 1961 and sold them again. He says he lost a thousand dollars, more or less.",
    "We went on and on and on until the road ended. Step by step we climbed, and again and again somebody fell.",
    "A man is playing the guitar in front of a large crowd. He stops and talks to the camera. The people clap.",
    "The senate rejected the amendment, although the governor had promised otherwise to the teachers of the county.",
    "First, chop the onions and fry them in butter. While they are cooking, peel the carrots. Add salt at the end.",
    "What she told you is not what she told me. Either she forgot, or the letter that I got was never meant for me.",
]


def spoken(
    text: str, confidence: float = 1.0, *, source: str = HEARD, gap: float = 0.05, bare: bool = True
) -> Transcript:
    """The text as a recogniser would give it if it heard every word: an utterance a sentence, half a second apart."""
    at, utterances = 0.0, []
    for sentence in text.replace("! ", "! |").replace(". ", ". |").replace("? ", "? |").split("|"):
        words = []
        for text_of in normalise(sentence) if bare else sentence.split():
            words.append(Word(text_of, at, at + 0.3, confidence))
            at += 0.3 + gap
        utterances.append(Utterance(tuple(words)))
        at += 0.5
    return Transcript(tuple(utterances), source, "en")


def words_of(text: str, gap: float = 0.0) -> list[Word]:
    return [Word(w, i * (0.3 + gap), i * (0.3 + gap) + 0.3, 0.5) for i, w in enumerate(text.split())]


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("i i think we we should", "i think we should"),
        ("we go to the we go to the store", "we go to the store"),
        ("i think i i think so", "i think so"),
        ("thanks for watching thanks for watching thanks for watching", "thanks for watching"),
        ("no no no", "no no no"),
        ("that was very very good", "that was very very good"),
        ("again and again and again", "again and again and again"),
        ("step by step by step", "step by step by step"),
        ("he said that that man had had enough", "he said that that man had had enough"),
        ("", ""),
    ],
)
def test_slips_go_and_emphasis_stays(said, left):
    assert " ".join(without_repeats(said.split())) == left


@given(st.lists(st.sampled_from("the a go we dog".split()), max_size=14))  # noqa: SIM905
def test_what_is_left_has_no_slips(words):
    left = without_repeats(words)
    assert without_repeats(left) == left
    assert set(left) == set(words)
    assert not any(a == b and a in ("the", "a", "we") for a, b in itertools.pairwise(left))


def test_tidy_takes_out_notes_and_fillers_and_heeds_pauses():
    words = tidy(words_of("[NOISE] so um, the the read(2) <sil> book ++UH++ er"))
    assert [w.text for w in words] == ["so", "the", "read", "book"]
    assert words[1].start == pytest.approx(4 * 0.3)  # the second "the" stays
    again = [Word("we", 0, 0.2, 1), Word("we", 2.0, 2.2, 1)]
    assert len(tidy(again)) == 2  # said again after a pause
    assert [w.text for w in tidy(words_of("er geht um um [x] zu"), english=False)] == "er geht um um zu".split()  # noqa: SIM905


@given(st.lists(st.floats(-6, 6), min_size=0, max_size=8), st.integers(2, 5))
def test_sentence_ends_are_the_best_ones(scores, longest):
    words = words_of(" ".join("x" * (len(scores) + 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoise_sentences, "_scores", lambda *_: [*scores, 0.0])
        patch.setattr(denoise_sentences, "LONGEST", longest)
        found = [len(s) for s in split_words(words)]

    def value(lengths: list[int]) -> float:
        ends = itertools.accumulate(lengths)
        return sum([*scores, 0.0][e - 1] for e in ends) - sum(max(SHORT - n, 0) * SHORT_PENALTY for n in lengths)

    def cuts(n: int) -> list[list[int]]:
        return [[]] if n == 0 else [[k, *rest] for k in range(1, min(n, longest) + 1) for rest in cuts(n - k)]

    assert sum(found) == len(words)
    assert max(found) <= longest
    assert value(found) == pytest.approx(max(map(value, cuts(len(words)))))


def test_stops_given_are_kept_and_abbreviations_end_nothing():
    assert [ends_sentence(w) for w in ("end.", 'end."', "Mr.", "J.", "what?", "so,", "好。")] == [1, 1, 0, 0, 1, 0, 1]
    text = "Mr. Brown sings. He is loud"
    assert [[w.text for w in s] for s in split_words(words_of(text))] == [
        ["Mr.", "Brown", "sings."],
        ["He", "is", "loud"],
    ]
    assert split_words([]) == []


def test_sentences_are_written_as_english_writes_them():
    def write(text: str, cased: bool = False) -> str:
        return " ".join(w.text for w in write_sentence(words_of(text), english=True, cased=cased))

    assert write("then i'm going with an english friend,") == "Then I'm going with an English friend."
    assert write("what is he doing") == "What is he doing?"
    assert write("what he does is good") == "What he does is good."
    assert write("are you there now") == "Are you there now?"
    assert write("iPhone of mine", cased=True) == "iPhone of mine."
    assert write("wait!") == "Wait!"
    assert " ".join(w.text for w in write_sentence(words_of("你 好"), english=False, cased=False)) == "你 好"


@pytest.mark.parametrize("confidence", [1.0, 0.5])
def test_clean_text_keeps_its_words(confidence):
    for text in CLEAN:
        assert word_error_rate(text, denoise(spoken(text, confidence)).text) == 0


def test_pauses_end_sentences_where_no_stop_does():
    words = words_of("we carried the stones to the river then three years later the trees were tall")
    late = [Word(w.text, w.start + 0.8 * (i > 6), w.end + 0.8 * (i > 6), 0.9) for i, w in enumerate(words)]
    assert [len(sentence) for sentence in split_words(late)] == [7, 8]
    assert [len(sentence) for sentence in split_words(words)] == [15]
    comma = [replace(w, text=w.text + "," * (i == 6) + "." * (i == 14)) for i, w in enumerate(words)]
    for silence, lengths in ((2.9, [15]), (3.1, [7, 8])):
        late = [
            replace(w, start=w.start + silence * (i > 6), end=w.end + silence * (i > 6)) for i, w in enumerate(comma)
        ]
        assert [len(sentence) for sentence in split_words(late)] == lengths


def test_written_text_keeps_its_writing():
    for text in CLEAN:
        cleaned = denoise(spoken(text, source="talk.srt", bare=False))
        assert " ".join(cleaned.text.split()) == text


def test_a_heard_transcript_becomes_sentences():
    at, utterances = 0.0, []
    for part in (
        "a man is standing in a room",
        "he is uh playing the the guitar",
        "then he stops and i see him talking to the camera",
    ):
        words = [Word(w, at + 0.3 * i, at + 0.3 * i + 0.28, 0.8) for i, w in enumerate(part.split())]
        utterances.append(Utterance(tuple(words)))
        at = words[-1].end + 0.7
    cleaned = denoise(Transcript(tuple(utterances), HEARD, "en", ("a note",)))
    assert cleaned.text.split("\n") == [
        "A man is standing in a room.",
        "He is playing the guitar.",
        "Then he stops and I see him talking to the camera.",
    ]
    assert (cleaned.source, cleaned.language, cleaned.warnings) == (HEARD, "en", ("a note",))
    assert [(u.start, u.end) for u in cleaned.utterances] == [(u.start, u.end) for u in utterances]
    assert denoise(cleaned) == cleaned


@pytest.mark.parametrize("language", ["de", None])
def test_another_language_keeps_its_words(language):
    words = words_of("er geht um um das alte haus herum und sieht er er den kleinen hund nicht der dort schläft")
    heard = Transcript((Utterance(tuple(words)),), HEARD, language)
    cleaned = denoise(heard)
    assert [w.text.lower().rstrip(".") for w in cleaned.words] == [w.text for w in words]
    assert cleaned.warnings == ("the speech does not read as English: its words were left as they were heard",)
    assert denoise(cleaned).warnings == cleaned.warnings


def test_languages_are_told_apart():
    def said(text: str, language: str | None = None) -> Transcript:
        return Transcript((Utterance(tuple(words_of(text))),), HEARD, language)

    for text in CLEAN:
        assert is_english(said(text)), text
    assert is_english(said("was ist das", "en-US"))
    assert not is_english(said("this is english", "fr"))
    assert not is_english(said("мы идём домой"))
    assert is_english(said("hello"))


def test_nothing_said_stays_nothing():
    for utterances in ((), (Utterance((Word("um", 0, 1, 0.5),)),), (Utterance((Word("[NOISE]", 0, 1, 0.5),)),)):
        assert denoise(Transcript(utterances, HEARD, "en")).utterances == ()


def test_times_stay_in_order_for_shuffled_confidences():
    rng = random.Random(3)
    for text in CLEAN:
        heard = spoken(text)
        noisy = tuple(
            Utterance(tuple(Word(w.text, w.start, w.end, rng.random()) for w in u.words)) for u in heard.utterances
        )
        cleaned = denoise(Transcript(noisy, HEARD, "en"))
        words = cleaned.words
        assert words
        assert all(a.start <= b.start for a, b in itertools.pairwise(words))
        assert words[-1].end <= heard.words[-1].end + 1e-9
