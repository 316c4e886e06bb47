"""Ranks that each hold a stretch of a model's videos: `-m tests.vtsum.sequence_parallel_ranks FOLDER PROGRAM`.

One process imports all that is needed and then becomes four; what rank R finds goes to FOLDER/R.json.
"""

from __future__ import annotations

import datetime
import faulthandler
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from tests.vtsum.training_corpus import WORDS
from vtsum.config import TextConfig, VTSumConfig
from vtsum.data.collate import collate
from vtsum.data.videoxum import VideoXumItem
from vtsum.model import VTSum
from vtsum.model.losses import LossCounts
from vtsum.model.tokenizer import load_tokenizer
from vtsum.processes import Place
from vtsum.training.engine import ALONE, PlainEngine
from vtsum.training.sampler import Layout, StepSampler
from vtsum.training.settings import TrainSettings

RANKS, FRAMES, WIDTH, VIDEOS = 4, 40, 24, 3
#: How 40 frames lie on ranks: uneven, shorter than a window or a halo, none at all.
SHARES: dict[int, list[list[int]]] = {
    2: [[9, 31], [40, 0]],
    3: [[17, 2, 21]],
    4: [[13, 0, 5, 22], [1, 1, 1, 37]],
}
#: Which processes are in the group of so many.
MEMBERS = {2: [1, 3], 3: [0, 2, 3], 4: [0, 1, 2, 3]}

CASES: dict[str, dict[str, Any]] = {
    "all frames": {"depth": 2, "boundary_head": True, "lambda_balance": 2.0, "max_positions": 16},
    "windows": {
        "temporal_window": 7, "memory_position": "inside", "depth": 2, "positions_over": "batch", "max_positions": 30,
        "loss_mean": "released", "boundary_head": True, "lambda_balance": 1.0,
    },
    "as published": {"memory_form": "student", "memory_position": "before", "loss_type": "l2", "memory_top_k": 3},
    "bare": {"memory_slots": 0, "kernel_size": None, "mask": False, "counts": True},
    "recomputed": {
        "memory_position": "inside", "depth": 2, "temporal_window": 5, "boundary_head": True, "recompute": True,
        "lambda_balance": 1.0,
    },
    "recomputed, all frames": {"depth": 2, "memory_slots": 0, "recompute": True},
}  # fmt: skip


def make(folder: Path, case: dict[str, Any], dtype: torch.dtype, dropout: float = 0.0) -> VTSum:
    case = {name: value for name, value in case.items() if name not in ("mask", "counts", "recompute")}
    sizes = {"width": WIDTH, "num_heads": 3, "mlp_ratio": 2, "memory_slots": 8, "max_text_length": 16} | case
    tokenizer = load_tokenizer(folder / "vocab.txt")
    text = TextConfig(len(tokenizer), 32, 2, 2, 48, 32, dropout)
    torch.manual_seed(5)
    model = VTSum(VTSumConfig(**sizes, text=text), tokenizer).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at 0, and would hide mistakes
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def batch(dtype: torch.dtype, masked: bool) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(6)
    ends = torch.tensor([FRAMES, 23, 12] if masked else [FRAMES] * VIDEOS)
    mask = torch.arange(FRAMES)[None] < ends[:, None]
    embeddings = torch.randn(VIDEOS, FRAMES, WIDTH, generator=generator).to(dtype) * mask[..., None]
    labels = (torch.rand(VIDEOS, 4, FRAMES, generator=generator) > 0.5).float() * mask[:, None]
    sentences = [" ".join(WORDS[n : n + 4 + n]) for n in range(VIDEOS)]
    given: dict[str, Any] = {"video_embeddings": embeddings, "vsum_labels": labels, "tsum_labels": sentences}
    return given | ({"video_mask": mask} if masked else {})


def part(given: dict[str, Any], own: slice) -> dict[str, Any]:
    cut = {"video_embeddings": (slice(None), own), "vsum_labels": (..., own), "video_mask": (..., own)}
    return {name: value[cut[name]] if name in cut else value for name, value in given.items()}


def found_by(model: VTSum, given: dict[str, Any], options: dict[str, Any]) -> dict[str, Tensor]:
    """All that a pass gives, and all gradients of its loss."""
    given = dict(given)
    given["video_embeddings"] = given["video_embeddings"].clone().requires_grad_()
    model.zero_grad()
    out = model(**given, **options)
    assert out.loss is not None
    out.loss.backward()
    names = [name for name in out._fields if isinstance(getattr(out, name), Tensor) and name != "decoder_targets"]
    found = {name: getattr(out, name).detach() for name in names}
    found |= {f"usage of bank {n}": bank.mass.clone() for n, bank in enumerate(model.banks()) if not model.recompute}
    found["gradient of embeddings"] = given["video_embeddings"].grad
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        found[f"gradient of {name}"] = parameter.grad.clone()
    return found


def apart(ours: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to 1 or the largest number."""
    if ours.shape != wanted.shape or not bool(ours.isfinite().all()):
        return float("inf")
    return float((ours - wanted).abs().max() / max(1.0, float(wanted.abs().max()))) if wanted.numel() else 0.0


def compare(folder: Path, handle: Any, rank: int, shares: list[int], case: dict[str, Any], whole: Any) -> Any:
    """How far this rank's outputs and the sums of all ranks' gradients are from one process's, by name."""
    result = {}
    for dtype in (torch.float32, torch.float64):
        model, given, options, wanted = whole[dtype]
        own = slice(sum(shares[:rank]), sum(shares[: rank + 1]))
        found = found_by(model, part(given, own), {**options, "group": handle})
        differences = {}
        for name, value in wanted.items():
            ours = found.pop(name)
            if name.startswith("gradient") and name != "gradient of embeddings":
                dist.all_reduce(ours, group=handle.get_group() if isinstance(handle, DeviceMesh) else handle)
            elif name in ("saliency_logits", "boundary_logits", "frames", "gradient of embeddings"):
                value = value[:, own]
            mask = given.get("video_mask")
            if name in ("saliency_logits", "boundary_logits", "frames") and mask is not None:
                ours, value = ours[mask[:, own]], value[mask[:, own]]  # nobody reads the rest
            differences[name] = apart(ours, value)
        assert not found, found.keys()
        result[str(dtype)] = differences
    return result


def one_process(folder: Path, case: dict[str, Any]) -> Any:
    found = {}
    for dtype in (torch.float32, torch.float64):
        model = make(folder, case, dtype).train()
        if case.get("recompute"):
            model.gradient_checkpointing_enable()
        given = batch(dtype, case.get("mask", True))
        options = {"counts": LossCounts(70.0, 11.0)} if case.get("counts") else {}
        found[dtype] = model, given, options, found_by(model, given, options)
    return found


def message(call: Any) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing raised"


def dropped(folder: Path, handle: Any, own: slice) -> dict[str, Any]:
    """While words are dropped, the text must be the same on all ranks, and another at the next pass."""
    model = make(folder, {"depth": 1}, torch.float64, dropout=0.4).train()
    given = part(batch(torch.float64, True), own)
    torch.manual_seed(100 + dist.get_rank())
    found = []
    for recompute in (False, False, True):
        if recompute:
            model.gradient_checkpointing_enable()
        out = model(**given, group=handle)
        out.loss.backward()
        assert out.text_logits is not None
        found.append(out.text_logits.double().sum().item())
    return {"sums": found, "finite": all(bool(p.grad.isfinite().all()) for p in model.parameters())}


def sentences(folder: Path, handle: Any, own: slice) -> dict[str, Any]:
    """What is written: by one process, and by this rank with the others."""
    model = make(folder, {"depth": 1, "temporal_window": 9}, torch.float64).eval()
    given = batch(torch.float64, True)
    ways: dict[str, Any] = {"beams": {}, "one": {"num_beams": 1}}
    found = {}
    for name, way in ways.items():
        options = {"max_length": 14, "min_length": 6, **way}
        texts, ids, saliency = model.generate(given["video_embeddings"], given["video_mask"], **options)
        ours = part(given, own)
        some, ids_of_group, stretch = model.generate(
            ours["video_embeddings"], ours["video_mask"], group=handle, **options
        )
        mask = ours["video_mask"]
        found[name] = {
            "same": some == texts and torch.equal(ids, ids_of_group),
            "saliency": apart(stretch[mask], saliency[:, own][mask]),
        }
    return found


def refusals(folder: Path, handle: Any, rank: int) -> dict[str, str]:
    model = make(folder, {}, torch.float32)
    given = batch(torch.float32, True)
    half = FRAMES // 2
    own = part(given, slice(0, half) if rank == 0 else slice(half, FRAMES))
    other = {**own, "tsum_labels": own["tsum_labels"] if rank else ["a dog"] * VIDEOS}
    nothing = part(given, slice(0, 0))
    packed = {"video_embeddings": torch.zeros(5, WIDTH), "cu_seqlens": torch.tensor([0, 5])}
    found = {
        "sentences": message(lambda: model(**other, group=handle)),
        "mask": message(lambda: model(own["video_embeddings"], own["video_mask"] if rank else None, group=handle)),
        "training": message(lambda: model.train(bool(rank))(**own, group=handle)),
        "nothing": message(lambda: model.train()(**nothing, group=handle)),
        "packed": message(lambda: model(**packed, group=handle)),
    }
    model.own_loss = lambda logits, labels, mask: logits.sum()
    return found | {"own loss": message(lambda: model(**own, group=handle))}


def all_of_it(folder: Path, rank: int) -> dict[str, Any]:
    """Every case in groups of 2, 3 and 4."""
    found: dict[str, Any] = {}
    whole = {name: one_process(folder, case) for name, case in CASES.items()}
    for n, members in MEMBERS.items():
        handle = dist.new_group(members)
        if rank not in members:
            continue
        place = dist.get_rank(handle)
        for shares in SHARES[n]:
            for name, case in CASES.items():
                found[f"{n} {shares} {name}"] = compare(folder, handle, place, shares, case, whole[name])
        shares = SHARES[n][0]
        own = slice(sum(shares[:place]), sum(shares[: place + 1]))
        found[f"{n} dropped"] = dropped(folder, handle, own)
        found[f"{n} sentences"] = sentences(folder, handle, own)
        if n == 2:
            found["refusals"] = refusals(folder, handle, place)
    mesh = DeviceMesh("cpu", [[0, 2], [1, 3]], mesh_dim_names=("data", "sequence"))
    name = "all frames"
    found["mesh"] = compare(folder, mesh["sequence"], rank // 2, SHARES[2][0], CASES[name], whole[name])
    return found


def lost(folder: Path, rank: int) -> dict[str, Any]:
    """Process 1 ends between its forward and its backward, then another says nothing."""
    model = make(folder, {"depth": 1}, torch.float32)
    given = part(batch(torch.float32, True), slice(10 * rank, 10 * rank + 10))
    silent = dist.new_group([0, 2], timeout=datetime.timedelta(seconds=4))
    out = model(**given, group=dist.group.WORLD)
    if rank == 1:
        os._exit(0)
    found = {"gone": message(lambda: out.loss.backward())}
    if rank == 0:
        began = time.monotonic()
        found["silent"] = message(lambda: model(**given, group=silent))
        found["seconds"] = str(time.monotonic() - began)
    else:
        time.sleep(10)
    return found


def engine(
    folder: Path, sharing: int, accumulation: int, place: Place, bf16: bool = False
) -> tuple[PlainEngine, list[VideoXumItem]]:
    """The same start whatever the ranks, and eight videos of several lengths."""
    model = make(folder, {"boundary_head": True, "lambda_balance": 1.0}, torch.float32)
    settings = TrainSettings(model=model.config, sequence_parallel_size=sharing, rank_timeout=4.0, bf16=bf16)
    generator = torch.Generator().manual_seed(9)
    items = []
    for number in range(8):
        frames = 7 + 5 * number
        features = torch.randn(frames, WIDTH, generator=generator)
        labels = (torch.rand(4, frames, generator=generator) > 0.5).float()
        items.append(VideoXumItem(f"v{number}", float(frames), features, labels, " ".join(WORDS[: 3 + number])))
    return PlainEngine(model, settings, accumulation, place), items


def steps_of(engine: PlainEngine, items: list[VideoXumItem], layout: Layout, number: int, part: Any) -> dict[str, Any]:
    """Two steps' losses and norms, and the weights after them."""
    sampler = StepSampler(len(items), layout, seed=3)
    results = []
    for epoch in range(2):
        batches = [collate([items[n] for n in videos], part=part) for videos in sampler.passes(epoch, 0, number)]
        results.append(engine.step(batches, rate=0.01, flags=[1.0]))
    values = {"losses": [list(one.losses.values()) for one in results], "norms": [one.grad_norm for one in results]}
    return {**values, "flags": [one.flags for one in results], "weights": engine.model.state_dict()}


def trained(folder: Path, rank: int) -> dict[str, Any]:
    """Two groups of two ranks each, that take two of four passes each, against one process that takes all."""
    alone = steps_of(*engine(folder, 1, 4, ALONE), Layout(2, 4, 1), 0, (0, 1))
    ours = steps_of(*engine(folder, 2, 2, Place(rank, RANKS, rank)), Layout(2, 2, 2), rank // 2, (rank % 2, 2))
    half = steps_of(*engine(folder, 2, 2, Place(rank, RANKS, rank), True), Layout(2, 2, 2), rank // 2, (rank % 2, 2))
    weights = [apart(value, alone["weights"][name]) for name, value in ours["weights"].items()]
    return {
        "losses": apart(torch.tensor(ours["losses"]), torch.tensor(alone["losses"])),
        "norms": apart(torch.tensor(ours["norms"]), torch.tensor(alone["norms"])),
        "weights": max(weights),
        "flags": ours["flags"],
        "bfloat16": apart(torch.tensor(half["losses"]), torch.tensor(alone["losses"])),
        "moved": abs(alone["losses"][0][0] - alone["losses"][1][0]),
    }


PROGRAMS = {"all_of_it": all_of_it, "lost": lost, "trained": trained}


def main() -> None:
    folder, program = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "video", "of", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    make(folder, {}, torch.float32)  # imports what a model wants
    started = []
    for rank in range(RANKS):
        pid = os.fork()
        if pid == 0:
            _be(folder, program, rank)
        started.append(pid)
    ended = [os.waitpid(pid, 0)[1] for pid in started]
    sys.exit(1 if any(ended) else 0)


def _be(folder: Path, program: str, rank: int) -> None:
    try:
        faulthandler.dump_traceback_later(500, exit=True)
        store = dist.FileStore(str(folder / "store"), RANKS)
        wait = datetime.timedelta(seconds=240)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS, timeout=wait)
        found = PROGRAMS[program](folder, rank)
        (folder / f"{rank}.json").write_text(json.dumps(found))
        os._exit(0)  # a group with a lost rank is left as it is
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main()
