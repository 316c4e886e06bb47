"""Configuration as frozen dataclasses: what is not a field is an error, never ignored."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from vtsum.errors import VTSumError

T = TypeVar("T")
CHOICES = {
    "memory_position": ("before", "inside", "after"),
    "memory_form": ("default", "student"),
    "loss_type": ("cross_entropy", "l2"),
    "loss_mean": ("valid", "released"),
    "position_start": ("text", "normal"),
    "positions_over": ("video", "batch"),
}
"""Fields of `VTSumConfig` that take one of a few words."""
_MOST_LAYERS = 1000


def _check_shares(config: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise VTSumError(f"{type(config).__name__}: {name} must be 0 to 1, got {getattr(config, name)}")


def _check_positive(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise VTSumError(f"{type(config).__name__}: {name} must be at least 1, got {getattr(config, name)}")


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

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "max_positions")
        _check_positive(self, *sizes)
        _check_shares(self, "dropout")
        if self.num_layers > _MOST_LAYERS:
            raise VTSumError(f"TextConfig: num_layers must be at most {_MOST_LAYERS}, got {self.num_layers}")
        if self.hidden_size % self.num_heads:
            raise VTSumError(
                f"TextConfig: hidden_size must be a multiple of num_heads, got {self.hidden_size} and {self.num_heads}"
            )


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
    position_start: str = "text"
    """How position embeddings start: "text", as a copy of the text decoder's where a checkpoint of BLIP's starts the
    model, else small; "normal", from N(0, 1), as VideoXum's released training leaves them."""
    positions_over: str = "video"
    """What the table of positions is stretched over above max_positions frames: "video", each video's own length;
    "batch", the longest of its batch, as in VideoXum's code, where a video's saliency depends on its neighbours."""
    kernel_size: int | None = 5
    """Window of the local attention in frames, odd; None leaves the layer out (VideoXum's TT model)."""
    temporal_window: int | None = None
    """Window of the temporal transformer's attention in frames, odd; None lets every frame attend to every other.

    The weights are the same in both forms; a window makes work and memory grow with T instead of T x T.
    """
    memory_slots: int = 64
    """Size of the memory bank; 0 leaves it out."""
    memory_position: str = "after"
    """Where frames read the bank: "before", the frame embeddings themselves, ahead of everything else; "inside",
    between attention and MLP in each block of the temporal transformer, which then has a bank of its own; "after",
    between the temporal transformer and the local attention."""
    memory_form: str = "default"
    """How: "default", normed frames, a learned temperature and a residual; "student", the published extension of
    VideoXum: cosine scaled by 1 / sqrt(C), the frame and what was read joined by a linear layer, and nothing else."""
    memory_top_k: int | None = None
    """Read only so many of the slots, the best for each frame; None: all of them."""
    boundary_head: bool = False
    """Also say at which frames events begin (`VTSumOutput.boundary_logits`), learned from the annotators' spans."""
    dropout: float = 0.0
    loss_type: str = "cross_entropy"
    """Of the saliency: "cross_entropy", or "l2" on the probabilities."""
    loss_mean: str = "valid"
    """What losses are means over: "valid", the frames (or words) of a whole step, padding left out, however the step is
    split into passes; "released", as in VideoXum's code, those of a pass, where padded frames count in cross entropy's
    number, so that the weight of video against text changes with the split."""
    lambda_vsum: float = 15.0
    lambda_tsum: float = 1.0
    lambda_balance: float = 0.0
    """Weight of the banks' balance loss: a forward pass is to use their slots evenly (`MemoryBank.balance_loss`)."""
    lambda_boundary: float = 1.0
    """Weight of the boundary head's loss, where there is one."""
    label_smoothing: float = 0.1
    max_text_length: int = 32
    """Longest sentence in token ids, [DEC] and the prompt included; longer ones are cut."""
    text: TextConfig = TextConfig()

    def __post_init__(self) -> None:
        _check_positive(self, "width", "num_heads", "mlp_ratio", "max_positions")
        _check_shares(self, "dropout", "label_smoothing")
        if not 0 <= self.depth <= _MOST_LAYERS:
            raise VTSumError(f"VTSumConfig: depth must be 0 to {_MOST_LAYERS}, got {self.depth}")
        if self.width % self.num_heads:
            raise VTSumError(
                f"VTSumConfig: width must be a multiple of num_heads, got {self.width} and {self.num_heads}"
            )
        for name, size in (("kernel_size", self.kernel_size), ("temporal_window", self.temporal_window)):
            if size is not None and (size < 1 or size % 2 == 0):
                raise VTSumError(f"VTSumConfig: {name} must be odd and positive, or None, got {size}")
        if self.memory_slots < 0:
            raise VTSumError(f"VTSumConfig: memory_slots must be 0 or more, got {self.memory_slots}")
        if self.memory_top_k is not None and self.memory_top_k < 1:
            raise VTSumError(f"VTSumConfig: memory_top_k must be at least 1, or None, got {self.memory_top_k}")
        for name, allowed in CHOICES.items():
            if (value := getattr(self, name)) not in allowed:
                raise VTSumError(f"VTSumConfig: {name} must be one of {', '.join(allowed)}, got {value!r}")
        if not 1 < self.max_text_length <= self.text.max_positions:
            raise VTSumError(
                f"VTSumConfig: max_text_length must be 2 to text.max_positions ({self.text.max_positions}), "
                f"got {self.max_text_length}"
            )


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Build a config dataclass from plain data, nested ones too.

    Raises:
        VTSumError: a key that is no field of `cls`, a value of another type.
    """
    if not isinstance(values, dict):
        raise VTSumError(f"{cls.__name__}: values must be an object, got {values!r:.80}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise VTSumError(f"{cls.__name__}: keys must be among {sorted(fields)}, got {unknown}")
    made = {}
    for name, value in values.items():
        default = fields[name].default
        kinds = typing.get_args(hints[name]) or (hints[name],)
        kinds += (int,) if float in kinds else ()
        if not dataclasses.is_dataclass(default) and type(value) not in kinds:
            allowed = " or ".join(kind.__name__ for kind in kinds)
            raise VTSumError(f"{cls.__name__}: {name} must be {allowed}, got {value!r:.80}")
        made[name] = from_dict(type(default), value) if dataclasses.is_dataclass(default) else value
    return cls(**made)


def to_dict(config: Any) -> dict[str, Any]:
    """The reverse of `from_dict`."""
    return dataclasses.asdict(config)
