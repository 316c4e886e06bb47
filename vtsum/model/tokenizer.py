"""The text decoder's tokenizer, from wherever it may lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vtsum_kernels.integrations import torchvision_free

from vtsum.errors import VTSumError
from vtsum.model.pretrained import from_pretrained
from vtsum.reading import read_file

BOS, ENC = "[DEC]", "[ENC]"


def load_tokenizer(source: Any) -> Any:
    """transformers' tokenizer with [DEC], which starts a sentence, added where it is lacking.

    Args:
        source: a word list (vocab.txt), a folder that holds one or a tokenizer's own files, a name on the hub (such as
            "bert-base-uncased", the original's), or a tokenizer, to which [DEC] is added in place.
    Raises:
        VTSumError: if there is no such tokenizer, or a word list lacks [PAD], [UNK], [CLS] or [SEP].
    """
    torchvision_free.prepare()
    from transformers import AutoTokenizer, BertTokenizer

    tokenizer = source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        vocabulary = path / "vocab.txt" if path.is_dir() else path
        if vocabulary.is_file():
            check_words(vocabulary)
            tokenizer = BertTokenizer(vocab=str(vocabulary))
        elif isinstance(source, os.PathLike) or path.suffix == ".txt":
            raise VTSumError(f"load_tokenizer: source must be a word list, a folder or a hub name, got {source}")
        else:
            tokenizer = from_pretrained(AutoTokenizer, str(source), "tokenizer")
    elif not hasattr(source, "convert_tokens_to_ids"):
        raise VTSumError(
            f"load_tokenizer: source must be a word list, a folder, a hub name or a tokenizer, got {source!r}"
        )
    tokenizer.add_special_tokens({"bos_token": BOS})
    if ENC in tokenizer.get_vocab():
        add_enc(tokenizer)
    return tokenizer


def check_words(vocabulary: Path, op: str = "load_tokenizer") -> None:
    """Refuse a word list without the words that no tokenizer can do without: transformers itself would add them at the
    end of the list, under ids that no model has learnt.

    Raises:
        VTSumError: it is no text, or lacks one of them; `op` begins the message.
    """
    try:
        words = set(read_file(vocabulary, op).decode("utf-8").splitlines())
    except UnicodeDecodeError:
        raise VTSumError(f"{op}: {vocabulary} must be a text file, one word a line, got other bytes") from None
    if missing := [word for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if word not in words]:
        raise VTSumError(
            f"{op}: {vocabulary} must hold [PAD], [UNK], [CLS] and [SEP], got no {' and no '.join(missing)}"
        )


def add_enc(tokenizer: Any) -> None:
    """Add BLIP's [ENC], which the summarizer never writes; it is the last word of BLIP's own vocabulary."""
    tokenizer.add_special_tokens({"additional_special_tokens": [ENC]})


def vocabulary_text(tokenizer: Any) -> str:
    """The tokenizer's words in the order of their ids, one a line: a vocab.txt."""
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if [i for _, i in words] != list(range(len(words))):
        raise VTSumError("save_pretrained: the tokenizer's ids must run from 0 without a gap")
    return "".join(f"{word}\n" for word, _ in words)
