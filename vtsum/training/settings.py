"""Every setting of a training run, and where it comes from: command line over YAML file over default.

A setting is written `init_lr: 2e-5` in the file and `--init_lr 2e-5` on the command line; those of the model lie under
`model:` or are written `--model.width 256`. The names of VideoXum's released training script are understood as well.
What is unknown is refused, with the nearest name.
"""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

from vtsum.config import OneOf, Range, VTSumConfig, check_fields
from vtsum.errors import VTSumError
from vtsum.reading import as_said
from vtsum.training.values import coerce, is_mapping, nearest
from vtsum.training.yaml_file import read_mapping

_LOSSES = ("loss", "loss_vsum", "loss_tsum")
_SEED_DIGITS = 18  # of 64 bits, as `seed` is; Python reads no number of thousands of digits
BEST_BY = (*_LOSSES, "f1", "kendall", "spearman", "bleu4", "meteor", "rouge_l", "cider", "vt_clipscore")
OWN_SCHEDULES = ("cosine", "cosine_epoch", "constant")
SCHEDULES = (*OWN_SCHEDULES, "linear", "polynomial", "cosine_with_restarts", "inverse_sqrt", "warmup_stable_decay")
TRACKERS = ("tensorboard", "wandb")
OPTIMIZERS = ("AdamW", "Adam", "NAdam", "RAdam", "Adamax", "Adadelta", "Adagrad", "Adafactor", "ASGD", "RMSprop", "SGD")

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
_NESTED = {"model", "model.text"}
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
    architecture: str | None = _option(None, "module:Class of your own for the model, derived from vtsum.model.VTSum")
    loss: str | None = _option(None, "module:Class of your own for the saliency's loss; left out: model.loss_type")
    init_lr: Annotated[float, Range(0, 100, above=True)] = _option(2e-5, "highest learning rate")
    min_lr: Annotated[float, Range(0, 100)] = _option(0.0, "learning rate at the end")
    schedule: Annotated[str, OneOf(SCHEDULES)] = _option(
        "cosine",
        f"cosine (falls every step), cosine_epoch (every epoch, as released), constant, or, as transformers' "
        f"get_scheduler has them: {', '.join(SCHEDULES[3:])}",
    )
    schedule_options: Mapping[str, Any] | None = _option(
        None, 'of a schedule of transformers, as JSON, e.g. {"num_decay_steps": 100}'
    )
    warmup_steps: Annotated[int, Range(0)] = _option(0, "steps in which the learning rate rises from 0")
    max_epoch: Annotated[int, Range(1)] = _option(56, "times through the training videos")
    batch_size: Annotated[int, Range(1)] = _option(16, "videos a rank and forward pass")
    gradient_accumulation_steps: Annotated[int, Range(1)] = _option(1, "forward passes a step")
    gradient_clipping: Annotated[float, Range(0)] = _option(1.0, "largest norm of the gradient; 0: no clipping")
    optimizer: Annotated[str, OneOf(OPTIMIZERS)] = _option("AdamW", f"of torch.optim: {', '.join(OPTIMIZERS)}")
    optimizer_options: Mapping[str, Any] | None = _option(
        None, 'more of its arguments as JSON, e.g. {"betas": [0.9, 0.98]}'
    )
    weight_decay: Annotated[float, Range(0, 100)] = _option(0.01, "of the optimizer")
    parameter_groups: Mapping[str, Any] | None = _option(
        None, 'learning rates and weight decays by the names of weights, e.g. {"text_decoder": {"lr": 1e-5}}'
    )
    max_video_length: Annotated[int, Range(1)] = _option(
        512, "frames; the rest of a longer video is left out in training"
    )
    packed: bool = _option(False, "join the videos of a batch end to end instead of padding them")
    sequence_parallel_size: Annotated[int, Range(1)] = _option(
        1, "ranks that share out the frames of each video, for videos too long for one; a divisor of the ranks"
    )
    bf16: bool = _option(False, "compute in bfloat16, keep float32 weights")
    gradient_checkpointing: bool = _option(False, "recompute activations in the backward pass: less memory, more time")
    deepspeed: str | None = _option(None, "configuration of DeepSpeed, e.g. configs/ds_zero2.json; left out: PyTorch")
    group_by_length: bool = _option(False, "let a step's videos be of like lengths: less padding")
    seed: Annotated[int, Range(0)] = _option(42, "of the start weights, of the order of the videos and of dropout")
    num_workers: Annotated[int, Range(0, 256)] = _option(2, "processes that read features, a rank")
    rank_timeout: Annotated[float, Range(0.1, 10_000)] = _option(
        10.0, "minutes that ranks wait for one that is silent, as where its machine is lost, before they end"
    )
    ckpt_freq: Annotated[int, Range(0)] = _option(
        1, "epochs between checkpoints; 0: only at the end, at a signal and by ckpt_steps"
    )
    ckpt_steps: Annotated[int, Range(0)] = _option(0, "steps between checkpoints; 0: by ckpt_freq alone")
    keep_checkpoints: Annotated[int, Range(1)] = _option(2, "checkpoints to keep")
    print_freq: Annotated[int, Range(1)] = _option(50, "steps between lines where there is no terminal")
    val_every: Annotated[int, Range(0)] = _option(0, "epochs between validations on the val split; 0: none")
    best_by: Annotated[str, OneOf(BEST_BY)] = _option(
        "f1", f"what RUN/best is the best by, on the val split: {', '.join(BEST_BY)}"
    )
    patience: Annotated[int, Range(0)] = _option(0, "validations without a better one that end training; 0: none do")
    val_caption_tokenizer: Annotated[str, OneOf(("plain", "ptb"))] = _option(
        "plain", "of the measures of texts on the val split; ptb, as published, needs Java"
    )
    trackers: str | None = _option(
        "tensorboard", f"what shows the curves: {', '.join(TRACKERS)} and module:Class of your own, by commas; or none"
    )
    callbacks: str | None = _option(None, "module:Class of your own to call on the way, several by commas")
    seeds: str | None = _option(None, "train once for each of these seeds, e.g. 0,1,2, in OUTPUT_DIR/seed-0 ...")
    resume: bool = _option(False, "go on from the newest whole checkpoint of output_dir, if it has one")

    def __post_init__(self) -> None:
        check_fields(self, "train")
        for name, value in vars(self).items():
            if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
                # The run's config.yaml could not be read again, and TensorBoard writes nothing there.
                raise VTSumError(f"train: {name} must be a name in UTF-8, got {value:.200}; rename it")
        if self.min_lr > self.init_lr:
            raise VTSumError(f"train: min_lr must be at most init_lr ({self.init_lr}), got {self.min_lr}")
        if self.patience and not self.val_every:
            raise VTSumError(f"train: patience must be 0 without --val_every, got {self.patience}")
        if self.sequence_parallel_size > 1:
            without = {
                "packed": (self.packed, False, "whose videos are padded"),
                "loss": (self.loss, None, "of which a rank would see a stretch alone"),
                "architecture": (self.architecture, None, "which need not know of stretches"),
            }
            for name, (value, must, reason) in without.items():
                if value != must:
                    raise VTSumError(
                        f"train: {name} must be left out with sequence_parallel_size {self.sequence_parallel_size}, "
                        f"{reason}, got {value}"
                    )
        m = self.model
        if not (m.lambda_vsum or m.lambda_tsum or (m.boundary_head and m.lambda_boundary)):
            raise VTSumError(
                "train: one of lambda_vsum and lambda_tsum must be above 0, got 0 for both: nothing to learn"
            )

    @property
    def each_seed(self) -> list[int]:
        """The numbers of `seeds`; none where it was left out.

        Raises:
            VTSumError: it is no list of different whole numbers.
        """
        words = [] if self.seeds is None else [word.strip() for word in self.seeds.split(",")]
        numbers = [int(word) for word in words if len(word) <= _SEED_DIGITS and word.isdecimal()]
        if len(numbers) != len(words) or len(set(numbers)) != len(numbers):
            rule = "different whole numbers"
            if any(len(word) > _SEED_DIGITS for word in words):
                rule += f" of at most {_SEED_DIGITS} digits"
            raise VTSumError(f"train: seeds must be {rule}, such as 0,1,2, got {self.seeds!r:.80}")
        return numbers


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

    def of_seed(self, seed: int, folder: Path) -> Given:
        """The same for one of several seeds, in a folder of its own."""
        return dataclasses.replace(self, values={**self.values, "seed": seed, "seeds": None, "output_dir": str(folder)})

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


def names_in(value: str | None) -> list[str]:
    """The names of a list by commas."""
    return [word.strip() for word in (value or "").split(",") if word.strip()]


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


def read_yaml(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """The settings of a file as {dotted name: value}, a name of the original's for the model as "model", and notes on
    names that are not used here.

    Raises:
        VTSumError: not readable, not YAML, a name that is no setting, a value of another type.
    """
    data = read_mapping(path)
    kinds = {name: kind for name, kind, _, _ in leaves()}
    found: dict[str, Any] = {}
    notes = []
    said: dict[str, str] = {}
    for name, value in _flatten(data, _NESTED):
        if name in _NESTED and not (name == "model" and isinstance(value, str)):
            raise VTSumError(f"train: {name} of {path} must hold settings by name, got {_kind(value)}")
        if isinstance(value, list) or (isinstance(value, dict) and not is_mapping(kinds.get(name))):
            raise VTSumError(f"train: {name} of {path} must be one value, got {_kind(value)}")
        if name == "model":
            found[name] = value
        elif name in ELSEWHERE:
            notes.append(f"{name} of {path} is not used in training ({ELSEWHERE[name]})")
        else:
            target = ALIASES.get(name, name)
            if target not in kinds:
                raise VTSumError(
                    f"train: settings of {path} must be known names, got {name!r}{nearest(name, [*kinds, *ALIASES])}"
                )
            if target in said:
                raise VTSumError(f"train: {path} must set {target} once, got it as {said[target]} and as {name}")
            said[target] = name
            found[target] = coerce(name, kinds[target], value)
    return found, notes


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else "settings" if isinstance(value, dict) else as_said(value)


def _by_model_name(found: dict[str, Any], line: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """What a model's name, on the command line or else in the file, says; the name is taken out of both. As in the
    original, it hides what the file says otherwise, which a note tells.

    Raises:
        VTSumError: it is no name, or the command line says otherwise.
    """
    in_file, name = found.pop("model", None), line.pop("model", None)
    name = in_file if name is None else name
    if name is None:
        return {}
    if name not in MODEL_NAMES:
        raise VTSumError(f"train: model must be {' or '.join(MODEL_NAMES)}, or settings under it, got {name!r}")
    said = {f"model.{key}": value for key, value in MODEL_NAMES[name].items()}
    for dotted, value in said.items():
        rule = "none" if value is None else value
        if line.get(dotted, value) != value:
            raise VTSumError(
                f"train: {dotted} must be {rule} or left out with model {name}, got {line[dotted]!r}; leave --model out"
            )
        if found.get(dotted, value) != value:
            notes.append(f"{dotted} is {rule}, by model {name}, not {found[dotted]} as in --config")
    if "model.kernel_size" not in said and {**found, **line}.get("model.kernel_size", 1) is None:
        raise VTSumError(
            f"train: model.kernel_size must be a number with model {name}, got none; vtsum_blip_tt has none"
        )
    return said


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
    for dotted, value in said.items():
        line[dotted] = value if dotted == "model" else coerce(dotted, kinds[dotted], value)
    if config is None and line.get("resume"):
        own = Path(line.get("output_dir", TrainSettings.output_dir)) / "config.yaml"
        config = own if own.is_file() else None
    found, notes = read_yaml(config) if config is not None else ({}, [])
    for dotted in ("loss", "architecture", "trackers", "callbacks"):
        names = set(names_in(found.get(dotted))) - set(TRACKERS if dotted == "trackers" else ())
        if names and dotted not in line:
            raise VTSumError(
                f"train: {dotted} names code to run and must be given on the command line, got it from {config} alone: "
                f"write --{dotted} {found[dotted]} if you trust it"
            )
    named = _by_model_name(found, line, notes)
    values: dict[str, Any] = {}
    for dotted, value in {**found, **line, **named}.items():
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
