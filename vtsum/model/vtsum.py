"""VTSum: from frame embeddings to saliency and sentences.

After VideoXum's VTSum-BLIP (arXiv 2303.12060): position embeddings before and after a temporal transformer, local
attention over a sliding window of frames, a linear saliency head and a causal text decoder, both reading the local
attention's output. A learnable memory bank stands where the configuration asks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from vtsum_kernels.nn import MemoryBank

from vtsum.config import VTSumConfig
from vtsum.errors import VTSumError
from vtsum.model.boundary import BoundaryHead, boundary_loss, boundary_targets
from vtsum.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vtsum.model.losses import LossCounts, VTSumOutput, frames_counted, saliency_loss
from vtsum.model.memory import make_bank, read_bank
from vtsum.model.sequence_parallel import alike_on_ranks, stretch_of
from vtsum.model.temporal import LocalAttention, PositionEmbedding, TemporalTransformer, run
from vtsum.model.text_decoder import TextDecoder
from vtsum.model.videoxum_checkpoint import LoadReport, from_videoxum


class VTSum(nn.Module):
    """The cross-modal summarizer on frame embeddings.

    Args:
        config: sizes; see `VTSumConfig`.
        tokenizer: a transformers tokenizer with [DEC], [SEP] and [PAD]; None leaves the text decoder out.
    """

    def __init__(self, config: VTSumConfig, tokenizer: Any | None = None) -> None:
        super().__init__()
        self.config = config
        dim = config.width
        self.position_embeddings = PositionEmbedding(
            config.max_positions, dim, config.position_start, config.positions_over
        )
        self.drop = nn.Dropout(config.dropout)
        self.temporal = TemporalTransformer(
            dim,
            config.num_heads,
            config.depth,
            config.mlp_ratio,
            config.dropout,
            config.temporal_window,
            partial(make_bank, config) if config.memory_slots and config.memory_position == "inside" else None,
        )
        self.memory = make_bank(config) if config.memory_slots and config.memory_position != "inside" else None
        self.local_attention = (
            LocalAttention(dim, config.num_heads, config.kernel_size) if config.kernel_size is not None else None
        )
        self.saliency_head = nn.Linear(dim, 1)
        nn.init.normal_(self.saliency_head.weight, std=0.02)
        self.text_decoder = (
            TextDecoder(config.text, dim, tokenizer, config.label_smoothing) if tokenizer is not None else None
        )
        # Last: the parts above start from the same random numbers with it and without.
        self.boundary_head = BoundaryHead(dim) if config.boundary_head else None
        self.recompute = False
        self.encoder_state: dict[str, Tensor] = {}
        """Weights of the embedded frame encoder that came with this model; `save_pretrained` writes them again."""
        self.own_loss: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None
        """Taken off the saliency instead of config.loss_type's; `vtsum.protocols.Loss.saliency_loss`."""
        self.loading: LoadReport | None = None
        """What `from_videoxum` found missing and unexpected."""

    @classmethod
    def from_pretrained(cls, source: str | Path) -> VTSum:
        """A model folder, or the hub's name of one (from the local cache where it lies there), in evaluation mode.

        Raises:
            VTSumError: a file missing or broken, another format, weights that do not fit the configuration.
        """
        return cls.load_checkpoint(source).model

    @classmethod
    def load_checkpoint(cls, source: str | Path, *, text: bool = True) -> Checkpoint:
        """`from_pretrained`, with what the folder holds beside the model; without its text decoder where not `text`."""
        return load_checkpoint(source, cls, text=text)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        facts: Mapping[str, Any] | None = None,
        dtype: torch.dtype = torch.float32,
        state_dict: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write config.json, model.safetensors and vocab.txt; a folder that holds a model already gets the new one.

        Args:
            facts: what the model was trained on and how well it did; goes into config.json.
            state_dict: the weights where they do not lie in this module, as after sharded training.
        """
        save_checkpoint(self, Path(folder), facts or {}, dtype, state_dict)

    @classmethod
    def from_videoxum(
        cls,
        checkpoint: str | Path,
        tokenizer: Any,
        kernel_size: int | str | None = "auto",
        text_num_heads: int | None = None,
        num_heads: int | None = None,
        **config: Any,
    ) -> VTSum:
        """A model from the original project's .pth; see `vtsum.model.videoxum_checkpoint.from_videoxum`."""
        return from_videoxum(cls, checkpoint, tokenizer, kernel_size, text_num_heads, num_heads, **config)

    def gradient_checkpointing_enable(self) -> None:
        """Keep only each layer's input for the backward pass and compute the rest again there: temporal blocks, local
        attention, text layers."""
        self.recompute = self.temporal.recompute = True
        if self.text_decoder is not None:
            self.text_decoder.gradient_checkpointing_enable()

    def encode(
        self,
        video_embeddings: Tensor,
        video_mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        *,
        group: Any = None,
    ) -> Tensor:
        """[B, T, C], or packed [total, C] -> the same shape: what the saliency head and the text decoder read.

        group: the frames are this rank's stretch of the videos, see `forward`.
        """
        mask, lengths = self._check(video_embeddings, video_mask, cu_seqlens)
        stretch = stretch_of(self, group, video_embeddings, mask, cu_seqlens)
        if stretch is not None:
            mask = stretch.own_mask
        x = video_embeddings
        if self.memory is not None and self.config.memory_position == "before":
            x = read_bank(self.memory, x, mask)
        position = self.position_embeddings(x.shape[1] if lengths is None else lengths, mask, stretch)
        x = self.temporal(self.drop(x + position), mask, cu_seqlens, stretch) + position
        if self.memory is not None and self.config.memory_position == "after":
            x = read_bank(self.memory, x, mask)
        if self.local_attention is not None:
            x = run(self.local_attention, x, mask, cu_seqlens, stretch, recompute=self.recompute)
        if stretch is not None:
            for bank in self.banks():
                bank.sum_usage(stretch.handle)
        return x

    def banks(self) -> list[MemoryBank]:
        """Every memory bank of the model: one, or one a temporal block, or none."""
        return [module for module in self.modules() if isinstance(module, MemoryBank)]

    def fold_(self) -> VTSum:
        """Fold each memory bank for inference, see `MemoryBank.fold_`: after loading and moving. Returns self."""
        for bank in self.banks():
            bank.fold_()
        return self

    def _check(self, x: Tensor, mask: Tensor | None, cu: Tensor | None) -> tuple[Tensor | None, list[int] | None]:
        """The mask as bool and, for packed videos, their lengths; or an error that names what does not fit."""
        shape = "[B, T, {}]" if cu is None else "[total, {}] with cu_seqlens"
        if x.ndim != (3 if cu is None else 2) or x.shape[-1] != self.config.width:
            raise VTSumError(f"VTSum: video_embeddings must be {shape.format(self.config.width)}, got {list(x.shape)}")
        if cu is None:
            if mask is not None and mask.shape != x.shape[:2]:
                raise VTSumError(f"VTSum: video_mask must be [B, T] = {list(x.shape[:2])}, got {list(mask.shape)}")
            return None if mask is None else mask.bool(), None
        if mask is not None:
            raise VTSumError(
                "VTSum: video_mask must be None with cu_seqlens: packed videos have no padding, got a mask"
            )
        bounds = cu.tolist() if cu.ndim == 1 and not cu.is_floating_point() else []
        lengths = [b - a for a, b in pairwise(bounds)]
        if not lengths or bounds[0] != 0 or bounds[-1] != len(x) or min(lengths) < 1:
            raise VTSumError(f"VTSum: cu_seqlens must be integers that rise from 0 to {len(x)}, got {cu.tolist()}")
        return None, lengths

    def saliency_logits(self, frames: Tensor) -> Tensor:
        """Frames as `encode` gives them, [B, T, C] -> [B, T], or [total, C] -> [total]."""
        return self.saliency_head(frames)[..., 0]

    def boundary_logits(
        self,
        video_embeddings: Tensor,
        frames: Tensor,
        video_mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        *,
        group: Any = None,
    ) -> Tensor:
        """That an event begins at a frame, from the embeddings and what `encode` made of them: [B, T] or [total].

        Raises:
            VTSumError: the model has no boundary head.
        """
        if self.boundary_head is None:
            raise VTSumError("boundary_logits: the model must have a boundary head, got one without (boundary_head)")
        stretch = stretch_of(self, group, video_embeddings, video_mask, cu_seqlens)
        mask = video_mask if stretch is None else stretch.own_mask
        return self.boundary_head(video_embeddings, frames, mask, cu_seqlens, stretch)

    def forward(
        self,
        video_embeddings: Tensor,
        video_mask: Tensor | None = None,
        vsum_labels: Tensor | None = None,
        tsum_labels: list[str] | Tensor | None = None,
        *,
        cu_seqlens: Tensor | None = None,
        max_text_length: int | None = None,
        counts: LossCounts | None = None,
        group: Any = None,
    ) -> VTSumOutput:
        """Losses where labels are given.

        Args:
            video_embeddings: [B, T, C]; packed [total, C], one video after the other.
            video_mask: bool or 0/1 [B, T], 1 for a real frame; None where all are, and with cu_seqlens.
            vsum_labels: [B, A, T] in 0..1, one row an annotator; packed [A, total].
            tsum_labels: B sentences, or their ids [B, L] as the tokenizer gives them, the prompt included.
            cu_seqlens: int [B + 1], where each packed video starts and the last one ends.
            max_text_length: of sentences, in ids; None takes the configuration's.
            counts: what the losses are divided by; None: this batch's own `loss_counts`. Where a step has several
                passes, each gets a pass's share of the whole step's: the mean of their losses is then the step's.
            group: a ProcessGroup or a DeviceMesh of one dimension, whose every rank calls this with its stretch of the
                same videos, one after the other: [B, T_r, C], mask and labels of those frames, any number or none, and
                all sentences. `frames` and the logits of frames are then those of the stretch; losses and text logits
                are the whole's, the same on all ranks. Gradients are shares: summed over the ranks (where a wrapper
                takes their mean, of the loss times the ranks) they are those of one process.
        Raises:
            VTSumError: shapes that do not fit; packed videos, or a loss of one's own, with a group.
            ValueError: ranks of a group differ in what must be alike, on all of them.
            RuntimeError: a rank does not answer within the group's timeout, or is gone; it is named.
        """
        stretch = None
        if group is not None:
            mask, _ = self._check(video_embeddings, video_mask, cu_seqlens)
            alike = alike_on_ranks(vsum_labels, tsum_labels, max_text_length, counts)
            stretch = stretch_of(self, group, video_embeddings, mask, cu_seqlens, **alike)
        # A model of one's own need not know of groups as long as there are none.
        where: dict[str, Any] = {} if stretch is None else {"group": stretch}
        frames = self.encode(video_embeddings, video_mask, cu_seqlens, **where)
        saliency_logits = self.saliency_logits(frames)
        losses: list[Tensor] = []
        loss_vsum = loss_tsum = loss_balance = loss_boundary = text_logits = targets = boundary_logits = None
        if self.boundary_head is not None:
            boundary_logits = self.boundary_logits(video_embeddings, frames, video_mask, cu_seqlens, **where)
        if vsum_labels is not None:
            of_vsum = of_boundary = None if counts is None else counts.frames
            if stretch is not None and counts is None:
                of_vsum, of_boundary = frames_counted(self.config, stretch, len(video_embeddings))
            loss_vsum = self.video_loss(saliency_logits, video_mask, vsum_labels, of_vsum)
            if stretch is not None:
                loss_vsum = stretch.whole(loss_vsum)
            losses.append(self.config.lambda_vsum * loss_vsum)
            if boundary_logits is not None:
                wanted = boundary_targets(vsum_labels.float(), video_mask, cu_seqlens, stretch)
                loss_boundary = boundary_loss(boundary_logits, wanted, video_mask, of_boundary)
                if stretch is not None:
                    loss_boundary = stretch.whole(loss_boundary)
                losses.append(self.config.lambda_boundary * loss_boundary)
        if tsum_labels is not None:
            if self.text_decoder is None:
                raise VTSumError("VTSum: tsum_labels must be None for a model without a text decoder, got sentences")
            padded, text_mask = self._padded(frames, video_mask, cu_seqlens)
            if len(tsum_labels) != len(padded):
                raise VTSumError(f"VTSum: tsum_labels must hold {len(padded)} sentences, got {len(tsum_labels)}")
            text = self.text_decoder.batch(tsum_labels, max_text_length or self.config.max_text_length, frames.device)
            words = None if counts is None else counts.words
            loss_tsum, text_logits = self.text_decoder(padded, text_mask, text, words, stretch)
            if stretch is not None:
                loss_tsum = stretch.whole(loss_tsum / stretch.ranks)  # each has all of it
            losses.append(self.config.lambda_tsum * loss_tsum)
            targets = text.targets
        if losses and self.config.lambda_balance and self.config.memory_slots and torch.is_grad_enabled():
            loss_balance = torch.stack([bank.balance_loss() for bank in self.banks()]).mean()
            losses.append(self.config.lambda_balance * loss_balance)
        loss = torch.stack(losses).sum() if losses else None
        return VTSumOutput(
            saliency_logits,
            frames,
            loss,
            loss_vsum,
            loss_tsum,
            text_logits,
            targets,
            loss_balance,
            boundary_logits,
            loss_boundary,
        )

    @staticmethod
    def _padded(frames: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
        """Frames as a batch [B, T, C] with its mask [B, T], as the text decoder wants them."""
        if cu_seqlens is not None:
            videos = frames.split(cu_seqlens.diff().tolist())
            frames = pad_sequence(videos, batch_first=True)
            mask = pad_sequence([v.new_ones(len(v)) for v in videos], batch_first=True)
        return frames, frames.new_ones(frames.shape[:2]) if mask is None else mask

    def loss_counts(
        self,
        video_mask: Tensor | None = None,
        vsum_labels: Tensor | None = None,
        tsum_labels: list[str] | Tensor | None = None,
        max_text_length: int | None = None,
    ) -> LossCounts:
        """The annotated frames and the words of a batch, whose arguments are those of `forward`."""
        frames = words = 0
        if vsum_labels is not None:
            every = vsum_labels[..., 0, :].numel()
            frames = every if video_mask is None else int(video_mask.sum())
        if tsum_labels is not None and self.text_decoder is not None:
            longest = max_text_length or self.config.max_text_length
            words = int(self.text_decoder.batch(tsum_labels, longest, torch.device("cpu")).words)
        return LossCounts(frames, words)

    def video_loss(self, logits: Tensor, mask: Tensor | None, labels: Tensor, frames: float | None = None) -> Tensor:
        """The saliency's loss against each annotator: the mean over real frames and annotators.

        cross_entropy: binary cross entropy with logits. l2: (probability - label) squared. As VideoXum's code has them,
        but that there (loss_mean "released") padded frames count 1 each in cross entropy's number, and 0 in its sum.

        Args:
            logits: [B, T], mask [B, T] or None, labels [B, A, T]; packed [total], None, [A, total].
            frames: their number, where it is not that of the logits' real ones (`LossCounts`).
        """
        if labels.ndim != logits.ndim + 1 or (*labels.shape[:-2], labels.shape[-1]) != logits.shape:
            expected = "[B, A, T]" if logits.ndim == 2 else "[A, total]"
            raise VTSumError(
                f"VTSum: vsum_labels must be {expected} for logits {list(logits.shape)}, got {list(labels.shape)}"
            )
        if self.own_loss is not None:
            return self.own_loss(logits, labels, None if mask is None else mask.bool())
        return saliency_loss(self.config, logits, mask, labels, frames)

    @torch.no_grad()
    def generate(
        self,
        video_embeddings: Tensor,
        video_mask: Tensor | None = None,
        *,
        num_beams: int = 3,
        max_length: int | None = None,
        min_length: int = 10,
        repetition_penalty: float = 1.0,
        group: Any = None,
        **options: Any,
    ) -> tuple[list[str], Tensor, Tensor]:
        """A sentence and the saliency of each video; call `eval()` first, or dropout stays on.

        Args:
            video_embeddings, video_mask: as `forward` takes them, padded.
            max_length, min_length: of the sentence in ids, the prompt included; None: config.max_text_length.
            group: as `forward` takes it; the sentences are the same on all ranks, the logits those of the stretch.
            options: more of transformers' `generate`, such as do_sample=True with num_beams=1 and top_p.
        Returns:
            texts without the prompt, ids [B, L] with it, saliency logits [B, T].
        """
        if self.text_decoder is None:
            raise VTSumError("generate: the model must have a text decoder, got one made without a tokenizer")
        stretch = stretch_of(self, group, video_embeddings, video_mask, None)
        where: dict[str, Any] = {} if stretch is None else {"group": stretch}
        frames, mask = self._padded(self.encode(video_embeddings, video_mask, **where), video_mask, None)
        texts, ids = self.text_decoder.generate(
            frames,
            mask,
            num_beams=num_beams,
            max_length=self.config.max_text_length if max_length is None else max_length,
            min_length=min_length,
            repetition_penalty=repetition_penalty,
            stretch=stretch,
            **options,
        )
        return texts, ids, self.saliency_logits(frames)
