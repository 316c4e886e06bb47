"""Videos of unequal length as one batch: padded with a mask, or packed end to end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vtsum.data.videoxum import VideoXumItem
from vtsum.errors import VTSumError


@dataclass
class Batch:
    """B videos.

    Padded: video_embeddings [B, T, C] with zeros at the end, video_mask bool [B, T] (True: a frame), vsum_labels
    [B, A, T]. Packed: video_embeddings [total, C], vsum_labels [A, total], cu_seqlens int32 [B + 1], where video b lies
    in rows cu_seqlens[b] to cu_seqlens[b + 1]. All float32. A is 0 where nobody annotated.
    """

    video_ids: list[str]
    video_embeddings: Tensor
    video_mask: Tensor | None
    vsum_labels: Tensor
    tsum_labels: list[str]
    cu_seqlens: Tensor | None = None
    clip_vision: list[Tensor | None] = dataclasses.field(default_factory=list)
    clip_text: list[Tensor | None] = dataclasses.field(default_factory=list)

    @property
    def packed(self) -> bool:
        return self.cu_seqlens is not None

    @property
    def lengths(self) -> list[int]:
        """Frames of each video."""
        if self.cu_seqlens is not None:
            return self.cu_seqlens.diff().tolist()
        assert self.video_mask is not None  # collate gives one or the other
        return self.video_mask.sum(1).tolist()

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The batch on another device; `dtype` is for the embeddings alone, labels stay float32."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        moved.video_embeddings = moved.video_embeddings.to(dtype) if dtype else moved.video_embeddings
        return moved

    def pin_memory(self) -> Batch:
        """In page-locked memory; DataLoader calls this."""
        return self._each(Tensor.pin_memory)

    def model_inputs(self) -> dict[str, Any]:
        """The arguments of `VTSum.forward`; labels are left out where nobody annotated."""
        inputs: dict[str, Any] = {"video_embeddings": self.video_embeddings, "tsum_labels": self.tsum_labels}
        if self.cu_seqlens is not None:
            inputs["cu_seqlens"] = self.cu_seqlens
        else:
            inputs["video_mask"] = self.video_mask
        if self.vsum_labels.shape[-2]:
            inputs["vsum_labels"] = self.vsum_labels
        return inputs

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        def changed(value: Any) -> Any:
            if isinstance(value, list):
                return [changed(v) for v in value]
            return change(value) if isinstance(value, Tensor) else value

        return Batch(**{field.name: changed(getattr(self, field.name)) for field in dataclasses.fields(self)})


def collate(items: Sequence[VideoXumItem], *, packed: bool = False, part: tuple[int, int] = (0, 1)) -> Batch:
    """A batch of items of a VideoXumDataset.

    Args:
        items: at least one. packed (bool): lay the videos end to end instead of padding them.
        part: (n, N): of the batch's T frames only those of part n of N about equal ones; not packed.
    Raises:
        VTSumError: there is none, or they differ in the features' width or in the number of annotators.
    """
    if not items:
        raise VTSumError("collate: items must hold at least one video, got none")
    first = items[0]
    for item in items:
        ours, theirs = item.features.shape[1], first.features.shape[1]
        if ours != theirs:
            raise VTSumError(
                f"collate: features must all have width {theirs} ({first.video_id}), got {ours} ({item.video_id})"
            )
        ours, theirs = len(item.vsum_labels), len(first.vsum_labels)
        if ours != theirs:
            raise VTSumError(
                f"collate: videos must all have {theirs} annotators ({first.video_id}), got {ours} ({item.video_id})"
            )
    mask = cu_seqlens = None
    frames = max(len(item.features) for item in items)
    own = slice(frames * part[0] // part[1], frames * (part[0] + 1) // part[1])
    lengths = torch.tensor([len(item.features) for item in items])
    if packed:
        embeddings = torch.cat([item.features for item in items])
        labels = torch.cat([item.vsum_labels for item in items], 1)
        cu_seqlens = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(torch.int32)
    else:
        embeddings = _padded([item.features[own] for item in items], own.stop - own.start)
        labels = _padded([item.vsum_labels.T[own] for item in items], own.stop - own.start).transpose(1, 2).contiguous()
        mask = torch.arange(own.start, own.stop)[None] < lengths[:, None]
    return Batch(
        video_ids=[item.video_id for item in items],
        video_embeddings=embeddings,
        video_mask=mask,
        vsum_labels=labels,
        tsum_labels=[item.tsum for item in items],
        cu_seqlens=cu_seqlens,
        clip_vision=[item.clip_vision for item in items],
        clip_text=[item.clip_text for item in items],
    )


def _padded(rows: Sequence[Tensor], length: int) -> Tensor:
    """[n, D] each -> [B, length, D], with zeros at the end."""
    return torch.stack([torch.nn.functional.pad(row, (0, 0, 0, length - len(row))) for row in rows])
