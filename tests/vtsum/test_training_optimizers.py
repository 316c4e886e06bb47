"""Optimizers and schedules by name, groups of weights with their own learning rate: what they do, exact resuming."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from tests.once import once
from tests.vtsum.test_training_run import at_step, measures, names, words
from tests.vtsum.training_corpus import SMALL, write_corpus
from vtsum.config import VTSumConfig
from vtsum.data.collate import Batch, collate
from vtsum.data.videoxum import VideoXumDataset
from vtsum.errors import VTSumError
from vtsum.model import VTSum
from vtsum.model.tokenizer import load_tokenizer
from vtsum.training.checkpoints import Checkpoint
from vtsum.training.engine import PlainEngine
from vtsum.training.resuming import check_convertible
from vtsum.training.schedule import rates
from vtsum.training.settings import OPTIMIZERS, OWN_SCHEDULES, SCHEDULES, TrainSettings, build, parse
from vtsum.training.train import main

GROUPS: dict[str, Any] = {"text_decoder": {"lr": 1e-4}, r"bias$|norm": {"weight_decay": 0}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "corpus_of_16", write_corpus)


@pytest.fixture(scope="module")
def batches(data: Path) -> list[Batch]:
    videos = VideoXumDataset(data)
    return [collate([videos[i] for i in range(at, at + 4)]) for at in range(0, 16, 4)]


def engine(data: Path, seed: int = 3, **settings: Any) -> PlainEngine:
    tokenizer = load_tokenizer(data / "vocab.txt")
    text = {**SMALL["text"], "dropout": 0.0, "vocab_size": len(tokenizer)}
    config: VTSumConfig = build(VTSumConfig, {**SMALL, "text": text})
    torch.manual_seed(seed)
    return PlainEngine(VTSum(config, tokenizer), TrainSettings(model=config, init_lr=1e-3, **settings), 1)


OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "AdamW": {"betas": [0.8, 0.98], "amsgrad": True},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_pytorchs_and_goes_on_as_if_never_stopped(data, batches, tmp_path, name):
    options = OPTIONS.get(name, {})
    settings = {"optimizer": name, "optimizer_options": options, "parameter_groups": GROUPS, "gradient_clipping": 0.0}
    plain, stopped, other = (engine(data, seed, **settings) for seed in (3, 3, 4))
    # The same by hand: four groups, found by other means.
    hand = engine(data, **settings).model
    sets: dict[tuple[bool, bool], list[Any]] = {}
    for weight_name, weight in hand.named_parameters():
        still = weight_name.endswith("bias") or "norm" in weight_name
        sets.setdefault((weight_name.startswith("text_decoder."), still), []).append(weight)
    groups = [{"params": found, "weight_decay": 0 if key[1] else 0.01} for key, found in sets.items()]
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    optimizer = getattr(torch.optim, name)(groups, lr=1e-3, **arguments)
    for number, batch in enumerate(batches):
        rate = 1e-3 / (1 + number)
        plain.step([batch], rate)
        if number < 2:
            stopped.step([batch], rate)
        hand.zero_grad()
        hand(**batch.model_inputs()).loss.backward()
        for group, (of_text, _) in zip(optimizer.param_groups, sets, strict=True):
            group["lr"] = rate * (0.1 if of_text else 1)
        optimizer.step()
    stopped.save(tmp_path)
    other.load(tmp_path)
    for number, batch in enumerate(batches[2:], 2):
        other.step([batch], 1e-3 / (1 + number))
    weights = plain.model.state_dict()
    start = engine(data, **settings).model.state_dict()
    assert sum(not torch.equal(value, start[key]) for key, value in weights.items()) > 20
    for key, value in other.model.state_dict().items():
        assert torch.equal(value, weights[key]), key
    for key, value in hand.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=1e-4, atol=2e-5, msg=key)


def test_a_group_with_a_learning_rate_of_0_stays(data, batches):
    frozen = engine(data, parameter_groups={"text_decoder": {"lr": 0}})
    before = {name: value.clone() for name, value in frozen.model.state_dict().items()}
    frozen.step(batches[:1], 1e-3)
    for name, value in frozen.model.named_parameters():
        assert torch.equal(value, before[name]) == name.startswith("text_decoder."), name


SCHEDULE_OPTIONS: dict[str, dict[str, Any]] = {
    "polynomial": {"power": 2.0, "lr_end": 1e-5},
    "cosine_with_restarts": {"num_cycles": 2},
    "warmup_stable_decay": {"num_decay_steps": 6},
}


@pytest.mark.parametrize("name", SCHEDULES[len(OWN_SCHEDULES) :])
def test_the_schedules_of_transformers_are_its_own_step_by_step(name):
    options = SCHEDULE_OPTIONS.get(name)
    settings = TrainSettings(init_lr=1e-3, schedule=name, schedule_options=options, warmup_steps=3, max_epoch=5)
    rate = rates(settings, 4)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = get_scheduler(name, optimizer, 3, 20, options)
    seen = []
    for step in range(20):
        assert rate(step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12, abs=1e-20), step
        seen.append(rate(step))
        optimizer.step()
        scheduler.step()
    assert max(seen) == pytest.approx(1e-3)
    assert seen[-1] < 0.7e-3


def test_a_run_with_all_of_them_is_recorded_and_resumed_to_the_last_bit(data, tmp_path, monkeypatch):
    chosen = ["--optimizer", "SGD", "--optimizer_options", '{"momentum": 0.9}', "--schedule", "polynomial"]
    chosen += ["--schedule_options", '{"power": 2}', "--parameter_groups", json.dumps(GROUPS), "--warmup_steps", "2"]
    assert main(words(data, tmp_path / "whole", *chosen)) == 0
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        at_step(patched, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert main(words(data, run, *chosen)) == 143
    said = json.loads((run / "checkpoints" / names(run)[-1] / "complete.json").read_text())["settings"]
    of_model = json.loads((run / "model" / "config.json").read_text())["facts"]["training"]["settings"]
    for recorded in (said, of_model):
        assert (recorded["optimizer"], recorded["optimizer_options"]) == ("SGD", {"momentum": 0.9})
        assert (recorded["schedule"], recorded["schedule_options"]) == ("polynomial", {"power": 2})
        assert recorded["parameter_groups"] == GROUPS
    for other in (["--optimizer_options", '{"momentum": 0.8}'], ["--parameter_groups", '{"bias": {"lr": 1}}']):
        with pytest.raises(VTSumError, match=rf"{other[0][2:]}[\w.$|]* must be .* to resume"):
            main(["--resume", "--output_dir", str(run), *other])
    assert main(["--resume", "--output_dir", str(run)]) == 0
    assert measures(run) == measures(tmp_path / "whole")
    theirs = VTSum.from_pretrained(tmp_path / "whole" / "model").state_dict()
    for name, value in VTSum.from_pretrained(run / "model").state_dict().items():
        assert torch.equal(value, theirs[name]), name


def test_a_file_says_them_as_yaml_does(data, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("parameter_groups:\n  text_decoder: {lr: 1e-5}\noptimizer_options:\n  eps: 1e-6\n")
    with pytest.raises(VTSumError, match="got none for 'nothing_like_it'"):
        main(
            words(
                data, tmp_path / "run", "--config", str(config), "--parameter_groups", '{"nothing_like_it": {"lr": 1}}'
            )
        )
    read = parse(["--config", str(config)]).settings_without_model()
    assert read.parameter_groups == {"text_decoder": {"lr": 1e-5}}
    assert read.optimizer_options == {"eps": 1e-6}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ["--optimizer_options", '{"beta": 1}'],
            r"must be those of torch.optim.AdamW \(amsgrad, betas, eps, .*got 'beta'",
        ),
        (["--optimizer_options", '{"lr": 1}'], "must leave lr out, it is set by --init_lr"),
        (["--optimizer_options", '{"maximize": true}'], "got 'maximize'"),
        (["--optimizer_options", '{"betas": 3}'], "must be values that torch.optim.AdamW takes"),
        (["--optimizer_options", "{betas: 3}"], "train: optimizer_options must be JSON"),
        (["--parameter_groups", '{"(": {"lr": 1}}'], "'\\(' must be a regular expression, got: missing \\)"),
        (["--parameter_groups", '{"bias": {"momentum": 1}}'], "'bias' must set lr, weight_decay or both"),
        (["--parameter_groups", '{"bias": {"lr": -1}}'], "'bias': lr must be 0 to 100, got -1"),
        (["--parameter_groups", '{"bias": {"lr": true}}'], "'bias': lr must be 0 to 100, got True"),
        (["--parameter_groups", '{"biased": {"lr": 1}}'], "must each find weights of the model, such as position_e"),
        (
            ["--parameter_groups", '{"bias": {"lr": 1}, "head.bias": {"lr": 2}}'],
            "must give saliency_head.bias one lr, got 1 by 'bias' and 2 by 'head.bias'",
        ),
        (["--schedule_options", '{"power": 1}'], "must be left out with schedule cosine, which has none"),
        (["--schedule", "polynomial", "--min_lr", "1e-6"], "min_lr must be 0 with schedule polynomial"),
        (
            ["--schedule", "polynomial", "--schedule_options", '{"power": "x"}'],
            "transformers' schedule polynomial takes",
        ),
        (
            ["--schedule", "polynomial", "--schedule_options", '{"lr_end": 1}'],
            "transformers' schedule polynomial takes",
        ),
        (["--schedule", "linear", "--schedule_options", '{"power": 2}'], "transformers' schedule linear takes"),
        (["--schedule", "warmup_stable_decay"], "transformers' schedule warmup_stable_decay takes"),
    ],
)
def test_what_does_not_go_together_is_one_line(data, tmp_path, more, told):
    with pytest.raises(VTSumError, match=told):
        main(words(data, tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


def test_groups_at_stage_3_stay_on_their_ranks(tmp_path):
    """DeepSpeed's universal form would lose the optimizer of all groups but one, in silence."""
    found = Checkpoint(tmp_path, {"ranks": 2})
    grouped = TrainSettings(parameter_groups=GROUPS)
    with pytest.raises(VTSumError, match=r"ranks must be 2 to resume .*, which has parameter_groups at stage 3, got 1"):
        check_convertible(found, grouped, 3, 1)
    check_convertible(found, grouped, 2, 1)
    check_convertible(found, TrainSettings(), 3, 1)


def test_what_another_optimizer_kept_is_refused(data, batches, tmp_path):
    first = engine(data, optimizer="SGD", optimizer_options={"momentum": 0.9})
    first.step(batches[:1], 1e-3)
    first.save(tmp_path)
    with pytest.raises(VTSumError, match=r"state.pt must hold this model and its optimizer, got: .*step"):
        engine(data).load(tmp_path)
