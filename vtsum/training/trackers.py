"""What shows the curves of a run while it goes on: TensorBoard, Weights & Biases, or the user's own."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtsum import plugins
from vtsum.errors import VTSumError, first_line
from vtsum.files import check_no_links, write_text
from vtsum.protocols import Tracker
from vtsum.reading import read_file
from vtsum.shown import full, reason
from vtsum.training.settings import names_in


def trackers_of(names: str | None) -> list[Tracker]:
    """The trackers that the settings name.

    Raises:
        VTSumError: one cannot be had, or is named twice.
    """
    found = names_in(names)
    if len(set(found)) < len(found):
        raise VTSumError(f"train: trackers must be named once each, got {names}")
    return [BUILT_IN[name]() if name in BUILT_IN else plugins.make("tracker", name) for name in found]


def tell(part: Any, event: str, *values: Any) -> None:
    """Call a tracker or a callback.

    Raises:
        VTSumError: one of the user's own met a file or a connection that failed, which is none of the run's.
    """
    try:
        getattr(part, event)(*values)
    except OSError as error:
        if type(part) in BUILT_IN.values():
            raise
        name = f"{type(part).__module__}:{type(part).__qualname__}"
        raise VTSumError(f"train: {event} of {name} must not fail, got: {reason(error)}") from error


def _need(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise VTSumError(f"train: {package} must be installed: pip install vtsum[{extra}]; or --trackers none")


class TensorBoard:
    """RUN/tensorboard; what was shown beyond the step that a run goes on after is dropped."""

    def __init__(self) -> None:
        _need("tensorboard", "train")

    def start(self, run: Path, step: int, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Its thread prints a traceback of what its next call raises.
        self._before, threading.excepthook = threading.excepthook, _quiet_when_full
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def finish(self) -> None:
        threading.excepthook = self._before
        self._board.close()


def _quiet_when_full(args: threading.ExceptHookArgs) -> None:
    if not full(args.exc_value):
        threading.__excepthook__(args)


_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def check_wandb(run: Path) -> None:
    """Refuse a run in whose wandb/ wandb would remove what it did not lay there, or go on under an odd name.

    Raises:
        VTSumError: naming the file.
    """
    folder = run / "wandb"
    if os.path.lexists(path := folder / "wandb-resume.json"):
        raise VTSumError(f"train: {path} must not be there, wandb would remove it; move it away")
    check_no_links("train", path := folder / "run-id")  # what it holds goes to wandb's server
    if path.exists() and not _RUN_ID.fullmatch(
        found := read_file(path, "train", 200).decode("ascii", "replace").strip()
    ):
        raise VTSumError(f"train: {path} must hold letters, digits, - and _ alone, at most 128, got {found!r:.80}")


class WeightsAndBiases:
    """A run of wandb's, its files in RUN/wandb; a resumed training goes on in the same one. Its own variables say the
    rest: WANDB_PROJECT, WANDB_MODE=offline and the like."""

    def __init__(self) -> None:
        _need("wandb", "wandb")

    def start(self, run: Path, step: int, settings: Mapping[str, Any]) -> None:
        import wandb

        check_wandb(run)
        (run / "wandb").mkdir(exist_ok=True)
        settings_of = run / "wandb" / "settings"
        if os.path.samefile(run, os.curdir) and os.path.lexists(settings_of):  # where wandb looks for them
            raise VTSumError(
                f"train: {settings_of} must not say which server wandb tells, a run may be a stranger's; move it away, "
                "or start from another folder"
            )
        known = run / "wandb" / "run-id"
        if not (step and known.exists()):
            write_text(known, secrets.token_hex(8))
        name = read_file(known, "train", 100).decode("ascii", "replace").strip()
        # Its links to the newest run and its logs would take the places of whatever lies under their names.
        quiet = wandb.Settings(silent=True, console="off", save_code=False, symlink=False)
        try:
            self._run = wandb.init(
                dir=run, name=run.name, id=name, resume="allow", config=dict(settings), settings=quiet
            )
        except (wandb.Error, ValueError) as error:
            raise VTSumError(
                f"train: wandb must be ready (wandb login), or WANDB_MODE=offline be set, got: {first_line(error)}"
            ) from None

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        self._run.finish()


BUILT_IN: dict[str, type[TensorBoard] | type[WeightsAndBiases]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}
"""The trackers that `settings.TRACKERS` names."""
