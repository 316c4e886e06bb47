"""A tiny CLIP, trained in seconds on drawn pictures and their sentences, in the format of transformers.

It plays the part for the procedural corpus that VideoXum's fine-tuned CLIP plays for real videos: pictures and texts in
one space, for VT-CLIPScore. As there, a text is matched with the mean of the features of the frames it speaks of, and
frames of the same video that it does not speak of are among the wrong answers.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor
from vtsum_kernels.integrations import torchvision_free

from vtsum.errors import VTSumError, first_line
from vtsum.files import make_folder, plain, remove_folder, replace_folder, strangers
from vtsum.model.files import check_floats, read_safetensors
from vtsum.model.frame_encoder import MEAN, STD
from vtsum.model.pretrained import from_pretrained

PICTURE_SIZE = 64
PATCH, WIDTH, LAYERS, HEADS, PROJECTION = 16, 64, 2, 4, 64
MAX_TOKENS = 77
BATCH, FRAMES_AN_EVENT = 24, 2
START, END = "<|startoftext|>", "<|endoftext|>"
_FILES = frozenset(
    {
        *("config.json", "model.safetensors", "preprocessor_config.json", "generation_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"),
    }
)
"""What this and other versions of transformers write of a tiny CLIP."""
_RANDOM = re.compile(r"[a-z0-9_]{8}(\.old)?")  # what mkdtemp and replace_folder end their names with


@dataclass(frozen=True)
class ClipExample:
    """A video to learn from.

    Attributes:
        events: uint8 [n, 64, 64, 3] of each event, n at least 1. sentences: one for each event. text (str): all of
        them together. dull: uint8 [m, 64, 64, 3], frames that no sentence speaks of, m at least 1.
    """

    events: list[np.ndarray]
    sentences: list[str]
    text: str
    dull: np.ndarray


def shrink(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 128, 128, 3] -> uint8 [N, 64, 64, 3], each new pixel the mean of four."""
    n, h, w, _ = images.shape
    means = images.reshape(n, h // 2, 2, w // 2, 2, 3).mean((2, 4), dtype=np.float32)
    return (means + 0.5).astype(np.uint8)


class TinyClip:
    """A trained CLIP and its tokenizer; features are as long as the projection left them, not of length 1."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.dim = int(model.config.projection_dim)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> TinyClip:
        """From a folder in transformers' format; nothing is fetched.

        Raises:
            VTSumError: something is missing or broken.
        """
        torchvision_free.prepare()
        from transformers import AutoTokenizer, CLIPConfig, CLIPModel

        if not (Path(folder) / "config.json").is_file():  # without it, transformers takes CLIP's own sizes unasked
            raise VTSumError(f"TinyClip: {folder} must hold a CLIP in transformers' format, got no config.json")
        # Not CLIPModel.from_pretrained, which draws a progress bar for a file of a megabyte.
        config = from_pretrained(CLIPConfig, folder, "a CLIP", "TinyClip", local_files_only=True)
        tokenizer = from_pretrained(AutoTokenizer, folder, "a CLIP's tokenizer", "TinyClip", local_files_only=True)
        weights = read_safetensors(Path(folder) / "model.safetensors", "TinyClip")
        try:
            model = CLIPModel(config)
            check_floats(model, weights, f"TinyClip: {folder}")
            model.load_state_dict(weights)
        except VTSumError:
            raise
        except (ValueError, RuntimeError) as error:
            raise VTSumError(f"TinyClip: {folder} must hold a whole CLIP, got: {first_line(error)}") from None
        return cls(model.eval(), tokenizer)

    @torch.inference_mode()
    def image_features(self, images: np.ndarray, batch: int = 128) -> np.ndarray:
        """uint8 [N, 64, 64, 3] -> float32 [N, D]."""
        parts = [_see(self.model, images[at : at + batch]) for at in range(0, len(images), batch)]
        return torch.cat(parts).numpy()

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> np.ndarray:
        """-> float32 [len(texts), D]; what lies beyond 77 tokens is cut off."""
        return _read(self.model, self.tokenizer, list(texts)).numpy()


def byte_pair_vocabulary(sentences: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's kind of vocabulary and merges, in which every word of `sentences` is one token.

    All bytes are in it, so that any text can be read, and the two marks come last: CLIP takes a text's features where
    the highest id stands.
    """
    from tokenizers import Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    like = CLIPTokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = like.normalizer, like.pre_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    # Ties between merges are settled by the signs' numbers; those of last signs must be given before the trainer gives
    # them in the order of a hash map, another one in every run.
    last = [sign + "</w>" for sign in alphabet]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        initial_alphabet=alphabet,
        special_tokens=last,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    words = [*alphabet, *last, *(a + b for a, b in merges), START, END]
    return {word: number for number, word in enumerate(dict.fromkeys(words))}, merges


def train_tiny_clip(
    examples: Sequence[ClipExample],
    sentences: Iterable[str],
    *,
    steps: int = 200,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> tuple[TinyClip, dict[str, Any]]:
    """Train on `examples`, with a vocabulary of `sentences`.

    Args:
        examples: at least two. steps (int): of BATCH videos each. progress: told the share that is done, 0..1.
    Returns:
        the trained model, and what it was trained on and its mean loss over the last tenth of the steps.
    """
    torchvision_free.prepare()
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    vocabulary, merges = byte_pair_vocabulary(sentences)
    pairs: Any = merges  # transformers' annotation knows only the strings of the file format
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=MAX_TOKENS)
    sizes = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "projection_dim": PROJECTION,
    }
    ids = {"bos_token_id": vocabulary[START], "eos_token_id": vocabulary[END], "pad_token_id": vocabulary[END]}
    text = {**sizes, **ids, "vocab_size": len(vocabulary), "max_position_embeddings": MAX_TOKENS}
    vision = {**sizes, "image_size": PICTURE_SIZE, "patch_size": PATCH}
    rng = np.random.default_rng([seed, 7])
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION)
        model: Any = CLIPModel(config).train()
        # transformers' own start values are those of CLIP, which is ten times as wide.
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Embedding | torch.nn.Conv2d):
                torch.nn.init.normal_(module.weight, std=0.05)
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.9, 0.98), weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
        for step in range(steps):
            chosen = rng.choice(len(examples), min(BATCH, len(examples)), replace=False)
            loss = _loss(model, tokenizer, [examples[i] for i in chosen], rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if progress:
                progress((step + 1) / steps)
    last = losses[-max(steps // 10, 1) :]
    return TinyClip(model.eval(), tokenizer), {"videos": len(examples), "steps": steps, "loss": sum(last) / len(last)}


def save_tiny_clip(clip: TinyClip, folder: str | os.PathLike[str]) -> None:
    """Write weights, configuration, tokenizer and the pictures' preparation; the folder appears whole or not at all.

    Raises:
        OSError: it cannot be written.
        VTSumError: it is there with more in it than an older one has.
    """
    folder = Path(folder)
    make_folder(folder.parent)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    held = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some disks of a network know no locks
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.chmod(part, 0o755)
        clip.model.config.architectures = ["CLIPModel"]
        clip.model.config.save_pretrained(part)
        # Not save_file, whose files no other user may read.
        (part / "model.safetensors").write_bytes(save(clip.model.state_dict(), {"format": "pt"}))
        clip.tokenizer.save_pretrained(part)
        size = {"height": PICTURE_SIZE, "width": PICTURE_SIZE}
        prepared = {
            "image_processor_type": "CLIPImageProcessor",
            "crop_size": size,
            "size": {"shortest_edge": PICTURE_SIZE},
            "image_mean": list(MEAN),
            "image_std": list(STD),
        }
        (part / "preprocessor_config.json").write_text(json.dumps(prepared, indent=1) + "\n", encoding="utf-8")
        names = {path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file()}
        _sweep(folder, names)
        replace_folder(part, folder, names.__contains__)
    except FileExistsError as error:
        raise _in_the_way(folder, str(error.strerror)) from None
    finally:
        os.close(held)
        shutil.rmtree(part, ignore_errors=True)


def check_place(folder: Path) -> None:
    """Raise VTSumError where `save_tiny_clip` would refuse to replace what is there, before the training."""
    if folder.is_dir() and (foreign := strangers(folder, _FILES.__contains__)):
        raise _in_the_way(folder, f"{plain(foreign[0])} in it would be lost")


def _in_the_way(folder: Path, what: str) -> VTSumError:
    return VTSumError(f"save_tiny_clip: {folder} must hold nothing but an older tiny CLIP: {what}; move it away")


def _sweep(folder: Path, names: set[str]) -> None:
    """Remove what `save_tiny_clip` has left in processes that were killed; a living one holds its folder."""
    begins = f".{folder.name}."
    for path in folder.parent.iterdir():
        ours = path.name.startswith(begins) and _RANDOM.fullmatch(path.name[len(begins) :])
        if ours and not path.is_symlink():
            with suppress(OSError):
                handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_folder(path, names.__contains__)
                finally:
                    os.close(handle)


def _see(model: Any, images: np.ndarray) -> Tensor:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return model.visual_projection(model.vision_model(pixel_values=(pixels - mean) / std).pooler_output)


def _read(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    return model.text_projection(model.text_model(**tokens).pooler_output)


def _loss(model: Any, tokenizer: Any, examples: list[ClipExample], rng: np.random.Generator) -> Tensor:
    """Texts against mean features of frames, both ways; a video's dull frames are wrong answers to every text."""
    pictures: list[np.ndarray] = []
    rows: list[list[int]] = []  # which pictures each row is the mean of
    dull: list[list[int]] = []
    texts: list[str] = []

    def add(images: np.ndarray) -> list[int]:
        picked = rng.integers(0, len(images), FRAMES_AN_EVENT)
        pictures.append(images[picked])
        first = (len(pictures) - 1) * FRAMES_AN_EVENT
        return list(range(first, first + FRAMES_AN_EVENT))

    for example in examples:
        events = [add(images) for images in example.events]
        one = int(rng.integers(len(events)))
        rows.append(events[one])
        texts.append(example.sentences[one])
        if len(events) > 1:
            rows.append([picture for event in events for picture in event])
            texts.append(example.text)
        dull.append(add(example.dull))
    seen = _see(model, np.concatenate(pictures))
    means = F.normalize(torch.stack([seen[row].mean(0) for row in rows + dull]), dim=1)
    read = F.normalize(_read(model, tokenizer, texts), dim=1)
    logits = model.logit_scale.clamp(max=4.6).exp() * read @ means.T
    wanted = torch.arange(len(texts))
    return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits[:, : len(texts)].T, wanted)) / 2
