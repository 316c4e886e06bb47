"""Fetching what lies in a folder, in the hub's local cache or on the hub."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtsum.errors import VTSumError, first_line
from vtsum.model.files import COUNTS
from vtsum.model.hub_names import guard
from vtsum.model.own_code import nobody_is_asked
from vtsum.model.stored import check_stored
from vtsum.model.tokenizer_file import check_tokenizer, check_words_named
from vtsum.reading import read_json
from vtsum.shown import CleanRecords

CONFIGS = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("video_preprocessor_config.json", "audio_tokenizer_config.json"),
)
"""What transformers reads of a folder beside weights and word lists."""
MOST_LAYERS = 1000
"""transformers makes a configuration's layers before it looks at the weights, and would not end with 10 million."""
MOST_ADDED = 20_000
"""Words beside a tokenizer's own; transformers looks through all for each. Published ones have some 6,000."""
_ADDED = ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder", "added_tokens")
MOST_LABELS = 100_000
"""transformers makes a name for each."""
_COUNTED = ("num_labels", "encoder_no_repeat_ngram_size", "image_seq_len", "n_fft")
"""Of what transformers makes as many; published checkpoints have fewer than MOST_LABELS of each."""
MOST_TOKENS = 10_000
"""Of what a configuration has to say on choosing tokens, at every one of which transformers goes through all of it.
Published ones have some 100."""
_TOKENS = (
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids", "forced_decoder_ids"),
    *("sequence_bias", "stop_strings", "eos_token_id", "pad_token_id"),
)
TOKENIZER, _TOKENIZER_LIMIT = "tokenizer.json", 1 << 27  # bytes
_MOST_FILES = 10_000  # of a folder's folders that are looked at; no model has so many
_ELSEWHERE = (
    *("configuration_files", "fast_tokenizer_files", "audio_tokenizer", "audio_tokenizer_class"),
    "checkpoint_path",  # of a backbone of timm's
    *("class_info_file", "repo_path", "gguf_file"),
)
"""What has transformers read another file, or another checkpoint, than those that were looked at."""
_ADAPTER = "adapter_config.json"
_QUANTISED = "quantization_config"
_NAME = re.compile(r"[\w.-]{0,200}")
_MOST_HELD = 1 << 20  # bytes
_one_at_a_time = threading.RLock()
_held_warnings: ContextVar[list[Any] | None] = ContextVar("warnings held back", default=None)


def from_pretrained(kind: Any, source: str | os.PathLike[str], what: str, op: str = "load", **options: Any) -> Any:
    """`kind.from_pretrained(source)` from a folder, the local cache or the hub; code that comes with it is never run.

    Raises:
        VTSumError: it cannot be had, is broken, or asks for code of its own.
    """
    source = os.fspath(source)
    if Path(source).exists():
        check_folder(Path(source), op)
    else:
        _check_hub(source, op)
    try:
        weights = hasattr(kind, "from_config") or hasattr(kind, "_from_config")  # they take long, and do not panic
        with told_if_well(), nobody_is_asked(), contextlib.nullcontext() if weights else panics_unheard():
            made = kind.from_pretrained(source, trust_remote_code=False, **options)
            if hasattr(made, "get_vocab") and not has_words(made):
                raise ValueError("its tokenizer has no words (tokenizer.json or vocab.txt is missing)")
        return made
    except BaseException as error:  # transformers, tokenizers, safetensors and the hub's client raise a dozen kinds
        check_foreseen(error)
        raise VTSumError(
            f"{op}: {what} must be a transformers checkpoint in a folder, in the local cache or on the hub, "
            f"got {source!r}: {first_line(error)}"
        ) from None


@contextmanager
def panics_unheard() -> Iterator[None]:
    """Within, what is written to standard error is held back, and left out where it was of a panic of tokenizers, which
    prints where in its own code that was: the refusal says what it was. No two threads at once."""
    with _one_at_a_time, contextlib.ExitStack() as stack:
        panicked = False
        try:
            kept, held = os.dup(2), os.memfd_create("stderr")
        except (OSError, AttributeError):  # no standard error, or another system
            yield
            return
        stack.callback(os.close, kept)
        stack.callback(os.close, held)
        os.dup2(held, 2)
        try:
            yield
        except BaseException as error:
            panicked = _is_panic(error)
            raise
        finally:
            os.dup2(kept, 2)
            with contextlib.suppress(OSError):
                os.write(2, b"" if panicked else os.pread(held, _MOST_HELD, 0))


@contextmanager
def at_work(source: str | os.PathLike[str], op: str) -> Iterator[None]:
    """Within, a checkpoint works whose parts need not fit one another: what goes wrong then is told in one line.

    Raises:
        VTSumError: naming the checkpoint. torch.OutOfMemoryError: as it is.
    """
    try:
        with told_if_well(), nobody_is_asked():
            yield
    except (VTSumError, torch.OutOfMemoryError):
        raise
    except BaseException as error:  # transformers, jinja, tokenizers and torch each raise kinds of their own
        check_foreseen(error)
        raise VTSumError(
            f"{op}: {os.fspath(source)!r} must be a whole checkpoint whose parts fit, got: {first_line(error)}"
        ) from None


def check_foreseen(error: BaseException) -> None:
    """Raise again what is no fault of a checkpoint's: a signal. A panic of tokenizers, which is written in Rust, is no
    Exception either, and is one: of a pattern that goes back and forth without end, for one."""
    if not isinstance(error, Exception) and not _is_panic(error):
        raise error


def _is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


class ScoresAreNumbers:
    """One of `generate`'s logits processors: of scores that are NaN, a token is chosen all the same, in silence."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if scores.isnan().any():
            raise ValueError("scores of tokens that are no numbers (NaN); are its weights whole?")
        return scores


class _Held(logging.Filter):
    """Holds back what this thread has to tell a handler."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self.handler, self.records = handler, list[logging.LogRecord]()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self._thread:
            return True
        self.records.append(record)
        return False


@contextmanager
def told_if_well() -> Iterator[None]:
    """From now on transformers' log is clean, for it names what a stranger's files hold. What it and the hub's client
    have to say within, of a checkpoint that is refused, is left out: the refusal says it. So are its bars. Where a
    checkpoint has parts, it is told once all are well: this goes around the reading of them, as a block or a
    decorator."""
    from huggingface_hub.utils import logging as hub_log
    from transformers.utils import logging as log

    bars = log.is_progress_bar_enabled()
    log.disable_progress_bar()

    log.get_logger("transformers")  # they have their handlers from now on
    hub_log.get_logger("huggingface_hub")
    own = [handler for name in ("transformers", "huggingface_hub") for handler in logging.getLogger(name).handlers]
    handlers = [*own, *filter(None, [logging.lastResort])]
    for handler in handlers:
        if not any(isinstance(known, CleanRecords) for known in handler.filters):
            handler.addFilter(CleanRecords())
    held = [_Held(handler) for handler in handlers]
    for each in held:
        each.handler.addFilter(each)
    warned = list[Any]()
    _hold_warnings()
    before = _held_warnings.set(warned)
    try:
        yield
    finally:
        _held_warnings.reset(before)
        if bars:
            log.enable_progress_bar()
        for each in held:
            each.handler.removeFilter(each)
    for each in held:
        for record in each.records:
            each.handler.handle(record)
    for words in warned:
        warnings.showwarning(*words)


def _hold_warnings() -> None:
    """From now on Python's warnings are kept where `_held_warnings` has a list, those of torch among them."""
    shown = warnings.showwarning
    if getattr(shown, "holds", False):
        return

    def show(*words: Any, **more: Any) -> None:
        held = _held_warnings.get()
        if held is None:
            shown(*words, **more)
        else:
            held.append(words)

    show.holds = True  # type: ignore[attr-defined]
    warnings.showwarning = show


def has_words(tokenizer: Any) -> bool:
    """Where its word list is missing, transformers makes a tokenizer without words, to which every text is empty."""
    return bool(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens) - set(tokenizer.get_added_vocab()))


def model_from_pretrained(
    kind: Any, source: str | os.PathLike[str], what: str, op: str = "load", *, whole: bool = False, **options: Any
) -> Any:
    """`from_pretrained` of a model all of whose weights are there, in its sizes: transformers would draw others at
    random.

    Args:
        whole: refuse, too, weights that the parts of this model do not have; else transformers tells of them.
    Raises:
        VTSumError: see `from_pretrained`; or the checkpoint lacks weights, or has some of another size.
    """
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # which are told here, in one line
    with told_if_well():
        if Path(source).is_dir():
            check_folder(Path(source), op)
            check_stored(Path(source), what, op)
        model, found = from_pretrained(kind, source, what, op, **options)
        commit = getattr(model.config, "_commit_hash", None)
        if not Path(source).is_dir() and commit is not None:  # what was fetched only now
            check_stored(cache_of(os.fspath(source)) / "snapshots" / commit, what, op)
        if missing := sorted(found["missing_keys"]):
            raise VTSumError(
                f"{op}: {what} must have all weights of {type(model).__name__}, got {os.fspath(source)!r} without "
                f"{len(missing)} of them, {missing[0]} the first"
            )
        if other := sorted(found["mismatched_keys"]):
            name, stored, stated = other[0]
            raise VTSumError(
                f"{op}: {what} must have weights of the sizes that its configuration states, got {os.fspath(source)!r} "
                f"with {len(other)} others, {name} of {list(stored)} for {list(stated)} the first"
            )
        parts = tuple(f"{name}." for name, _ in model.named_children())
        more = sorted(name for name in found["unexpected_keys"] if name.startswith(parts))
        if whole and (more := [name for name in more if not name.endswith(COUNTS)]):
            raise VTSumError(
                f"{op}: {what} must have as many layers as its configuration states, got {os.fspath(source)!r} with "
                f"{len(more)} weights besides, {more[0]} the first"
            )
    return model


def tower_from_pretrained(
    kind: Any, source: str | os.PathLike[str], what: str, op: str = "load", **options: Any
) -> Any:
    """`model_from_pretrained` of one tower of a CLIP, of which the other is not wanted: transformers would tell so.

    Raises:
        VTSumError: see `model_from_pretrained`; or the checkpoint has more of this tower than its configuration states.
    """
    from transformers.utils import logging as log

    level = log.get_verbosity()
    log.set_verbosity_error()
    try:
        return model_from_pretrained(kind, source, what, op, whole=True, **options)
    finally:
        log.set_verbosity(level)


def check_folder(folder: Path, op: str) -> None:
    """Refuse a file, which transformers would read for a configuration however long it is; or a model folder whose
    configuration is no plain JSON, or asks for code that is not transformers' own, or for more layers or labels than a
    model has; in which a pipe or a device lies, for which libraries would wait; or whose weights lie in another, an
    adapter's among them: peft, where it is installed, imports what that one's configuration names, else it is passed
    over in silence.

    Raises:
        VTSumError: naming the file.
    """
    if not folder.is_dir():
        raise VTSumError(f"{op}: {folder} must be a model's folder, got a file")
    _check_kinds(folder, op)
    if (folder / _ADAPTER).exists():
        raise VTSumError(
            f"{op}: {folder} must hold a whole model, got an adapter ({_ADAPTER}); merge it into its model"
        )
    for path in (folder / name for name in CONFIGS):
        if path.exists():
            # Of tokenizers without a limit, model_max_length has 100 bits.
            config = read_json(path, dict, op, bits=128)
            check_config(config, f"{op}: {path}")
            check_words_named(config, path.name, f"{op}: {path}")
            if path.name == "added_tokens.json":
                check_added(config, f"{op}: {path}")
    for path in folder.glob("*.index.json"):
        _check_index(read_json(path, dict, op, bits=128), f"{op}: {path}")
    if (path := folder / TOKENIZER).exists():
        tokenizer = read_json(path, dict, op, limit=_TOKENIZER_LIMIT, bits=128)
        check_tokenizer(tokenizer, f"{op}: {path}")
        if isinstance(added := tokenizer.get("added_tokens"), list):
            check_added(added, f"{op}: {path}: added_tokens")


def _check_index(index: dict[str, Any], where: str) -> None:
    shards = index.get("weight_map")
    for name in shards.values() if isinstance(shards, dict) else []:
        _check_beside(name, where)


def _check_beside(weights: Any, where: str) -> None:
    """Refuse weights that lie elsewhere than beside what names them: in a pipe that nobody writes to, or in /dev/zero,
    which transformers would read until memory ends."""
    if weights is not None and (not isinstance(weights, str) or weights != os.path.basename(weights)):
        raise VTSumError(f"{where} must name weights that lie beside it, got {weights!r:.120}")


def _check_kinds(folder: Path, op: str) -> None:
    # All that lie in it, where libraries look, however many they are.
    for path in (*folder.glob("*"), *islice(folder.rglob("*"), _MOST_FILES)):
        try:
            mode = path.stat().st_mode
        except OSError:  # a link to nothing
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise VTSumError(f"{op}: {path} must be a file or a folder, got a pipe, a socket or a device")


def check_cache(name: str, op: str) -> None:
    """Refuse what the hub's cache has of a repository where a pipe or a device lies in it, see `check_folder`, and a
    link that leads nowhere: it is no name for the hub."""
    if os.path.islink(name):
        raise VTSumError(
            f"{op}: {name!r} must be a folder or a name of the hub, got a symbolic link that leads nowhere"
        )
    _check_kinds(cache_of(name), op)


def cache_of(name: str) -> Path:
    """Where the hub's cache keeps a repository, there or not."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"


def _check_hub(name: str, op: str) -> None:
    guard()
    check_cache(name, op)
    try:
        folder = snapshot(name, ["*.json"])
    except VTSumError:  # what cannot be had: the attempt to load it tells
        return
    check_folder(folder, op)


def check_config(config: Any, where: str) -> None:
    """Refuse a configuration for which, nested parts included, transformers would run code from elsewhere, or not end
    making layers."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        if isinstance(value, dict):
            for key, item in value.items():
                # A name with a slash is that of a kernel on the hub.
                elsewhere = "_implementation" in key and "/" in str(item)
                if (key == "auto_map" and item) or elsewhere:
                    raise VTSumError(
                        f"{where} must do with the code of transformers, got {key} {str(item)!r:.120}; it is never run"
                    )
                if key in _ADDED and isinstance(item, list | dict):
                    check_added(item, f"{where}: {key}")
                if key in _ELSEWHERE and item:
                    raise VTSumError(f"{where} must name no other file or checkpoint, got {key} {str(item)!r:.120}")
                if key in _TOKENS and (size := _size(item)) > MOST_TOKENS:
                    raise VTSumError(f"{where} must have at most {MOST_TOKENS:,} tokens for {key}, got {size:,}")
                if key == "transformers_weights":
                    _check_beside(item, where)
                if key == _QUANTISED and item:
                    _check_quantised(item, where)
                layers = key.endswith(("layers", "depth", "depths"))  # of each stage, where it is a list
                most = MOST_LAYERS if layers else MOST_LABELS if key in _COUNTED else None
                for number in item if isinstance(item, list) else [item]:
                    if most is not None and isinstance(number, int) and number > most:
                        raise VTSumError(f"{where} must have at most {most} for {key}, got {number}")
            waiting += value.values()


def _size(value: Any) -> int:
    """How many values are in it, and in what is in it, and of how many letters."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return sum(map(_size, value)) if isinstance(value, list) else len(value) if isinstance(value, str) else 1


def check_added(words: Sequence[Any] | Mapping[str, Any], where: str) -> None:
    """Refuse words without end beside those that a tokenizer has itself."""
    if len(words) > MOST_ADDED:
        raise VTSumError(f"{where} must be at most {MOST_ADDED:,} words, got {len(words):,}")


def _check_quantised(how: Any, where: str) -> None:
    """Refuse quantised weights but those of bitsandbytes. Of other kinds transformers fetches compiled code from the
    hub, or reads the file that is named; of all, it searches the layers' names for the regular expressions that lie
    here, and one that goes back and forth has no end."""
    known = isinstance(how, dict) and (
        str(how.get("quant_method")).startswith("bitsandbytes") or how.get("load_in_4bit") or how.get("load_in_8bit")
    )
    if not known:
        kind = how.get("quant_method") if isinstance(how, dict) else how
        raise VTSumError(f"{where} must be of weights as they are, or of bitsandbytes', got {_QUANTISED} {kind!r:.120}")
    waiting = [how]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and not _NAME.fullmatch(value):
            raise VTSumError(f"{where} must have plain names in {_QUANTISED}, got {value!r:.120}")
        waiting += [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def snapshot(name: str, files: list[str], *, local: bool = False) -> Path:
    """The folder of a hub repository's `files`, from the local cache, or, unless `local`, fetched into it.

    Raises:
        VTSumError: if the hub cannot be reached and the cache does not hold it, or there is no such repository.
    """
    from huggingface_hub import snapshot_download

    guard()
    check_cache(name, "from_pretrained")
    try:
        with told_if_well():
            return Path(snapshot_download(name, allow_patterns=files, local_files_only=local))
    except (OSError, ValueError, RuntimeError) as error:
        raise VTSumError(
            f"from_pretrained: {name!r} must be a folder, or a repository on the hub or in its local cache, "
            f"got: {first_line(error)}"
        ) from None


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """A digest of names and values; the same for the same weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if value.is_floating_point():
            digest.update(name.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def files_sha256(folder: Path, pattern: str = "*.safetensors") -> dict[str, str]:
    """The digests of a checkpoint's files of weights, by name."""
    found = {}
    for path in sorted(folder.glob(pattern)):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
