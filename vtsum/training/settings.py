"""Every setting of a training run, and where it comes from: command line over YAML file over default.

A setting is written `init_lr: 2e-5` in the file and `--init_lr 2e-5` on the command line; those of the model lie under
`model:` or are written `--model.width 256`. The names of VideoXum's released training script are understood as well.
What is unknown is refused, with the nearest name.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from vtsum.config import VTSumConfig
from vtsum.errors import VTSumError
from vtsum.reading import read_file

_LARGEST = 3e38  # training computes in float32
SCHEDULES = ("cosine", "cosine_epoch", "constant")

# Names of VideoXum's script -> where the setting lies here.
ALIASES = {
    "tt_depth": "model.depth",
    "kernel_size": "model.kernel_size",
    "loss_type": "model.loss_type",
    "lambda_vsum": "model.lambda_vsum",
    "lambda_tsum": "model.lambda_tsum",
    "max_text_length": "model.max_text_length",
    "prompt": "model.text.prompt",
}
# Its model names -> what they say about the model.
MODEL_NAMES: dict[str, dict[str, Any]] = {
    "vtsum_blip_tt": {"kernel_size": None, "memory_slots": 0},
    "vtsum_blip_tt_ca": {"memory_slots": 0},
}
# Its settings that training on extracted features has no use for -> what reads them here.
ELSEWHERE = {
    "clip_root": "vtsum evaluate",
    "pretrained_clip": "vtsum evaluate",
    "num_beams": "vtsum evaluate",
    "min_text_length": "vtsum evaluate",
    "vit": "vtsum extract",
    "image_size": "vtsum extract",
    "vit_grad_ckpt": "nothing: the frame encoder is not trained",
    "vit_ckpt_layer": "nothing: the frame encoder is not trained",
}


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainSettings:
    """One training run. The defaults are those of the paper's TT+CA model, except for the paths."""

    data: str | None = _option(None, "the corpus: a folder with anno/ and feat/blip/")
    ann_root: str | None = _option(None, "folder of the annotations, where it is not DATA/anno")
    video_embeddings_root: str | None = _option(None, "folder of the frame features, where it is not DATA/feat/blip")
    output_dir: str = _option("outputs/vtsum", "folder of this run")
    tokenizer: str | None = _option(None, "vocab.txt or a tokenizer's folder; left out: DATA/vocab.txt")
    pretrained: str | None = _option(None, "start from a model folder, or from VideoXum's or BLIP's .pth")
    model: VTSumConfig = field(default=VTSumConfig())
    loss: str | None = _option(None, "module:Class of your own for the saliency's loss; left out: model.loss_type")
    init_lr: float = _option(2e-5, "highest learning rate of AdamW")
    min_lr: float = _option(0.0, "learning rate at the end")
    schedule: str = _option("cosine", "cosine (falls every step), cosine_epoch (every epoch, as released) or constant")
    warmup_steps: int = _option(0, "steps in which the learning rate rises from 0")
    max_epoch: int = _option(56, "times through the training videos")
    batch_size: int = _option(16, "videos a rank and forward pass")
    gradient_accumulation_steps: int = _option(1, "forward passes a step")
    gradient_clipping: float = _option(1.0, "largest norm of the gradient; 0: no clipping")
    weight_decay: float = _option(0.01, "of AdamW")
    max_video_length: int = _option(512, "frames; the rest of a longer video is left out in training")
    packed: bool = _option(False, "join the videos of a batch end to end instead of padding them")
    bf16: bool = _option(False, "compute in bfloat16, keep float32 weights")
    gradient_checkpointing: bool = _option(False, "recompute activations in the backward pass: less memory, more time")
    deepspeed: str | None = _option(None, "configuration of DeepSpeed, e.g. configs/ds_zero2.json; left out: PyTorch")
    seed: int = _option(42, "of the start weights, of the order of the videos and of dropout")
    num_workers: int = _option(2, "processes that read features, a rank")
    ckpt_freq: int = _option(1, "epochs between checkpoints; 0: only at the end, at a signal and by ckpt_steps")
    ckpt_steps: int = _option(0, "steps between checkpoints; 0: by ckpt_freq alone")
    keep_checkpoints: int = _option(2, "checkpoints to keep")
    print_freq: int = _option(50, "steps between lines where there is no terminal")
    resume: bool = _option(False, "go on from the newest whole checkpoint of output_dir, if it has one")

    def __post_init__(self) -> None:
        rules: dict[str, tuple[bool, str]] = {
            "init_lr": (self.init_lr > 0, "greater than 0"),
            "min_lr": (0 <= self.min_lr <= self.init_lr, "from 0 to init_lr"),
            "schedule": (self.schedule in SCHEDULES, "one of " + ", ".join(SCHEDULES)),
            "gradient_clipping": (self.gradient_clipping >= 0, "0 or more"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
        }
        for name, low in (
            ("max_epoch", 1),
            ("batch_size", 1),
            ("gradient_accumulation_steps", 1),
            ("max_video_length", 1),
            ("keep_checkpoints", 1),
            ("print_freq", 1),
            ("warmup_steps", 0),
            ("num_workers", 0),
            ("ckpt_freq", 0),
            ("ckpt_steps", 0),
            ("seed", 0),
        ):
            rules[name] = (getattr(self, name) >= low, f"{low} or more")
        for name, (holds, rule) in rules.items():
            if not holds:
                raise VTSumError(f"train: {name} must be {rule}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Given:
    """What the user set, and nothing else: nested as the settings are; `notes` are lines to print."""

    values: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> dict[str, Any]:
        """What was set under `model`."""
        return dict(self.values.get("model", {}))

    def settings(self, model: VTSumConfig) -> TrainSettings:
        """The settings, everything else at its default; `model`: the model's configuration, once it is known."""
        return TrainSettings(**{**self.values, "model": model})

    def settings_without_model(self) -> TrainSettings:
        """The settings before the model is known, whose sizes may follow from the data."""
        return self.settings(VTSumConfig())


def build(cls: Any, values: Mapping[str, Any], base: Any = None) -> Any:
    """A configuration of type `cls`: `base` (or the defaults) with `values`, nested ones too, put over it."""
    base = cls() if base is None else base
    made = {}
    for name, value in values.items():
        old = getattr(base, name)
        made[name] = build(type(old), value, old) if dataclasses.is_dataclass(old) else value
    return dataclasses.replace(base, **made)


def leaves(cls: type = TrainSettings, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """(dotted name, type, default, help) of every setting, nested ones included."""
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[f.name]):
            yield from leaves(hints[f.name], f"{prefix}{f.name}.")
        else:
            default = f.default_factory() if callable(f.default_factory) else f.default
            yield prefix + f.name, hints[f.name], default, f.metadata.get("help", "")


def nearest(name: str, known: Sequence[str]) -> str:
    """`: did you mean "..."?`, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:  # the last part of a dotted name may be all that was given
        near = [k for k in known if k.rpartition(".")[2] == name][:1]
    return f'; did you mean "{near[0]}"?' if near else ""


def coerce(name: str, kind: Any, value: Any) -> Any:
    """`value`, a word of the command line or plain data of the file, as the type of the setting `name`.

    Raises:
        VTSumError: it is of another type.
    """
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) or typing.get_origin(kind) else (kind,)
    if type(None) in options:
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        options = tuple(o for o in options if o is not type(None))
    want = options[0]
    if want is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
    elif want in (int, float):
        # A string too: YAML 1.1 reads 1e-5, without a point, as one.
        if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
            try:
                number = float(value)
                if want is float and abs(number) <= _LARGEST:
                    return number
                if want is int and number == int(number) and abs(number) < 2**63:
                    return int(number)
            except (ValueError, OverflowError):
                pass
    elif want is str and isinstance(value, str) and "\0" not in value:
        with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair
            os.fsencode(value)
            return value
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    rule = kinds.get(want, str(want)) + (" or none" if type(None) in typing.get_args(kind) else "")
    raise VTSumError(f"train: {name} must be {rule}, got {value!r}")


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for part in path:
        values = values.setdefault(part, {})
    values[last] = value


def _flatten(data: Mapping[str, Any], nested: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        dotted = f"{prefix}{key}"
        if dotted in nested and isinstance(value, Mapping):
            yield from _flatten(value, nested, dotted + ".")
        else:
            yield dotted, value


_YAML_LIMIT = 1 << 16  # bytes
_YAML_DEPTH = 16  # lists and mappings in one another; settings have three
_YAML_PLAIN = 1000  # characters of a value without quotes: Python shows no whole number of more than 4,300 digits


def _yaml(path: str | Path) -> dict[Any, Any]:
    """The mapping in a YAML file. A few lines of it can stand for more than any memory holds (aliases), and tags for
    values that are none: files of settings have no use for either."""
    import yaml

    content, where = read_file(path, "train: --config", _YAML_LIMIT), f"train: --config {path}"
    depth = 0
    try:
        text = content.decode("utf-8")
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
                line = event.start_mark.line + 1
                raise VTSumError(f"{where}: line {line}: must be plain YAML without aliases (*) and tags (!)")
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and len(event.value) > _YAML_PLAIN:
                line = event.start_mark.line + 1
                raise VTSumError(f"{where}: line {line}: must be at most {_YAML_PLAIN} characters, or stand in quotes")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _YAML_DEPTH:
                raise VTSumError(f"{where} must be YAML of at most {_YAML_DEPTH} levels, got more")
        data = yaml.safe_load(text)
    except VTSumError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of 5,000 digits, a 99th of the month
        raise VTSumError(f"{where} must be YAML, got: {error}") from None
    if not isinstance(data, dict | None):
        raise VTSumError(f"{where} must hold settings by name, got {type(data).__name__}")
    return data or {}


def read_yaml(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """The settings of a file as {dotted name: value}, and notes on names of the original that are not used here.

    Raises:
        VTSumError: not readable, not YAML, a name that is no setting, a value of another type.
    """
    data = _yaml(path)
    kinds = {name: kind for name, kind, _, _ in leaves()}
    found: dict[str, Any] = {}
    notes = []
    for name, value in _flatten(data, {"model", "model.text"}):
        if isinstance(value, dict | list):
            raise VTSumError(f"train: {name} of {path} must be one value, got {type(value).__name__}")
        if name == "model":
            _model_name(found, value)
        elif name in ELSEWHERE:
            notes.append(f"{name} of {path} is not used in training ({ELSEWHERE[name]})")
        else:
            target = ALIASES.get(name, name)
            if target not in kinds:
                raise VTSumError(
                    f"train: settings of {path} must be known names, got {name!r}{nearest(name, [*kinds, *ALIASES])}"
                )
            found[target] = coerce(name, kinds[target], value)
    return found, notes


def _model_name(found: dict[str, Any], value: Any) -> None:
    if value not in MODEL_NAMES:
        raise VTSumError(f"train: model must be {' or '.join(MODEL_NAMES)}, or settings under it, got {value!r}")
    for key, setting in MODEL_NAMES[value].items():
        found.setdefault(f"model.{key}", setting)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise VTSumError(f"train: {message}")


def parser() -> argparse.ArgumentParser:
    """The command line's own description of itself."""
    made = _Parser(
        prog="vtsum train",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        description="Train VTSum on a corpus in VideoXum's layout. Command line over --config over default.",
    )
    made.add_argument("--config", metavar="FILE", help="settings in YAML, e.g. configs/vtsum_tt_ca.yaml")
    made.add_argument("--local_rank", help=argparse.SUPPRESS)  # launchers add it; the environment says the same
    others = {target: name for name, target in ALIASES.items()}
    for name, kind, default, text in leaves():
        flags = [f"--{name}"] + ([f"--{others[name]}"] if name in others else [])
        shown = f"{text} [{default}]".strip()
        optional: dict[str, Any] = {"nargs": "?", "const": "true"} if kind is bool else {}
        made.add_argument(*flags, dest=name, metavar="VALUE", help=shown.replace("%", "%%"), **optional)
    made.add_argument(
        "--model", dest="model", metavar="NAME", help="vtsum_blip_tt or vtsum_blip_tt_ca, as the original"
    )
    return made


def parse(arguments: Sequence[str]) -> Given:
    """What the command line, and the file that it names, set.

    `--resume` without `--config` reads the run's own config.yaml.

    Raises:
        VTSumError: an unknown flag or setting, or a value of the wrong type.
    """
    words = [_underscored(word) for word in arguments]
    known, left = parser().parse_known_args(words)
    said = vars(known)
    said.pop("local_rank", None)
    kinds = {name: kind for name, kind, _, _ in leaves()}
    for word in left:
        if word.startswith("--"):
            flag = word[2:].split("=")[0]
            raise VTSumError(f"train: flags must be known, got --{flag}{nearest(flag, [*kinds, *ALIASES, 'config'])}")
        raise VTSumError(f"train: arguments must be flags and their values, got {word!r}")
    line: dict[str, Any] = {}
    config = said.pop("config", None)
    name = said.pop("model", None)
    for dotted, value in said.items():
        line[dotted] = coerce(dotted, kinds[dotted], value)
    if name is not None:
        _model_name(line, name)
    if config is None and line.get("resume"):
        own = Path(line.get("output_dir", TrainSettings.output_dir)) / "config.yaml"
        config = own if own.is_file() else None
    found, notes = read_yaml(config) if config is not None else ({}, [])
    if found.get("loss") is not None and "loss" not in line:
        raise VTSumError(
            f"train: loss names code to run and must be given on the command line, got it from {config} alone: "
            f"write --loss {found['loss']} if you trust it"
        )
    values: dict[str, Any] = {}
    for dotted, value in {**found, **line}.items():
        _put(values, dotted, value)
    return Given(values, tuple(notes))


def _underscored(word: str) -> str:
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return "--" + flag[2:].replace("-", "_") + equals + value


def to_yaml(settings: TrainSettings) -> str:
    """The settings as a file that `--config` reads back."""
    import yaml

    return yaml.safe_dump(dataclasses.asdict(settings), sort_keys=False, allow_unicode=True)
