"""Checkpoints of transformers that answer in turns, from pictures and text or from text alone.

Weights are read from safetensors alone, and code that comes with a checkpoint is never run. What is put into a turn is
data: marks by which a checkpoint tells turns and pictures apart are taken out of it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtsum.devices import device_of, memory_told
from vtsum.errors import VTSumError
from vtsum.model.chat_template import around
from vtsum.model.pretrained import (
    ScoresAreNumbers,
    at_work,
    check_folder,
    from_pretrained,
    model_from_pretrained,
    snapshot,
    told_if_well,
)

if TYPE_CHECKING:
    import torch

FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")  # of a repository; code and pickles stay there
_SPARE = 0.5  # of the free memory that weights may take in float32; else they are read in bfloat16
_A_TURN = 1 << 30  # bytes of a GPU that a turn with pictures is reckoned to need while it is answered
_MOST = 8  # turns answered at once
_EDGE, _PIXELS = 8192, 1 << 26  # of a picture as a model wants it; published ones want a quarter of that at most
_YES, _NO = ("Yes", "yes", " Yes", " yes", "YES"), ("No", "no", " No", " no", "NO")


@dataclass(frozen=True)
class Turn:
    """What is asked: text, and pictures (uint8 [H, W, 3]) before it."""

    text: str
    pictures: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a checkpoint wrote, and the geometric mean of its tokens' probabilities, 0..1."""

    text: str
    confidence: float


def checkpoint_folder(source: str | os.PathLike[str], op: str, *, local: bool = False) -> Path:
    """The folder of a checkpoint with its safetensors: `source` itself, or where the hub's cache has it.

    local: nothing is fetched.

    Raises:
        VTSumError: it cannot be had, or has no safetensors.
    """
    folder = Path(source) if Path(source).exists() else snapshot(os.fspath(source), list(FILES), local=local)
    if not folder.is_dir() or not any(folder.glob("*.safetensors")):
        raise VTSumError(
            f"{op}: {os.fspath(source)!r} must be the folder or hub name of a checkpoint with its weights in "
            "safetensors, got none there"
        )
    return folder


class Chat:
    """A checkpoint with a chat template.

    Dtype and batch are those of the device: on a GPU bfloat16 (float16 where it has no such), in which such checkpoints
    are published, and as many turns at once as its memory holds; on the CPU float32 where that leaves half of the free
    memory, one turn after the other.

    Args:
        source: a folder, or a name on the hub or in its local cache.
        pictures (bool): it reads pictures (AutoModelForImageTextToText), or text alone (AutoModelForCausalLM).
        op: begins messages. local: nothing is fetched. device: "cpu", "cuda", "cuda:1", ...; "auto": a GPU
            where there is one.
    Attributes:
        folder (Path): where its files are. name (str): `source`.
    Raises:
        VTSumError: there is no such checkpoint, it lacks weights or a chat template, or asks for code of its
            own; PyTorch cannot use the device, or it is too small.
    """

    @told_if_well()
    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        pictures: bool,
        op: str,
        local: bool = False,
        device: str = "auto",
    ) -> None:
        import torch
        from vtsum_kernels.integrations import torchvision_free

        self.name = os.fspath(source)
        self.folder = checkpoint_folder(source, op, local=local)
        check_folder(self.folder, op)
        if pictures and importlib.util.find_spec("torchvision") is None:
            raise VTSumError(f"{op}: torchvision must be installed for {self.name!r}: pip install 'vtsum[models]'")
        torchvision_free.prepare()
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

        reader = AutoProcessor if pictures else AutoTokenizer
        self._processor = from_pretrained(reader, self.folder, "checkpoint", op)
        _check_sizes(getattr(self._processor, "image_processor", None), f"{op}: {self.name!r}")
        template = getattr(self._processor, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        if template and not isinstance(template, str):
            raise VTSumError(f"{op}: {self.name!r} must have a chat template that is text, got {template!r:.80}")
        if not template:
            raise VTSumError(f"{op}: {self.name!r} must have a chat template, got none")
        self.device = torch.device(device_of(device, op))
        self.model = model_from_pretrained(
            AutoModelForImageTextToText if pictures else AutoModelForCausalLM,
            self.folder,
            "checkpoint",
            op,
            use_safetensors=True,
            dtype=_dtype(self.device, self.folder),
        )
        with memory_told(op, "take a smaller one"):
            self.model.eval().to(self.device)
        with at_work(self.name, op):
            self._tokenizer = getattr(self._processor, "tokenizer", self._processor)
            self._tokenizer.padding_side = "left"
            if self._tokenizer.pad_token is None:
                self._tokenizer.pad_token = self._tokenizer.eos_token
            marks = {*self._tokenizer.all_special_tokens, *self._tokenizer.get_added_vocab(), "<image>", "<video>"}
            self._marks = sorted((mark for mark in marks if mark.strip()), key=len, reverse=True)
        self.batch = _batch(self.device)
        # A checkpoint that thinks aloud is asked not to.
        self._template_options = {"enable_thinking": False} if "enable_thinking" in template else {}
        self._template, self._around = template, dict[int, tuple[str, str]]()
        self._op = op

    def data(self, text: str) -> str:
        """Text without the marks of turns and pictures: to be put into a turn."""
        before = None
        while before != text:
            before = text
            for mark in self._marks:
                text = text.replace(mark, "")
        return text

    def ask(self, turns: Sequence[Turn], limit: int) -> list[Answer]:
        """An answer of at most `limit` tokens to each turn, the likeliest token after token."""
        import torch

        found: list[Answer] = []
        for made, length in self._generate(turns, limit, scores=True):
            with at_work(self.name, self._op):
                ids = made.sequences[:, length:]
                chosen = [s.float().log_softmax(-1).gather(1, ids[:, i : i + 1]) for i, s in enumerate(made.scores)]
                likely = torch.cat(chosen, 1).cpu()
                for row, values in zip(ids, likely, strict=True):
                    count = max(self._length(row.tolist()), 1)
                    found.append(Answer(self._text(row), float(values[:count].mean().exp())))
        return found

    def write(self, turn: Turn, limit: int) -> str:
        """The answer to one turn, of at most `limit` tokens; their probabilities are not kept."""
        ((made, length),) = self._generate([turn], limit, scores=False)
        with at_work(self.name, self._op):
            return self._text(made.sequences[0, length:])

    def _text(self, ids: torch.Tensor) -> str:
        text = self._tokenizer.decode(ids[: self._length(ids.tolist())], skip_special_tokens=True)
        return self.data(text.rsplit("</think>", 1)[-1]).strip()

    def chances(self, turns: Sequence[Turn]) -> list[float]:
        """How much of its first word's probability the checkpoint gives Yes, of what it gives Yes and No: 0..1."""
        with at_work(self.name, self._op):
            yes, no = self._first_of(_YES), self._first_of(_NO)
        found: list[float] = []
        for made, _ in self._generate(turns, 1, scores=True):
            for scores in made.scores[0].float().softmax(-1).cpu():
                for_it = float(scores[sorted(yes - no)].sum())
                against = float(scores[sorted(no - yes)].sum())
                found.append(for_it / (for_it + against) if for_it + against > 0 else 0.0)
        return found

    def _first_of(self, words: Sequence[str]) -> set[int]:
        return {token for word in words for token in self._tokenizer.encode(word, add_special_tokens=False)[:1]}

    def _length(self, ids: list[int]) -> int:
        ends = self.model.generation_config.eos_token_id
        stops = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id}
        return next((i for i, token in enumerate(ids) if token in stops), len(ids))

    def _generate(self, turns: Sequence[Turn], limit: int, *, scores: bool) -> list[tuple[Any, int]]:
        """What `generate` gives of each batch, and the length of what it was given."""
        import torch

        made, at = [], 0
        while at < len(turns):
            batch = turns[at : at + self.batch]
            try:
                with at_work(self.name, self._op), torch.inference_mode():
                    inputs = self._inputs(batch)
                    out = self.model.generate(
                        **inputs,
                        max_new_tokens=limit,
                        do_sample=False,
                        num_beams=1,
                        num_return_sequences=1,
                        temperature=None,
                        top_p=None,
                        top_k=None,
                        pad_token_id=self._tokenizer.pad_token_id,
                        logits_processor=[ScoresAreNumbers()],
                        return_dict_in_generate=True,
                        output_scores=scores,
                    )
            except torch.OutOfMemoryError:
                if self.batch == 1:
                    raise VTSumError(
                        f"{self._op}: {self.name!r} must fit the memory of {self.device}; take a smaller one, or use "
                        "--device cpu"
                    ) from None
                self.batch = max(self.batch // 2, 1)
                torch.cuda.empty_cache()
                continue
            made.append((out, inputs["input_ids"].shape[1]))
            at += len(batch)
        return made

    def _said(self, turn: Turn) -> str:
        count = len(turn.pictures)
        if count not in self._around:
            values = {**self._tokenizer.special_tokens_map, **self._template_options}
            self._around[count] = around(self._template, count, values)
        before, after = self._around[count]
        return before + turn.text + after

    def _inputs(self, turns: Sequence[Turn]) -> Any:
        from PIL import Image

        texts = [self._said(turn) for turn in turns]
        start = self._tokenizer.bos_token
        options: dict[str, Any] = {"return_tensors": "pt", "padding": True}
        options["add_special_tokens"] = not (start and texts[0].startswith(start))
        pictures = [[Image.fromarray(picture) for picture in turn.pictures] for turn in turns]
        if any(pictures):
            options["images"] = pictures
        found = self._processor(text=texts, **options).to(self.device)
        found.pop("token_type_ids", None)
        for name, value in found.items():
            if value.is_floating_point():
                found[name] = value.to(self.model.dtype)
        return found


def _dtype(device: torch.device, folder: Path) -> torch.dtype:
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))  # in 16 bits, mostly
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") if hasattr(os, "sysconf") else 8 << 30
    return torch.float32 if 2 * stored <= _SPARE * free else torch.bfloat16


def _check_sizes(pictures: Any, where: str) -> None:
    """Refuse what would have pictures enlarged without end, in gigabytes of memory. Qwen's processor and its heirs,
    which are told by a function of theirs, count all pixels of a picture under names of edges."""
    whole = hasattr(sys.modules.get(type(pictures).__module__), "smart_resize")
    most, unit = (_PIXELS, "pixels") if whole else (_EDGE, "pixels an edge")
    for what in ("size", "max_image_size"):
        for key, value in dict(getattr(pictures, what, None) or {}).items():
            if isinstance(value, int | float) and not value <= most:
                raise VTSumError(f"{where} must make pictures of at most {most} {unit}, got {key} {value}")


def _batch(device: torch.device) -> int:
    import torch

    if device.type != "cuda":
        return 1
    return min(max(torch.cuda.mem_get_info(device)[0] // _A_TURN, 1), _MOST)
