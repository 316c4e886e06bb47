"""Settings from command line and file, DeepSpeed's configuration, the schedule and the order of the videos."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vtsum.cli import main as vtsum
from vtsum.config import TextConfig, VTSumConfig
from vtsum.errors import VTSumError
from vtsum.processes import Place
from vtsum.training import deepspeed_config
from vtsum.training.curves import PANELS, plot
from vtsum.training.records import read_metrics
from vtsum.training.sampler import Layout, StepSampler, spread
from vtsum.training.schedule import learning_rate
from vtsum.training.settings import TrainSettings, build, leaves, parse, parser, to_yaml

CONFIGS = Path(__file__).parents[2] / "configs"


def settings(words: list[str]) -> TrainSettings:
    given = parse(words)
    return given.settings(build(VTSumConfig, given.model))


def test_command_line_over_file_over_default(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("init_lr: 1e-5\nbatch_size: 8\nmodel:\n  depth: 3\n  text:\n    dropout: 0.2\n", encoding="utf-8")
    made = settings(["--config", str(file), "--batch_size", "4", "--model.text.num_layers=6"])
    assert (made.init_lr, made.batch_size, made.max_epoch) == (1e-5, 4, 56)
    assert (made.model.depth, made.model.text.dropout, made.model.text.num_layers) == (3, 0.2, 6)
    assert made.model.text.hidden_size == 768


def test_the_originals_flags_and_file_are_understood(tmp_path):
    original = tmp_path / "vtsum_blip_tt_ca.yaml"  # keys and values as released
    original.write_text(
        "video_embeddings_root: 'feat/blip'\nann_root: 'anno'\nclip_root: 'feat/vt_clipscore'\n"
        "pretrained: 'blip.pth'\nmodel: 'vtsum_blip_tt'\nvit: 'base'\nloss_type: 'cross_entropy'\ntt_depth: 1\n"
        "lambda_vsum: 1.0\nkernel_size: 5\nmax_text_length: 128\nnum_beams: 3\nprompt: 'a video of '\n"
        "init_lr: 1e-5\nmin_lr: 0\nmax_epoch: 28\nbatch_size: 16\nweight_decay: 0.05\nmax_video_length: 512\n",
        encoding="utf-8",
    )
    words = ["--config", str(original), "--max_epoch", "56", "--lambda_tsum", "1.0", "--lambda_vsum", "10.0"]
    made = settings([*words, "--batch_size", "16", "--ckpt_freq", "56", "--model", "vtsum_blip_tt_ca"])
    assert made.model.lambda_vsum == 10
    assert made.model.max_text_length == 128
    assert (made.init_lr, made.weight_decay, made.max_epoch, made.ckpt_freq) == (1e-5, 0.05, 56, 56)
    assert made.ann_root == "anno"
    assert made.model.memory_slots == 0
    notes = " ".join(parse(words).notes)
    assert "clip_root" in notes
    assert "num_beams" in notes
    assert "model.kernel_size is none, by model vtsum_blip_tt, not 5 as in --config" in notes


def test_the_tt_model_has_no_local_attention():
    assert settings(["--model", "vtsum_blip_tt"]).model.kernel_size is None
    assert settings(["--model", "vtsum_blip_tt_ca"]).model.kernel_size == 5
    assert settings(["--kernel_size", "none"]).model.kernel_size is None
    assert settings(["--kernel-size", "7"]).model.kernel_size == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lamda_vsum", "3"], 'flags must be known, got --lamda_vsum; did you mean "lambda_vsum"'),
        (["--width", "3"], 'did you mean "model.width"'),
        (["--init_lr", "fast"], "init_lr must be a number, got 'fast'"),
        (["--batch_size", "1.5"], "batch_size must be a whole number, got '1.5'"),
        (["--kernel_size", "x"], "model.kernel_size must be a whole number or none"),
        (["--bf16", "maybe"], "bf16 must be true or false"),
        (["stray"], "arguments must be flags and their values, got 'stray'"),
        (["--model", "gpt"], "model must be vtsum_blip_tt or vtsum_blip_tt_ca"),
        (
            ["--schedule", "sine"],
            "schedule must be one of cosine, cosine_epoch, constant, linear, polynomial, cosine_wit",
        ),
        (["--optimizer", "LBFGS"], "optimizer must be one of AdamW, Adam, NAdam"),
        (["--optimizer_options", "[1]"], "train: optimizer_options must hold an object"),
        (["--min_lr", "1"], "min_lr must be at most init_lr (2e-05), got 1.0"),
        (["--max_epoch", "0"], "max_epoch must be at least 1, got 0"),
        (["--config", "/nowhere.yaml"], "--config: /nowhere.yaml must be a readable file, got: no such file"),
        (["--init_lr", "1e300"], "init_lr must be a number, got '1e300'"),
        (["--model.dropout", "5"], "VTSumConfig: dropout must be at least 0 and below 1, got 5.0"),
        (["--model.text.dropout", "-1"], "TextConfig: dropout must be at least 0 and below 1, got -1.0"),
        (["--model.label_smoothing", "3"], "label_smoothing must be at least 0 and below 1, got 3.0"),
        (["--tt_depth", "1000000000"], "depth must be 0 to 1000, got 1000000000"),
        (["--model.text.num_layers", "1000000000"], "num_layers must be 1 to 1000, got 1000000000"),
        (["--batch_size"], "expected one argument"),
        (["--model.dropout", "1.5"], "dropout must be at least 0 and below 1, got 1.5"),
        (["--lambda_vsum", "-5"], "lambda_vsum must be 0 to 1000000, got -5.0"),
        (["--lambda_vsum", "0", "--lambda_tsum", "0"], "one of lambda_vsum and lambda_tsum must be above 0"),
        (["--init_lr", "inf"], "init_lr must be a number, got 'inf'"),
        (["--init_lr", "nan"], "init_lr must be a number, got 'nan'"),
        (["--init_lr", "0"], "init_lr must be above 0 and at most 100, got 0.0"),
        (["--model.memory_top_k", "65"], "memory_top_k must be at most memory_slots (64), or None, got 65"),
        (["--kernel_size", "4"], "kernel_size must be odd and at least 1, or None, got 4"),
        (["--num_workers", "100000"], "num_workers must be 0 to 256, got 100000"),
        (["--model", "vtsum_blip_tt", "--kernel_size", "5"], "model.kernel_size must be none or left out with model"),
        (["--model", "vtsum_blip_tt_ca", "--kernel_size", "none"], "model.kernel_size must be a number with model"),
        (["--model", "vtsum_blip_tt_ca", "--model.memory_slots", "8"], "model.memory_slots must be 0 or left out"),
    ],
)
def test_mistakes_on_the_command_line_are_named(words, message):
    with pytest.raises(VTSumError) as told:
        settings(words)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("init_rl: 1", "got 'init_rl'; did you mean \"init_lr\""),
        ("model:\n  kernel: 3", "got 'model.kernel'; did you mean \"model.kernel_size\""),
        ("batch_size: many", "batch_size must be a whole number, got 'many'"),
        ("bf16: 1", "bf16 must be true or false, got 1"),
        ("- 1", "must hold settings by name, got a list"),
        ("a: [", "must be YAML"),
        ('seed: 1\noutput_dir: "a\\0b"', "line 2: must be text, got a NUL or half a surrogate pair"),
        ("model: [1]", "model of {} must hold settings by name, got a list"),
        ("model:\n  text: 5", "model.text of {} must hold settings by name, got 5"),
        ("model:", "model of {} must hold settings by name, got null"),
        ("seed: [1]", "seed of {} must be one value, got a list"),
        ("seed: 1\nseed: 2", "line 2: must set seed once, got it again"),
        ("model: {width: 8, width: 16}", "must set width once, got it again"),
        ("kernel_size: 3\nmodel:\n  kernel_size: 5", "must set model.kernel_size once, got it as kernel_size and as"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(VTSumError) as told:
        settings(["--config", str(file)])
    assert message.replace("{}", str(file)) in str(told.value)
    assert "\n" not in str(told.value)


def test_resolved_settings_are_read_back(tmp_path):
    made = settings(["--bf16", "--lambda_vsum", "3", "--kernel_size", "none", "--init_lr", "1e-7", "--data", "x"])
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(made), encoding="utf-8")
    assert settings(["--config", str(file)]) == made


@pytest.mark.parametrize("cls", [TrainSettings, VTSumConfig, TextConfig])
def test_every_number_has_a_range(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    numbers = {int, float, int | None, float | None}
    assert not [name for name, hint in hints.items() if hint in numbers]
    for name, hint in hints.items():
        if getattr(hint, "__metadata__", None) and typing.get_args(hint)[0] in numbers:
            for odd in (math.nan, math.inf, -1):
                with pytest.raises(VTSumError, match=rf"{name} must be .*, got {odd}"):
                    cls(**{name: odd})


def test_every_setting_has_a_flag_and_a_type():
    text = parser().format_help()
    for name, _, default, _ in leaves():
        assert f"--{name} " in text, name
        if default is not None and not isinstance(default, bool):
            assert settings([f"--{name}", str(default)]) == TrainSettings()


@pytest.mark.parametrize("name", ["vtsum_tt", "vtsum_tt_ca", "vtsum_memory"])
def test_the_published_configurations(name):
    made = settings(["--config", str(CONFIGS / f"{name}.yaml")])
    assert (made.init_lr, made.weight_decay, made.gradient_clipping) == (2e-5, 0.01, 1.0)
    assert (made.batch_size, made.max_epoch, made.model.max_text_length) == (16, 56, 32)
    assert made.model.lambda_vsum == (10 if name == "vtsum_tt" else 15)
    assert made.model.kernel_size == (None if name == "vtsum_tt" else 5)
    assert (made.model.memory_slots > 0) == (name == "vtsum_memory")


@pytest.mark.parametrize(
    ("name", "rate", "weight", "window"), [("vtsum_tt_released", 1e-5, 10, None), ("vtsum_tt_ca_released", 2e-5, 15, 5)]
)
def test_the_released_configurations(name, rate, weight, window):
    """The original's YAML, with what its README's command lines and its code say."""
    made = settings(["--config", str(CONFIGS / f"{name}.yaml")])
    model = made.model
    assert (made.init_lr, made.min_lr, made.schedule, made.max_epoch) == (rate, 0, "cosine_epoch", 56)
    assert (made.batch_size, made.weight_decay, made.gradient_clipping) == (16, 0.05, 0)
    assert (model.lambda_vsum, model.lambda_tsum, model.kernel_size, model.memory_slots) == (weight, 1, window, 0)
    assert (model.position_start, model.positions_over, model.loss_mean) == ("normal", "batch", "released")
    assert (model.max_text_length, model.label_smoothing, model.text.prompt) == (128, 0.1, "a video of ")


def complete(name: str, **changes: Any) -> dict[str, Any]:
    layout = Layout(4, 3, 2)
    return deepspeed_config.complete(
        deepspeed_config.read(CONFIGS / name), dataclasses.replace(TrainSettings(), **changes), layout
    )


@pytest.mark.parametrize("stage", ["0", "1", "2", "3", "3_offload"])
def test_shipped_deepspeed_files_are_completed_from_the_settings(stage):
    made = complete(f"ds_zero{stage}.json", gradient_clipping=0.5)
    assert made["zero_optimization"]["stage"] == int(stage[0])
    assert made["train_batch_size"] == 24
    assert made["train_micro_batch_size_per_gpu"] == 4
    assert made["gradient_accumulation_steps"] == 3
    assert made["gradient_clipping"] == 0.5
    assert made["bf16"] == {"enabled": False}


def test_bfloat16_at_stage_0_is_refused():
    with pytest.raises(VTSumError, match=r"--bf16 must come with stage 1, 2 or 3, got stage 0, where DeepSpeed loses"):
        complete("ds_zero0.json", bf16=True)
    assert complete("ds_zero1.json", bf16=True)["bf16"] == {"enabled": True}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"zero_optimisation": {"stage": 1}}, "got 'zero_optimisation'; did you mean \"zero_optimization\""),
        ({"zero_optimization": {"stage": 1, "overlap_com": True}}, "'zero_optimization.overlap_com'; did you mean"),
        ({"zero_optimization": {"stage": "auto"}}, 'zero_optimization.stage of {} must be a value, got "auto"'),
        ({"zero_optimization": {"stage": 1}, "train_batch_size": 8}, "must leave train_batch_size out, it is set by"),
        ({"zero_optimization": {"stage": 1}, "gradient_clipping": 1}, "it is set by --gradient_clipping"),
        ({"zero_optimization": {"stage": 1}, "bf16": {"enabled": "auto"}}, "it is set by --bf16"),
        ({"zero_optimization": {"stage": 1}, "fp16": {"enabled": True}}, "float16 is not offered; use --bf16"),
        ({"zero_optimization": {"stage": 4}}, "stage of {} must be 0, 1, 2 or 3, got 4"),
        ({}, "must be 0, 1, 2 or 3, got none"),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, "must have stage 3 or more, got 2"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, "must name its nvme_path"),
        ({"zero_optimization": {"stage": 1, "reduce_bucket_size": 0.5}}, "must be a whole number, got 0.5"),
        ({"zero_optimization": {"stage": 1, "overlap_comm": "yes"}}, "must be true or false, got 'yes'"),
        ([], "must hold an object, got a list"),
    ],
)
def test_mistakes_in_deepspeeds_file_are_named(tmp_path, data, message):
    file = tmp_path / "ds.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(VTSumError) as told:
        deepspeed_config.read(file)
    assert message.replace("{}", str(file)) in str(told.value)


def test_a_name_given_twice_is_no_json(tmp_path):
    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {"stage": 1, "stage": 2}}', encoding="utf-8")
    with pytest.raises(VTSumError, match="'stage' stands there twice"):
        deepspeed_config.read(file)


def test_the_known_names_are_deepspeeds():
    zero = pytest.importorskip("deepspeed.runtime.zero.config", reason="DeepSpeed is not installed")
    fields = zero.DeepSpeedZeroConfig.model_fields
    names = {f.alias or name for name, f in fields.items()}
    assert set(deepspeed_config._ZERO) <= names


def test_cosine_falls_every_step_and_ends_at_the_minimum():
    s = TrainSettings(init_lr=1.0, min_lr=0.1, max_epoch=4, warmup_steps=3)
    rates = [learning_rate(s, step, 5) for step in range(20)]
    assert rates[:3] == pytest.approx([0.25, 0.5, 0.75])
    assert rates[3] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[3:]))
    assert learning_rate(s, 20, 5) == pytest.approx(0.1)
    assert rates[3 + 17 // 2] == pytest.approx(0.55, abs=0.05)  # half way, half the fall


def test_the_released_cosine_falls_every_epoch():
    s = TrainSettings(init_lr=2e-5, min_lr=0.0, max_epoch=4, schedule="cosine_epoch")
    rates = [learning_rate(s, step, 3) for step in range(12)]
    quarter = 2e-5 * (2 + 2**0.5) / 4  # cos of a quarter of pi
    assert rates == pytest.approx([2e-5] * 3 + [quarter] * 3 + [1e-5] * 3 + [2e-5 - quarter] * 3)
    assert learning_rate(dataclasses.replace(s, schedule="constant"), 11, 3) == 2e-5


def test_steps_by_length_hold_the_same_videos_and_hardly_any_padding():
    lengths = np.random.default_rng(0).integers(200, 2001, 170)
    plain, alike = (StepSampler(170, Layout(16, 1, 1), 3, by) for by in (None, lengths))
    for epoch in (0, 1):
        mixed, ordered = plain.epoch(epoch).reshape(-1, 16), alike.epoch(epoch).reshape(-1, 16)
        assert sorted(mixed.ravel()) == sorted(ordered.ravel())  # fewer than MIXED steps: the same ones are left out
        padding = [1 - lengths[steps].sum() / (16 * lengths[steps].max(1)).sum() for steps in (mixed, ordered)]
        assert padding[0] > 0.3
        assert padding[1] < 0.1
        order = lengths[ordered].mean(1)
        assert not np.all(np.diff(order) > 0)  # not the short ones first
    assert not np.array_equal(alike.epoch(0), alike.epoch(1))
    ranks = StepSampler(170, Layout(4, 2, 2), 3, lengths)
    assert np.array_equal(ranks.epoch(1).reshape(-1, 16), alike.epoch(1).reshape(-1, 16))
    many = np.random.default_rng(1).integers(10, 100, 6000)
    far = StepSampler(6000, Layout(16, 1, 1), 3, many).epoch(0).reshape(-1, 16)
    assert len({tuple(sorted(step)) for step in far}) == 375
    short = many[far].mean(1) < 20
    assert short.sum() > 20  # of each MIXED steps some, not one run of them
    assert np.diff(np.flatnonzero(short)).max() < 120


def test_every_video_comes_once_an_epoch_on_all_ranks_together():
    layout = Layout(3, 2, 2)
    sampler = StepSampler(50, layout, seed=1)
    assert sampler.steps_per_epoch == 4
    seen = [part for rank in range(2) for part in sampler.passes(0, 0, rank)]
    assert {len(part) for part in seen} == {3}
    flat = [video for part in seen for video in part]
    assert len(flat) == len(set(flat)) == 48
    again = [part for rank in range(2) for part in sampler.passes(1, 0, rank)]
    assert again != seen  # another epoch, another order
    assert set(range(50)) - set(flat) != set(range(50)) - {v for part in again for v in part}
    late = list(sampler.passes(0, 3, 1))
    assert late == list(sampler.passes(0, 0, 1))[-2:]  # from the fourth step on


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_other_ranks_take_the_same_passes_in_the_same_steps(ranks):
    before = StepSampler(40, spread(8, 2, 4), 3)
    after = StepSampler(40, spread(8, 2, ranks), 3)
    assert after.layout == Layout(2, 4 // ranks, ranks)
    assert (before.epoch(5) == after.epoch(5)).all()
    a = sorted(part for rank in range(4) for part in before.passes(5, 0, rank))
    b = sorted(part for rank in range(ranks) for part in after.passes(5, 0, rank))
    assert a == b


def test_more_ranks_make_the_passes_smaller_or_are_refused():
    assert spread(8, 4, 4) == Layout(2, 1, 4)
    assert spread(8, 4, 8) == Layout(1, 1, 8)
    with pytest.raises(VTSumError, match=r"ranks must divide the 8 videos a step of the checkpoint to resume, got 3"):
        spread(8, 4, 3)


def test_the_place_is_the_launchers(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Place.here() == Place(0, 1, 0)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Place.here() == Place(5, 8, 1)
    assert not Place.here().first
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(VTSumError, match="LOCAL_RANK must be numbers, as torchrun sets them, got 5, many, 1"):
        Place.here()


def test_curves_of_runs_are_drawn(tmp_path):
    keys = ("loss", "loss_vsum", "loss_tsum", "loss_balance", "loss_boundary", "lr", "grad_norm", "seconds")
    for number in range(2):
        run = tmp_path / f"run{number}"
        run.mkdir()
        lines = [{"step": s, "epoch": 1, **dict.fromkeys(keys, 1 / (s + number))} for s in range(1, 101)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert vtsum(["plot", str(tmp_path / "run0"), "-o", str(tmp_path / "one.png")]) == 0
    plot([tmp_path / "run0", tmp_path / "run1"], tmp_path / "two.svg")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert drawn.count("<path") > 20
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(VTSumError, match=r"run must be the folder of a training run, got .* without metrics.jsonl"):
        plot([tmp_path], tmp_path / "x.png")
    with pytest.raises(VTSumError, match=r"output must end in .png, .svg or .pdf"):
        plot([tmp_path / "run0"], tmp_path / "x.gif")


def test_a_matplotlibrc_in_the_current_folder_is_not_read(tmp_path):
    """That may be a stranger's run: such a file has LaTeX started; older matplotlibs evaluate expressions in it."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n", encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps({"step": 1, **dict.fromkeys(PANELS, 1.0)}) + "\n", encoding="utf-8"
    )
    command = [sys.executable, "-P", "-m", "vtsum.cli", "plot", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "curves.png\n"), done.stderr


def test_a_backend_that_matplotlib_does_not_know_is_one_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps({"step": 1, **dict.fromkeys(PANELS, 1.0)}) + "\n", encoding="utf-8"
    )
    command = [sys.executable, "-P", "-m", "vtsum.cli", "plot", str(tmp_path)]
    done = subprocess.run(
        command, env={**os.environ, "MPLBACKEND": "none of them"}, capture_output=True, text=True, check=False
    )
    told = "vtsum: plot: MPLBACKEND must be a backend of matplotlib's, got 'none of them'\n"
    assert (done.returncode, done.stderr) == (2, told)


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.pdf"])
def test_a_run_named_in_letters_that_no_font_has_is_drawn_without_a_word(name: str, tmp_path: Path) -> None:
    run = tmp_path / "\U0001f600 \u6f22\u5b57 \U00012345"
    run.mkdir()
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, **dict.fromkeys(PANELS, 1.0)}) + "\n", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "vtsum.cli", "plot", str(run), "-o", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / name}\n", "")


def test_numbers_that_cannot_be_added_up_are_one_line(tmp_path):
    lines = [{"step": step, **dict.fromkeys(PANELS, 1.0), "grad_norm": 1e308} for step in (1, 2, 3, 4)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "vtsum.cli", "plot", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = "vtsum: plot: grad_norm in metrics.jsonl must be a number of at most 1e+39, got 1e+308\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_a_run_whose_name_begins_with_an_underscore_is_in_the_legend(tmp_path):
    run = tmp_path / "_run"
    run.mkdir()
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, **dict.fromkeys(PANELS, 1.0)}) + "\n", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "vtsum.cli", "plot", str(run), "-o", str(tmp_path / "c.svg")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'id="legend_1"' in (tmp_path / "c.svg").read_text(encoding="utf-8")


def test_the_command_describes_and_refuses(capsys):
    with pytest.raises(SystemExit, match="0"):
        vtsum(["train", "--help"])
    assert "--gradient_accumulation_steps" in capsys.readouterr().out
    assert vtsum(["train", "--inti_lr", "1"]) == 2
    assert 'got --inti_lr; did you mean "init_lr"?' in capsys.readouterr().err


def test_a_line_cut_off_in_writing_is_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"ste', encoding="utf-8")
    assert [line["step"] for line in read_metrics(file)] == [1, 2]


def test_a_long_name_of_a_run_leaves_room_for_its_curves(tmp_path):
    """matplotlib gave up laying out the panels, and told so."""
    run = tmp_path / ("$x" * 120)
    run.mkdir()
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, **dict.fromkeys(PANELS, 1.0)}), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "vtsum.cli", "plot", run, "-o", tmp_path / "a.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
