"""The sequence-to-sequence denoiser on a tiny BART checkpoint in the real format that learns a few lines by heart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from vtsum_kernels.integrations import torchvision_free

from vtsum.enhance.speech.denoise_seq2seq import CHUNK_WORDS, Seq2SeqDenoiser
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word
from vtsum.errors import VTSumError

PAIRS = {
    "the man walk to the shop": "The man walks to the shop.",  # a slip mended: accepted
    "he has two dogs": "He has nine dogs.",  # a figure changed: refused
    "we go home": "We go home.",
    "she is is not here um today": "She is here today.",  # a "not" lost: refused
    "so they they sing": "So they sing.",
}


def heard(*texts: str) -> Transcript:
    """Each text an utterance, ten seconds apart, three words a second."""
    utterances = [
        Utterance(tuple(Word(w, 10 * i + k / 3, 10 * i + k / 3 + 0.3, 0.5) for k, w in enumerate(text.split())))
        for i, text in enumerate(texts)
    ]
    return Transcript(tuple(utterances), "faster-whisper:tiny.en", "en", ("a note",))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BART of 64 channels that knows the pairs by heart, saved with its tokenizer as transformers saves them."""
    torchvision_free.prepare()
    from tokenizers import ByteLevelBPETokenizer
    from transformers import BartConfig, BartForConditionalGeneration, BartTokenizer

    folder = tmp_path_factory.mktemp("bart")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([*PAIRS, *PAIRS.values()], vocab_size=400, special_tokens=special, show_progress=False)
    trained.save_model(str(folder))
    tokenizer = BartTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=128, dropout=0.0,
        forced_bos_token_id=0, bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    model = BartForConditionalGeneration(config)
    batch = tokenizer(list(PAIRS), padding=True, return_tensors="pt")
    labels = tokenizer(list(PAIRS.values()), padding=True, return_tensors="pt")["input_ids"]
    labels[labels == tokenizer.pad_token_id] = -100
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    for _ in range(120):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_rewritings_are_taken_or_refused_by_the_guard(checkpoint):
    denoiser = Seq2SeqDenoiser(checkpoint, num_beams=2)
    given = heard(*PAIRS)
    result, pieces = denoiser.rewrite(given)
    assert {p.heard: p.rewritten for p in pieces} == PAIRS  # whatever order and batches they went through the model in
    assert [p.verdict.reason for p in pieces] == ["", "numbers changed", "", "negations changed", ""]
    assert result.text.split("\n") == [
        "The man walks to the shop.",
        "He has two dogs.",  # its own words, cleaned by the embedded denoiser
        "We go home.",
        "She is not here today.",
        "So they sing.",
    ]
    assert result.warnings == ("a note", f"2 of 5 rewritings by {checkpoint} were refused")
    first, asked = result.utterances[0].words, given.utterances[0].words
    assert [(w.start, w.end) for w in first] == [(w.start, w.end) for w in asked]
    assert denoiser(given) == result
    assert (result.source, result.language) == ("faster-whisper:tiny.en", "en")


def test_batches_do_not_change_what_is_written(checkpoint, monkeypatch):
    denoiser = Seq2SeqDenoiser(checkpoint, num_beams=1)
    together = denoiser.rewrite(heard(*PAIRS))[1]
    monkeypatch.setattr("vtsum.enhance.speech.denoise_seq2seq.BATCH_TOKENS", 1)
    assert [p.rewritten for p in denoiser.rewrite(heard(*PAIRS))[1]] == [p.rewritten for p in together]


def test_long_utterances_go_in_pieces_cut_at_pauses(checkpoint):
    denoiser = Seq2SeqDenoiser(checkpoint, num_beams=1)
    words = [
        Word("we", 0.5 * i + (2.0 if i >= 70 else 0.0), 0.5 * i + (2.4 if i >= 70 else 0.4), 0.5) for i in range(130)
    ]
    pieces = denoiser.rewrite(Transcript((Utterance(tuple(words)),), "x", "en"))[1]
    assert sum(len(p.heard.split()) for p in pieces) == 130
    assert all(len(p.heard.split()) <= CHUNK_WORDS for p in pieces)
    assert all(len(denoiser._encode([p.heard])[0]) <= denoiser.max_tokens == 128 for p in pieces)
    starts = [sum(len(p.heard.split()) for p in pieces[:i]) for i in range(len(pieces))]
    assert 70 in starts  # the one long pause


def test_nothing_said_and_a_word_longer_than_the_model_takes(checkpoint):
    denoiser = Seq2SeqDenoiser(checkpoint, num_beams=1)
    assert denoiser(Transcript((), "x", None)).utterances == ()
    word = "zw" * 200
    result, pieces = denoiser.rewrite(heard(word))
    assert not pieces[0].verdict.accepted
    assert result.text.lower() == word + "."


def test_a_fallback_of_the_users_own(checkpoint):
    denoiser = Seq2SeqDenoiser(checkpoint, num_beams=1, max_change=0.0, fallback=lambda transcript: transcript)
    result, pieces = denoiser.rewrite(heard("the man walk to the shop"))
    assert "of the words changed" in pieces[0].verdict.reason
    assert result.text == "the man walk to the shop"


def test_what_is_no_such_checkpoint_is_named(tmp_path):
    with pytest.raises(VTSumError, match="Seq2SeqDenoiser: checkpoint must be a transformers checkpoint"):
        Seq2SeqDenoiser(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(VTSumError, match="Seq2SeqDenoiser: checkpoint must be"):
        Seq2SeqDenoiser(tmp_path)
    with pytest.raises(ValueError, match="Seq2SeqDenoiser: num_beams must be at least 1, got 0"):
        Seq2SeqDenoiser(tmp_path, num_beams=0)
    with pytest.raises(ValueError, match=r"Seq2SeqDenoiser: max_change must be in 0\.\.1, got 3"):
        Seq2SeqDenoiser(tmp_path, max_change=3)
