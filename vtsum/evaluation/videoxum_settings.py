"""The settings of an evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from vtsum.data.videoxum import CLIP_FEATURES, FEATURES
from vtsum.errors import VTSumError
from vtsum.evaluation.videoxum_frames import STRICT, check_protocol
from vtsum.evaluation.videoxum_scores import MAX_RESAMPLES


@dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation depends on, beside the checkpoint's and the data's content."""

    checkpoint: str
    data: str
    split: str = "test"
    protocol: str = STRICT
    architecture: str | None = None
    """Class of the user's own, "module:Class", for the model (`vtsum.plugins`)."""
    tokenizer: str | None = None
    """Of a .pth: the vocabulary."""
    kernel_size: int | str | None = "auto"
    """Of a .pth: the local attention's window; None: the TT model."""
    clip: str | None = None
    """CLIP folder or vt_clip.pth; None: data/clip where it is there."""
    clip_tokenizer: str | None = None
    caption_tokenizer: str = "ptb"
    """"ptb" (needs Java), or "plain", whose figures are not comparable with published ones."""
    num_beams: int = 3
    max_length: int | None = None
    """In ids, the prompt included; None: what the model was trained with (a .pth: 128, as published)."""
    min_length: int = 10
    repetition_penalty: float = 1.0
    batch_size: int = 16
    limit: int | None = None
    """The first so many videos alone; the shortest ones come first."""
    seed: int = 0
    """Of the resamples and of the random baseline."""
    metrics: tuple[str, ...] = ()
    """Measures of the user's own beside the eight (`vtsum.plugins`)."""
    resamples: int = 1000
    random_draws: int = 5

    def check(self) -> None:
        """Raise VTSumError for a value out of its range."""
        check_protocol(self.protocol, "evaluate")
        if self.caption_tokenizer not in ("ptb", "plain"):
            raise VTSumError(f"evaluate: caption_tokenizer must be ptb or plain, got {self.caption_tokenizer!r}")
        for name in ("num_beams", "batch_size", "resamples", "random_draws"):
            if getattr(self, name) < 1:
                raise VTSumError(f"evaluate: {name} must be at least 1, got {getattr(self, name)}")
        limits = {"num_beams": 1000, "batch_size": 1 << 20, "resamples": MAX_RESAMPLES, "seed": 2**63 - 1}
        for name, most in limits.items():
            if getattr(self, name) > most:
                raise VTSumError(f"evaluate: {name} must be at most {most}, got {getattr(self, name)}")
        if self.limit is not None and self.limit < 1:
            raise VTSumError(f"evaluate: limit must be at least 1, got {self.limit}")
        if self.clip_tokenizer is not None and self.clip_source is None:
            raise VTSumError(
                f"evaluate: clip_tokenizer must come with a CLIP text encoder: --clip, or {Path(self.data) / 'clip'}"
            )
        if self.min_length < 0 or not 0 < self.repetition_penalty < math.inf or self.seed < 0:
            raise VTSumError("evaluate: min_length and seed must be 0 or more and repetition_penalty a number above 0")

    @property
    def inputs(self) -> list[str | Path | None]:
        """What is read, as far as it is named or has its place; nothing may be written over it."""
        from vtsum.model.checkpoint import CONFIG, VOCABULARY, WEIGHTS

        source, data = Path(self.checkpoint), Path(self.data)
        weights = [place / name for place in (source, source / "model") for name in (CONFIG, WEIGHTS, VOCABULARY)]
        beside = [data / "anno", data / FEATURES, data / CLIP_FEATURES]
        own = [source] if source.is_file() else weights
        return [*own, *beside, self.clip_source, self.clip_tokenizer, self.tokenizer]

    @property
    def clip_source(self) -> Path | None:
        """Where the text encoder of VT-CLIPScore lies, if anywhere."""
        if self.clip is not None:
            return Path(self.clip)
        beside = Path(self.data) / "clip"
        return beside if beside.is_dir() else None
