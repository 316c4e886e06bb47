"""Checkpoints of a run: written beside the good ones, taken only when whole, deleted only when there is a newer one.

    RUN/checkpoints/step-00000120/
        complete.json       written last: what the checkpoint is, and size and SHA-256 of every file in it
        rng-00000.pt        random states, a file a rank
        ...                 what the engine wrote

A checkpoint is written in a folder whose name begins with a point and renamed when it is complete on all ranks. One
that is removed is removed by these names; a file of the user's in it stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtsum.errors import VTSumError
from vtsum.files import check_no_links, is_mounted, plain, remove_folder, strangers
from vtsum.model.files import read_pt, write_pt
from vtsum.reading import kinds_named, misfit, read_json
from vtsum.shown import reason

FORMAT = "vtsum-checkpoint/1"
MARKER = "complete.json"
_WHOLE = re.compile(r"step-[0-9]{8}")
_UNFINISHED = re.compile(r"\.step-[0-9]{8}\.part")
_SHARD = r"(?:(?:bf16_|fp16_)?zero_pp_rank_[0-9]{1,6}_)?mp_rank_[0-9]{2}_(?:model|optim)_states\.pt"
_WEIGHT = r"[^/]+/(?:[^/]+\.pt)?"
_PIECE = r"[^/]+/(?:[0-9]{1,6}/(?:[^/]+\.[0-9]{2,6})?)?"
_FORM = rf"(?:{_SHARD}|zero/(?:optimizer_state\.pt|{_WEIGHT})?|tmp/(?:{_PIECE})?)?"
_OURS = re.compile(
    r"complete\.json|rng-[0-9]{5}\.pt|state\.pt|latest_universal|"
    rf"zero/(?:{_SHARD}|offloaded_tensors/.*)?|universal/{_FORM}|"
    rf"\.universal\.part/(?:latest_universal|universal/{_FORM}|{_FORM})",
    re.DOTALL,
)
"""The files of a checkpoint, DeepSpeed's among them: its shards, beside them what it had on NVMe, and their universal
form, in which folders are called after the weights and tmp/ is what a conversion that was killed leaves. An older one
left latest_universal."""
_WORDS = 624  # of the state of NumPy's generator, MT19937
_FACTS = {"step": int, "engine": str, "ranks": int, "global_batch": int, "data": str, "settings": dict, "files": dict}
"""What a marker says at least."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk and what its marker says."""

    folder: Path
    facts: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps done when it was written."""
        return int(self.facts["step"])


def checkpoint_folder(run: Path) -> Path:
    return run / "checkpoints"


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def _folders(run: Path, *kinds: re.Pattern[str]) -> list[Path]:
    """The folders of a run's checkpoints whose names are of these kinds, the newest first; links are none.

    Raises:
        VTSumError: RUN/checkpoints itself is a link: what is swept there would lie elsewhere.
    """
    folder = checkpoint_folder(run)
    check_no_links("train", folder)
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        names = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    return [folder / name for name in sorted(names, reverse=True) if any(kind.fullmatch(name) for kind in kinds)]


def part_of(run: Path, step: int) -> Path:
    """The folder in which the checkpoint of `step` is written."""
    return checkpoint_folder(run) / f".{name_of(step)}.part"


def _flaw(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """(facts, "") of a whole checkpoint by its marker and the sizes of its files, or (None, what is wrong with it)."""
    if not (folder / MARKER).exists():
        return None, f"it has no {MARKER}"
    try:
        facts = read_json(folder / MARKER, dict, "its marker")
    except VTSumError as error:
        return None, str(error)
    if facts.get("format") != FORMAT:
        return None, f"its format is not {FORMAT}"
    for name, kind in _FACTS.items():
        if not isinstance(facts.get(name), kind) or isinstance(facts[name], bool):
            return None, f"{name} of its {MARKER} is not {kinds_named(kind)}"
    if facts["step"] < 0 or facts["ranks"] < 1 or facts["global_batch"] < 1:
        return None, f"a number of its {MARKER} is out of range"
    if name_of(facts["step"]) != folder.name:
        return None, f"its {MARKER} is another checkpoint's"
    for name, size in facts["files"].items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return None, f"its {MARKER} names {name!r}, which lies elsewhere"
        if os.path.normpath(name) != name:  # "./a" beside "a", and so on: one file, read again for each of its names
            return None, f"its {MARKER} names {name!r}, which is no plain name"
        try:
            found = (folder / name).stat()
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None, f"{name!r} is missing"
        except OSError as error:
            return None, f"{name!r} cannot be looked at: {reason(error)}"
        if not stat.S_ISREG(found.st_mode):
            return None, f"{name!r} is no regular file"
        if found.st_size != size:
            return None, f"{name} has {found.st_size} bytes of {size!r}"
    hashes = facts.get("sha256", {})  # older checkpoints have none
    if not isinstance(hashes, dict) or set(hashes) not in (set(), set(facts["files"])):
        return None, f"sha256 of its {MARKER} does not go with its files"
    return facts, ""


def _damage(folder: Path, facts: dict[str, Any]) -> str:
    """What is wrong with the content of a checkpoint's files; nothing where they are as they were written."""
    for name, known in facts.get("sha256", {}).items():
        try:
            found = _sha256(folder / name)
        except OSError as error:
            return f"{name!r} cannot be read: {reason(error)}"
        if found != known:
            return f"{name} is not what was written, by its SHA-256"
    return ""


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def begun(run: Path) -> bool:
    """Whether a run has a checkpoint that is whole by its marker; its files' contents are not read."""
    return any(_flaw(folder)[0] is not None for folder in _folders(run, _WHOLE))


def find(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of a run, and a line about each newer one that is not whole."""
    lines = [f"skipping {folder}: it was never finished" for folder in _folders(run, _UNFINISHED)]
    for folder in _folders(run, _WHOLE):
        facts, flaw = _flaw(folder)
        flaw = flaw or _damage(folder, facts or {})
        if facts is not None and not flaw:
            return Checkpoint(folder, facts), lines
        lines.append(f"skipping {folder}: {flaw}")
    return None, lines


def any_finished(run: Path) -> bool:
    """Whether a run has checkpoints that were finished once, whole or not."""
    return bool(_folders(run, _WHOLE))


def begin(run: Path, step: int) -> Path:
    """Make the empty folder in which the checkpoint of `step` is to be written."""
    part = part_of(run, step)
    _remove(part)
    part.mkdir(parents=True)
    return part


def finish(run: Path, step: int, facts: dict[str, Any], keep: int) -> Path:
    """Declare the written checkpoint whole: sync it, write the marker, rename, and drop all but the `keep` newest.

    Raises:
        OSError: the disk is full, or not writable.
    """
    part, final = part_of(run, step), checkpoint_folder(run) / name_of(step)
    files = {str(p.relative_to(part)): p.stat().st_size for p in sorted(part.rglob("*")) if p.is_file()}
    for name in files:
        _sync(part / name)
    hashes = {name: _sha256(part / name) for name in files}
    with open(part / MARKER, "w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, "step": step, **facts, "files": files, "sha256": hashes}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _remove(final)  # an earlier one of the same step that was found broken, or is written again after a resume
    os.rename(part, final)
    _sync(final.parent)
    for old in _folders(run, _WHOLE)[keep:]:
        if old != final:
            _remove(old)
    return final


def check(run: Path) -> None:
    """Refuse a run among whose checkpoints, or in the place of one, lies what no run wrote.

    Raises:
        VTSumError: naming it.
    """
    place = checkpoint_folder(run)
    if os.path.lexists(place) and not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        found = "one that may not be written to" if place.is_dir() else "none"
        raise VTSumError(f"train: {place} must be a folder to write to, got {found}")
    for name in sorted(os.listdir(place)) if place.is_dir() else []:
        taken = place / name  # in the way of a checkpoint, which would be told when it is written, after hours perhaps
        if (_WHOLE.fullmatch(name) or _UNFINISHED.fullmatch(name)) and (taken.is_symlink() or not taken.is_dir()):
            raise VTSumError(f"train: {taken} must be a checkpoint's folder, got none of that name; move it away")
    for folder in _folders(run, _WHOLE, _UNFINISHED):
        if is_mounted(folder):  # it could be neither replaced nor removed
            got = "got one that is mounted there; move it away"
            raise VTSumError(f"train: {folder} must be a checkpoint's folder, {got}")
        if foreign := strangers(folder, _OURS.fullmatch):
            raise VTSumError(
                f"train: {folder} must hold a checkpoint's files alone, got {plain(foreign[0])}; move it away"
            )


def _remove(folder: Path) -> None:
    if os.path.lexists(folder):
        remove_folder(folder, _OURS.fullmatch)


def sweep(run: Path, newest: int | None, keep: int | None = None) -> None:
    """Delete what was never finished, and what lies after the step `newest` (of a resumed run: found broken); with
    `keep`, all but the so many newest (a process that was killed has half removed one); nothing but folders that a run
    makes."""
    over = _folders(run, _UNFINISHED)
    if newest is not None:
        whole = _folders(run, _WHOLE)
        older = [path for path in whole if path.name <= name_of(newest)]
        over += [path for path in whole if path not in older] + older[len(older) if keep is None else keep :]
    for path in over:
        _remove(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explain(error: BaseException, path: Path) -> VTSumError:
    """The one-line error for a checkpoint that could not be written below `path`."""
    place = path if path.exists() else path.parent
    free = shutil.disk_usage(place).free if place.exists() else 0
    return VTSumError(
        f"train: a checkpoint must fit into {path}, got: {reason(error)} ({free / 2**20:.0f} MiB free); "
        "older checkpoints are untouched, make room and go on with --resume"
    )


def save_random_states(folder: Path, rank: int) -> None:
    """Write this rank's states of PyTorch's, NumPy's and Python's generators."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }
    write_pt(state, folder / f"rng-{rank:05d}.pt")


def load_random_states(folder: Path, rank: int) -> None:
    """The reverse of `save_random_states`."""
    path = folder / f"rng-{rank:05d}.pt"
    state = read_pt(path, "train")
    try:
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])
        kind, keys, position, *rest = state["numpy"]
        if keys.shape != (_WORDS,) or not 0 <= position <= _WORDS:  # NumPy would read from there
            raise ValueError(f"position {position} of {list(keys.shape)}")
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, *rest))
        if not isinstance(state["python"][2], float | None):  # Python adds to it whatever it is
            raise ValueError("a state of Python's that ends in no number")
        random.setstate(state["python"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RuntimeError) as error:
        raise VTSumError(f"train: {path} must hold random states, got: {misfit(error)}") from None


def seed_everything(*seed: int) -> None:
    """Seed PyTorch's, NumPy's and Python's generators from several numbers."""
    words = np.random.SeedSequence(seed).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))
    random.seed(int(words[2]))
