"""Configuration as frozen dataclasses: what is not a field is an error, never ignored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from vtsum.errors import VTSumError

T = TypeVar("T")


@dataclass(frozen=True)
class TextConfig:
    """The causal text decoder (BLIP's BERT decoder)."""

    vocab_size: int = 30524
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 512
    dropout: float = 0.1
    prompt: str = "a video of "
    """Every sentence starts with these words; they carry no loss."""


@dataclass(frozen=True)
class VTSumConfig:
    """The cross-modal summarizer; the defaults are VideoXum's TT+CA model with a memory bank added.

    Sizes: `width` is the frame embedding's (and the temporal transformer's) dimension C.
    """

    frame_encoder: str = "blip"
    width: int = 768
    num_heads: int = 12
    depth: int = 1
    mlp_ratio: int = 4
    max_positions: int = 512
    kernel_size: int | None = 5
    """Window of the local attention in frames, odd; None leaves the layer out (VideoXum's TT model)."""
    memory_slots: int = 64
    """Size of the memory bank; 0 leaves it out."""
    dropout: float = 0.0
    lambda_vsum: float = 15.0
    lambda_tsum: float = 1.0
    label_smoothing: float = 0.1
    text: TextConfig = TextConfig()

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise VTSumError(
                f"VTSumConfig: width must be a multiple of num_heads, got {self.width} and {self.num_heads}"
            )
        if self.kernel_size is not None and (self.kernel_size < 1 or self.kernel_size % 2 == 0):
            raise VTSumError(f"VTSumConfig: kernel_size must be odd and positive, or None, got {self.kernel_size}")
        if self.memory_slots < 0:
            raise VTSumError(f"VTSumConfig: memory_slots must be 0 or more, got {self.memory_slots}")


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Build a config dataclass from plain data, nested ones too.

    Raises:
        VTSumError: a key that is no field of `cls`.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise VTSumError(f"{cls.__name__}: keys must be among {sorted(fields)}, got {unknown}")
    made = {}
    for name, value in values.items():
        default = fields[name].default
        made[name] = from_dict(type(default), value) if dataclasses.is_dataclass(default) else value
    return cls(**made)


def to_dict(config: Any) -> dict[str, Any]:
    """The reverse of `from_dict`."""
    return dataclasses.asdict(config)
