"""The causal text decoder: BLIP's BERT decoder from transformers, reading the frames by cross attention."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vtsum_kernels.integrations import torchvision_free

from vtsum.config import TextConfig
from vtsum.errors import VTSumError

if TYPE_CHECKING:
    from vtsum_kernels.distributed.stretch import Stretch

    from vtsum.model.cross_attention import FrameAttention

IGNORED = -100


@dataclass
class TextBatch:
    """Token ids [B, L], their mask [B, L] and the targets [B, L] (-100: no loss)."""

    input_ids: Tensor
    attention_mask: Tensor
    targets: Tensor

    @property
    def words(self) -> Tensor:
        """How many tokens carry a loss; the first is given, never predicted."""
        return (self.targets[:, 1:] != IGNORED).sum()


def fingerprint(texts: list[str] | Tensor) -> int:
    """A number that tells sentences, or their ids, from others."""
    found = texts.tolist() if isinstance(texts, Tensor) else texts
    return zlib.crc32(repr(found).encode("utf-8", "surrogatepass"))


def _use_encoder_mask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    kwargs["encoder_attention_mask"] = kwargs.get("attention_mask")
    return args, kwargs


class TextDecoder(nn.Module):
    """Sentences from frames.

    transformers (4.54 to 5.23) hands the cross attention its mask under the wrong name, so that padded frames are
    attended to; a hook on each cross attention gives it the right one.
    """

    def __init__(self, config: TextConfig, encoder_width: int, tokenizer: Any, label_smoothing: float = 0.1) -> None:
        super().__init__()
        torchvision_free.prepare()
        from transformers.models.blip.configuration_blip import BlipTextConfig
        from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel

        from vtsum.model.cross_attention import attend_over_ranks

        self.tokenizer = tokenizer
        self.label_smoothing = label_smoothing
        self.prompt = config.prompt
        ids = tokenizer.convert_tokens_to_ids(["[DEC]", "[SEP]", "[PAD]"])
        self.bos, self.eos, self.pad = ids
        blip = BlipTextConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            encoder_hidden_size=encoder_width,
            intermediate_size=config.intermediate_size,
            projection_dim=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            max_position_embeddings=config.max_positions,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            bos_token_id=self.bos,
            eos_token_id=self.eos,
            sep_token_id=self.eos,
            pad_token_id=self.pad,
            is_decoder=True,
            tie_word_embeddings=True,
        )
        self.lm = BlipTextLMHeadModel(blip)
        for layer in self._layers:
            attend_over_ranks(layer)
        for name, module in self.lm.named_modules():
            if name.endswith("crossattention.self"):
                module.register_forward_pre_hook(_use_encoder_mask, with_kwargs=True)

    def gradient_checkpointing_enable(self) -> None:
        """Compute each layer again in the backward pass. transformers' own switch refuses BLIP's text model."""
        from vtsum.model.cross_attention import recomputing

        for layer in self._layers:
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = recomputing(layer)

    @property
    def _layers(self) -> list[Any]:
        layers: Any = self.lm.bert.encoder.layer
        return list(layers)

    @contextlib.contextmanager
    def _over(self, stretch: Stretch | None, device: torch.device, draws: bool) -> Iterator[None]:
        """Within, the frames are those of all ranks where there is a stretch; `draws`: and random numbers the same."""
        from vtsum.model.cross_attention import over, same_draws

        modules: list[FrameAttention] = [layer.crossattention.self for layer in self._layers]
        with over(modules, stretch), same_draws(stretch, device) if draws and stretch else contextlib.nullcontext():
            yield

    def batch(self, texts: list[str] | Tensor, max_length: int, device: torch.device) -> TextBatch:
        """Sentences, or their ids [B, L] as the tokenizer gives them; the first id becomes [DEC], the prompt carries
        no loss."""
        if isinstance(texts, Tensor):
            ids = self._checked(texts).clone()
            mask = (ids != self.pad).long()
        else:
            tokens = self.tokenizer(
                [self.prompt + t if not t.startswith(self.prompt) else t for t in texts],
                padding="longest",
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            )
            ids, mask = tokens.input_ids.clone(), tokens.attention_mask
        ids[:, 0] = self.bos
        targets = ids.masked_fill(ids == self.pad, IGNORED)
        targets[:, : self.prompt_length] = IGNORED
        return TextBatch(ids.to(device), mask.to(device), targets.to(device))

    def _checked(self, ids: Tensor) -> Tensor:
        longest, words = self.lm.config.max_position_embeddings, self.lm.config.vocab_size
        if ids.ndim != 2 or ids.is_floating_point() or not 0 < ids.shape[1] <= longest:
            raise VTSumError(
                f"VTSum: tsum_labels must be sentences or integers [B, L] with L of 1 to {longest}, "
                f"got {ids.dtype} {list(ids.shape)}"
            )
        if int(ids.min()) < 0 or int(ids.max()) >= words:
            raise VTSumError(
                f"VTSum: tsum_labels must be ids of 0 to {words - 1}, got {int(ids.min())} to {int(ids.max())}"
            )
        return ids.long()

    @property
    def prompt_length(self) -> int:
        """Tokens before the first word of the sentence: [DEC] and the prompt."""
        return len(self.tokenizer(self.prompt).input_ids) - 1

    def forward(
        self,
        frames: Tensor,
        frame_mask: Tensor,
        text: TextBatch,
        words: float | None = None,
        stretch: Stretch | None = None,
    ) -> tuple[Tensor, Tensor]:
        """frames [B, T, C], frame_mask [B, T] -> (loss, logits [B, L, V]): the mean over the text's words; `words`:
        their number, where it is not that of the text's own. With a stretch of the frames the same on all ranks, of
        which each has the whole loss."""
        dropout = self.training and bool(
            self.lm.config.hidden_dropout_prob or self.lm.config.attention_probs_dropout_prob
        )
        with self._over(stretch, frames.device, dropout):
            logits = self.lm(
                input_ids=text.input_ids,
                attention_mask=text.attention_mask,
                encoder_hidden_states=frames,
                encoder_attention_mask=frame_mask.to(text.attention_mask.dtype),
                use_cache=False,
                return_dict=True,
            ).logits
        total = F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(),
            text.targets[:, 1:].flatten(),
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return total / (text.words.clamp_min(1) if words is None else words), logits

    @torch.no_grad()
    def generate(
        self,
        frames: Tensor,
        frame_mask: Tensor,
        *,
        num_beams: int = 3,
        max_length: int = 32,
        min_length: int = 5,
        repetition_penalty: float = 1.0,
        stretch: Stretch | None = None,
        **options: Any,
    ) -> tuple[list[str], Tensor]:
        """One sentence a row; `options` are those of transformers' `generate` (do_sample, top_p, ...). With a stretch
        of the frames the same on all ranks.

        Returns:
            texts without the prompt, ids [B, L] with it.
        """
        longest = self.lm.config.max_position_embeddings
        if not self.prompt_length < max_length <= longest:
            raise VTSumError(
                f"generate: max_length must be more than the prompt's {self.prompt_length} tokens "
                f"and at most {longest}, got {max_length}"
            )
        prompt = self.tokenizer(self.prompt, return_tensors="pt").input_ids[:, :-1]
        prompt = prompt.to(frames.device).expand(frames.shape[0], -1).clone()
        prompt[:, 0] = self.bos
        lm: Any = self.lm  # its annotations do not admit a call of generate
        with self._over(stretch, frames.device, True):
            ids: Tensor = lm.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                encoder_hidden_states=frames,
                encoder_attention_mask=frame_mask.long(),
                num_beams=num_beams,
                max_length=max_length,
                min_length=min_length,
                repetition_penalty=repetition_penalty,
                eos_token_id=self.eos,
                pad_token_id=self.pad,
                **({"do_sample": False} | options),
            )
        if stretch is not None:
            stretch.agree({"generated sentences": fingerprint(ids)}, frames.device)
        texts = [t[len(self.prompt) :].strip() for t in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return texts, ids

    @torch.no_grad()
    def log_probability(self, frames: Tensor, frame_mask: Tensor, ids: Tensor) -> Tensor:
        """Mean log-probability a token of the sentences `ids` [B, L], the prompt and padding left out -> [B]."""
        mask = (ids != self.pad).long()
        logits = self.lm(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=frames,
            encoder_attention_mask=frame_mask.long(),
            use_cache=False,
            return_dict=True,
        ).logits
        scores = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        counted = mask[:, 1:].clone()
        counted[:, : self.prompt_length - 1] = 0
        return (scores * counted).sum(1) / counted.sum(1).clamp_min(1)
