"""Configuration as frozen dataclasses: what is not a field is an error, never ignored."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from vtsum.errors import VTSumError
from vtsum.reading import kinds_named, quoted

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """What a number of a configuration must lie in, written beside its field; None may stand where the type has it.

    Attributes:
        low, high (float): the least and the greatest, finite. above, below (bool): without `low`, without `high`.
        odd (bool): only odd numbers.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    odd: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it; what is not finite never does."""
        try:
            inside = math.isfinite(value) and self.low <= value <= self.high
        except OverflowError:  # a whole number beyond all that has a point
            return False
        return inside and not (
            (self.above and value == self.low) or (self.below and value == self.high) or (self.odd and value % 2 == 0)
        )

    def __str__(self) -> str:
        low, high = (f"{bound:.12g}" for bound in (self.low, self.high))
        if not (self.above or self.below) and self.high < math.inf:
            text = f"{low} to {high}"
        else:
            text = f"{'above' if self.above else 'at least'} {low}"
            text += f" and {'below' if self.below else 'at most'} {high}" if self.high < math.inf else ""
        return f"odd and {text}" if self.odd else text


@dataclass(frozen=True)
class OneOf:
    """The words that a field takes."""

    words: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@functools.cache
def _rules(cls: typing.Hashable) -> dict[str, tuple[Range | OneOf, bool]]:
    """The rule of each field that has one, and whether it may be None."""
    found = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        for rule in getattr(hint, "__metadata__", ()):
            found[name] = rule, type(None) in typing.get_args(typing.get_args(hint)[0])
    return found


def check_fields(config: Any, where: str) -> None:
    """Refuse a configuration with a field outside of its `Range` or `OneOf`.

    Raises:
        VTSumError: naming the first such field; `where` begins the message.
    """
    for name, (rule, optional) in _rules(config.__class__).items():
        value = getattr(config, name)
        if not (optional and value is None) and not rule.holds(value):
            raise VTSumError(f"{where}: {name} must be {rule}{', or None' if optional else ''}, got {value!r}")


_SIZE, _LAYERS = Range(1), Range(0, 1000)
_SHARE = Range(0, 1, below=True)
_WEIGHT = Range(0, 1e6)


@dataclass(frozen=True)
class TextConfig:
    """The causal text decoder (BLIP's BERT decoder)."""

    vocab_size: Annotated[int, _SIZE] = 30524
    hidden_size: Annotated[int, _SIZE] = 768
    num_layers: Annotated[int, Range(1, 1000)] = 12
    num_heads: Annotated[int, _SIZE] = 12
    intermediate_size: Annotated[int, _SIZE] = 3072
    max_positions: Annotated[int, _SIZE] = 512
    dropout: Annotated[float, _SHARE] = 0.1
    prompt: str = "a video of "
    """Every sentence starts with these words; they carry no loss."""

    def __post_init__(self) -> None:
        check_fields(self, "TextConfig")
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
    width: Annotated[int, _SIZE] = 768
    num_heads: Annotated[int, _SIZE] = 12
    depth: Annotated[int, _LAYERS] = 1
    mlp_ratio: Annotated[int, _SIZE] = 4
    max_positions: Annotated[int, _SIZE] = 512
    position_start: Annotated[str, OneOf(("text", "normal"))] = "text"
    """How position embeddings start: "text", as a copy of the text decoder's where a checkpoint of BLIP's starts the
    model, else small; "normal", from N(0, 1), as VideoXum's released training leaves them."""
    positions_over: Annotated[str, OneOf(("video", "batch"))] = "video"
    """What the table of positions is stretched over above max_positions frames: "video", each video's own length;
    "batch", the longest of its batch, as in VideoXum's code, where a video's saliency depends on its neighbours."""
    kernel_size: Annotated[int | None, Range(1, odd=True)] = 5
    """Window of the local attention in frames, odd; None leaves the layer out (VideoXum's TT model)."""
    temporal_window: Annotated[int | None, Range(1, odd=True)] = None
    """Window of the temporal transformer's attention in frames, odd; None lets every frame attend to every other.

    The weights are the same in both forms; a window makes work and memory grow with T instead of T x T.
    """
    memory_slots: Annotated[int, Range(0)] = 64
    """Size of the memory bank; 0 leaves it out."""
    memory_position: Annotated[str, OneOf(("before", "inside", "after"))] = "after"
    """Where frames read the bank: "before", the frame embeddings themselves, ahead of everything else; "inside",
    between attention and MLP in each block of the temporal transformer, which then has a bank of its own; "after",
    between the temporal transformer and the local attention."""
    memory_form: Annotated[str, OneOf(("default", "student"))] = "default"
    """How: "default", normed frames, a learned temperature and a residual; "student", the published extension of
    VideoXum: cosine scaled by 1 / sqrt(C), the frame and what was read joined by a linear layer, and nothing else."""
    memory_top_k: Annotated[int | None, Range(1)] = None
    """Read only so many of the slots, the best for each frame; None: all of them."""
    boundary_head: bool = False
    """Also say at which frames events begin (`VTSumOutput.boundary_logits`), learned from the annotators' spans."""
    dropout: Annotated[float, _SHARE] = 0.0
    loss_type: Annotated[str, OneOf(("cross_entropy", "l2"))] = "cross_entropy"
    """Of the saliency: "cross_entropy", or "l2" on the probabilities."""
    loss_mean: Annotated[str, OneOf(("valid", "released"))] = "valid"
    """What losses are means over: "valid", the frames (or words) of a whole step, padding left out, however the step is
    split into passes; "released", as in VideoXum's code, those of a pass, where padded frames count in cross entropy's
    number, so that the weight of video against text changes with the split."""
    lambda_vsum: Annotated[float, _WEIGHT] = 15.0
    lambda_tsum: Annotated[float, _WEIGHT] = 1.0
    lambda_balance: Annotated[float, _WEIGHT] = 0.0
    """Weight of the banks' balance loss: a forward pass is to use their slots evenly (`MemoryBank.balance_loss`)."""
    lambda_boundary: Annotated[float, _WEIGHT] = 1.0
    """Weight of the boundary head's loss, where there is one."""
    label_smoothing: Annotated[float, _SHARE] = 0.1
    max_text_length: Annotated[int, Range(2)] = 32
    """Longest sentence in token ids, [DEC] and the prompt included; longer ones are cut."""
    text: TextConfig = TextConfig()

    def __post_init__(self) -> None:
        check_fields(self, "VTSumConfig")
        if self.width % self.num_heads:
            raise VTSumError(
                f"VTSumConfig: width must be a multiple of num_heads, got {self.width} and {self.num_heads}"
            )
        if self.memory_top_k is not None and self.memory_top_k > self.memory_slots:
            raise VTSumError(
                f"VTSumConfig: memory_top_k must be at most memory_slots ({self.memory_slots}), or None, "
                f"got {self.memory_top_k}"
            )
        if self.max_text_length > self.text.max_positions:
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
        raise VTSumError(f"{cls.__name__}: values must be an object, got {quoted(values)}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise VTSumError(f"{cls.__name__}: keys must be among {sorted(fields)}, got {unknown}")
    made = {}
    for name, value in values.items():
        default = fields[name].default
        kinds = typing.get_args(hints[name]) or (hints[name],)
        taken = (*kinds, int) if float in kinds else kinds
        if not dataclasses.is_dataclass(default) and type(value) not in taken:
            raise VTSumError(f"{cls.__name__}: {name} must be {kinds_named(*kinds)}, got {quoted(value)}")
        made[name] = from_dict(type(default), value) if dataclasses.is_dataclass(default) else value
    return cls(**made)


def to_dict(config: Any) -> dict[str, Any]:
    """The reverse of `from_dict`."""
    return dataclasses.asdict(config)
