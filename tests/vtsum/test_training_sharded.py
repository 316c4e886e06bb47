"""DeepSpeed on two CPU ranks against a loop of plain PyTorch, through the real launcher."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.once import once
from tests.vtsum.samples import ROOT, free_port
from tests.vtsum.training_corpus import write_corpus
from tests.vtsum.training_ranks import ACCUMULATION, LOSSES, RANKS, STEPS, passes, prepare
from vtsum.training.schedule import learning_rate

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")

STAGES = ("0", "1", "2", "3", "3_offload")
GROUPS = {"parameter_groups": {"text_decoder": {"lr": 2e-4, "weight_decay": 0}}}
SHARED = {"sequence_parallel_size": 2}
"""The two ranks share out the frames of each video."""
CASES: list[dict[str, Any]] = [{"name": s, "config": f"configs/ds_zero{s}.json"} for s in STAGES] + [
    {"name": "checkpointing", "config": "configs/ds_zero3.json", "settings": {"gradient_checkpointing": True}},
    *({"name": f"groups_{s}", "config": f"configs/ds_zero{s}.json", "settings": GROUPS} for s in "13"),
    *({"name": f"bf16_{s}", "config": f"configs/ds_zero{s}.json", "settings": {"bf16": True}} for s in "123"),
    *({"name": f"shared_{s}", "config": f"configs/ds_zero{s}.json", "settings": SHARED} for s in "123"),
    *(
        {"name": f"shared_bf16_{s}", "config": f"configs/ds_zero{s}.json", "settings": {**SHARED, "bf16": True}}
        for s in "123"
    ),
    {
        "name": "shared_checkpointing",
        "config": "configs/ds_zero3.json",
        "settings": {**SHARED, "gradient_checkpointing": True},
    },
]
SLOW = {"checkpointing", "groups_1", "bf16_1", "bf16_3", "shared_1", "shared_2", *(f"shared_bf16_{s}" for s in "123")}
"""Of which each is another one's way with one option more or less."""


def params(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


def reference(data: Path, of_text: float = 1.0, **options: float) -> dict[str, Any]:
    """The loss of all the step's videos, clipped, AdamW: nothing of the package's training code but the order."""
    model, settings, videos, sampler = prepare(data)
    model.train()
    ranks = [passes(videos, sampler, rank) for rank in range(RANKS)]
    text = list(model.text_decoder.parameters())
    others = [p for p in model.parameters() if not any(p is q for q in text)]
    optimizer = torch.optim.AdamW([{"params": others}, {"params": text, **options}], weight_decay=settings.weight_decay)
    found: dict[str, Any] = {name: [] for name in (*LOSSES, "grad_norm")}
    for step in range(STEPS):
        for group, scale in zip(optimizer.param_groups, (1, of_text), strict=True):
            group["lr"] = scale * learning_rate(settings, step, sampler.steps_per_epoch)
        optimizer.zero_grad()
        batches = [batch for rank in ranks for batch in rank[step]]
        outs = [model(**batch.model_inputs()) for batch in batches]
        assert len(outs) == RANKS * ACCUMULATION
        frames = [sum(batch.lengths) for batch in batches]
        words = [int((out.decoder_targets[:, 1:] >= 0).sum()) for out in outs]
        equal = [1] * len(outs)  # a balance loss is a pass's own
        parts = {"loss_vsum": frames, "loss_tsum": words, "loss_balance": equal, "loss_boundary": frames}
        losses = {
            name: sum(n * getattr(out, name) for n, out in zip(of, outs, strict=True)) / sum(of)
            for name, of in parts.items()
        }
        losses["loss"] = sum(getattr(model.config, f"lambda_{name[5:]}") * value for name, value in losses.items())
        for name in LOSSES:
            found[name].append(float(losses[name].detach()))
        losses["loss"].backward()
        if step == 0:
            found["gradients"] = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found["grad_norm"].append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
    found["weights"] = {name: value.clone() for name, value in model.state_dict().items()}
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "corpus_of_18", lambda folder: write_corpus(folder, videos=18))


@pytest.fixture(scope="module")
def expected(data: Path) -> dict[str, Any]:
    return reference(data)


class Found(dict[str, Any]):
    """What each way of training came to; the slow ones in one launch and the others in another one: starting two
    processes takes longer than training in them."""

    def __init__(self, data: Path, factory: pytest.TempPathFactory) -> None:
        self._data, self._factory = data, factory

    def __missing__(self, name: str) -> Any:
        slow = name in SLOW
        cases = [case for case in CASES if (case["name"] in SLOW) == slow]
        made = f"training_ranks_{'slow' if slow else 'quick'}.pt"
        path = once(self._factory, made, lambda out: run_ranks(self._data, out, cases))
        self.update(torch.load(path, weights_only=False))
        return self[name]


@pytest.fixture(scope="module")
def found(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    return Found(data, tmp_path_factory)


def run_ranks(data: Path, out: Path, cases: list[dict[str, Any]]) -> None:
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2", "--log_level", "warning"]
    launcher += ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    words = ["--module", "tests.vtsum.training_ranks", "--data", str(data), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*launcher, *words, "--cases", json.dumps(cases)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]


EXACT = [*STAGES, "checkpointing", "shared_1", "shared_2", "shared_3", "shared_checkpointing"]


@pytest.mark.parametrize("name", params(EXACT))
def test_the_losses_and_the_gradient_norm_before_clipping_are_plain_pytorchs(found, expected, name):
    for measure in LOSSES:
        errors = [abs(a - b) for a, b in zip(found[name][measure], expected[measure], strict=True)]
        print(f"{name} {measure}: at most {max(errors):.1e} apart")
        assert len(errors) == STEPS
        assert max(errors) <= 1e-5, measure
    assert max(expected["loss"]) - min(expected["loss"]) > 0.5  # and it is a curve
    assert found[name]["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    assert max(expected["grad_norm"]) > 1  # so that clipping was at work


@pytest.mark.parametrize("name", params(EXACT))
def test_every_parameter_has_plain_pytorchs_gradient(found, expected, name):
    ours, theirs = found[name]["gradients"], expected["gradients"]
    assert set(ours) >= set(theirs)
    assert {"position_embeddings.weight", "memory.memory"} <= set(theirs)
    for parameter, gradient in theirs.items():
        scale = float(gradient.abs().max()) + 1e-6
        worst = float((ours[parameter].cpu() - gradient).abs().max())
        assert worst <= 1e-4 * scale, f"{parameter}: {worst:.1e} of {scale:.1e}"


@pytest.mark.parametrize("name", params(EXACT))
def test_the_gathered_weights_are_plain_pytorchs(found, expected, name):
    ours, theirs = found[name]["weights"], expected["weights"]
    tied = {n for n in theirs if n not in ours}
    assert all("decoder" in n and "lm.cls" in n for n in tied), tied
    for parameter in ours:
        torch.testing.assert_close(ours[parameter], theirs[parameter], atol=2e-5, rtol=1e-4, msg=parameter)


@pytest.mark.parametrize("name", params(["groups_1", "groups_3"]))
def test_groups_of_weights_are_plain_pytorchs(found, expected, data, name):
    grouped = reference(data, 0.1, weight_decay=0)
    assert found[name]["loss"] == pytest.approx(grouped["loss"], rel=1e-6, abs=1e-5)
    assert grouped["loss_tsum"][-1] > expected["loss_tsum"][-1] + 0.1
    for parameter, weights in found[name]["weights"].items():
        torch.testing.assert_close(weights, grouped["weights"][parameter], atol=2e-5, rtol=1e-4, msg=parameter)


@pytest.mark.parametrize("name", params(f"{kind}_{stage}" for kind in ("bf16", "shared_bf16") for stage in "123"))
def test_bfloat16_stays_near_float32(found, expected, name):
    apart = [abs(a - b) / b for a, b in zip(found[name]["loss"], expected["loss"], strict=True)]
    print(f"{name}: at most {max(apart):.1e} of the loss apart")
    assert 0 < max(apart) < 3e-3
    assert all(value.dtype == torch.float32 for value in found[name]["weights"].values())
    # float32 masters, not widened bfloat16
    weight = found[name]["weights"]["saliency_head.weight"]
    assert not torch.equal(weight, weight.bfloat16().float())


@pytest.mark.parametrize("name", params(["0", "1", "2", "bf16_1", "bf16_2", "bank_0", "bank_1", "bank_2"]))
def test_no_step_of_deepspeed_leaves_a_bank_stale(found, name):
    """Its optimisers write into flat buffers that the parameters are views of: neither version nor address changes."""
    folds = found[name]["folds"]
    assert folds["stale"] == 0.0
    assert folds["moved"] > 1e-4
    assert folds["told"]


def test_flags_are_summed_over_the_ranks(found):
    assert found["1"]["flags"] == [1.0] * STEPS
    assert math.isfinite(found["3"]["loss"][-1])
