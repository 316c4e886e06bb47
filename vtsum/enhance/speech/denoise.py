"""The embedded denoiser of transcripts: no download, no network, English.

In this order: notes of the recogniser, fillers and slips of the tongue are taken out (`denoise_words`); doubtful
words give way to what the n-best list or the lexicon has for the same sound (`denoise_decode`), or, in a text that
was written, misspelt words to the known word a letter away; sentences get their ends and capitals
(`denoise_sentences`). Every word keeps the time at which it was heard.

Speech in another language keeps its words: only sentences are made, from pauses, and a warning says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vtsum.enhance.speech.denoise_decode import Search, decode, topic_weight
from vtsum.enhance.speech.denoise_sentences import is_cased, split_words, write_sentence
from vtsum.enhance.speech.denoise_times import spread
from vtsum.enhance.speech.denoise_words import tidy
from vtsum.enhance.speech.lexicon import FUNCTION_WORDS, Lexicon, embedded_lexicon, plain
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word

HEARD_BY = ("pocketsphinx",)  # recognisers that give words of a dictionary: mishearings, never misspellings
SPELLING = ("whisper", "faster-whisper")  # those that write: what they do not know they spell as it sounds
_FUNCTION_SHARE, _ENOUGH_WORDS = 0.25, 12  # by which English is told from other languages
_NOT_ENGLISH = "the speech does not read as English: its words were left as they were heard"
_MISSPELT_SURE = 0.95  # words of at least this confidence are never respelt
_MISSPELT_ODDS = 4.0  # nats by which the mended word must be likelier, beside its neighbours, than an unknown one
_MISSPELT_LENGTH = 5  # letters; short words are a letter away from too many


def is_english(transcript: Transcript) -> bool:
    """True for a transcript whose language is English or, where that is not known, that has as many function words
    as English.

    Fewer than a dozen words cannot tell, and count as English.
    """
    if transcript.language is not None:
        return transcript.language.lower().replace("_", "-").split("-")[0] in ("en", "eng", "english")
    words = [plain(w.text) for w in transcript.words]
    if len(words) < _ENOUGH_WORDS:
        return all(ord(c) < 0x250 for w in words for c in w)
    return sum(w in FUNCTION_WORDS for w in words) >= _FUNCTION_SHARE * len(words)


def denoise(transcript: Transcript, *, lexicon: Lexicon | None = None, search: Search | None = None) -> Transcript:
    """Clean a transcript: see the module's head.

    Args:
        transcript (Transcript): from any source.
        lexicon (Lexicon | None): None is the embedded one.
        search (Search | None): settings of the search for misheard words.
    Returns:
        Transcript: an utterance a sentence, without alternatives; source and language as they were.
    """
    lexicon = lexicon or embedded_lexicon()
    english = is_english(transcript)
    utterances = [(tidy(u.words, english), u.alternatives) for u in transcript.utterances]
    utterances = [(words, alternatives) for words, alternatives in utterances if words]
    if not utterances:
        return replace(transcript, utterances=())
    if english:
        if transcript.source.startswith(HEARD_BY):
            utterances = [(words, ()) for words in _reheard(utterances, lexicon, search or Search())]
        elif not transcript.source.startswith(SPELLING):
            utterances = [(_respelt(words, lexicon), ()) for words, _ in utterances]
    words = sorted((w for found, _ in utterances for w in found), key=lambda w: w.start)
    if english and transcript.source.startswith(HEARD_BY):
        words = tidy(words)  # a repeat may come out only when a misheard word is mended
    cased = is_cased(words)
    if not cased and sum(c.isupper() for w in words for c in w.text) > 0:
        words = [replace(w, text=w.text.lower()) for w in words]
    known = lexicon if english else None
    sentences = [Utterance(write_sentence(s, known, cased=cased)) for s in split_words(words, known)]
    warnings = transcript.warnings
    if not english and _NOT_ENGLISH not in warnings:
        warnings = (*warnings, _NOT_ENGLISH)
    return replace(transcript, utterances=tuple(sentences), warnings=warnings)


def _reheard(
    utterances: Sequence[tuple[list[Word], tuple[tuple[str, ...], ...]]], lexicon: Lexicon, search: Search
) -> list[list[Word]]:
    """The utterances with doubtful words replaced by likelier ones."""
    everything = [w for words, _ in utterances for w in words]
    weight = topic_weight([plain(w.text) for w in everything], [w.confidence for w in everything], lexicon, search)
    found = []
    for words, alternatives in utterances:
        texts, confidences = [plain(w.text) or w.text for w in words], [w.confidence for w in words]
        changed: list[Word] = []
        for start, end, reading in decode(
            texts, confidences, alternatives, weight=weight, lexicon=lexicon, search=search
        ):
            if reading == tuple(texts[start:end]):
                changed += words[start:end]
            else:
                changed += spread(reading, words[start:end])
        if changed:
            found.append(changed)
    return found


def _respelt(words: list[Word], lexicon: Lexicon) -> list[Word]:
    """Words with misspellings mended: unknown, doubtful words a letter away from one that fits far better."""
    ids = [lexicon.id(plain(w.text)) for w in words]
    found = list(words)
    for i, word in enumerate(words):
        if word.confidence >= _MISSPELT_SURE or ids[i] != lexicon.unknown or not word.text.isascii():
            continue
        core = plain(word.text)
        if len(core) < _MISSPELT_LENGTH or not core.isalpha() or core not in word.text:
            continue
        best = max(
            (c for c in _one_letter_away(core) if c in lexicon), key=lambda c: _fit(ids, i, lexicon.id(c), lexicon),
            default=None,
        )  # fmt: skip
        if best is not None and _fit(ids, i, lexicon.id(best), lexicon) > _plain_fit(ids, i, lexicon) + _MISSPELT_ODDS:
            found[i] = replace(word, text=word.text.replace(core, best))
    return found


def _fit(ids: Sequence[int], i: int, candidate: int, lexicon: Lexicon) -> float:
    """log p of the words around place i with `candidate` there."""
    row = [lexicon.start, lexicon.start, *ids[:i], candidate, *ids[i + 1 :], lexicon.end]
    return sum(lexicon.log_p(*row[k : k + 3]) for k in range(i, min(i + 3, len(row) - 2)))


def _plain_fit(ids: Sequence[int], i: int, lexicon: Lexicon) -> float:
    """The same with an unknown word, one of the several thousand that <unk> stands for."""
    return _fit(ids, i, lexicon.unknown, lexicon) - 7.0


def _one_letter_away(word: str) -> set[str]:
    """Words that differ by a letter added, left out or changed, or by two neighbours changing places."""
    letters = "abcdefghijklmnopqrstuvwxyz'"
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    found = {a + b[1:] for a, b in cuts if b} | {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    found |= {a + c + b[1:] for a, b in cuts if b for c in letters} | {a + c + b for a, b in cuts for c in letters}
    return found - {word}
