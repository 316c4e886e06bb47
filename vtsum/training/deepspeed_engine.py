"""A training step by DeepSpeed, over any number of processes. No other file but shards.py imports deepspeed."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import distributed_c10d

from vtsum.data.collate import Batch
from vtsum.errors import VTSumError
from vtsum.files import check_no_links
from vtsum.model import VTSum
from vtsum.model.files import weights_misfit, write_pt
from vtsum.processes import Place, load_collectives
from vtsum.reading import misfit
from vtsum.training import shards
from vtsum.training.engine import LOSSES, Losses, StepResult, add, result_of, sharing_group, step_counts, total_of
from vtsum.training.optimizers import make_optimizer, moments_alone, set_rate
from vtsum.training.settings import TrainSettings
from vtsum.training.shards import UNIVERSAL, ZERO


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
        deepspeed = join(place, settings.rank_timeout)
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
        if offloaded:
            from deepspeed.ops.adam import DeepSpeedCPUAdam

            optimizer = make_optimizer(model, settings, partial(DeepSpeedCPUAdam, adamw_mode=True))
        else:
            optimizer = make_optimizer(model, settings)
        config = {**config, "checkpoint": {"load_universal": True}} if universal else config
        self.engine: Any = deepspeed.initialize(
            model=Losses(model), optimizer=optimizer, model_parameters=model.parameters(), config=config
        )[0]
        self.sharing = settings.sequence_parallel_size
        self.group = sharing_group(place, self.sharing, settings.rank_timeout)
        _wait(settings.rank_timeout)
        self.engine.train()
        self.device: torch.device = self.engine.device

    def step(self, batches: Sequence[Batch], rate: float, flags: Sequence[float] = ()) -> StepResult:
        sums = torch.zeros(LOSSES, dtype=torch.float64, device=self.device)
        set_rate(self.engine.optimizer, rate)
        norm: Any = None
        counts = step_counts(self.model, batches, self.place.ranks, self.device, self.sharing)
        where: dict[str, Any] = {} if self.group is None else {"group": self.group}
        dtype = torch.bfloat16 if self.bf16 else None
        for i, batch in enumerate(batches):
            out = self.engine(**batch.to(self.device, dtype).model_inputs(), counts=counts, **where)
            self.engine.backward(out[0] * self.sharing)  # divides by the number of passes
            add(sums, out)
            if self.stage == 0 and i == len(batches) - 1:
                grads = [p.grad for p in self.model.parameters() if p.grad is not None]
                norm = torch.nn.utils.get_total_norm(grads)
            self.engine.step()
        if self.stage:
            norm = self.engine.get_global_grad_norm()
        return result_of(sums / len(batches), float(norm), flags, self.place.ranks)

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
            raise VTSumError(f"train: {folder} must hold what DeepSpeed wrote, got: {weights_misfit(error)}") from None
        if path is None:
            raise VTSumError(f"train: {folder} must hold what DeepSpeed wrote, got something else")

    def total(self, value: float) -> float:
        return total_of(value, self.device)

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


def _wait(minutes: float) -> None:
    """Let all groups of processes wait so long and no longer: torch gives those that DeepSpeed adds, in which the
    gradients travel, its own 10 or 30 minutes and not the first group's."""
    for group in list(distributed_c10d._world.pg_map):
        distributed_c10d._set_pg_timeout(timedelta(minutes=minutes), group)


def join(place: Place, minutes: float) -> Any:
    """Import DeepSpeed quietly and join the group of processes; its module.

    Args:
        minutes: that ranks wait for one that is silent.
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
        wait = timedelta(minutes=minutes)
        load_collectives()
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=wait)
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
    # One folder deeper: beside its output the converter leaves a file that names it, which is no part of a checkpoint.
    words += ["--input_folder", str(folder / ZERO), "--output_folder", str(part / UNIVERSAL)]
    words += ["--num_extract_workers", "2", "--num_merge_workers", "2"]
    words += ["--inject_missing_state"] if stage in (1, 2) else []
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    if run.returncode:
        raise VTSumError(
            f"train: {folder} must convert to another number of ranks, DeepSpeed's converter failed: "
            f"{_last_word(run.stderr):.200}"
        )
    os.rename(part / UNIVERSAL, target)
    shutil.rmtree(part, ignore_errors=True)


def _last_word(trace: str) -> str:
    """What a process that ended in an exception says of the file that it read."""
    last = (trace.strip().splitlines() or ["no message"])[-1]
    kind, _, said = last.partition(": ")
    kinds: dict[str, type[Exception]] = {"KeyError": KeyError, "TypeError": TypeError, "AttributeError": AttributeError}
    kinds |= {"IndexError": IndexError, "AssertionError": AssertionError}
    if kind in kinds:
        return misfit(kinds[kind](said.strip("'")))
    return said if kind.endswith("Error") and said else last
