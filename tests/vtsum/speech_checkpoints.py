"""Whisper checkpoints small enough to be made in a test, in the real format, that say what they are told to.

Every token has a random embedding. The position embedding of each place is that of the token to be said next, so large
that nothing else counts: whatever is heard, the planted words come out.
"""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = " and hello to the world"
LANGUAGES = ("en", "de")
_TIMES = 1501  # <|0.00|> to <|30.00|>
_STRENGTH = 40.0


def make_whisper(folder: Path, words: str = WORDS, *, language: str | None = "de", repeats: int = 1) -> Path:
    """Write a tiny Whisper checkpoint that hears `words`, `repeats` times over, in `language`; None: English only."""
    from vtsum_kernels.integrations import torchvision_free

    torchvision_free.prepare()
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    tokenizer = make_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    size = len(tokenizer) + _TIMES
    config = WhisperConfig(
        vocab_size=size, d_model=64, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=80, max_source_positions=1500,
        max_target_positions=96, decoder_start_token_id=ids("<|startoftranscript|>"), bos_token_id=ids("<|endoftext|>"),
        eos_token_id=ids("<|endoftext|>"), pad_token_id=ids("<|endoftext|>"), suppress_tokens=[],
        begin_suppress_tokens=[],
    )  # fmt: skip
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config).eval()
    said = tokenizer.encode(words * repeats, add_special_tokens=False)
    # After <|startoftranscript|> the language, after the task the first time (or <|notimestamps|>), then the words.
    first_time = ids("<|notimestamps|>") + 1
    plan = [first_time] if language is None else [ids(f"<|{language}|>"), ids("<|transcribe|>"), first_time]
    plan += [*said, first_time + 1]
    plan += [ids("<|endoftext|>")] * (config.max_target_positions - len(plan))
    with torch.no_grad():
        table = model.model.decoder.embed_tokens.weight
        table.copy_(torch.nn.functional.normalize(torch.randn_like(table), dim=1))
        model.model.decoder.embed_positions.weight.copy_(_STRENGTH * table[torch.tensor(plan)])
    settings = {
        "no_timestamps_token_id": ids("<|notimestamps|>"), "alignment_heads": [[1, 0], [1, 1]],
        "is_multilingual": language is not None, "max_length": config.max_target_positions,
        "max_initial_timestamp_index": 50, "suppress_tokens": [], "begin_suppress_tokens": [],
        "prev_sot_token_id": ids("<|startofprev|>"), "decoder_start_token_id": ids("<|startoftranscript|>"),
        "bos_token_id": ids("<|endoftext|>"), "eos_token_id": ids("<|endoftext|>"),
        "pad_token_id": ids("<|endoftext|>"),
    }  # fmt: skip
    if language is not None:
        settings["lang_to_id"] = {f"<|{name}|>": ids(f"<|{name}|>") for name in LANGUAGES}
        settings["task_to_id"] = {"transcribe": ids("<|transcribe|>"), "translate": ids("<|translate|>")}
    model.generation_config = GenerationConfig(**settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def make_tokenizer():
    """A byte-level tokenizer that knows a few whole words, with Whisper's special tokens."""
    from transformers import WhisperTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {char: index for index, char in enumerate(bytes_to_unicode().values())}
    merges: list[tuple[str, str]] = []
    for word in ("Ġthe", "Ġand", "Ġto", "Ġhello", "Ġworld"):
        for end in range(1, len(word)):
            if (pair := (word[:end], word[end])) not in merges:
                merges.append(pair)
            vocabulary.setdefault(word[: end + 1], len(vocabulary))
    vocabulary["<|endoftext|>"] = len(vocabulary)
    special = ["<|startoftranscript|>", *(f"<|{name}|>" for name in LANGUAGES), "<|translate|>", "<|transcribe|>"]
    special += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    return WhisperTokenizer(vocab=vocabulary, merges=merges, additional_special_tokens=special)


def convert(folder: Path, out: Path) -> Path:
    """The checkpoint as faster-whisper reads it."""
    import shutil

    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(folder), copy_files=["tokenizer.json"]).convert(str(out))
    shutil.copy(folder / "preprocessor_config.json", out)
    return out
