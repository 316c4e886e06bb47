"""What stands in README and docs runs: each block of Python as it stands; commands and options named there exist."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vtsum_kernels.integrations import torchvision_free

from tests.once import once
from tests.vtsum import speech_checkpoints
from tests.vtsum.clips import numbered_scene, write_clip
from tests.vtsum.test_from_videoxum import WORDS, random_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "kernels").glob("*/*/README.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

WIDTH = 64  # a head of the original has so many channels
FRAMES = {
    "quality": np.linspace(0.1, 1.0, 40),
    "features": np.random.default_rng(0).standard_normal((40, 32)).astype(np.float32),
    "seconds": np.full(40, 5.0),
    "np": np,
}


def _kernels() -> dict[str, Any]:
    q, k, v = torch.randn(3, 1, 2, 12, 8).unbind()
    return {
        **{"q": q, "k": k, "v": v, "mask": torch.ones(1, 12, dtype=torch.bool)},
        "packed": torch.randn(3, 12, 2, 8).unbind(),
        **{"starts": torch.tensor([0, 5, 12], dtype=torch.int32), "table": torch.zeros(2, 13)},
        **{"x": torch.randn(1, 12, 8), "slots": torch.randn(6, 8)},
        **{"weight": torch.randn(8, 16), "bias": torch.zeros(8)},
    }


def _graphs() -> dict[str, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = torch.randn(4, device=device)
    return {**_kernels(), "step": lambda x: x + 1, "batch": batch, "next_batch": torch.randn_like(batch)}


def _group() -> dict[str, Any]:
    """A group of this process alone; the test ends it."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    return {**_kernels(), "group": torch.distributed.group.WORLD}


def _videoxum() -> dict[str, Any]:
    return {
        "video_embeddings": torch.randn(1, 9, WIDTH),
        "video_mask": torch.ones(1, 9, dtype=torch.bool),
        "vsum_labels": torch.ones(1, 10, 9),
    }


def _transcript() -> dict[str, Any]:
    from vtsum.enhance.speech import read_transcript

    return {"transcript": read_transcript("talk.srt")}


def _events() -> dict[str, Any]:
    from vtsum.model import load

    features = np.random.default_rng(0).standard_normal((20, 256)).astype(np.float32)
    pictures = [np.full((32, 32), 10 * (i // 50), np.uint8) for i in range(500)]
    return {"pictures": pictures, "features": features, "model": load("embedded", text=False)}


def _pictures() -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 255, (16, 24, 32, 3), dtype=np.uint8)
    return {"images": images, "encode": lambda chosen: chosen.reshape(len(chosen), -1)[:, :7].astype(np.float32)}


def _shots() -> dict[str, Any]:
    worth, vectors = np.array([3.0, 2.0, 1.0]), np.eye(3, dtype=np.float32)
    return {**FRAMES, "worth": worth, "ticks": [40, 30, 30], "budget": 70, "vectors": vectors, "saliency": worth}


def _models() -> dict[str, Any]:
    torchvision_free.prepare()
    from transformers import AutoModel

    return {"AutoModel": AutoModel}


#: What a page's blocks take for granted, by page.
GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "README.md": lambda: {**_kernels(), **_videoxum()},
    "docs/denoising.md": _transcript,
    "docs/event_segmentation.md": _events,
    "docs/frame_sampling.md": _pictures,
    "docs/kernels.md": _graphs,
    "docs/model.md": _videoxum,
    "docs/plugins.md": dict,
    "docs/screen_text.md": dict,
    "docs/speech.md": dict,
    "docs/stream.md": dict,
    "docs/summarize.md": dict,
    "docs/summary_refinement.md": _shots,
    "kernels/vtsum_kernels/distributed/README.md": _group,
    "kernels/vtsum_kernels/integrations/README.md": _models,
}


def _page(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _blocks(page: Path) -> list[tuple[int, str]]:
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start()].count("\n") + 1, m[2]) for m in BLOCK.finditer(text) if m[1] == "python"]


def _folder(folder: Path) -> None:
    """The files that the pages name, under the names that they have there; checkpoints tiny, in the real format."""
    folder.mkdir()
    write_clip(folder / "talk.mp4", [n / 10 for n in range(400)], numbered_scene, rate=10, gop=10)
    write_clip(folder / "recording.ts", [n / 10 for n in range(100)], numbered_scene, rate=10, gop=10)
    lines = [f"{i + 1}\n00:00:{2 * i:02d},000 --> 00:00:{2 * i + 1:02d},900\nThis is sentence {i}.\n" for i in range(5)]
    (folder / "talk.srt").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.vtsum.test_from_videoxum.WIDTH", WIDTH)
        patch.setattr("tests.vtsum.test_from_videoxum.HIDDEN", WIDTH)
        torch.save(random_checkpoint(), folder / "vtsum_tt_ca.pth")
    (folder / "bert-base-uncased").mkdir()
    (folder / "bert-base-uncased" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    torchvision_free.prepare()
    speech_checkpoints.make_whisper(folder / "openai" / "whisper-base")
    from tokenizers import ByteLevelBPETokenizer
    from transformers import BartConfig, BartForConditionalGeneration, BartTokenizer, ModernBertConfig, ModernBertModel

    bart = folder / "facebook" / "bart-large"
    bart.mkdir(parents=True)
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(["This is sentence 0."], vocab_size=300, special_tokens=special, show_progress=False)
    trained.save_model(str(bart))
    tokenizer = BartTokenizer(str(bart / "vocab.json"), str(bart / "merges.txt"))
    tokenizer.save_pretrained(bart)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    BartForConditionalGeneration(BartConfig(vocab_size=len(tokenizer), **sizes, **heads)).save_pretrained(bart)
    tiny = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    special_ids = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    config = ModernBertConfig(**tiny, **special_ids, intermediate_size=8, local_attention=8)
    ModernBertModel(config).save_pretrained(folder / "answerdotai" / "ModernBERT-base")


@pytest.fixture
def here(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, nobody_listens: None
) -> Path:
    shutil.copytree(once(tmp_path_factory, "pages", _folder), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page)], ids=_page)
def test_blocks_of_python_run_as_they_stand(here: Path, page: Path) -> None:
    torch.manual_seed(0)
    names = GIVEN[_page(page)]()
    try:
        for line, block in _blocks(page):
            code = compile("\n" * line + block, str(page), "exec")
            if torch.cuda.is_available() or "torch.cuda" not in block:
                exec(code, names)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def test_every_command_and_option_that_the_pages_name_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    from vtsum import cli

    assert cli.main(["--help"]) == 0
    commands = set(re.findall(r"^  (\w+)  ", capsys.readouterr().out, re.MULTILINE))
    assert {"summarize", "train", "benchmark"} <= commands
    others = {"--install-completion", "--nnodes", "--rdzv"}  # of the shell, and torchrun's
    offered: set[str] = set()
    inner = {"data": ("synth", "check", "activitynet", "ratings"), "models": ("get",)}
    for command in [[name] for name in commands] + [[name, part] for name in inner for part in inner[name]]:
        with contextlib.suppress(SystemExit):  # argparse's way out
            cli.main([*command, "--help"])
        offered |= set(re.findall(r"(?<![\w-])--[\w.-]+", capsys.readouterr().out))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = [m[2] for m in BLOCK.finditer(text) if m[1] == ""] + re.findall(r"`(vtsum [^`]+)`", text)
        if page.stem in ("summarize", "text", "training", "train_and_evaluate"):  # whose options are those of commands
            code += re.findall(r"`(--[^`]+)`", text)
        for line in "\n".join(code).splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["vtsum"]:
                assert words[1] in commands or words[1].startswith("--"), (page, line)
            if words and (words[0] == "vtsum" or words[0].startswith("--")):
                named = {word for word in words if re.fullmatch(r"--[\w.-]+", word)}
                assert named <= offered | others, (page, line)


def test_the_messages_that_are_explained_are_the_programs() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 10
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "vtsum").rglob("*.py"))
    code = re.sub(r'"\n\s+f?"', "", code)  # texts over several lines
    assert [message for message in messages if message not in code] == []
