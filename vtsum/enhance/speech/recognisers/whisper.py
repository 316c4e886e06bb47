"""Whisper checkpoints of transformers, with word times and the probabilities of words.

Times come from dynamic time warping of the cross-attention of the heads named in the checkpoint (`alignment_heads`);
where it names none, from all heads of the upper half of the decoder's layers. A word's confidence is the mean
probability of its tokens.

Source: Radford et al., "Robust speech recognition via large-scale weak supervision", 2022; word times as transformers
computes them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from vtsum.devices import device_of
from vtsum.enhance.speech.activity import Stretch
from vtsum.enhance.speech.recognisers.base import is_repetitive, packs, words_of_tokens
from vtsum.enhance.speech.sound import RATE
from vtsum.enhance.speech.transcript import Utterance
from vtsum.errors import VTSumError

_LONGEST = 3600.0  # seconds that a checkpoint may take at once; Whisper's own take 30


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the terminal what transformers says of options that its own Whisper code sets, and its bars."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class Whisper:
    """A Whisper checkpoint in transformers' format, as a `Recogniser`.

    Args:
        source (str): a folder, or a name on the hub or in its local cache ("openai/whisper-base").
        language (str | None): "en", "de", ...; None: detected in each piece of sound, for multilingual checkpoints.
        batch_size (int): pieces of up to 30 s recognised at once.
        device (str): "cpu", "cuda", "cuda:1", ...; "auto": a GPU where there is one. On a GPU in float16.
    Raises:
        VTSumError: transformers finds no such checkpoint, it is none of Whisper, or PyTorch cannot use the device.
        ValueError: a batch size under 1.
    """

    name = "whisper"
    doubtful = understood = 0.2
    telling = 0

    def __init__(self, source: str, *, language: str | None = None, batch_size: int = 4, device: str = "auto") -> None:
        import torch
        from vtsum_kernels.integrations import torchvision_free

        from vtsum.model.pretrained import at_work, from_pretrained, model_from_pretrained, weights_sha256

        if batch_size < 1:
            raise ValueError(f"Whisper: batch_size must be at least 1, got {batch_size}")
        torchvision_free.prepare()
        from transformers import AutoConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

        with _quiet():
            kind = from_pretrained(AutoConfig, source, "a Whisper model").model_type
            if kind != "whisper":
                raise VTSumError(f"Whisper: {source!r} must be a Whisper checkpoint, got one of {kind!r}")
            self._features = from_pretrained(WhisperFeatureExtractor, source, "a Whisper feature extractor")
            self._tokenizer = from_pretrained(WhisperTokenizer, source, "a Whisper tokenizer")
            model = model_from_pretrained(WhisperForConditionalGeneration, source, "a Whisper model")
        self._source = source
        self.device = device_of(device, "Whisper")
        self._model = model.to(self.device, torch.float16 if self.device.startswith("cuda") else torch.float32).eval()
        with at_work(source, "Whisper"):  # a configuration may say anything
            if not 1.0 <= (longest := float(self._features.chunk_length)) <= _LONGEST:
                raise ValueError(f"a chunk_length of {longest:g} seconds")
            settings = self._model.generation_config
            if getattr(settings, "alignment_heads", None) is None:
                layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
                settings.alignment_heads = [
                    list(p) for p in itertools.product(range(layers // 2, layers), range(heads))
                ]
            self._languages = {i: t.strip("<|>") for t, i in (getattr(settings, "lang_to_id", None) or {}).items()}
            if language is not None and self._languages and language not in self._languages.values():
                known = ", ".join(sorted(self._languages.values()))
                raise VTSumError(
                    f"Whisper: language must be one that {source!r} knows, got {language!r}; it knows {known}"
                )
        self._wanted = language if self._languages else None
        self.language = language if self._languages else "en"  # checkpoints without languages know English only
        self.batch_size = batch_size
        self.sha256 = {"weights": weights_sha256(model.state_dict())}
        self.longest = longest

    def recognise(self, stretches: Iterable[Stretch]) -> Iterator[Utterance]:
        """See `Recogniser`. `batch_size` packs of stretches, each up to `longest` seconds, are recognised at once."""
        from vtsum.model.pretrained import at_work

        gathered = packs(stretches, self.longest)
        while batch := list(itertools.islice(gathered, self.batch_size)):
            with at_work(self._source, "Whisper"):
                all_heard = self._hear([pack.samples for pack in batch])
            for pack, heard in zip(batch, all_heard, strict=True):
                yield from pack.utterances(heard)

    def _hear(self, sounds: list[np.ndarray]) -> list[list[tuple[str, float, float, float]]]:
        """(text, start, end, confidence) of the words in each sound, in seconds from its start."""
        import torch

        from vtsum.model.pretrained import ScoresAreNumbers

        found = self._features(sounds, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        options: dict[str, Any] = {}
        if self._languages:
            options = {"task": "transcribe", "language": self._wanted}
        with torch.inference_mode(), _quiet():
            out = self._model.generate(
                found.input_features.to(self.device, self._model.dtype),
                attention_mask=found.attention_mask.to(self.device),
                logits_processor=[ScoresAreNumbers()],
                num_beams=1,  # whatever the checkpoint says: each step's scores are taken for the one row's
                num_return_sequences=1,
                do_sample=False,
                return_timestamps=False,
                return_token_timestamps=True,
                return_dict_in_generate=True,
                output_scores=True,
                **options,
            )
        words = []
        for row, sound in enumerate(sounds):
            tokens = out["sequences"][row].tolist()
            prompt = len(tokens) - len(out["scores"])
            language = next((self._languages[t] for t in tokens[:prompt] if t in self._languages), None)
            if self._wanted is None and language is not None:
                self.language = self.language or language
            chosen = zip(out["scores"], tokens[prompt:], strict=True)
            chances = [float(torch.softmax(scores[row].float(), -1)[token]) for scores, token in chosen]
            times = out["token_timestamps"][row].tolist()[prompt:]
            words.append(self._words(tokens[prompt:], chances, times, len(sound) / RATE, language or self.language))
        return words

    def _words(
        self, tokens: list[int], chances: list[float], times: list[float], length: float, language: str | None
    ) -> list[tuple[str, float, float, float]]:
        special, times_from = set(self._tokenizer.all_special_ids), self._model.generation_config.no_timestamps_token_id
        end = next((i for i, t in enumerate(tokens) if t == self._tokenizer.eos_token_id), len(tokens))
        kept = [i for i in range(end) if tokens[i] not in special and tokens[i] < times_from]
        text_tokens = [tokens[i] for i in kept]

        def decode(part: list[int]) -> str:
            return str(self._tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False))

        if is_repetitive(decode(text_tokens)):
            return []  # the decoder went round in circles, as it does on noise and music
        words = []
        for text, first, last in words_of_tokens(text_tokens, decode, language):
            start = min(times[kept[first]], length)
            # A token's time is where it begins; the last one's end is not known, and it lasts to the sound's end.
            until = min(times[kept[last]], length) if last < len(kept) else length
            words.append((text, start, max(until, start), float(np.mean([chances[i] for i in kept[first:last]]))))
        return words
