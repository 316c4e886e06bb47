"""The text decoder's tokenizer, from wherever it may lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vtsum.errors import VTSumError
from vtsum.model import torchvision_free
from vtsum.model.pretrained import from_pretrained

BOS, ENC = "[DEC]", "[ENC]"


def load_tokenizer(source: Any) -> Any:
    """transformers' tokenizer with [DEC], which starts a sentence, added where it is lacking.

    Args:
        source: a word list (vocab.txt), a folder that holds one or a tokenizer's own files, a name on the hub (such as
            "bert-base-uncased", the original's), or a tokenizer, to which [DEC] is added in place.
    Raises:
        VTSumError: if there is no such tokenizer, or it lacks [SEP] or [PAD].
    """
    torchvision_free.prepare()
    from transformers import AutoTokenizer, BertTokenizer

    name = "the tokenizer"
    tokenizer = source
    if isinstance(source, str | os.PathLike):
        name, path = str(source), Path(source)
        vocabulary = path / "vocab.txt" if path.is_dir() else path
        if vocabulary.is_file():
            tokenizer = BertTokenizer(vocab=str(vocabulary))
        elif isinstance(source, os.PathLike) or path.suffix == ".txt":
            raise VTSumError(f"load_tokenizer: source must be a word list, a folder or a hub name, got {name}")
        else:
            tokenizer = from_pretrained(AutoTokenizer, name, "tokenizer")
    elif not hasattr(source, "convert_tokens_to_ids"):
        raise VTSumError(
            f"load_tokenizer: source must be a word list, a folder, a hub name or a tokenizer, got {source!r}"
        )
    words = tokenizer.get_vocab()
    if missing := [word for word in ("[SEP]", "[PAD]") if word not in words]:
        raise VTSumError(f"load_tokenizer: {name} must hold [SEP] and [PAD], got no {' and no '.join(missing)}")
    tokenizer.add_special_tokens({"bos_token": BOS})
    if ENC in words:
        add_enc(tokenizer)
    return tokenizer


def add_enc(tokenizer: Any) -> None:
    """Add BLIP's [ENC], which the summarizer never writes; it is the last word of BLIP's own vocabulary."""
    tokenizer.add_special_tokens({"additional_special_tokens": [ENC]})


def vocabulary_text(tokenizer: Any) -> str:
    """The tokenizer's words in the order of their ids, one a line: a vocab.txt."""
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if [i for _, i in words] != list(range(len(words))):
        raise VTSumError("save_pretrained: the tokenizer's ids must run from 0 without a gap")
    return "".join(f"{word}\n" for word, _ in words)
