"""Denoising by a text-to-text model: BART, T5, or any other sequence-to-sequence checkpoint of transformers.

The transcript goes through the model in chunks of up to a few sentences, those of like length together; each rewriting
is judged (`guard.judge`), and where it strays the chunk keeps its own words, cleaned by the embedded denoiser. Every
word of the result has a time, found by alignment with the words heard.

Source: Lewis et al., "BART: denoising sequence-to-sequence pre-training", 2020.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vtsum.devices import device_of
from vtsum.enhance.speech.denoise import denoise
from vtsum.enhance.speech.denoise_sentences import split_words
from vtsum.enhance.speech.denoise_times import retime
from vtsum.enhance.speech.guard import MAX_CHANGE, Verdict, judge
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word, joined
from vtsum.errors import VTSumError

CHUNK_WORDS = 60  # words in one chunk at most: a few sentences, far below any model's limit
BATCH_TOKENS = 2048  # tokens of a batch, padding included
_GROWTH, _GROWTH_LEAST = 1.5, 16  # a rewriting may have so many times the tokens, and at least so many more


@dataclass(frozen=True)
class Rewriting:
    """What became of one chunk: its words as heard, the model's words, and the verdict."""

    heard: str
    rewritten: str
    verdict: Verdict


class Seq2SeqDenoiser:
    """A denoiser that calls a sequence-to-sequence model.

    Args:
        checkpoint (str | Path): a folder or a hub name that transformers' AutoModelForSeq2SeqLM and AutoTokenizer read,
            e.g. "facebook/bart-large".
        prompt (str): put before every chunk, for checkpoints that want one ("grammar: ").
        num_beams (int): of the beam search; 1 is greedy.
        max_change (float): see `guard.judge`.
        fallback (Callable): what cleans a chunk whose rewriting is refused.
        device (str): where the model runs: "cpu", "cuda", "cuda:1", ...; "auto": a GPU where there is one.
    Raises:
        VTSumError: transformers is not there, or reads no such model from the checkpoint; PyTorch cannot use the
            device.
        ValueError: num_beams or max_change out of range.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        prompt: str = "",
        num_beams: int = 4,
        max_change: float = MAX_CHANGE,
        fallback: Callable[[Transcript], Transcript] = denoise,
        device: str = "cpu",
    ) -> None:
        if num_beams < 1:
            raise ValueError(f"Seq2SeqDenoiser: num_beams must be at least 1, got {num_beams}")
        if not 0.0 <= max_change <= 1.0:
            raise ValueError(f"Seq2SeqDenoiser: max_change must be in 0..1, got {max_change}")
        self.checkpoint, self.prompt, self.num_beams, self.max_change = str(checkpoint), prompt, num_beams, max_change
        self.fallback, self.device = fallback, device_of(device, "Seq2SeqDenoiser")
        self.tokenizer, self.model = _load(self.checkpoint, self.device)
        from vtsum.model.pretrained import at_work, weights_sha256

        self.sha256 = weights_sha256(self.model.state_dict())
        limits = [
            getattr(self.model.config, name, None) for name in ("max_position_embeddings", "n_positions")
        ]  # T5 has relative positions and neither binds it
        with at_work(self.checkpoint, "Seq2SeqDenoiser"):
            known = [int(limit) for limit in [*limits, self.tokenizer.model_max_length] if limit]
        self.max_tokens = min([*known, 1024])

    def __call__(self, transcript: Transcript) -> Transcript:
        """The transcript rewritten where the guard allows it; an utterance a sentence."""
        return self.rewrite(transcript)[0]

    def rewrite(self, transcript: Transcript) -> tuple[Transcript, list[Rewriting]]:
        """The transcript rewritten, and what became of each chunk, in the order of the transcript.

        Raises:
            VTSumError: the checkpoint's parts do not fit one another.
        """
        from vtsum.model.pretrained import at_work

        with at_work(self.checkpoint, "Seq2SeqDenoiser"):
            chunks = [chunk for u in transcript.utterances for chunk in self._chunks(list(u.words))]
            texts = [joined(w.text for w in chunk) for chunk in chunks]
            generated = self._generate(texts)
        rewritings, words = [], []
        for chunk, heard, rewritten in zip(chunks, texts, generated, strict=True):
            verdict = judge(heard, rewritten, max_change=self.max_change)
            rewritings.append(Rewriting(heard, rewritten, verdict))
            if verdict.accepted and rewritten:
                words.append(retime(chunk, rewritten.split()))
            else:
                kept = self.fallback(replace(transcript, utterances=(Utterance(tuple(chunk)),), warnings=()))
                words.append(list(kept.words))
        found = [Utterance(s) for chunk in words for s in split_words(chunk)]
        found.sort(key=lambda u: u.start)
        refused = sum(not r.verdict.accepted for r in rewritings)
        notes = transcript.warnings
        if refused:
            notes = (*notes, f"{refused} of {len(rewritings)} rewritings by {self.checkpoint} were refused")
        used = (*transcript.models, ("denoiser", self.checkpoint, {"weights": self.sha256}, self.device))
        return replace(transcript, utterances=tuple(found), warnings=notes, models=used), rewritings

    def _chunks(self, words: list[Word]) -> list[list[Word]]:
        """An utterance in chunks that the model takes, cut at the longest pause near the middle until short."""
        tokens = len(self._encode([joined(w.text for w in words)])[0])
        if len(words) == 1 or (len(words) <= CHUNK_WORDS and tokens <= self.max_tokens):
            return [words]
        middle = range(max(len(words) // 4, 1), max(len(words) * 3 // 4, 2))
        cut = max(middle, key=lambda i: (words[i].start - words[i - 1].end, -abs(i - len(words) / 2)))
        return [*self._chunks(words[:cut]), *self._chunks(words[cut:])]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(ids) for ids in self.tokenizer([self.prompt + t for t in texts])["input_ids"]]

    def _generate(self, texts: Sequence[str]) -> list[str]:
        """The model's rewritings, in the order of `texts`; computed by falling length, in batches of `BATCH_TOKENS`."""
        import torch

        from vtsum.model.pretrained import ScoresAreNumbers

        encoded = self._encode(texts) if texts else []
        order = sorted(range(len(texts)), key=lambda i: (-len(encoded[i]), i))
        written = [""] * len(texts)
        at = 0
        while at < len(order):
            longest = min(len(encoded[order[at]]), self.max_tokens)
            batch = order[at : at + max(BATCH_TOKENS // max(longest, 1), 1)]
            at += len(batch)
            inputs = self.tokenizer.pad(
                {"input_ids": [encoded[i][: self.max_tokens] for i in batch]}, return_tensors="pt"
            ).to(self.device)
            most = min(int(longest * _GROWTH) + _GROWTH_LEAST, self.max_tokens)
            with torch.inference_mode():
                ids = self.model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    num_beams=self.num_beams,
                    num_return_sequences=1,
                    do_sample=False,
                    max_length=most,
                    min_length=0,
                    logits_processor=[ScoresAreNumbers()],
                )
            for i, row in zip(batch, ids, strict=True):
                written[i] = " ".join(self.tokenizer.decode(row, skip_special_tokens=True).split())
        return written


def _load(checkpoint: str, device: str) -> tuple[Any, Any]:
    try:
        from vtsum_kernels.integrations import torchvision_free

        from vtsum.model.pretrained import from_pretrained, model_from_pretrained, told_if_well

        torchvision_free.prepare()
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    except ImportError as error:
        raise VTSumError(
            f"Seq2SeqDenoiser: transformers must be installed: pip install vtsum[video] ({error})"
        ) from None
    with told_if_well(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = from_pretrained(AutoTokenizer, checkpoint, "checkpoint", "Seq2SeqDenoiser")
        model = model_from_pretrained(AutoModelForSeq2SeqLM, checkpoint, "checkpoint", "Seq2SeqDenoiser")
    return tokenizer, model.eval().to(device)
