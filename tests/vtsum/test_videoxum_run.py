"""Evaluating a model: the figures from plain definitions, resuming, baselines, and every refusal."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import forked
from tests.vtsum.samples import ENVIRONMENT
from tests.vtsum.videoxum_corpus import VIDEOS, write_corpus, write_model
from vtsum.data.feature_files import feature_file, write_npz
from vtsum.data.videoxum import FEATURES, VideoXumDataset
from vtsum.errors import VTSumError
from vtsum.evaluation import java, videoxum_run
from vtsum.evaluation.captions import bleu, bleu_counts, cider, plain_tokenize, rouge_l
from vtsum.evaluation.clip_score import load_clip_text, vt_clipscore
from vtsum.evaluation.videoxum_file import PartFile, read_evaluation
from vtsum.evaluation.videoxum_frames import PROTOCOLS, REVISIONS, STRICT, clip_frames, frame_measures
from vtsum.evaluation.videoxum_job import other_videos
from vtsum.evaluation.videoxum_run import evaluate
from vtsum.evaluation.videoxum_scores import MEASURES
from vtsum.evaluation.videoxum_settings import EvaluationSettings
from vtsum.model import VTSum


@pytest.fixture(autouse=True, scope="module")
def no_java() -> Iterator[None]:
    """METEOR takes seconds to start; one test has Java back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(java, "_java", lambda: None)
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


def settings_of(corpus: Path, model: Path, **other: Any) -> EvaluationSettings:
    return EvaluationSettings(
        checkpoint=str(model), data=str(corpus), caption_tokenizer="plain", batch_size=4, resamples=200, **other
    )


@pytest.fixture(scope="module")
def evaluated(corpus: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("out")
    found = {}
    for protocol in PROTOCOLS:
        made = evaluate(settings_of(corpus, model, protocol=protocol), folder / f"{protocol}.json")
        assert made is not None
        assert read_evaluation(folder / f"{protocol}.json") == json.loads(json.dumps(made))
        found[protocol] = made
    assert sorted(p.name for p in folder.iterdir()) == [f"{p}.json" for p in sorted(PROTOCOLS)]
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_figures_are_those_of_the_definitions(evaluated, corpus, model, protocol):
    """One video at a time, without any of the runner's machinery."""
    content = evaluated[protocol]
    network = VTSum.from_pretrained(model)
    data = VideoXumDataset(corpus, "test", with_clip=True)
    clip = load_clip_text(corpus / "clip")
    assert [v["video_id"] for v in content["videos"]] == [f"v_{i:03d}" for i in reversed(range(VIDEOS))]
    each: dict[str, list[float]] = {name: [] for name in ("f1", "kendall", "spearman", "rouge_l", "vt_clipscore")}
    texts, references = [], []
    for i, video in enumerate(content["videos"]):
        item = data[i]
        with torch.inference_mode():
            made, _, logits = network.generate(item.features[None], num_beams=3, min_length=10, max_length=16)
        scores = np.array(video["saliency_logits"], np.float32)
        assert scores == pytest.approx(logits[0].numpy(), abs=1e-4 * float(logits.abs().max()))
        assert (video["text"], video["reference"], video["frames"]) == (made[0], item.tsum, len(item.features))
        found = frame_measures(scores, item.vsum_labels.numpy(), protocol)
        for name in ("f1", "kendall", "spearman"):
            each[name].append(getattr(found, name))
            assert video[name] == getattr(found, name)
        frames = clip_frames(scores, protocol)
        each["vt_clipscore"].append(vt_clipscore(item.clip_vision.numpy(), clip.encode(made[0])[0], frames))
        texts.append(plain_tokenize(made[0]))
        references.append(plain_tokenize(item.tsum))
        each["rouge_l"].append(rouge_l(texts[-1], [references[-1]]))
    measures = content["measures"]
    for name, values in each.items():
        assert measures[name]["value"] == pytest.approx(np.mean(values), abs=1e-12), name
    counts = sum(bleu_counts(t, [r]) for t, r in zip(texts, references, strict=True))
    assert measures["bleu4"]["value"] == pytest.approx(float(bleu(counts)), abs=1e-12)
    assert measures["cider"]["value"] == pytest.approx(cider(texts, [[r] for r in references]).mean(), abs=1e-12)
    for name in MEASURES:
        cell = measures[name]
        if cell["value"] is not None:
            assert cell["low"] <= cell["value"] <= cell["high"], name
    assert len({v["text"] for v in content["videos"]}) > 3, "the model must tell the videos apart"


def test_the_protocols_differ_and_are_named(evaluated):
    named = [(content["protocol"], content["protocol_revision"]) for content in evaluated.values()]
    assert named == [("videoxum-released", 2), ("videoxum-top15", 1), ("videoxum-strict", 2)]
    released, top15, strict = evaluated.values()
    assert len({content["measures"]["f1"]["value"] for content in evaluated.values()}) == 3
    for name in ("kendall", "spearman", "vt_clipscore"):
        assert released["measures"][name] == top15["measures"][name], "they differ in F1 alone"
    assert [v["text"] for v in released["videos"]] == [v["text"] for v in strict["videos"]]


def test_strict_figures_do_not_depend_on_who_shares_the_batch(corpus, tmp_path):
    """A table of 12 positions stretches over videos of 8 to 40 frames: each video's own length, or the batch's."""
    model = write_model(tmp_path / "short", max_positions=12)

    def saliency(protocol: str, batch_size: int) -> np.ndarray:
        settings = settings_of(corpus, model, protocol=protocol, num_beams=1, random_draws=1, limit=8)
        settings = dataclasses.replace(settings, batch_size=batch_size)
        return np.concatenate([video["saliency_logits"] for video in evaluate(settings)["videos"]])

    alone = saliency(STRICT, 1)
    size = np.abs(alone).max()
    assert saliency(STRICT, 4) == pytest.approx(alone, abs=1e-5 * size)
    for protocol in ("videoxum-released", "videoxum-top15"):
        assert saliency(protocol, 1) == pytest.approx(alone, abs=1e-5 * size)
        assert np.abs(saliency(protocol, 4) - alone).max() > 0.01 * size


def test_baselines(evaluated):
    """Random scores rank nothing; evenly spaced frames have no order and no text."""
    released, *others = (content["baselines"]["random"]["f1"]["value"] for content in evaluated.values())
    assert released > max(others) + 0.1, "half of the frames, not 15%, are right more often"
    for content in evaluated.values():
        random, uniform = content["baselines"]["random"], content["baselines"]["uniform"]
        assert abs(random["kendall"]["value"]) < 0.15
        assert 0 < random["f1"]["value"] < 0.5
        assert 0 < random["rouge_l"]["value"] < 1
        assert uniform["kendall"]["value"] == uniform["spearman"]["value"] == 0.0
        assert uniform["bleu4"] == {
            "value": None,
            "low": None,
            "high": None,
            "reason": "evenly spaced frames come with no text",
        }
        for row in (random, uniform):
            assert row["vt_clipscore"]["low"] < row["vt_clipscore"]["value"] < row["vt_clipscore"]["high"]


def test_other_videos_are_other_videos():
    for other in (draws := other_videos(7, 4, 0)):
        assert sorted(other) == list(range(7))
        assert (other != np.arange(7)).all()
    assert len({tuple(other) for other in draws}) > 1
    assert other_videos(1, 4, 0) == []


def same_but_for_time(a: dict[str, Any], b: dict[str, Any]) -> bool:
    strip = {"timings": None}
    return json.dumps(a | strip) == json.dumps(b | strip)


def stop_in_second_batch(settings: EvaluationSettings, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = videoxum_run.Job.run

    def stops(job: Any, number: int) -> list[dict[str, Any]]:
        if number == 1:
            raise KeyboardInterrupt
        return run(job, number)

    with monkeypatch.context() as patch:
        patch.setattr(videoxum_run.Job, "run", stops)
        with pytest.raises(KeyboardInterrupt):
            evaluate(settings, output)


@contextlib.contextmanager
def other_features(corpus: Path) -> Iterator[None]:
    """Within, one video's features are other ones of the same shape."""
    path = feature_file(corpus / FEATURES, VideoXumDataset(corpus, "test").video_ids[0])
    before = path.read_bytes()
    np.savez(path, features=np.load(path)["features"] + 1)
    yield
    path.write_bytes(before)


def test_an_interrupted_evaluation_resumes(corpus, model, evaluated, tmp_path, monkeypatch):
    """Stopped in its second batch, its part file torn besides: one batch is kept, the figures are the same."""
    settings, output = settings_of(corpus, model), tmp_path / "deep" / "e.json"
    run = videoxum_run.Job.run
    ran: list[int] = []
    stop_in_second_batch(settings, output, monkeypatch)
    part = output.with_name("e.json.part.jsonl")
    assert os.listdir(tmp_path / "deep") == [part.name]
    with open(part, "a") as file:
        file.write('{"batch": 1, "videos": [{"video_')
    monkeypatch.setattr(videoxum_run.Job, "run", lambda job, number: [ran.append(number), run(job, number)][1])
    with pytest.raises(VTSumError, match=r"an evaluation with another num_beams: .*or --overwrite to begin anew"):
        evaluate(dataclasses.replace(settings, num_beams=1), output)
    with monkeypatch.context() as later:
        later.setitem(REVISIONS, STRICT, REVISIONS[STRICT] + 1)
        with pytest.raises(VTSumError, match="an evaluation with another protocol_revision"):
            evaluate(settings, output)
    with other_features(corpus), pytest.raises(VTSumError, match="an evaluation with another features"):
        evaluate(settings, output)
    told: list[tuple[str, int, int]] = []
    content = evaluate(settings, output, progress=lambda *step: told.append(step))
    assert ran == [1, 2]
    assert told[0] == ("videos", 4, VIDEOS)
    assert told[-1] == ("videos", VIDEOS, VIDEOS)
    assert content is not None
    assert same_but_for_time(content, evaluated["videoxum-strict"])
    assert os.listdir(tmp_path / "deep") == ["e.json"]
    with pytest.raises(VTSumError, match=r"output .*e\.json must not exist yet \(--overwrite replaces it\)"):
        evaluate(settings, output)
    ran.clear()
    again = evaluate(settings, output, overwrite=True)
    assert ran == [0, 1, 2]
    assert again is not None
    assert same_but_for_time(again, content)


def test_batches_in_a_part_file_that_are_none_of_its_evaluation_are_one_line(corpus, model, tmp_path, monkeypatch):
    output = tmp_path / "e.json"
    stop_in_second_batch(settings_of(corpus, model, num_beams=1), output, monkeypatch)
    part = tmp_path / "e.json.part.jsonl"
    head, batch = part.read_text().splitlines()
    videos = json.loads(batch)["videos"]
    words = ["evaluate", "--checkpoint", model, "--data", corpus, "-o", output, "--caption_tokenizer", "plain", "-q"]
    words += ["--batch_size", "4", "--num_beams", "1", "--device", "cpu"]
    for number, found in (
        (0, [{}] * 4),
        (99, videos),
        (0, videos[::-1]),
        (0, [{**video, "f1": "1"} for video in videos]),
        (0, [{**video, "random": {}} for video in videos]),
    ):
        part.write_text(f"{head}\n{json.dumps({'batch': number, 'videos': found})}\n")
        before = part.read_bytes()
        done = forked.run([sys.executable, "-m", "vtsum.cli", *words], env=ENVIRONMENT)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert f"must hold batches of this evaluation, got another one as number {number}; --overwrite" in done.stderr
        assert part.read_bytes() == before
        assert not output.exists()


def test_one_evaluation_at_a_time_writes_a_part_file(tmp_path):
    first, second = (PartFile(tmp_path / "e.json", 0, 1, {"seed": 1}) for _ in range(2))
    first.append(0, [{"a": 1}])
    with pytest.raises(VTSumError, match="must be written by one evaluation at a time, got another at work"):
        second.append(0, [{"a": 2}])
    first.close()
    assert second.read() == {0: [{"a": 1}]}


def test_a_torn_part_file_is_continued_cleanly(tmp_path):
    first = PartFile(tmp_path / "e.json", 0, 1, {"seed": 1})
    first.append(0, [{"a": 1}])
    first.close()
    whole = first.path.read_bytes()
    with open(first.path, "ab") as file:
        file.write(b'{"batch": 3, "vid')
    second = PartFile(tmp_path / "e.json", 0, 1, {"seed": 1})
    assert second.read() == {0: [{"a": 1}]}
    second.append(1, [])
    second.close()
    assert first.path.read_bytes() == whole + b'{"batch": 1, "videos": []}\n'
    other = PartFile(tmp_path / "e.json", 1, 2, {"seed": 1})
    other.append(2, [])
    other.close()
    assert sorted(second.read()) == [0, 1, 2]
    (tmp_path / "e.json.part-notes.jsonl").write_text("mine")
    second.remove()
    assert os.listdir(tmp_path) == ["e.json.part-notes.jsonl"]


def test_without_clip_or_java_the_rest_is_measured(corpus, model, tmp_path):
    """What is not computed says why; PTB without Java is refused before any work."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("anno", "feat"):
        (bare / name).symlink_to(corpus / name)
    content = evaluate(settings_of(bare, model, limit=5))
    assert len(content["videos"]) == 5
    missing = {name: cell["reason"] for name, cell in content["measures"].items() if cell["value"] is None}
    assert missing == {"meteor": java.NO_JAVA, "vt_clipscore": f"needs a CLIP text encoder: --clip, or {bare / 'clip'}"}
    assert content["baselines"]["random"]["meteor"]["reason"] == java.NO_JAVA
    with pytest.raises(
        VTSumError, match=r"clip_tokenizer must come with a CLIP text encoder: --clip, or .*/bare/clip$"
    ):
        evaluate(dataclasses.replace(settings_of(bare, model), clip_tokenizer=str(tmp_path)))
    with pytest.raises(
        VTSumError, match=r"the PTB tokenizer needs a Java runtime .*default-jre-headless; or --caption"
    ):
        evaluate(dataclasses.replace(settings_of(bare, model), caption_tokenizer="ptb"))


def test_with_java_texts_are_measured_as_published(corpus, model, needs_program, monkeypatch):
    """The PTB tokenizer's words reach every measure, and METEOR is there."""
    needs_program("java")
    monkeypatch.setattr(java, "_java", lambda: shutil.which("java"))
    asked: dict[tuple[str, str], np.ndarray] = {}  # test_captions.py holds the program's answers
    ask = java.Meteor.counts

    def counts_of(program: java.Meteor, text: str, references: list[str]) -> np.ndarray:
        return asked.setdefault((text, *references), ask(program, text, references))

    monkeypatch.setattr(java.Meteor, "counts", counts_of)
    settings = dataclasses.replace(settings_of(corpus, model, limit=4), caption_tokenizer="ptb", random_draws=1)
    told: list[tuple[str, int, int]] = []
    content = evaluate(settings, progress=lambda *step: told.append(step))
    assert told[-1] == ("texts", 8, 8), "the model's and one random draw's"
    words = java.ptb_tokenize([v[key] for key in ("text", "reference") for v in content["videos"]])
    made, references = words[:4], words[4:]
    counts = [asked[pair] for pair in zip(made, references, strict=True)]
    found = content["measures"]["meteor"]
    assert found["value"] == pytest.approx(float(java.meteor(np.sum(counts, 0))), abs=1e-12)
    assert 0 < found["low"] < found["value"] < found["high"]
    assert [v["meteor"] for v in content["videos"]] == pytest.approx(java.meteor(np.array(counts)), abs=1e-12)
    expected = sum(bleu_counts(t, [r]) for t, r in zip(made, references, strict=True))
    assert content["measures"]["bleu4"]["value"] == pytest.approx(float(bleu(expected)), abs=1e-12)
    assert content["baselines"]["random"]["meteor"]["value"] > 0


def test_one_video_has_figures_too(corpus, model):
    content = evaluate(settings_of(corpus, model, limit=1))
    assert content["measures"]["cider"]["value"] == 0.0
    assert content["baselines"]["random"]["bleu4"]["reason"] == "needs two videos or more"
    assert content["baselines"]["random"]["vt_clipscore"]["reason"] == "needs two videos or more"


def test_a_run_folder_and_an_original_checkpoint(corpus, model, shared, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model").symlink_to(model)
    network, digest = videoxum_run.load_model(settings_of(corpus, run))
    assert network.config.width == 32
    assert digest == videoxum_run.load_model(settings_of(corpus, model))[1]
    golden = shared / "golden/vtsum"
    original = settings_of(corpus, golden / "vtsum_tiny_tt_ca_fp16.pth", tokenizer=str(golden / "vocab.txt"))
    network, digest = videoxum_run.load_model(dataclasses.replace(original, kernel_size=5))
    assert (network.config.kernel_size, network.config.max_text_length) == (5, 128)
    assert digest == videoxum_run._sha256(golden / "vtsum_tiny_tt_ca_fp16.pth")
    with pytest.raises(VTSumError, match=r"features of .* must have the model's width 768, got 32"):
        evaluate(original)
    wide = tmp_path / "wide"
    wide.mkdir()
    content = evaluate(dataclasses.replace(original, data=str(write_corpus(wide, 3, clip=False, width=768))))
    assert content["settings"]["max_length"] == 128
    assert content["checkpoint"]["name"] == "vtsum_tiny_tt_ca_fp16"
    assert content["notes"] == [], "every weight found its place"
    assert all(video["text"] for video in content["videos"])


def test_mistakes_are_named(corpus, model, tmp_path):
    wrong = write_model(tmp_path / "wide", width=64)
    (tmp_path / "file.pth").write_bytes(b"x")
    for changes, message in (
        ({"protocol": "strict"}, "one of videoxum-released, videoxum-top15, videoxum-strict, got 'strict'"),
        ({"caption_tokenizer": "nltk"}, "caption_tokenizer must be ptb or plain, got 'nltk'"),
        ({"num_beams": 0}, "num_beams must be at least 1, got 0"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"min_length": -1}, "min_length and seed must be 0 or more"),
        ({"max_length": 65}, r"max_length must be above min_length \(10\) and at most 64, got 65"),
        ({"max_length": 8}, r"max_length must be above min_length \(10\) and at most 64, got 8"),
        ({"split": "val"}, "val_videoxum.json must be a readable file"),
        ({"checkpoint": str(wrong)}, "must have the model's width 64, got 32"),
        ({"checkpoint": str(tmp_path / "none")}, "checkpoint must be a model folder, a run's folder or a .pth file"),
        ({"checkpoint": str(tmp_path / "file.pth")}, "--tokenizer must name the vocabulary"),
        ({"kernel_size": 5}, "--tokenizer and --kernel_size belong to .pth files"),
        ({"clip": str(tmp_path / "none")}, "clip must be a CLIP folder or a .pth file"),
    ):
        with pytest.raises(VTSumError, match=message):
            evaluate(dataclasses.replace(settings_of(corpus, model), **changes))
    with pytest.raises(VTSumError, match="device must be one that PyTorch can use here, got 'cuda:77'"):
        evaluate(settings_of(corpus, model), device="cuda:77")


def test_a_model_gone_wrong_is_named(corpus, model, monkeypatch):
    def broken(self: VTSum, video: torch.Tensor, mask: torch.Tensor, **options: Any) -> Any:
        return ["a"] * len(video), None, torch.full(mask.shape, torch.nan)

    monkeypatch.setattr(VTSum, "generate", broken)
    with pytest.raises(VTSumError, match="saliency of v_010 must be finite"):
        evaluate(settings_of(corpus, model))


def test_broken_clip_features_and_too_little_memory_are_named(corpus, model, tmp_path, monkeypatch):
    for name in ("anno", "feat/blip", "clip"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(corpus / name)
    shutil.copytree(corpus / "feat/vt_clipscore", tmp_path / "feat/vt_clipscore")
    path = tmp_path / "feat/vt_clipscore/v_009.npz"
    with np.load(path) as old:
        vision, text = old["vision"].copy(), old["text"]
    vision[3, 2] = np.nan
    write_npz(path, vision=vision, text=text)
    with pytest.raises(VTSumError, match=r"v_009\.npz: vision must be finite, got 1 NaN"):
        evaluate(settings_of(tmp_path, model))

    def full(self: VTSum, *inputs: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(VTSum, "generate", full)
    with pytest.raises(VTSumError, match=r"batch_size must fit the memory of cpu, got 4 \(videos of up to \d+ frames"):
        evaluate(settings_of(corpus, model), device="cpu")
