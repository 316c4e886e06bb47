"""Fetching a checkpoint from the hub into its cache: weights that hold data alone, whole, and with their hash checked.

Where the cache is, which hub it is and who asks is what the hub's own client reads: HF_HOME, HF_ENDPOINT, HF_TOKEN.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vtsum.errors import VTSumError, first_line
from vtsum.files import spot
from vtsum.model import hub_bounds
from vtsum.model.chat import FILES
from vtsum.model.hub_names import check_name, guard
from vtsum.model.pretrained import cache_of, check_cache, check_folder
from vtsum.reading import read_file, read_json
from vtsum.shown import full, reason

CONVERTED = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
"""Of a Whisper model in CTranslate2's format, which holds numbers alone as safetensors does."""
ABOUT = ("README.md", "LICENSE*")
OP = "models get"
Progress = Callable[[int, int], None]
_LONGEST_REF = 1000  # bytes of the name of a revision
_LOOK = 0.25  # seconds between two looks at how much has arrived


@dataclass(frozen=True)
class Offer:
    """What a repository of the hub offers.

    Attributes:
        files: sizes in bytes, by name, of what VTSum takes of it. sha256: of those whose digest the hub knows.
        licence (str | None): as its card says. commit (str): its revision.
    """

    name: str
    files: Mapping[str, int]
    sha256: Mapping[str, str]
    licence: str | None
    commit: str

    @property
    def size(self) -> int:
        return sum(self.files.values())


def is_converted(files: Mapping[str, Any] | list[str]) -> bool:
    """Whether a repository's or folder's files are a Whisper model for CTranslate2."""
    return "model.bin" in files and any(fnmatch(name, "vocabulary.*") for name in files)


def patterns(files: Mapping[str, Any] | list[str]) -> list[str]:
    """What of a repository with these files is fetched; neither code nor pickles."""
    return [*(CONVERTED if is_converted(files) else FILES), *ABOUT]


def offer(name: str) -> Offer:
    """Ask the hub.

    Raises:
        VTSumError: it has no such repository, asks for a permission, or cannot be reached; the repository has no
            weights in a format that holds data alone.
    """
    from huggingface_hub import HfApi

    guard()
    with _told(name):
        info = HfApi().model_info(name, files_metadata=True, timeout=hub_bounds.SILENCE)
    check_name(info.sha, f"the revision of {name}", OP)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    for file, size in sizes.items():
        if not isinstance(file, str) or not isinstance(size, int) or size < 0:
            raise VTSumError(f"{OP}: {name} must have files of some size, got {str(file)!r:.120} of {size!r:.40} bytes")
    wanted = patterns(sizes)
    files = {file: size for file, size in sizes.items() if any(fnmatch(file, pattern) for pattern in wanted)}
    if not is_converted(files) and not any(fnmatch(file, "*.safetensors") for file in files):
        others = [file for file in sizes if file.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf"))]
        raise VTSumError(
            f"{OP}: {name} must have its weights in safetensors, which hold no code, got "
            f"{', '.join(others[:3]) or 'no weights'} alone"
        )
    large = {f.rfilename: f.lfs.sha256 for f in info.siblings or () if f.rfilename in files and f.lfs is not None}
    digests = {file: digest for file, digest in large.items() if re.fullmatch(r"[0-9a-f]{64}", digest)}
    card: Any = info.card_data if hasattr(info.card_data, "get") else {}
    licence = card.get("license_name") or card.get("license")
    return Offer(name, files, digests, licence if isinstance(licence, str) else None, str(info.sha))


def fetch(wanted: Offer, progress: Progress | None = None) -> Path:
    """Fetch what is not in the cache yet. What an earlier attempt left there is gone on with.

    Args:
        progress: told (bytes that are there, all bytes), from another thread.
    Returns:
        Path: the folder in the cache.
    Raises:
        VTSumError: as for `offer`; no room; the checkpoint asks for code of its own; a file is not what the hub says.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    cache = cache_of(wanted.name)
    check_cache(wanted.name, OP)
    missing = wanted.size - _arrived(cache, wanted)
    above = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if (free := shutil.disk_usage(above).free) < missing:
        raise VTSumError(
            f"{OP}: {cache.parent} must have room for {size_in_words(missing)}, got {size_in_words(free)} free; "
            "HF_HOME names another place"
        )
    with _told(wanted.name), _watched(cache, wanted, progress), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="huggingface_hub")  # of room, which was looked at: a size may be a lie
        # One after another and in this thread: a signal would wait for those that the client has others fetch.
        small = sorted(set(wanted.files) - set(wanted.sha256))
        told = [file for file in small if file.endswith((".json", ".jinja"))]
        for file in told:
            hf_hub_download(wanted.name, file, revision=wanted.commit)
        if told:
            check_folder(cache / "snapshots" / wanted.commit, OP)
        for file in set(small) - set(told):
            hf_hub_download(wanted.name, file, revision=wanted.commit)
        for file in wanted.sha256:
            _fetch_large(wanted, file, cache)
        folder = Path(snapshot_download(wanted.name, allow_patterns=patterns(wanted.files)))
    if folder.name != wanted.commit:
        raise VTSumError(f"{OP}: {wanted.name} must stay as it is while it is fetched, got a new revision: try again")
    return folder


def _fetch_large(wanted: Offer, file: str, cache: Path) -> None:
    """Fetch a file to where the hub's client looks for it by its digest. That client itself begins anew where a
    download was killed."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get  # the bounded one: `guard` came before
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    size, digest = wanted.files[file], wanted.sha256[file]
    blob, part = cache / "blobs" / digest, cache / "blobs" / f"{digest}.incomplete"
    lock = cache.parent / ".locks" / cache.name / f"{digest}.lock"  # the client's own
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            return
        if part.exists() and part.stat().st_size > size:
            part.unlink()
        url, headers = hf_hub_url(wanted.name, file, revision=wanted.commit), build_hf_headers()
        place = get_hf_file_metadata(url).location
        if urlsplit(place).netloc != urlsplit(url).netloc:  # another's, who is not to know who asks
            headers.pop("authorization", None)
        # Through no link: the file that it leads to is somebody's.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(part, flags, 0o666), "ab") as opened:
            http_get(place, opened, resume_size=opened.tell(), headers=headers, expected_size=size)
        with part.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != digest:
            part.unlink()
            raise VTSumError(
                f"{OP}: {file} of {wanted.name} must have the sha256 {digest}, got {found}; it was removed: try again"
            )
        part.replace(blob)


def cached(name: str) -> Path | None:
    """The folder of a repository in the cache, if all that VTSum takes of it is there; nothing is asked of the hub."""
    from huggingface_hub import constants

    folder = cache_of(name)
    try:
        commit = read_file(folder / "refs" / constants.DEFAULT_REVISION, OP, _LONGEST_REF).decode().strip()
    except ValueError:  # VTSumError and UnicodeDecodeError
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if is_whole(snapshot) else None


def is_begun(name: str) -> bool:
    """Whether some of a repository is in the cache."""
    return any((cache_of(name) / "blobs").glob("*")) or any((cache_of(name) / "snapshots").glob("*"))


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint's folder has its configuration and all its weights."""
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            named = read_json(index, dict, OP).get("weight_map")
        except VTSumError:
            return False
        return isinstance(named, dict) and all((folder / str(file)).is_file() for file in set(named.values()))
    return any(file.is_file() for file in folder.glob("*.safetensors")) or is_converted(
        [file.name for file in folder.iterdir() if file.is_file()]
    )


def size_in_words(size: int) -> str:
    """Bytes as 484 MB, 3.1 GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _arrived(cache: Path, wanted: Offer) -> int:
    """Bytes that are there, those of files that are still being fetched included."""
    total = 0
    for file, size in wanted.files.items():
        blob = cache / "blobs" / wanted.sha256.get(file, "none")
        if blob.exists() or (cache / "snapshots" / wanted.commit / file).exists():
            total += size
        else:
            with contextlib.suppress(OSError):  # not begun, or renamed meanwhile
                total += blob.with_name(f"{blob.name}.incomplete").stat().st_size
    return total


@contextlib.contextmanager
def _watched(cache: Path, wanted: Offer, progress: Progress | None) -> Iterator[None]:
    """Tell how much has arrived, in place of the bars of the hub's client."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    done = threading.Event()

    def look() -> None:
        while not done.wait(_LOOK):
            if progress is not None:
                progress(_arrived(cache, wanted), wanted.size)

    bars, level = not are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity_error()
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        logging.set_verbosity(level)
        if bars:
            enable_progress_bars()
    if progress is not None:
        progress(wanted.size, wanted.size)


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """One line in place of the hub's client's errors."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    where = f"{constants.ENDPOINT}/{name}"
    try:
        yield
    except VTSumError:
        raise
    except Exception as error:  # the client and its transport raise a dozen kinds
        if isinstance(error, HFValidationError):
            told = f"the name must be OWNER/NAME, got {name!r:.200}"
        elif isinstance(error, GatedRepoError):
            told = f"{name} must be open to you, got a gated one: ask at {where}, then hf auth login (or HF_TOKEN)"
        elif isinstance(error, RepositoryNotFoundError):
            told = f"{name} must be on {constants.ENDPOINT}, got none of that name; a private one needs hf auth login"
        elif constants.HF_HUB_OFFLINE or isinstance(error, OfflineModeIsEnabled):
            told = f"HF_HUB_OFFLINE must not be set to fetch {name}, got {os.environ.get('HF_HUB_OFFLINE', '1')!r}"
        elif full(error):
            told = (
                f"{constants.HF_HUB_CACHE} must have room for {name}, got a full disk; HF_HOME names another place, "
                "and what has arrived is kept: the same command goes on"
            )
        elif isinstance(error, OSError) and error.filename:  # of this machine
            told = f"{spot(error, constants.HF_HUB_CACHE)} must be a path that can be used, got: {reason(error)}"
        else:
            told = f"{where} must be reachable, got: {first_line(error)} (what has arrived is kept: try again)"
        raise VTSumError(f"{OP}: {told}") from None
