"""DeepSpeed's JSON file, read strictly: DeepSpeed itself ignores a misspelt name and guesses where a value is missing.

The file says how the work is sharded (`zero_optimization`) and what DeepSpeed measures. What is a setting of the
training, such as the batch size, lies in the training settings alone and is filled in here; the file must not name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtsum.errors import VTSumError
from vtsum.reading import as_said, read_json, said_of
from vtsum.training.sampler import Layout
from vtsum.training.settings import TrainSettings
from vtsum.training.values import nearest

# Name -> type. Nested names have a dict; they are those of DeepSpeed 0.19 that training on one model may want.
_OFFLOAD: dict[str, Any] = {
    "device": str,
    "nvme_path": str,
    "buffer_count": int,
    "pin_memory": bool,
}
_ZERO: dict[str, Any] = {
    "stage": int,
    "contiguous_gradients": bool,
    "reduce_scatter": bool,
    "reduce_bucket_size": int,
    "use_multi_rank_bucket_allreduce": bool,
    "allgather_partitions": bool,
    "allgather_bucket_size": int,
    "overlap_comm": bool,
    "sub_group_size": int,
    "round_robin_gradients": bool,
    "memory_efficient_linear": bool,
    "log_trace_cache_warnings": bool,
    "zero_hpz_partition_size": int,
    "zero_quantized_weights": bool,
    "zero_quantized_gradients": bool,
    "stage3_prefetch_bucket_size": int,
    "stage3_param_persistence_threshold": int,
    "stage3_model_persistence_threshold": int,
    "stage3_max_live_parameters": int,
    "stage3_max_reuse_distance": int,
    "stage3_module_granularity_threshold": int,
    "offload_optimizer": {**_OFFLOAD, "pipeline_read": bool, "pipeline_write": bool, "ratio": float},
    "offload_param": {**_OFFLOAD, "buffer_size": int, "max_in_cpu": int},
}
_KNOWN: dict[str, Any] = {
    "zero_optimization": _ZERO,
    "communication_data_type": str,
    "data_types": {"grad_accum_dtype": str},
    "prescale_gradients": bool,
    "gradient_predivide_factor": float,
    "wall_clock_breakdown": bool,
    "memory_breakdown": bool,
    "dump_state": bool,
    "comms_logger": {"enabled": bool, "verbose": bool, "prof_all": bool, "debug": bool},
    "flops_profiler": {
        "enabled": bool,
        "profile_step": int,
        "module_depth": int,
        "top_modules": int,
        "detailed": bool,
        "output_file": str,
    },
}
# Name -> the setting that decides it.
_OURS = {
    "train_batch_size": "--batch_size and --gradient_accumulation_steps",
    "train_micro_batch_size_per_gpu": "--batch_size",
    "gradient_accumulation_steps": "--gradient_accumulation_steps",
    "gradient_clipping": "--gradient_clipping",
    "bf16": "--bf16",
    "optimizer": "--init_lr, --weight_decay, --optimizer_options and --parameter_groups",
    "scheduler": "--schedule, --warmup_steps and --min_lr",
    "activation_checkpointing": "--gradient_checkpointing",
    "steps_per_print": "--print_freq",
    "tensorboard": "--trackers",
    "wandb": "--trackers",
}
_NEVER = {"fp16": "float16 is not offered; use --bf16", "amp": "float16 is not offered; use --bf16"}


def _check(path: Path, values: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> None:
    for name, value in values.items():
        shown = prefix + name
        if not prefix and name in _OURS:
            raise VTSumError(f"train: {path} must leave {name} out, it is set by {_OURS[name]}")
        if not prefix and name in _NEVER:
            raise VTSumError(f"train: {path} must leave {name} out, {_NEVER[name]}")
        if name not in known:
            raise VTSumError(f"train: names in {path} must be known, got {shown!r}{nearest(name, list(known))}")
        if value == "auto":
            raise VTSumError(f'train: {shown} of {path} must be a value, got "auto", which only a Trainer fills in')
        kind = known[name]
        if isinstance(kind, dict):
            if not isinstance(value, dict):
                raise VTSumError(f"train: {shown} of {path} must be an object, got {as_said(value)}")
            _check(path, value, kind, shown + ".")
        elif kind is float or kind is int:
            if isinstance(value, bool) or not isinstance(value, int | float) or (kind is int and value != int(value)):
                rule = "a whole number" if kind is int else "a number"
                raise VTSumError(f"train: {shown} of {path} must be {rule}, got {as_said(value)}")
        elif not isinstance(value, kind):
            rule = "true or false" if kind is bool else "text"
            raise VTSumError(f"train: {shown} of {path} must be {rule}, got {as_said(value)}")


def read(path: str | Path) -> dict[str, Any]:
    """A DeepSpeed configuration file, checked.

    Raises:
        VTSumError: not JSON; an unknown name, here or nested; "auto"; a name that is a setting of the training; a stage
            other than 0 to 3; an offload that the stage does not have.
    """
    path = Path(path)
    data = read_json(path, dict, "train: --deepspeed")
    _check(path, data, _KNOWN)
    zero = data.get("zero_optimization", {})
    if "stage" not in zero or zero["stage"] not in (0, 1, 2, 3):
        raise VTSumError(f"train: zero_optimization.stage of {path} must be 0, 1, 2 or 3, got {said_of(zero, 'stage')}")
    for name, lowest in (("offload_optimizer", 1), ("offload_param", 3)):
        device = zero.get(name, {}).get("device", "none")
        if device not in ("none", "cpu", "nvme"):
            raise VTSumError(f"train: {name}.device of {path} must be none, cpu or nvme, got {as_said(device)}")
        if device != "none" and zero["stage"] < lowest:
            raise VTSumError(f"train: {name} of {path} must have stage {lowest} or more, got {zero['stage']}")
        if device == "nvme" and "nvme_path" not in zero[name]:
            raise VTSumError(f"train: {name} of {path} must name its nvme_path, got none")
    return data


def complete(data: dict[str, Any], settings: TrainSettings, layout: Layout) -> dict[str, Any]:
    """The configuration as DeepSpeed gets it: the file's, and everything that the training settings decide.

    Raises:
        VTSumError: bfloat16 at stage 0; another optimizer than AdamW.
    """
    if settings.optimizer != "AdamW":
        raise VTSumError(
            f"train: optimizer must be AdamW with --deepspeed, got {settings.optimizer}; torchrun without --deepspeed "
            "trains with any"
        )
    if settings.bf16 and data["zero_optimization"]["stage"] == 0:
        # Seen with DeepSpeed 0.19: its first step goes by a gradient of zero, and it trains on without a word.
        raise VTSumError(
            "train: --bf16 must come with stage 1, 2 or 3, got stage 0, where DeepSpeed loses the first step's "
            "gradient; configs/ds_zero1.json costs less memory and is right"
        )
    return {
        **data,
        "train_micro_batch_size_per_gpu": layout.micro_batch,
        "gradient_accumulation_steps": layout.accumulation,
        # As DeepSpeed counts: it takes the ranks that share a video's frames for so many videos.
        "train_batch_size": layout.global_batch * settings.sequence_parallel_size,
        "gradient_clipping": settings.gradient_clipping,  # left out, it would be 1.0
        "bf16": {"enabled": settings.bf16},
        "steps_per_print": 2**31 - 1,
    }
