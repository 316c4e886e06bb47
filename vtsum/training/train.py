"""Train VTSum.

    vtsum train --config configs/vtsum_tt_ca.yaml --data DIR --output_dir RUN                      one process
    deepspeed --num_accelerators 2 --module vtsum.training.train ARGS --deepspeed configs/ds_zero2.json
    torchrun --nproc_per_node 2 -m vtsum.training.train ARGS                    two, by DistributedDataParallel
    torchrun --nproc_per_node 2 -m vtsum.training.train ARGS --deepspeed configs/ds_zero2.json
    torchrun --nproc_per_node 2 -m vtsum.training.train ARGS --sequence_parallel_size 2     two, each half of a video

Several machines: `deepspeed --hostfile HOSTS ...`, where HOSTS has a line `name slots=4` for each and this package and
the data lie at the same place on all of them; or the same torchrun command on each, with its --nnodes and --rdzv
options. The output folder must be one that all ranks see.

A run lies in its output folder: config.yaml, metrics.jsonl (a line a step), tensorboard/, checkpoints/ and model/, the
newest weights as `VTSum.from_pretrained` reads them; with --val_every validation.jsonl and best/, too. SIGTERM, Ctrl-C
and SIGHUP write a checkpoint and stop with status 143, 130 or 129; `--resume` goes on from the newest whole one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vtsum import plugins
from vtsum.data.videoxum import VideoXumDataset
from vtsum.errors import VTSumError
from vtsum.files import check_no_links, make_folder, spot, write_text
from vtsum.model.checkpoint import check_model_place
from vtsum.processes import Place
from vtsum.protocols import Callback, Tracker
from vtsum.shown import clean, clean_libraries, last_words, open_streams, reason, remark, say
from vtsum.training import checkpoints, deepspeed_config, deepspeed_engine, engine, shards
from vtsum.training.checkpoints import Checkpoint
from vtsum.training.deepspeed_engine import DeepSpeedEngine, convert
from vtsum.training.engine import Engine, PlainEngine
from vtsum.training.loading import steps
from vtsum.training.lost import lost
from vtsum.training.records import METRICS, Display, Records, Silent
from vtsum.training.resuming import CONFIG, check_anew, check_convertible, check_folder, check_resumable, claim, sweep
from vtsum.training.sampler import Layout, StepSampler, spread
from vtsum.training.saving import Saver
from vtsum.training.schedule import rates
from vtsum.training.settings import Given, TrainSettings, names_in, parse, to_yaml
from vtsum.training.start import fingerprint, make_model, tokenizer_of, training_videos
from vtsum.training.stopping import STOPPING, StopSignals, follow_launcher
from vtsum.training.trackers import tell, trackers_of
from vtsum.training.validation import BEST, Validation, describe

# What all ranks find before they meet, the first one of the machine tells, and its launcher ends the others once it is
# gone. One that left before it would have it ended unheard; one that nobody ends by then found something of its own.
_FIRST_SPEAKS_SECONDS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says.

    Args:
        arguments: the words after `vtsum train`; None: those of this process.
    Returns:
        int: 0 at the end of the training, 143, 130 or 129 where SIGTERM, Ctrl-C or SIGHUP ended it (after a
            checkpoint).
    Raises:
        VTSumError: a mistake of the user's: settings, data, a full disk, a checkpoint that does not fit.
    """
    given = parse(sys.argv[1:] if arguments is None else arguments)
    settings, place = given.settings_without_model(), Place.here()
    if settings.seeds is None:
        return _train(given, place)
    if place.ranks > 1:
        raise VTSumError(f"train: seeds must be trained by one process each, got {place.ranks} processes")
    folders = {seed: Path(settings.output_dir) / f"seed-{seed}" for seed in settings.each_seed}
    check_no_links("train", *folders.values())
    for seed, folder in folders.items():  # of all, before the first is trained, for hours perhaps
        check_folder(folder, given.of_seed(seed, folder).settings_without_model())
    for seed, folder in folders.items():
        if status := _train(given.of_seed(seed, folder), place):
            return status
    return 0


def _train(given: Given, place: Place) -> int:
    """One training; its exit status."""
    settings = given.settings_without_model()
    sharding = deepspeed_config.read(settings.deepspeed) if settings.deepspeed is not None else None
    run = Path(settings.output_dir)
    check_folder(run, settings)
    watching = Watching(
        trackers_of(settings.trackers), [plugins.make("callback", name) for name in names_in(settings.callbacks)]
    )
    follow_launcher()
    if place.ranks % (sharing := settings.sequence_parallel_size):
        raise VTSumError(
            f"train: sequence_parallel_size must divide the ranks, {place.ranks}, got {sharing}; "
            "with 1 each has whole videos"
        )
    videos = training_videos(given)
    tokenizer = tokenizer_of(given)
    checkpoints.seed_everything(settings.seed)  # all ranks start from the same weights
    model = make_model(given, videos, tokenizer)
    settings = given.settings(model.config)
    if settings.loss is not None:
        model.own_loss = plugins.make("loss", settings.loss).saliency_loss
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if sharding is not None:
        deepspeed_config.complete(sharding, settings, Layout(1, 1, 1))  # contradictions, before anything is started
        deepspeed_engine.join(place, settings.rank_timeout)
    elif place.ranks > 1:
        engine.join(place, settings.rank_timeout)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # no rank writes before all have looked at the folder
    validation = Validation(settings, run, videos, place) if settings.val_every else None
    with StopSignals() as signals:
        loaded = model.loading.describe().splitlines() if model.loading is not None else []
        notes = [*given.notes, *loaded]
        try:
            return _Run(run, settings, sharding, place, videos, validation, watching, notes).train(model, signals)
        except RuntimeError as error:
            if (told := lost(error, settings.rank_timeout, run)) is None:
                raise
            raise told from None


class Watching(NamedTuple):
    """What the user has look on."""

    trackers: list[Tracker]
    callbacks: list[Callback]

    def tell(self, event: str, *values: Any) -> None:
        """Call each callback."""
        for callback in self.callbacks:
            tell(callback, event, *values)


class _Run:
    """One process's part in a run."""

    def __init__(
        self,
        folder: Path,
        settings: TrainSettings,
        sharding: dict[str, Any] | None,
        place: Place,
        videos: VideoXumDataset,
        validation: Validation | None,
        watching: Watching,
        notes: Sequence[str],
    ) -> None:
        self.folder, self.settings, self.sharding = folder, settings, sharding
        self.place, self.videos, self.validation = place, videos, validation
        self.watching, self.broken_off = watching, 0  # the number of a signal, of a validation that ended for it
        self.data = fingerprint(videos)
        self.claim: Any = None
        self.unsettled = False  # what the run left before is still as it was
        self.show: Callable[[str], None] = _print
        for line in notes:
            self.say(line)

    def say(self, text: str) -> None:
        if self.place.first:
            self.show(f"vtsum: {text}")

    def train(self, model: Any, signals: StopSignals) -> int:
        settings, place = self.settings, self.place
        if place.first and self.folder.is_dir():  # before anything in it is looked at that another one may be writing
            self.claim = self._writable(lambda: claim(self.folder, settings))
        found = self._to_resume()
        sharing = settings.sequence_parallel_size
        dealt = place.ranks // sharing  # so many ranks, or groups of them, get videos of their own
        full = settings.batch_size * settings.gradient_accumulation_steps * dealt
        if found is not None:
            full = int(found.facts["global_batch"])
        layout = spread(full, settings.batch_size, dealt)
        lengths = self.videos.lengths if settings.group_by_length else None
        sampler = StepSampler(len(self.videos), layout, settings.seed, lengths)
        if settings.warmup_steps >= (steps := settings.max_epoch * sampler.steps_per_epoch):
            raise VTSumError(
                f"train: warmup_steps must be below the training's {steps} steps, got {settings.warmup_steps}"
            )
        self.rate = rates(settings, sampler.steps_per_epoch)
        self.engine = self._engine(model, layout, found)
        done = 0 if found is None else found.step
        saved = -1 if found is None else done
        self.saver = Saver(self.folder, settings, place, self.engine, full, self.data, saved)
        if found is not None:
            self.engine.load(found.folder)
            self.say(f"going on after step {done}, from {found.folder}")
            if (before := found.facts["settings"].get("max_epoch")) != settings.max_epoch:
                self.say(
                    f"max_epoch is {settings.max_epoch} now, not {before}: the learning rate goes on as in a run of "
                    f"{settings.max_epoch} epochs"
                )
            if layout.micro_batch != settings.batch_size:
                by = ": losses differ slightly, since padding is counted within a pass"
                who = f"{dealt} ranks" if sharing == 1 else f"{dealt} groups of {sharing} ranks"
                self.say(
                    f"{who} share {full} videos a step as {layout.micro_batch} a forward pass, not "
                    f"{settings.batch_size}{by if settings.model.loss_mean == 'released' else ''}"
                )
        if self.validation is not None:
            self.validation.begin(done)
        self._start_folder(found)
        checkpoints.seed_everything(settings.seed, place.rank, done)
        if found is not None and int(found.facts["ranks"]) == place.ranks:
            checkpoints.load_random_states(found.folder, place.rank)
        return self._loop(sampler, done, signals)

    def _to_resume(self) -> Checkpoint | None:
        if not self.settings.resume:
            return None
        found, lines = checkpoints.find(self.folder)
        for line in lines:
            self.say(line)
        if found is None:
            check_anew(self.folder)
            self.say(f"{self.folder} has no whole checkpoint, starting anew")
            return None
        stage = None if self.sharding is None else int(self.sharding["zero_optimization"]["stage"])
        check_resumable(found, self.settings, stage, self.data)
        return found

    def _engine(self, model: Any, layout: Layout, found: Checkpoint | None) -> Engine:
        if self.sharding is None:
            return PlainEngine(model, self.settings, layout.accumulation, self.place)
        config = deepspeed_config.complete(self.sharding, self.settings, layout)
        if found is not None:
            shards.check(found)
        stage = int(config["zero_optimization"]["stage"])
        other = found is not None and int(found.facts["ranks"]) != self.place.ranks and stage > 0
        if other and found is not None:
            check_convertible(found, self.settings, stage, self.place.ranks)
            if self.place.first:
                self.say(f"converting {found.folder} from {found.facts['ranks']} ranks to {self.place.ranks}")
                convert(found.folder, stage)
            torch.distributed.barrier()
        return DeepSpeedEngine(model, self.settings, config, self.place, universal=other)

    def _start_folder(self, found: Checkpoint | None) -> None:
        """The folder, by the first rank. What a run that goes on has in it changes only once its records have begun,
        and with them the trackers: see `_records`."""
        if not self.place.first:
            return

        def begin() -> None:
            make_folder(self.folder)
            self.claim = self.claim or claim(self.folder, self.settings)
            (self.folder / METRICS).touch()  # before the settings: by both a run's folder is known

        self._writable(begin)
        for name in ("model",) if self.validation is None else ("model", BEST):
            self._writable(partial(check_model_place, self.folder / name))  # which is written to after hours
        if found is None:
            self._settle(None)
        else:
            self.unsettled = True

    def _settle(self, done: int | None) -> None:
        """The run's config.yaml, nothing of what lies beyond `done`, and the settings on standard output."""
        text = to_yaml(dataclasses.replace(self.settings, resume=False))
        self._writable(lambda: write_text(self.folder / CONFIG, text))
        if self.validation is not None:
            self._writable(self.validation.drop_later)
        checkpoints.sweep(self.folder, done, self.settings.keep_checkpoints)
        sweep(self.folder)
        print("\n".join(map(clean, text.split("\n"))), flush=True)

    def _records(self, done: int, facts: dict[str, Any]) -> Records:
        """What a run leaves to look at, begun; only then is anything of what it left before replaced or removed, for
        its records or a tracker may refuse to go on."""
        records = Records(self.folder, done, self.watching.trackers, facts)
        try:
            if self.unsettled:
                self._settle(done)
        except BaseException:
            records.close()
            raise
        return records

    def _writable(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            raise VTSumError(
                f"train: output_dir {spot(error, self.folder)} must be writable: {reason(error)}"
            ) from None

    def _loop(self, sampler: StepSampler, done: int, signals: StopSignals) -> int:
        settings, per_epoch = self.settings, sampler.steps_per_epoch
        total = settings.max_epoch * per_epoch
        started, step = time.monotonic(), done
        stopped, first = 0, self.place.first
        facts, none = dataclasses.asdict(settings), contextlib.nullcontext()
        number, part = divmod(self.place.rank, settings.sequence_parallel_size)
        loading = steps(self.videos, sampler, done, number, settings, (part, settings.sequence_parallel_size))
        try:
            with (
                self._records(done, facts) if first else none as records,
                Display(total, done, settings.print_freq) if first else Silent() as display,
                contextlib.closing(loading),
            ):
                self.show = display.say  # above the bar, while there is one
                for epoch in range(done // per_epoch, settings.max_epoch):
                    if self._enough(step, records, per_epoch, signals):
                        break
                    while step < (epoch + 1) * per_epoch:
                        waiting = time.monotonic()
                        batches = next(loading)
                        before = time.monotonic()
                        rate = self.rate(step)
                        flags = [float(signals.number == number) for number in STOPPING]
                        result = self.engine.step(batches, rate, flags)
                        step += 1
                        now = time.monotonic()
                        if not math.isfinite(result.loss):
                            raise VTSumError(
                                f"train: the loss must stay finite, got {result.loss} at step {step}; go on from the "
                                "last checkpoint with a lower --init_lr, or look for bad features with vtsum data check"
                            )
                        line = {
                            "step": step,
                            "epoch": epoch + 1,
                            **result.losses,
                            "lr": rate,
                            "grad_norm": result.grad_norm,
                            "seconds": round(now - before, 6),
                            "waited": round(before - waiting, 6),
                        }
                        if records is not None:
                            records.add(line)
                        display.step(line, (now - started) / (step - done) * (total - step))
                        # `flags` are the sum over ranks, so all of them see the same signal at the same step.
                        stopped = next((n for n, flag in zip(STOPPING, result.flags, strict=True) if flag), 0)
                        if stopped or self._due(step, per_epoch, total):
                            self._save(step)
                        if stopped:
                            break
                    if stopped:
                        break
                    if first:
                        self.watching.tell("epoch_end", self.folder, line)
                else:
                    self._enough(step, records, per_epoch, signals)
        except OSError as error:
            raise VTSumError(
                f"train: output_dir {spot(error, self.folder)} must be writable, got: {reason(error)}; older "
                "checkpoints are untouched, make room and go on with --resume"
            ) from None
        finally:
            self.show = _print
        unmeasured = self.validation is not None and self.validation.due(step, per_epoch)
        if self.broken_off:
            stopped = self.broken_off
            if self.saver.saved != step:
                self._save(step)
        elif step == total and not unmeasured:
            stopped = 0  # a signal in the last step changes nothing
        early = step < total and not stopped
        if not stopped:
            if self.saver.saved != step:
                self._save(step)
            elif step == done:
                self.saver.export(step)  # the run may have ended between its last checkpoint and the model
        self.engine.barrier()
        self.engine.close()
        if stopped:
            self.say(f"stopped after step {step} of {total}; go on with --resume --output_dir {self.folder}")
            return 128 + stopped
        if early:
            self.say("stopped early: the last validations were no better than the best one")
        self.say(f"trained {step} steps; the model is {self.folder / 'model'}")
        if self.validation is not None and self.validation.best is not None:
            self.say(self.validation.describe_best())
        return 0

    def _enough(self, step: int, records: Records | None, per_epoch: int, signals: StopSignals) -> bool:
        """Validate after an epoch where that is due; whether training is to stop early, or is asked to meanwhile."""
        validation = self.validation
        if validation is None:
            return False
        if step and validation.due(step, per_epoch):
            if self.saver.exported != step:
                self.saver.export(step)
            measured = validation.measure(step, step // per_epoch, self.engine.model, lambda: signals.number)
            if isinstance(measured, int):
                self.broken_off = measured
                return True
            line, best = measured
            self.saver.keep_best(step, best, line)
            validation.record(line)
            if records is not None:
                records.add_validation(line)
                self.watching.tell("validated", self.folder, line)
            self.say(describe(line))
        return validation.hopeless

    def _save(self, step: int) -> None:
        folder = self.saver.save(step)
        if self.place.first:
            self.watching.tell("checkpoint_written", self.folder, folder, step)

    def _due(self, step: int, per_epoch: int, total: int) -> bool:
        every, epochs = self.settings.ckpt_steps, self.settings.ckpt_freq
        return (
            step == total
            or (every > 0 and step % every == 0)
            or (epochs > 0 and step % per_epoch == 0 and (step // per_epoch) % epochs == 0)
        )


def _print(text: str) -> None:
    print(remark(text), file=sys.stderr, flush=True)


def _command() -> int:
    """`python -m vtsum.training.train`: one line for a mistake, from one rank a machine where all find the same."""
    open_streams()
    clean_libraries()
    place = Place(0, 1, 0)
    try:
        place = Place.here()
        return main()
    except VTSumError as error:
        if place.local_rank and not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            time.sleep(_FIRST_SPEAKS_SECONDS)
        say(f"{error} (rank {place.rank})" if place.ranks > 1 else str(error))
        return 2
    except Exception as error:
        return last_words(error)


if __name__ == "__main__":
    sys.exit(_command())
