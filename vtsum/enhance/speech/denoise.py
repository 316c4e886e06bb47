"""The embedded denoiser of transcripts: no model, no download.

Notes of the recogniser, fillers and slips of the tongue are taken out (`denoise_words`), and sentences get their ends
and capitals where the recogniser gives none (`denoise_sentences`). Every word keeps its letters and the time at which
it was heard.

Speech in another language than English keeps its words: only sentences are made, and a warning says so.
"""

from __future__ import annotations

from dataclasses import replace

from vtsum.enhance.speech.denoise_sentences import is_cased, split_words, write_sentence
from vtsum.enhance.speech.denoise_words import tidy
from vtsum.enhance.speech.plain_words import FUNCTION_WORDS, plain
from vtsum.enhance.speech.transcript import Transcript, Utterance

_FUNCTION_SHARE, _ENOUGH_WORDS = 0.25, 12  # by which English is told from other languages
_NOT_ENGLISH = "the speech does not read as English: its words were left as they were heard"


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


def denoise(transcript: Transcript) -> Transcript:
    """Clean a transcript from any source: see the module's head.

    Returns:
        Transcript: an utterance a sentence; source and language as they were.
    """
    english = is_english(transcript)
    words = sorted((w for u in transcript.utterances for w in tidy(u.words, english)), key=lambda w: w.start)
    if not words:
        return replace(transcript, utterances=())
    cased = is_cased(words)
    if not cased:
        words = [replace(w, text=w.text.lower()) for w in words]
    sentences = [Utterance(write_sentence(s, english=english, cased=cased)) for s in split_words(words)]
    warnings = transcript.warnings
    if not english and _NOT_ENGLISH not in warnings:
        warnings = (*warnings, _NOT_ENGLISH)
    return replace(transcript, utterances=tuple(sentences), warnings=warnings)
