"""What a stranger's tokenizer.json may make of a text: not so much of each letter that memory, or time, ends."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from vtsum.errors import VTSumError

MOST_GROWTH = 1000
"""By what a tokenizer's rules may lengthen a text; published ones have some 200 at most, as they are counted here."""
LONGEST_WORD = 10_000
"""Letters; tokenizers ends the process where one of a Unigram's has a million, and a text is as long as its words."""
MOST_PADDING = 200_000
"""Tokens to which a tokenizer may fill each text up; tokenizers makes room for as many, or ends the process."""
_TOKEN_MAP = "special_tokens_map.json"
_WORDS = ("vocab", "merges", "init_inputs", "tokenizer_object")
_ENCODING, _DECODING = ("normalizer", "pre_tokenizer", "post_processor"), ("decoder",)
_LETTERS = {
    **{"ByteLevel": 4, "Metaspace": 2},
    **{"BertNormalizer": 3, "handle_chinese_chars": 3},  # a letter between spaces
    **{"BPEDecoder": 2, "suffix": 2, "CTC": 2, "word_delimiter_token": 2, "WordPiece": 2, "prefix": 2},
}
"""How many letters a step makes of one at most, by its type and, as it may do without, by a name it has alone."""


def check_tokenizer(tokenizer: dict[str, Any], where: str) -> None:
    """Refuse a tokenizer that would replace each letter by many, or repeat the text, and each of these again, whose
    words are endless, or that fills each text up without end.

    Raises:
        VTSumError: `where` begins the message.
    """
    for parts in (_ENCODING, _DECODING):
        growth = 1
        for part in parts:
            waiting = [tokenizer.get(part)]
            while waiting:
                value = waiting.pop()
                if isinstance(value, dict):
                    growth *= _letters(value)
                    waiting += value.values()
                elif isinstance(value, list):
                    waiting += value
                if growth > MOST_GROWTH:
                    raise VTSumError(f"{where} must make at most {MOST_GROWTH} letters of one, its {part} makes more")
    padding = _of(tokenizer, "padding")
    for padded in (_of(padding, "strategy").get("Fixed"), padding.get("pad_to_multiple_of")):
        if isinstance(padded, int) and padded > MOST_PADDING:
            raise VTSumError(f"{where} must pad a text to at most {MOST_PADDING} tokens, got {padded}")
    words, added = _of(tokenizer, "model").get("vocab"), tokenizer.get("added_tokens")
    for word in (*(words if isinstance(words, dict | list) else ()), *(added if isinstance(added, list) else ())):
        # Of a Unigram with its score, of what was added with how it is read.
        text = word[0] if isinstance(word, list) and word else word.get("content") if isinstance(word, dict) else word
        if isinstance(text, str) and len(text) > LONGEST_WORD:
            raise VTSumError(f"{where} must have words of at most {LONGEST_WORD} letters, got {text[:20]!r}...")


def check_words_named(config: Mapping[str, Any], name: str, where: str) -> None:
    """Refuse a tokenizer whose configuration, the file `name` of a folder, says what it is made of: transformers takes
    a text there for the path of a file, wherever that lies, and what stands there for words that were looked at. A path
    under a name in _file it takes from the one of the two files alone, for published ones have their makers' in the
    other, and there it is passed over.

    Raises:
        VTSumError: `where` begins the message.
    """
    if name not in ("tokenizer_config.json", _TOKEN_MAP):
        return
    for key, item in config.items():
        if item and (key in _WORDS or (name == _TOKEN_MAP and key.endswith("_file"))):
            raise VTSumError(f"{where} must name no other file or checkpoint, got {key} {str(item)!r:.120}")


def _letters(step: Mapping[str, Any]) -> int:
    """How many letters a step makes of one, at most."""
    letters = max(_LETTERS.get(name, 1) for name in (str(step.get("type")), *step))
    if "prepend" in step:
        letters *= 1 + len(str(step["prepend"]))
    if "pattern" in step and "content" in step:  # a regular expression may match between all letters, and so does ""
        replaced, content = _of(step, "pattern").get("String"), len(str(step["content"]))
        letters *= max(-(-content // len(replaced)), 1) if isinstance(replaced, str) and replaced else content + 1
    if isinstance(packed := step.get("precompiled_charsmap"), str):
        letters *= _longest(packed)
    return letters * max(1, *(_pieces(step, name) for name in ("single", "pair")))


def _pieces(step: Mapping[str, Any], name: str) -> int:
    """Of a template, how often it has the text and how many tokens beside it."""
    pieces, special = step.get(name), _of(step, "special_tokens")
    count = 0
    for piece in pieces if isinstance(pieces, list) else ():
        token = _of(piece, "SpecialToken").get("id") if isinstance(piece, dict) else None
        ids = _of(special, token).get("ids") if isinstance(token, str) else None
        count += len(ids) if isinstance(ids, list) else 1
    return count


def _longest(packed: str) -> int:
    """The longest of the texts by which SentencePiece's table replaces letters: after the length of its index, and the
    index, they end in a zero each."""
    try:
        table = base64.b64decode(packed)
    except binascii.Error:  # which tokenizers refuses
        return 1
    texts = table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")
    return max(1, *(len(text.decode("utf-8", "replace")) for text in texts))


def _of(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}
