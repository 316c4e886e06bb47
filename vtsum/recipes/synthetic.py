"""The procedural corpus: drawn videos with planted events and ten simulated annotators, in VideoXum's layout.

    DIR/anno/{train,val,test}_videoxum.json    annotations
    DIR/feat/blip/VIDEO_ID.npz                 `features` [T, 256] of the embedded frame encoder
    DIR/feat/vt_clipscore/VIDEO_ID.npz         `vision` [T, 64] and `text` [1, 64] of the tiny CLIP
    DIR/vocab.txt                              WordPiece list for the text decoder
    DIR/clip/                                  the tiny CLIP, in transformers' format
    DIR/videos/VIDEO_ID.mp4                    some of the test videos, where they were asked for
    DIR/manifest.json                          what all of it was made from

A corpus can be continued where it was stopped, and made larger: what is there and whole stays as it is.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtsum.data.feature_files import array_header, cut_off, write_npz
from vtsum.data.videoxum import CLIP_FEATURES, FEATURES, SPLITS, join_sentences
from vtsum.errors import VTSumError
from vtsum.files import check_no_links, check_path, make_folder, spot, sweep, write_text
from vtsum.model.files import read_safetensors
from vtsum.reading import field, read_json
from vtsum.recipes.synthetic_scenes import (
    Artist,
    CorpusParameters,
    VideoPlan,
    all_sentences,
    annotation,
    plan_video,
)
from vtsum.shown import reason

if TYPE_CHECKING:
    from vtsum.protocols import FrameEncoder
    from vtsum.recipes.tiny_clip import ClipExample, TinyClip

FORMAT = "vtsum-synthetic/1"
MANIFEST, VOCABULARY, CLIP, VIDEOS = "manifest.json", "vocab.txt", "clip", "videos"
PROMPT = "a video of "
CLIP_VIDEOS = 192
"""Videos the tiny CLIP is trained on: the first of the training split, whether or not the corpus is as large."""
CLIP_STEPS = 200
_BATCH = 32
_MOST_VIDEOS, _MOST_SEED = 1_000_000, 2**63 - 1
_MP4_RATE = 12

SynthProgress = Callable[[str, int, int], None]
"""progress(stage, done, total): stages "clip", "videos" and "films"."""


def make_corpus(
    folder: str | os.PathLike[str],
    *,
    train: int = 64,
    val: int = 16,
    test: int = 16,
    seed: int = 0,
    parameters: CorpusParameters | None = None,
    clip_steps: int = CLIP_STEPS,
    films: int = 0,
    progress: SynthProgress | None = None,
) -> dict[str, Any]:
    """Make, continue or enlarge a corpus.

    Args:
        folder: a new or empty folder, or a corpus with the same seed and parameters and at most as many videos.
        train, val, test (int): videos of each split, at least 1. seed (int): 0 or more.
        clip_steps (int): of the tiny CLIP's training. films (int): of the first test videos that are written as MP4.
        progress: see SynthProgress.
    Returns:
        the manifest.
    Raises:
        VTSumError: the folder holds something else, or a number is out of range.
    """
    folder = Path(folder)
    check_path("synth", folder)
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    for name, value, least in [*((n, c, 1) for n, c in counts.items()), ("seed", seed, 0), ("films", films, 0)]:
        if value < least:
            raise VTSumError(f"synth: {name} must be at least {least}, got {value}")
        most = _MOST_SEED if name == "seed" else _MOST_VIDEOS
        if value > most:
            raise VTSumError(f"synth: {name} must be at most {most}, got {value}")
    if films > test:
        raise VTSumError(f"synth: films must be at most the {test} test videos, got {films}")
    if clip_steps < 20:  # a schedule has some steps on its way up
        raise VTSumError(f"synth: clip_steps must be at least 20, got {clip_steps}")
    tell = progress or (lambda stage, done, total: None)
    parameters = parameters or CorpusParameters()
    from vtsum.model.encoders import load_frame_encoder

    encoder = load_frame_encoder("embedded")
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "seed": seed,
        "parameters": json.loads(json.dumps(dataclasses.asdict(parameters))),
        "encoder": {"name": encoder.name, "weights_sha256": encoder.weights_sha256, "dim": encoder.dim},
        "clip": {"steps": clip_steps, "videos": CLIP_VIDEOS},
    }
    _admit(folder, manifest, counts)
    plans = {split: [plan_video(seed, split, n, parameters) for n in range(counts[split])] for split in SPLITS}
    try:
        _write_manifest(folder, {**manifest, "complete": False, "videos": counts})
        _sweep(folder, plans)
        _write_vocabulary(folder / VOCABULARY)
        for split, planned in plans.items():
            _write_annotations(folder / "anno" / f"{split}_videoxum.json", planned, parameters)
        clip = _clip(folder / CLIP, seed, parameters, clip_steps, tell)
        _write_features(folder, [plan for planned in plans.values() for plan in planned], encoder, clip, tell)
        for number, plan in enumerate(plans["test"][:films]):
            tell("films", number, films)
            if not (folder / VIDEOS / f"{plan.video_id}.mp4").is_file():
                write_film(plan, folder / VIDEOS / f"{plan.video_id}.mp4")
            tell("films", number + 1, films)
        frames = sum(plan.frames for planned in plans.values() for plan in planned)
        manifest |= {"complete": True, "videos": counts, "frames": frames}
        _write_manifest(folder, manifest)
    except OSError as error:
        raise VTSumError(f"synth: {spot(error, folder)} must be writable and have room: {reason(error)}") from None
    return manifest


def write_film(plan: VideoPlan, path: Path, size: tuple[int, int] = (192, 192)) -> None:
    """Write a planned video as an MP4, without sound."""
    from vtsum.recipes.procedural import write_video

    make_folder(path.parent)
    artist = Artist(plan, size)
    pictures = (artist.draw(number / _MP4_RATE) for number in range(round(plan.duration * _MP4_RATE)))
    write_video(path, pictures, Fraction(_MP4_RATE), size)


def _admit(folder: Path, manifest: dict[str, Any], counts: dict[str, int]) -> None:
    """Refuse a folder whose content would be mixed up with this corpus."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise VTSumError(f"synth: folder must be a folder, got the file {folder}")
    below = ("anno", FEATURES.parent, FEATURES, CLIP_FEATURES, CLIP, VIDEOS)
    check_no_links("synth", *(folder / name for name in below))
    path = folder / MANIFEST
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise VTSumError(f"synth: folder must be new, empty or an older corpus, got {folder} without {MANIFEST}")
        return
    older = read_json(path, dict, "synth")
    try:
        if (found := field(older, "format", str)) != FORMAT:
            raise VTSumError(f"synth: format of {path} must be {FORMAT!r}, got {found!r:.80}")
        for key, value in manifest.items():
            if (was := field(older, key, type(value))) != value:
                raise VTSumError(
                    f"synth: {key} must be that of the corpus in {folder} ({_brief(was)}), got {_brief(value)}; "
                    "give another folder"
                )
        held = field(older, "videos", dict)
        for split in held:
            count = field(held, split, int)
            if field(counts, split, int) < count:
                raise VTSumError(f"synth: {split} must be at least {count}, as {folder} holds, got {counts[split]}")
    except VTSumError:
        raise
    except ValueError as error:
        raise VTSumError(f"synth: {path} must be a corpus's manifest, got: {error}") from None


def _sweep(folder: Path, plans: Mapping[str, list[VideoPlan]]) -> None:
    """Remove what processes that were killed have left half-written."""
    videos = [plan.video_id for planned in plans.values() for plan in planned]
    sweep(folder, [MANIFEST, VOCABULARY])
    sweep(folder / "anno", [f"{split}_videoxum.json" for split in plans])
    for below in (FEATURES, CLIP_FEATURES):
        sweep(folder / below, [f"{video}.npz" for video in videos])
    sweep(folder / VIDEOS, [f"{video}.mp4" for video in videos])


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    _write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n", lambda text: True)  # `_admit` has read it


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 90 else text[:87] + "..."


def _write(path: Path, text: str, is_ours: Callable[[str], bool]) -> None:
    """Write a file, unless exactly this is there already; one that is there must be ours.

    Raises:
        VTSumError: the user has changed it.
    """
    if path.is_file():
        existing = path.read_text(encoding="utf-8", errors="replace")
        if existing == text:
            return
        if not is_ours(existing):
            raise VTSumError(
                f"synth: {path} must be as it was written, got another one; move it away or take a new folder"
            )
    write_text(path, text)


def _write_annotations(path: Path, plans: list[VideoPlan], parameters: CorpusParameters) -> None:
    """The annotations of a split; what a smaller corpus wrote is their beginning."""
    entries = [annotation(plan, parameters) for plan in plans]

    def begins(text: str) -> bool:
        try:
            existing = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return isinstance(existing, list) and existing == json.loads(json.dumps(entries[: len(existing)]))

    _write(path, json.dumps(entries) + "\n", begins)


def _write_vocabulary(path: Path) -> None:
    """Every word of every sentence as one piece, and letters, so that any other word can be spelled."""
    from vtsum.recipes.words import SPECIAL

    signs = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = {word for text in [PROMPT, *all_sentences()] for word in join_sentences([text]).split()}
    vocabulary = [*SPECIAL, *"',-.", *signs, *("##" + sign for sign in signs), *sorted(words - set(signs))]
    _write(path, "".join(piece + "\n" for piece in vocabulary), lambda text: False)


def _clip_examples(seed: int, parameters: CorpusParameters) -> Iterator[ClipExample]:
    """Three frames of each event and three dull ones of each video."""
    from vtsum.recipes.tiny_clip import ClipExample, shrink

    for number in range(CLIP_VIDEOS):
        plan = plan_video(seed, "train", number, parameters)
        artist, rng = Artist(plan), np.random.default_rng([*plan.key, 3])

        def drawn(times: list[int], artist: Artist = artist, rng: np.random.Generator = rng) -> np.ndarray:
            return shrink(np.stack([artist.draw(time) for time in rng.choice(times, 3)]))

        shown = [plan.event_frames(event) for event in range(len(plan.events))]
        dull = sorted(set(range(plan.frames)) - {time for times in shown for time in times})
        texts = [join_sentences([text]) for text in plan.sentences]
        yield ClipExample([drawn(times) for times in shown], texts, join_sentences(plan.sentences), drawn(dull))


def _clip(folder: Path, seed: int, parameters: CorpusParameters, steps: int, tell: SynthProgress) -> TinyClip:
    from vtsum.recipes.tiny_clip import TinyClip, check_place, save_tiny_clip, train_tiny_clip

    try:
        return TinyClip.load(folder)
    except VTSumError as error:  # not there, or broken: then it is trained
        if _is_model(folder):
            raise VTSumError(
                f"synth: {folder} must hold the corpus's own CLIP, got another one ({error}); move it away"
            ) from None
    check_place(folder)
    tell("clip", 0, steps)
    examples = list(_clip_examples(seed, parameters))
    sentences = [join_sentences([text]) for text in all_sentences()]
    clip, _ = train_tiny_clip(
        examples, sentences, steps=steps, seed=seed, progress=lambda share: tell("clip", round(share * steps), steps)
    )
    save_tiny_clip(clip, folder)
    return clip


def _is_model(folder: Path) -> bool:
    """Whether a folder holds whole weights and their configuration: of another kind they are the user's."""
    try:
        read_json(folder / "config.json", dict, "synth", bits=128)
        read_safetensors(folder / "model.safetensors", "synth")
    except VTSumError:
        return False
    return True


def _whole(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a feature file is there; one that was cut off is not.

    Raises:
        VTSumError: it is another one.
    """
    if not path.exists():
        return False
    try:
        found: Any = {key: array_header(path, key)[0] for key in shapes}
    except VTSumError as error:
        if cut_off(path):
            return False
        found = str(error)
    if found != shapes:
        raise VTSumError(f"synth: {path} must hold {dict(shapes)}, got {found}; move it away or take a new folder")
    return True


def _write_features(
    folder: Path, plans: list[VideoPlan], encoder: FrameEncoder, clip: TinyClip, tell: SynthProgress
) -> None:
    from vtsum.recipes.tiny_clip import shrink

    for number, plan in enumerate(plans):
        tell("videos", number, len(plans))
        paths = [folder / below / f"{plan.video_id}.npz" for below in (FEATURES, CLIP_FEATURES)]
        shape = {"features": (plan.frames, encoder.dim)}
        clip_shapes = {"vision": (plan.frames, clip.dim), "text": (1, clip.dim)}
        if not (_whole(paths[0], shape) and _whole(paths[1], clip_shapes)):
            artist = Artist(plan)
            features, vision = [], []
            for first in range(0, plan.frames, _BATCH):
                pictures = np.stack([artist.draw(time) for time in range(first, min(first + _BATCH, plan.frames))])
                features.append(encoder.encode(pictures))
                vision.append(clip.image_features(shrink(pictures)))
            text = clip.text_features([join_sentences(plan.sentences)])
            write_npz(paths[1], vision=np.concatenate(vision), text=text)
            write_npz(paths[0], features=np.concatenate(features))
        tell("videos", number + 1, len(plans))
