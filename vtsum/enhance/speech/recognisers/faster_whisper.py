"""Whisper models converted for CTranslate2, through faster-whisper: several times as fast on a CPU."""

from __future__ import annotations

import importlib.util
import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vtsum.enhance.speech.activity import Stretch
from vtsum.enhance.speech.recognisers.base import is_repetitive, packs
from vtsum.enhance.speech.sound import RATE
from vtsum.enhance.speech.transcript import Utterance
from vtsum.errors import VTSumError
from vtsum.model.hub_names import guard
from vtsum.model.pretrained import (
    at_work,
    check_cache,
    check_folder,
    check_foreseen,
    files_sha256,
    first_line,
    panics_unheard,
    told_if_well,
)
from vtsum.reading import read_file, read_json

_PROCESSORS = Path("/proc/cpuinfo")
_GPU = re.compile("cuda|cublas|cudnn", re.IGNORECASE)  # what an error of the GPU's names


class FasterWhisper:
    """A converted Whisper model, as a `Recogniser`.

    Args:
        source (str): a folder that ct2-transformers-converter wrote, or a name that faster-whisper knows ("base.en")
            or finds on the hub or in its local cache.
        language (str | None): "en", "de", ...; None: detected in the first piece of sound.
        device (str): "cpu", "cuda", "cuda:1", ...; "auto": a GPU where CTranslate2 can use one, else the CPU.
        compute_type (str): CTranslate2's; "auto" on a CPU is int8, up to twice as fast, where the processor sums it
            exactly (`sums_int8`), else float32; on a GPU what the weights are stored in, mostly float16.
        label (str | None): what the transcript names as its source after "faster-whisper:"; None: `source`.
    Attributes:
        device (str): where it runs.
    Raises:
        VTSumError: faster-whisper is not installed, there is no such model, it does not know the language, or
            CTranslate2 cannot use the device.
    """

    longest = 30.0
    # Clear speech of a language that it knows lies well above both, music ("Thank you.") and other languages below.
    doubtful, understood = 0.6, 0.7
    telling = 2

    def __init__(
        self,
        source: str,
        *,
        language: str | None = None,
        device: str = "auto",
        compute_type: str = "auto",
        label: str | None = None,
    ) -> None:
        if importlib.util.find_spec("faster_whisper") is None:
            raise VTSumError("FasterWhisper: faster-whisper must be installed: pip install vtsum[speech]")

        guard()
        if Path(source).exists():
            check_folder(Path(source), "FasterWhisper")
        else:
            check_cache(_repository(source), "FasterWhisper")
        tried = ["cuda", "cpu"] if device == "auto" and has_gpu() else ["cpu" if device == "auto" else device]
        for self.device in tried:
            try:
                with told_if_well(), panics_unheard():
                    self._model = _load(source, self.device, compute_type)
                break
            except _GpuError as error:
                if self.device == tried[-1]:
                    raise VTSumError(
                        f"FasterWhisper: device must be one that CTranslate2 can use here with {source!r}, got "
                        f"{self.device!r}: {error}"
                    ) from None
            except BaseException as error:  # CTranslate2, tokenizers and the hub's client, each with kinds of its own
                check_foreseen(error)
                raise VTSumError(
                    f"FasterWhisper: source must be a converted Whisper model in a folder, in the local cache or on "
                    f"the hub, got {source!r}: {first_line(error)}"
                ) from None
        self._model.hf_tokenizer.no_padding()  # a file may ask for either, which Whisper's own never does
        self._model.hf_tokenizer.no_truncation()
        self._source = source
        self._check_ids()
        known = set(self._model.supported_languages)
        if language is not None and language not in known:
            raise VTSumError(
                f"FasterWhisper: language must be one that {source!r} knows, got {language!r}; it knows "
                f"{', '.join(sorted(known))}"
            )
        self.name = f"faster-whisper:{label or source}"
        self.language = language

    @property
    def sha256(self) -> dict[str, str]:
        """The digest of its file of weights."""
        return files_sha256(self._folder, "model.bin")

    @property
    def _folder(self) -> Path:
        from faster_whisper.utils import download_model

        folder = Path(self._source)
        return folder if folder.is_dir() else Path(download_model(self._source, local_files_only=True))

    def _check_ids(self) -> None:
        """Refuse numbers of tokens that the model does not have: CTranslate2 reads and writes wherever they lead."""
        with at_work(self._source, "FasterWhisper"):
            words = _count_words(self._folder)
            config = read_json(self._folder / "config.json", dict, "FasterWhisper")
            for name in ("alignment_heads", "suppress_ids", "suppress_ids_begin"):
                if not isinstance(config.get(name), list):  # CTranslate2 would read what is not there
                    raise ValueError(f"no list {name} in its config.json")
            stated = [i for name in ("suppress_ids", "suppress_ids_begin", "lang_ids") for i in config.get(name) or []]
            known = self._model.hf_tokenizer.get_vocab(with_added_tokens=True).values()
            for number in (*stated, *known):
                if not (isinstance(number, int) and 0 <= number < words):
                    raise ValueError(f"the number {number!r:.40} of a token of {words}")

    def recognise(self, stretches: Iterable[Stretch]) -> Iterator[Utterance]:
        """See `Recogniser`. Stretches are packed into sounds of up to 30 s, the length of Whisper's window."""
        for pack in packs(stretches, self.longest):
            with at_work(self._source, "FasterWhisper"):
                segments, info = self._model.transcribe(
                    pack.samples,
                    language=self.language,
                    word_timestamps=True,
                    condition_on_previous_text=False,
                    temperature=0.0,  # where it is unsure it would draw words by chance, others each time
                )
                found = [segment for segment in segments if not is_repetitive(segment.text)]
            self.language = self.language or info.language
            heard = [(w.word, w.start, w.end, w.probability) for s in found for w in s.words or ()]
            yield from pack.utterances(_hyphenated(heard))


def _hyphenated(heard: Iterable[tuple[str, float, float, float]]) -> list[tuple[str, float, float, float]]:
    """Words with what faster-whisper takes off them at a hyphen: " cold" and "-hearted" are one."""
    whole: list[tuple[str, float, float, float]] = []
    for text, start, end, confidence in heard:
        if whole and text[:1] == "-":
            before, start, _, other = whole.pop()
            text, confidence = before + text, min(confidence, other)
        whole.append((text, start, end, confidence))
    return whole


class _GpuError(Exception):
    """The GPU's, not the model's."""


def _count_words(folder: Path) -> int:
    """How many tokens a converted model has."""
    stored = folder / "vocabulary.json"
    if stored.is_file():
        return len(read_json(stored, list, "FasterWhisper"))
    return len(read_file(folder / "vocabulary.txt", "FasterWhisper").removesuffix(b"\n").split(b"\n"))


def _repository(name: str) -> str:
    """What a name of faster-whisper's own stands for on the hub."""
    from faster_whisper.utils import _MODELS

    return str(_MODELS.get(name, name))


def _load(source: str, device: str, compute_type: str) -> Any:
    """A WhisperModel. On a GPU it hears a moment of silence at once: CTranslate2 looks for CUDA's libraries, and for
    memory, when it first computes."""
    from faster_whisper import WhisperModel

    kind, _, number = device.partition(":")
    if kind != "cpu":
        import torch  # noqa: F401  # CUDA's libraries, which come with it, are found once it is there

        if not has_gpu():
            raise _GpuError("it sees no GPU")
    if compute_type == "auto":
        compute_type = "default" if kind != "cpu" else "int8" if sums_int8() else "float32"
    try:
        model = WhisperModel(source, device=kind, device_index=int(number or 0), compute_type=compute_type)
        if kind != "cpu":
            list(model.transcribe(np.zeros(RATE, np.float32), language="en", beam_size=1, max_new_tokens=1)[0])
    except (RuntimeError, ValueError) as error:
        if kind != "cpu" and _GPU.search(str(error)):
            raise _GpuError(first_line(error)) from None
        raise
    return model


def sums_int8() -> bool:
    """Whether products of 8-bit numbers are summed in 32 bits here.

    An x86 processor without VNNI adds them up in pairs of 16 bits first, and what is larger is cut off: other words
    come out, in silence (oneDNN's developer guide, "Nuances of int8 computations"). Where it cannot be found out, no.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return True
    try:
        told = _PROCESSORS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    flags = next((line.split() for line in told.splitlines() if line.startswith("flags")), [])
    return "avx512_vnni" in flags or "avx_vnni" in flags


def has_gpu() -> bool:
    """Whether CTranslate2 sees a GPU; False where it is not installed."""
    if importlib.util.find_spec("ctranslate2") is None:
        return False
    import ctranslate2

    return bool(ctranslate2.get_cuda_device_count())
