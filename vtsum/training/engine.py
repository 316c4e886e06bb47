"""What carries out a training step: plain PyTorch in one process, or DeepSpeed over any number. No other file but
shards.py imports deepspeed.

Both take the gradient of the mean of the losses of a step's forward passes, over all ranks, as DistributedDataParallel
does in the original. What the losses of a pass are divided by is its share of the step's frames and words, so that this
mean is the loss of the step's videos, whichever of them share a pass; with model.loss_mean "released", and for the
memory's balance loss and a loss of the user's own, a pass's own mean. See `StepSampler` for which videos share one.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vtsum.data.collate import Batch
from vtsum.errors import VTSumError
from vtsum.files import check_no_links
from vtsum.model.files import read_pt, write_pt
from vtsum.model.pretrained import first_line
from vtsum.model.vtsum import LossCounts, VTSum, VTSumOutput
from vtsum.processes import Place
from vtsum.training import shards
from vtsum.training.settings import TrainSettings
from vtsum.training.shards import UNIVERSAL, ZERO

LOSSES = 5
"""Losses that a step reports: the sum, and its parts of `StepResult`."""


@dataclass(frozen=True)
class StepResult:
    """Means over a step's forward passes on all ranks; `grad_norm` before clipping, `flags` summed over ranks."""

    loss: float
    loss_vsum: float
    loss_tsum: float
    loss_balance: float
    loss_boundary: float
    grad_norm: float
    flags: tuple[float, ...] = ()

    @property
    def losses(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if name.startswith("loss")}


class Engine(Protocol):
    """One training step at a time, and all that a checkpoint needs. Every rank calls every method."""

    model: VTSum
    """Its own weights may be scattered or of lower precision; see `weights`."""
    facts: dict[str, Any]
    """What a checkpoint says about the engine that wrote it."""

    def step(self, batches: Sequence[Batch], rate: float, flags: Sequence[float] = ()) -> StepResult:
        """One optimizer step on this rank's forward passes; `flags` are summed over the ranks on the way."""

    def save(self, folder: Path) -> None:
        """Write weights and optimizer into an empty folder; OSError or RuntimeError where it cannot be written."""

    def load(self, folder: Path) -> None:
        """The reverse, from a folder that `prepare` may have converted."""

    def total(self, value: float) -> float:
        """The sum of a number over all ranks."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def weights(self) -> dict[str, Tensor] | None:
        """The full float32 weights and buffers on the first rank; None on the others."""

    def close(self) -> None:
        """Leave the group of processes."""


def _add(sums: Tensor, losses: Sequence[Tensor | None]) -> None:
    for i, value in enumerate(losses):
        if value is not None:
            sums[i] += value.detach().double()


def _counts(model: VTSum, batches: Sequence[Batch]) -> list[float]:
    """Annotated frames and words of all the passes."""
    frames = words = 0.0
    for batch in batches:
        inputs = batch.model_inputs()
        own = model.loss_counts(inputs.get("video_mask"), inputs.get("vsum_labels"), inputs["tsum_labels"])
        frames, words = frames + own.frames, words + own.words
    return [frames, words]


def _share(counts: Sequence[float], passes: int) -> LossCounts:
    """A pass's share of a step's counts: the mean of the passes' losses is then the loss of all their videos at once,
    however they are dealt out."""
    frames, words = (max(1.0, count) / passes for count in counts)
    return LossCounts(frames, words)


class PlainEngine:
    """PyTorch's AdamW in this process; on a GPU where there is one. bf16: autocast over float32 weights."""

    def __init__(self, model: VTSum, settings: TrainSettings, accumulation: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device).train()
        self.settings = settings
        self.accumulation = accumulation
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=settings.init_lr, weight_decay=settings.weight_decay)
        self.facts: dict[str, Any] = {"engine": "plain"}

    def step(self, batches: Sequence[Batch], rate: float, flags: Sequence[float] = ()) -> StepResult:
        losses = torch.zeros(LOSSES, dtype=torch.float64, device=self.device)
        self.optimizer.zero_grad(set_to_none=True)
        own = self.model.config.loss_mean == "released"
        counts = None if own else _share(_counts(self.model, batches), len(batches))
        for batch in batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
                out = self.model(**batch.to(self.device).model_inputs(), counts=counts)
            (out.loss / self.accumulation).backward()
            _add(losses, _losses(out))
        clip = self.settings.gradient_clipping
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip if clip > 0 else math.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        total, vsum, tsum, balance, boundary = (losses / len(batches)).tolist()
        return StepResult(total, vsum, tsum, balance, boundary, float(norm), tuple(flags))

    def save(self, folder: Path) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        write_pt(state, folder / "state.pt")

    def load(self, folder: Path) -> None:
        path = folder / "state.pt"
        state = read_pt(path, "train")
        try:
            self.model.load_state_dict(state["model"])
            with moments_alone(self.optimizer):
                self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise VTSumError(
                f"train: {path} must hold this model and its optimizer, got: {first_line(error)}"
            ) from None

    def total(self, value: float) -> float:
        return value

    def barrier(self) -> None:
        return

    def weights(self) -> dict[str, Tensor] | None:
        return self.model.state_dict()

    def close(self) -> None:
        return


@contextmanager
def moments_alone(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, an optimizer is loaded: its moments are checked, its options stay, for they are the settings'.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the moments are not Adam's for these weights.
    """
    options = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    yield
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)
    if not optimizer.state:
        raise ValueError("no moments of the weights")
    for weight, held in optimizer.state.items():
        float(held["step"])
        for name in ("exp_avg", "exp_avg_sq"):
            if held[name].shape != weight.shape:
                raise ValueError(f"{name} {list(held[name].shape)} of weights {list(weight.shape)}")


def _losses(out: VTSumOutput) -> tuple[Tensor | None, ...]:
    return out.loss, out.loss_vsum, out.loss_tsum, out.loss_balance, out.loss_boundary


class _Losses(nn.Module):
    """The model as DeepSpeed sees it: stage 3 hooks every tensor that a module returns, so it returns the losses alone,
    and the model, called by `forward`, is passed over."""

    def __init__(self, model: VTSum) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> tuple[Tensor | None, ...]:
        return _losses(self.model.forward(**inputs))


class DeepSpeedEngine:
    """DeepSpeed's engine around the model, at the ZeRO stage that its configuration names.

    Without a GPU it runs on the CPU with gloo. bf16: bfloat16 weights in the passes, float32 ones in the optimizer.

    Args:
        config: as `deepspeed_config.complete` gives it.
        universal: the checkpoint to load was written by another number of ranks and converted by `convert`.
    """

    def __init__(
        self, model: VTSum, settings: TrainSettings, config: dict[str, Any], place: Place, *, universal: bool = False
    ) -> None:
        deepspeed = join(place)
        zero = config["zero_optimization"]
        self.place = place
        self.stage = int(zero["stage"])
        self.bf16 = settings.bf16
        self.universal = universal
        self.facts: dict[str, Any] = {"engine": "deepspeed", "stage": self.stage}
        self.model = model
        # Buffers that are not part of the weights have no name there. Tied weights count once.
        self.names = set(model.state_dict())
        offloaded = zero.get("offload_optimizer", {}).get("device", "none") != "none"
        rate, decay = settings.init_lr, settings.weight_decay
        if offloaded:
            from deepspeed.ops.adam import DeepSpeedCPUAdam

            optimizer: Any = DeepSpeedCPUAdam(model.parameters(), lr=rate, weight_decay=decay, adamw_mode=True)
        else:
            optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
        config = {**config, "checkpoint": {"load_universal": True}} if universal else config
        self.engine: Any = deepspeed.initialize(
            model=_Losses(model), optimizer=optimizer, model_parameters=model.parameters(), config=config
        )[0]
        self.engine.train()
        self.device: torch.device = self.engine.device

    def step(self, batches: Sequence[Batch], rate: float, flags: Sequence[float] = ()) -> StepResult:
        sums = torch.zeros(LOSSES + len(flags), dtype=torch.float64, device=self.device)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        norm: Any = None
        counts = None
        if self.model.config.loss_mean != "released":
            step = torch.tensor(_counts(self.model, batches), dtype=torch.float64, device=self.device)
            torch.distributed.all_reduce(step)
            counts = _share(step.tolist(), len(batches) * self.place.ranks)
        dtype = torch.bfloat16 if self.bf16 else None
        for i, batch in enumerate(batches):
            out = self.engine(**batch.to(self.device, dtype).model_inputs(), counts=counts)
            self.engine.backward(out[0])  # divides by the number of passes
            _add(sums, out)
            if self.stage == 0 and i == len(batches) - 1:
                grads = [p.grad for p in self.model.parameters() if p.grad is not None]
                norm = torch.nn.utils.get_total_norm(grads)
            self.engine.step()
        if self.stage:
            norm = self.engine.get_global_grad_norm()
        sums[:LOSSES] /= len(batches) * self.place.ranks
        sums[LOSSES:] = torch.tensor(list(flags), dtype=torch.float64)
        torch.distributed.all_reduce(sums)
        total, vsum, tsum, balance, boundary, *flagged = sums.tolist()
        return StepResult(total, vsum, tsum, balance, boundary, float(norm), tuple(flagged))

    def save(self, folder: Path) -> None:
        # A rank that left DeepSpeed's function on a write error would leave the others waiting in it for ever: the
        # error is kept until all of them are through.
        errors: list[BaseException] = []
        writer = self.engine.checkpoint_engine
        write, make = writer.save, writer.makedirs

        def kept(action: Any) -> Any:
            def run(*args: Any, **kwargs: Any) -> None:
                try:
                    action(*args, **kwargs)
                except (OSError, RuntimeError) as error:
                    errors.append(error)

            return run

        writer.save = kept(lambda state_dict, path: write_pt(state_dict, path))  # called with these names
        writer.makedirs = kept(make)
        self.engine._copy_recovery_script = lambda path: None  # scripts of DeepSpeed's, no part of a checkpoint
        try:
            self.engine.save_checkpoint(str(folder), tag=ZERO, save_latest=False)
        finally:
            writer.save, writer.makedirs = write, make
        if errors:
            raise errors[0]

    def load(self, folder: Path) -> None:
        try:
            # ZeRO's optimizer stands around another.
            optimizer = getattr(self.engine.optimizer, "optimizer", self.engine.optimizer)
            with shards.weights_only(), moments_alone(optimizer):
                path, _ = self.engine.load_checkpoint(str(folder), tag=UNIVERSAL if self.universal else ZERO)
        except Exception as error:  # DeepSpeed checks little of what it reads, so that anything may fail
            raise VTSumError(f"train: {folder} must hold what DeepSpeed wrote, got: {first_line(error)}") from None
        if path is None:
            raise VTSumError(f"train: {folder} must hold what DeepSpeed wrote, got something else")

    def total(self, value: float) -> float:
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return float(tensor)

    def barrier(self) -> None:
        torch.distributed.barrier()

    def weights(self) -> dict[str, Tensor] | None:
        from deepspeed.utils import safe_get_full_fp32_param

        state: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            full = safe_get_full_fp32_param(parameter)  # all ranks take part
            if self.place.first:
                state[name] = (parameter if full is None else full).detach().float().cpu().clone()
        if not self.place.first:
            return None
        buffers = {name: buffer.detach().cpu() for name, buffer in self.model.named_buffers()}
        return {name: value for name, value in {**buffers, **state}.items() if name in self.names}

    def close(self) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def join(place: Place) -> Any:
    """Import DeepSpeed quietly and join the group of processes; its module.

    Raises:
        VTSumError: DeepSpeed is not installed.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        import deepspeed
    except ImportError as error:
        raise VTSumError(
            f"train: --deepspeed must have DeepSpeed: pip install 'vtsum[train]' (missing: {error.name})"
        ) from None
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if not torch.distributed.is_initialized():
        if "RANK" not in os.environ:  # --deepspeed without a launcher: a group of one
            os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
        if torch.cuda.is_available():
            torch.cuda.set_device(place.local_rank)
            backend = "nccl"
        else:
            # Its collectives through shared memory are compiled for minutes at the first use; gloo does the same.
            import deepspeed.ops

            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            backend = "gloo"
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return deepspeed


def convert(folder: Path, stage: int) -> None:
    """Have DeepSpeed turn a checkpoint's shards into its universal form, which any number of ranks can load.

    It is written to folder/universal by another process: DeepSpeed's converter starts processes of its own, which would
    not go together with this one's threads.

    Raises:
        VTSumError: the converter fails.
    """
    target, part = folder / UNIVERSAL, folder / f".{UNIVERSAL}.part"
    check_no_links("train", target, part)
    if target.is_dir():
        return
    shutil.rmtree(part, ignore_errors=True)
    # -P: else Python would take modules from the folder that the command was started in, a stranger's run perhaps.
    words = [sys.executable, "-P", "-m", "vtsum.training.shards"]
    words += ["--input_folder", str(folder / ZERO), "--output_folder", str(part)]
    words += ["--num_extract_workers", "2", "--num_merge_workers", "2"]
    words += ["--inject_missing_state"] if stage in (1, 2) else []
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise VTSumError(
            f"train: {folder} must convert to another number of ranks, DeepSpeed's converter failed: {last}"
        )
    os.rename(part, target)
