"""Train VTSum.

    vtsum train --config configs/vtsum_tt_ca.yaml --data DIR --output_dir RUN                      one process
    deepspeed --num_accelerators 2 --module vtsum.training.train ARGS --deepspeed configs/ds_zero2.json
    torchrun --nproc_per_node 2 -m vtsum.training.train ARGS --deepspeed configs/ds_zero2.json

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
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vtsum import plugins
from vtsum.data.videoxum import VideoXumDataset
from vtsum.errors import VTSumError
from vtsum.files import write_text
from vtsum.processes import Place
from vtsum.shown import clean, last_words, one_line, reason, say
from vtsum.training import checkpoints, deepspeed_config, shards
from vtsum.training.checkpoints import Checkpoint
from vtsum.training.engine import DeepSpeedEngine, Engine, PlainEngine, convert, join
from vtsum.training.loading import steps
from vtsum.training.records import METRICS, Display, Records, Silent
from vtsum.training.resuming import CONFIG, check_anew, check_folder, check_resumable, claim
from vtsum.training.sampler import Layout, StepSampler, spread
from vtsum.training.schedule import learning_rate
from vtsum.training.settings import Given, TrainSettings, parse, to_yaml
from vtsum.training.start import fingerprint, make_model, tokenizer_of, training_videos
from vtsum.training.stopping import STOPPING, StopSignals, follow_launcher
from vtsum.training.validation import BEST, Validation, describe

# How gloo and NCCL tell that another process has ended.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")


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
    for seed in settings.each_seed:
        if status := _train(given.of_seed(seed, Path(settings.output_dir) / f"seed-{seed}"), place):
            return status
    return 0


def _train(given: Given, place: Place) -> int:
    """One training; its exit status."""
    settings = given.settings_without_model()
    if place.ranks > 1 and settings.deepspeed is None:
        raise VTSumError(
            f"train: --deepspeed must be given where there are several processes, e.g. configs/ds_zero1.json, "
            f"got {place.ranks} processes without it"
        )
    sharding = deepspeed_config.read(settings.deepspeed) if settings.deepspeed is not None else None
    run = Path(settings.output_dir)
    check_folder(run, settings)
    follow_launcher()
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
        join(place)
        torch.distributed.barrier()  # no rank writes before all have looked at the folder
    validation = Validation(settings, run, videos, place) if settings.val_every else None
    with StopSignals() as signals:
        loaded = model.loading.describe().splitlines() if model.loading is not None else []
        notes = [*given.notes, *loaded]
        return _Run(run, settings, sharding, place, videos, validation, notes).train(model, signals)


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
        notes: Sequence[str],
    ) -> None:
        self.folder, self.settings, self.sharding = folder, settings, sharding
        self.place, self.videos, self.validation = place, videos, validation
        self.data = fingerprint(videos)
        self.saved = self.exported = -1
        self.claim: Any = None
        self.show: Callable[[str], None] = _print
        for line in notes:
            self.say(line)

    def say(self, text: str) -> None:
        if self.place.first:
            self.show(f"vtsum: {text}")

    def train(self, model: Any, signals: StopSignals) -> int:
        settings, place = self.settings, self.place
        if place.first and self.folder.is_dir():  # before anything in it is looked at that another one may be writing
            self.claim = self._writable(lambda: claim(self.folder))
        found = self._to_resume()
        full = settings.batch_size * settings.gradient_accumulation_steps * place.ranks
        if found is not None:
            full = int(found.facts["global_batch"])
        layout = spread(full, settings.batch_size, place.ranks)
        sampler = StepSampler(len(self.videos), layout, settings.seed)
        if settings.warmup_steps >= (steps := settings.max_epoch * sampler.steps_per_epoch):
            raise VTSumError(
                f"train: warmup_steps must be below the training's {steps} steps, got {settings.warmup_steps}"
            )
        self.engine = self._engine(model, layout, found)
        self.full = full
        done = 0
        if found is not None:
            done = self.saved = found.step
            self.engine.load(found.folder)
            self.say(f"going on after step {done}, from {found.folder}")
            if (before := found.facts["settings"].get("max_epoch")) != settings.max_epoch:
                self.say(
                    f"max_epoch is {settings.max_epoch} now, not {before}: the learning rate goes on as in a run of "
                    f"{settings.max_epoch} epochs"
                )
            if layout.micro_batch != settings.batch_size:
                by = ": losses differ slightly, since padding is counted within a pass"
                self.say(
                    f"{place.ranks} ranks share {full} videos a step as {layout.micro_batch} a forward pass, not "
                    f"{settings.batch_size}{by if settings.model.loss_mean == 'released' else ''}"
                )
        self._start_folder(done if found is not None else None)
        if self.validation is not None:
            self.validation.begin(done)
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
            return PlainEngine(model, self.settings, layout.accumulation)
        config = deepspeed_config.complete(self.sharding, self.settings, layout)
        if found is not None:
            shards.check(found)
        stage = int(config["zero_optimization"]["stage"])
        other = found is not None and int(found.facts["ranks"]) != self.place.ranks and stage > 0
        if other and found is not None:
            if self.place.first:
                self.say(f"converting {found.folder} from {found.facts['ranks']} ranks to {self.place.ranks}")
                convert(found.folder, stage)
            torch.distributed.barrier()
        return DeepSpeedEngine(model, self.settings, config, self.place, universal=other)

    def _start_folder(self, done: int | None) -> None:
        """The folder, its config.yaml and the settings on standard output, by the first rank."""
        if not self.place.first:
            return
        text = to_yaml(dataclasses.replace(self.settings, resume=False))

        def begin() -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.claim = self.claim or claim(self.folder)
            (self.folder / METRICS).touch()  # before the settings: by both a run's folder is known
            write_text(self.folder / CONFIG, text)

        self._writable(begin)
        checkpoints.sweep(self.folder, done)
        print("\n".join(map(clean, text.split("\n"))), flush=True)

    def _writable(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            raise VTSumError(f"train: output_dir {self.folder} must be writable: {reason(error)}") from None

    def _loop(self, sampler: StepSampler, done: int, signals: StopSignals) -> int:
        settings, per_epoch = self.settings, sampler.steps_per_epoch
        total = settings.max_epoch * per_epoch
        started, step = time.monotonic(), done
        stopped, first = 0, self.place.first
        try:
            with (
                Records(self.folder, done) if first else contextlib.nullcontext() as records,
                Display(total, done, settings.print_freq) if first else Silent() as display,
            ):
                self.show = display.say  # above the bar, while there is one
                for epoch in range(done // per_epoch, settings.max_epoch):
                    if self._enough(step, records, per_epoch):
                        break
                    begin = step - epoch * per_epoch
                    for batches in steps(self.videos, sampler, epoch, begin, self.place.rank, settings):
                        before = time.monotonic()
                        rate = learning_rate(settings, step, per_epoch)
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
                        }
                        if records is not None:
                            records.add(line)
                        display.step(line, (now - started) / (step - done) * (total - step))
                        # `flags` are the sum over ranks, so all of them see the same signal at the same step.
                        stopped = next((n for n, flag in zip(STOPPING, result.flags, strict=True) if flag), 0)
                        if stopped or self._due(step, per_epoch, total):
                            self.save(step)
                        if stopped:
                            break
                    if stopped:
                        break
                else:
                    self._enough(step, records, per_epoch)
        except OSError as error:
            raise VTSumError(
                f"train: output_dir {self.folder} must be writable, got: {reason(error)}; older checkpoints "
                "are untouched, make room and go on with --resume"
            ) from None
        except RuntimeError as error:
            if not any(words in str(error) for words in _LOST):
                raise
            raise VTSumError(
                "train: all ranks must live, another one is gone (its own message says why); its last checkpoint is "
                f"whole, go on with --resume --output_dir {self.folder}"
            ) from None
        finally:
            self.show = _print
        early = step < total and not stopped
        if step == total or early:
            stopped = 0  # a signal in the last step changes nothing
            if self.saved != step:
                self.save(step)
            elif step == done:
                self._export(step)  # the run may have ended between its last checkpoint and the model
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

    def _enough(self, step: int, records: Records | None, per_epoch: int) -> bool:
        """Validate after an epoch where that is due; whether training is to stop early."""
        validation = self.validation
        if validation is None:
            return False
        if step and validation.due(step, per_epoch):
            if self.exported != step:
                self._export(step)
            line, best = validation.measure(step, step // per_epoch, self.engine.model)
            target, about = self.folder / BEST, self._about(step) | {"validation": line}
            self._together(lambda: best.save_pretrained(target, facts={"training": about}) if best else None, target)
            validation.record(line)
            if records is not None:
                records.add_validation(line)
            self.say(describe(line))
        return validation.hopeless

    def _due(self, step: int, per_epoch: int, total: int) -> bool:
        every, epochs = self.settings.ckpt_steps, self.settings.ckpt_freq
        return (
            step == total
            or (every > 0 and step % every == 0)
            or (epochs > 0 and step % per_epoch == 0 and (step // per_epoch) % epochs == 0)
        )

    def save(self, step: int) -> None:
        """A checkpoint of all ranks, and the model as `VTSum.from_pretrained` reads it.

        Raises:
            VTSumError: it cannot be written; on the ranks that could, that another one could not.
        """
        part = checkpoints.part_of(self.folder, step)
        self._together(lambda: checkpoints.begin(self.folder, step) if self.place.first else None, part)
        self._together(lambda: self._write(part), part)
        facts = {
            **self.engine.facts,
            "ranks": self.place.ranks,
            "global_batch": self.full,
            "data": self.data,
            "settings": dataclasses.asdict(self.settings),
        }
        keep = self.settings.keep_checkpoints
        self._together(lambda: checkpoints.finish(self.folder, step, facts, keep) if self.place.first else None, part)
        self.saved = step
        self._export(step)

    def _export(self, step: int) -> None:
        """RUN/model, from the weights of all ranks."""
        weights, target = self.engine.weights(), self.folder / "model"
        about = {"training": self._about(step)}
        self._together(
            lambda: self.engine.model.save_pretrained(target, facts=about, state_dict=weights) if weights else None,
            target,
        )
        self.exported = step

    def _about(self, step: int) -> dict[str, Any]:
        return {"steps": step, "settings": dataclasses.asdict(self.settings)}

    def _write(self, part: Path) -> None:
        self.engine.save(part)
        checkpoints.save_random_states(part, self.place.rank)

    def _together(self, action: Callable[[], Any], path: Path) -> None:
        """Run a rank's part of writing; all ranks stop where one fails, so that none waits for it in vain."""
        problem: VTSumError | None = None
        try:
            action()
        except (OSError, RuntimeError, SafetensorError) as error:
            problem = checkpoints.explain(error, path)
        if self.engine.total(float(problem is not None)):
            checkpoints.sweep(self.folder, None)
            raise problem or VTSumError(f"train: a checkpoint must fit into {path}, another rank could not write it")


def _print(text: str) -> None:
    print(one_line(text), file=sys.stderr, flush=True)


def _command() -> int:
    """`python -m vtsum.training.train`: one line for a mistake, from one rank a machine while all say the same."""
    place = Place(0, 1, 0)
    try:
        place = Place.here()
        return main()
    except VTSumError as error:
        if place.local_rank == 0 or (torch.distributed.is_available() and torch.distributed.is_initialized()):
            say(f"{error} (rank {place.rank})" if place.ranks > 1 else str(error))
        return 2
    except Exception as error:
        return last_words(error)


if __name__ == "__main__":
    sys.exit(_command())
