"""Which models serve each part of a summary, and which of them are at hand: what `vtsum models` lists."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtsum.enhance.speech.activity import MODEL, missing_package, model_sha256
from vtsum.enhance.speech.recognisers import at_hand
from vtsum.enhance.speech.transcribe import NOT_UNDERSTOOD
from vtsum.errors import VTSumError
from vtsum.model.captioners import CPU_CHECKPOINTS, GPU_CHECKPOINTS, SUGGESTED
from vtsum.model.downloads import cached, is_begun, is_converted
from vtsum.model.frame_encoder import EMBEDDED, KNOWN
from vtsum.model.pretrained import files_sha256
from vtsum.reading import read_file, read_json

PARTS = ("recogniser", "voice activity", "screen text", "captioner", "writer", "encoder", "denoiser", "frame sampling")
INSTALLED, CACHED, BEGUN, MISSING = "installed", "cached", "begun", "missing"
#: As published. Qwen's licence of the 3B forbids commercial use; the cards of OpenAI's CLIP name none.
LICENCES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": "Qwen Research License",
    **dict.fromkeys((name for name in (*GPU_CHECKPOINTS, *CPU_CHECKPOINTS) if "VL-3B" not in name), "Apache-2.0"),
    **{KNOWN[name]: "BSD-3-Clause" for name in ("blip", "blip-large")},
}
_WHISPER = "MIT"
_CARD = re.compile(r"^---\s*$(.*?)^---\s*$", re.MULTILINE | re.DOTALL)
_LICENCE = re.compile(r"^(license_name|license):\s*[\"']?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A model that serves a part.

    Attributes:
        part: one of PARTS. name: of the model; on the hub, OWNER/NAME.
        state: "installed" (in a package), "cached" (the hub's cache has it), "begun" (some of it), or "missing".
        use: how a summary comes to it. get (str | None): the command that brings it, where it is not at hand.
        size (int | None): bytes on this disk. licence (str | None). sha256: of its files of weights, by name.
        path (Path | None): where it lies.
    """

    part: str
    name: str
    state: str
    use: str
    get: str | None = None
    size: int | None = None
    licence: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None


def catalogue() -> list[Entry]:
    """All that is built in, that `auto` looks for, and what else of use the hub's cache holds, part by part. Nothing is
    asked of the hub."""
    entries = [*_recognisers(), *_built_in(), *_captioners(), *_encoders()]
    known = {entry.name for entry in entries}
    entries += [entry for entry in _others() if entry.name not in known]
    return sorted(entries, key=lambda entry: PARTS.index(entry.part))


def hub_name(name: str) -> str:
    """The repository that a short name stands for: "small" (a Whisper), "blip" or OWNER/NAME itself.

    Raises:
        VTSumError: there is none of that name.
    """
    if "/" in name:
        return name
    repositories = {**KNOWN, **_whispers()}
    if name not in repositories:
        sizes = [size for size in (*at_hand.GPU_SIZES, *at_hand.CPU_SIZES) if size in repositories]
        raise VTSumError(
            f"models get: NAME must be OWNER/NAME on the hub or one of {', '.join([*sizes, *KNOWN])}, got {name!r}"
            + ("" if sizes else "; for Whispers: pip install 'vtsum[speech]'")
        )
    return repositories[name]


def use_of(name: str, folder: Path) -> str:
    """How a summary comes to a checkpoint that was fetched, in words."""
    uses = [entry.use for entry in [*_recognisers(), *_captioners(), *_encoders()] if entry.name == name]
    return "; ".join(uses or [use for _, use in _kinds(name, folder)] or ["VTSum knows no use for it"])


def better(document: Mapping[str, Any]) -> str | None:
    """What would have helped a summary, by its summary.json: the command that brings it and why; None where nothing
    would, or where caches were not to be used."""
    settings, speech = document["settings"], document["speech"]
    if settings["offline_default"]:
        return None
    heard_by_carried = speech is not None and speech["source"] == f"faster-whisper:{at_hand.CARRIED}"
    not_understood = heard_by_carried and any(NOT_UNDERSTOOD in warning for warning in speech["warnings"])
    if settings["speech"] == "auto" and not_understood and not speech["utterances"]:
        on_gpu = any(m["part"] == "speech" and str(m["device"]).startswith("cuda") for m in document["models"])
        size = at_hand.GPU_SIZES[1] if on_gpu else at_hand.CPU_SIZES[0]
        return f"a Whisper of a hundred languages may understand what is said: vtsum models get {size}"
    described = any(model["part"] == "captions" for model in document["models"])
    wordless = all(sentence["origin"] == "measured" for sentence in document["text"])
    if settings["captioner"] == "auto" and document["model"]["text_is_guess"] and not described and wordless:
        if any(cached(name) for name in (*GPU_CHECKPOINTS, *CPU_CHECKPOINTS)):
            return None  # there is one, and a warning says why it did not describe
        first = "" if importlib.util.find_spec("torchvision") else "pip install 'vtsum[models]', then "
        return f"a model that describes pictures may tell what is seen: {first}vtsum models get {SUGGESTED}"
    return None


def _package(name: str, *inside: str) -> Path | None:
    """A folder inside an installed package."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent.joinpath(*inside) if found is not None and found.origin else None


def _packaged(
    part: str, name: str, use: str, extra: str, licence: str, digests: Mapping[str, str], folder: Path | None
) -> Entry:
    """What an extra brings: it is there where its weights are."""
    if folder is None or not digests:
        return Entry(part, name, MISSING, use, f"pip install 'vtsum[{extra}]'", licence=licence)
    size = sum((folder / file).stat().st_size for file in digests)
    return Entry(part, name, INSTALLED, use, None, size, licence, digests, folder)


def _recognisers() -> Iterator[Entry]:
    folder = _package(at_hand.PACKAGE, "model") if missing_package() is None else None
    use = "taken by itself where no other is cached; --recogniser carried"
    digests = files_sha256(folder, "model.bin") if folder else {}
    yield _packaged("recogniser", at_hand.CARRIED, use, "speech", _WHISPER, digests, folder)
    repositories = _whispers()
    for size in (*at_hand.GPU_SIZES, *at_hand.CPU_SIZES):
        if name := repositories.get(size):
            where = " on a GPU" if size in at_hand.GPU_SIZES else ""
            yield _on_hub(
                "recogniser", name, f"taken by itself{where}; --recogniser faster-whisper:{size}", size, _WHISPER
            )


def _built_in() -> Iterator[Entry]:
    yield _packaged(
        "voice activity", MODEL, "finds where somebody speaks", "speech", "MIT",
        model_sha256() if missing_package() is None else {}, _package("faster_whisper", "assets"),
    )  # fmt: skip
    from vtsum.enhance.screen_text.reader import NAME, RapidReader

    try:
        digests = RapidReader().sha256
    except VTSumError:  # not installed, or half of it
        digests = {}
    yield _packaged(
        "screen text", NAME, "--no-ocr does without", "ocr", "Apache-2.0", digests, _package("rapidocr", "models")
    )
    yield Entry("encoder", "embedded", INSTALLED, "the default; saliency and event boundaries, too", None,
                _size(EMBEDDED), "Apache-2.0", files_sha256(EMBEDDED), EMBEDDED)  # fmt: skip
    yield Entry("writer", "extraction", INSTALLED, "the default: quotations, no weights", licence="Apache-2.0")
    yield Entry("denoiser", "embedded", INSTALLED, "the default: rules, no weights", licence="Apache-2.0")
    yield Entry("frame sampling", "coverage", INSTALLED, "the default: colours and edges, no weights",
                licence="Apache-2.0")  # fmt: skip


def _captioners() -> Iterator[Entry]:
    for name in (*GPU_CHECKPOINTS, *CPU_CHECKPOINTS):
        where = " on a GPU" if name in GPU_CHECKPOINTS else ""
        needs = "" if importlib.util.find_spec("num2words") or "SmolVLM2" not in name else " (pip install num2words)"
        yield _on_hub("captioner", name, f"taken by itself{where}{needs}; --captioner {name}")
    for short in ("blip", "blip-large"):
        yield _on_hub("captioner", KNOWN[short], f"--captioner {short}", short)


def _encoders() -> Iterator[Entry]:
    for short, name in KNOWN.items():
        yield _on_hub("encoder", name, f"--model {short}; vtsum extract --encoder {short}", short)


def _on_hub(part: str, name: str, use: str, short: str | None = None, licence: str | None = None) -> Entry:
    folder = cached(name)
    licence = (_licence(folder) if folder else None) or licence or LICENCES.get(name)
    state = CACHED if folder else BEGUN if is_begun(name) else MISSING
    get = None if folder else f"vtsum models get {short or name}"
    return Entry(part, name, state, use, get, _size(folder), licence, _weights(folder), folder)


def _others() -> Iterator[Entry]:
    """Whatever else of use the cache holds."""
    from huggingface_hub import constants

    for path in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        name = path.name.removeprefix("models--").replace("--", "/", 1)
        if (folder := cached(name)) is not None:
            for part, use in _kinds(name, folder):
                yield Entry(part, name, CACHED, use, None, _size(folder), _licence(folder), _weights(folder), folder)


def _kinds(name: str, folder: Path) -> list[tuple[str, str]]:
    """The parts that a checkpoint can serve by its configuration, and how it is named then."""
    try:
        config = read_json(folder / "config.json", dict, "models", bits=128)
    except VTSumError:
        return []
    kind, classes = config.get("model_type"), str(config.get("architectures"))
    if is_converted([file.name for file in folder.iterdir()]):
        return [("recogniser", f"--recogniser faster-whisper:{name}")]
    if kind == "whisper":
        return [("recogniser", f"--recogniser whisper:{name}")]
    if kind == "blip":
        return [("captioner", f"--captioner {name}"), ("encoder", f"--model {name}")]
    if kind == "clip":
        return [("encoder", f"--model {name}")]
    talks = (folder / "chat_template.jinja").is_file() or "chat_template" in _text(folder / "tokenizer_config.json")
    if "vision_config" in config and (talks or (folder / "chat_template.json").is_file()):
        return [("captioner", f"--captioner {name}")]
    if "ForCausalLM" in classes and talks:
        return [("writer", f"--writer {name}")]
    if config.get("is_encoder_decoder") and "ForConditionalGeneration" in classes:
        return [("denoiser", f"--denoiser {name}")]
    return []


def _whispers() -> dict[str, str]:
    """faster-whisper's own names and the repositories they stand for; none without it."""
    if importlib.util.find_spec("faster_whisper") is None:
        return {}
    from faster_whisper.utils import _MODELS

    return dict(_MODELS)


def _weights(folder: Path | None) -> dict[str, str]:
    """By name, the digests under which the hub's cache keeps files of weights: reading gigabytes is not needed."""
    found = {}
    for path in [] if folder is None else sorted([*folder.glob("*.safetensors"), *folder.glob("model.bin")]):
        stored = path.resolve().name
        if re.fullmatch(r"[0-9a-f]{64}", stored):
            found[path.name] = stored
    return found


def _size(folder: Path | None) -> int | None:
    if folder is None:
        return None
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _licence(folder: Path) -> str | None:
    """As the card beside a checkpoint says."""
    head = _CARD.match(_text(folder / "README.md"))
    said = dict(_LICENCE.findall(head[1])) if head else {}
    return said.get("license_name") or said.get("license")


def _text(path: Path) -> str:
    try:
        return read_file(path, "models").decode("utf-8", "replace")[: 1 << 20]
    except VTSumError:
        return ""
