"""The example of a model of one's own, by plain commands; a folder that names code; predictions of other programs."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import forked
from tests.vtsum.hostile import ENVIRONMENT, ROOT
from tests.vtsum.training_corpus import flags
from tests.vtsum.videoxum_corpus import VIDEOS, write_corpus, write_model
from vtsum import cli, plugins
from vtsum.errors import VTSumError
from vtsum.evaluation import java
from vtsum.evaluation.videoxum_scores import MEASURES
from vtsum.evaluation.videoxum_settings import EvaluationSettings
from vtsum.model import VTSum
from vtsum.training.train import main as train


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = write_corpus(tmp_path / "corpus", split="train")
    shutil.copyfile(root / "anno" / "train_videoxum.json", root / "anno" / "test_videoxum.json")
    shutil.copyfile(write_model(tmp_path / "any") / "vocab.txt", root / "vocab.txt")
    return root


NO_JAVA = {k: v for k, v in ENVIRONMENT.items() if k != "JAVA_HOME"} | {"PATH": str(Path(sys.executable).parent)}


def command(*words: str) -> None:
    """`vtsum WORDS` in examples/, as its console script runs it."""
    code = "import sys; sys.path.remove(''); from vtsum.cli import main; sys.exit(main())"
    done = forked.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT / "examples",
        env=NO_JAVA,
    )
    assert done.returncode == 0, done.stderr


def test_the_example_is_trained_and_evaluated_by_plain_commands(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(java, "_java", lambda: None)
    run, out = tmp_path / "run", tmp_path / "e.json"
    own = ["--architecture", "own_model:TwoLayers"]
    small = [*flags(), "--batch_size", "4", "--max_epoch", "1", "--num_workers", "0"]
    command("train", *own, "--loss", "own_model:TopFrames", "--data", str(corpus), "--output_dir", str(run), *small)
    assert json.loads((run / "model" / "config.json").read_text())["class"] == "own_model:TwoLayers"
    plain = ["--data", str(corpus), "--caption_tokenizer", "plain", "--resamples", "20"]
    command("evaluate", *own, "--checkpoint", str(run), *plain, "-o", str(out))
    found = json.loads(out.read_text())
    assert found["settings"]["architecture"] == "own_model:TwoLayers"
    assert len({score for video in found["videos"] for score in video["saliency_logits"]}) > 50
    # Nobody else's word imports it: not the folder's, and not a config.yaml's.
    assert cli.main(["evaluate", "--checkpoint", str(run), *plain, "-o", str(tmp_path / "no.json")]) == 2
    assert "is a model of the class 'own_model:TwoLayers', which is code: name it yourself" in capsys.readouterr().err
    assert "own_model" not in sys.modules
    with pytest.raises(VTSumError, match="write --architecture own_model:TwoLayers if you trust it"):
        train(["--resume", "--output_dir", str(run), "--loss", "own_model:TopFrames"])
    # The file of its own predictions gives the same figures again.
    assert cli.main(["score", str(out), *plain, "-o", str(tmp_path / "again.json"), "--name", "again"]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    for measure in MEASURES:
        assert again["measures"][measure] == pytest.approx(found["measures"][measure], abs=1e-9), measure
    capsys.readouterr()
    assert cli.main(["table", str(out), str(tmp_path / "again.json"), "--no_baselines"]) == 0
    shown = capsys.readouterr().out
    assert "| run | " in shown
    assert "| again | " in shown


class Mine(VTSum):
    pass


def test_a_class_is_loaded_where_the_caller_or_an_installed_package_names_it(tmp_path: Path, monkeypatch) -> None:
    model = Mine(VTSum.from_pretrained(write_model(tmp_path / "plain")).config)
    model.save_pretrained(tmp_path / "mine")
    name = f"{__name__}:Mine"
    assert json.loads((tmp_path / "mine" / "config.json").read_text())["class"] == name
    assert type(Mine.from_pretrained(tmp_path / "mine")) is Mine
    assert type(Mine.from_pretrained(tmp_path / "plain")) is Mine
    with pytest.raises(VTSumError, match=f"is a model of the class '{name}', which is code"):
        VTSum.from_pretrained(tmp_path / "mine")
    point = metadata.EntryPoint("mine", name, "vtsum.architectures")
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: [point] if group == point.group else [])
    assert type(VTSum.from_pretrained(tmp_path / "mine")) is Mine
    assert plugins.find_class("architecture", "mine", VTSum) is Mine


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere_at_all:Mine", "must be a class that can be imported, got ModuleNotFoundError"),
        ("json:JSONDecoder", "must derive from vtsum.model.vtsum.VTSum, got <class"),
        ("json:loads", "must derive from vtsum.model.vtsum.VTSum"),
        ("nothing", "must be module:Class or the name of an entry point of vtsum.architectures, got 'nothing'"),
    ],
)
def test_what_is_no_model_is_told(name: str, told: str) -> None:
    with pytest.raises(VTSumError, match=told):
        plugins.find_class("architecture", name, VTSum)


def predictions(root: Path) -> dict[str, Any]:
    """Perfect ones: the mean of the annotators, and the reference."""
    entries = json.loads((root / "anno" / "test_videoxum.json").read_text())
    return {
        e["video_id"]: {"saliency": np.mean(e["vsum_onehot"], 0).tolist(), "text": " ".join(e["tsum"])} for e in entries
    }


def test_foreign_predictions_are_measured(corpus: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """No features are read but CLIP's; who votes as the annotators do and writes what they wrote is right."""
    monkeypatch.setattr(java, "_java", lambda: None)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(corpus / "feat" / "blip")
    (tmp_path / "theirs.json").write_text(json.dumps(predictions(corpus)))
    words = ["score", "theirs.json", "--data", "corpus", "--caption_tokenizer", "plain", "--resamples", "20"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "evaluation_theirs_test_videoxum-strict.json"
    made = json.loads((tmp_path / "evaluation_theirs_test_videoxum-strict.json").read_text())
    assert (made["checkpoint"]["name"], len(made["videos"])) == ("theirs", VIDEOS)
    measures = {name: cell["value"] for name, cell in made["measures"].items()}
    assert (measures["bleu4"], measures["rouge_l"]) == pytest.approx((1, 1))
    assert measures["kendall"] > made["baselines"]["random"]["kendall"]["value"] + 0.3
    assert measures["vt_clipscore"] is not None
    assert cli.main(words) == 2
    assert "must not exist yet (--overwrite replaces it)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p: p.pop("v_003"), "must hold each of the 11 videos, got none of v_003"),
        (lambda p: p.update(other=p["v_003"]), "must hold videos of the split alone, got other"),
        (lambda p: p["v_003"].update(saliency=[1, 2]), "saliency of v_003 must have a number for each of"),
        (lambda p: p["v_003"].update(saliency=[1, "2"]), "saliency of v_003 must be finite numbers, got"),
        (lambda p: p["v_003"].update(saliency=[1e39]), "saliency of v_003 must be finite numbers, got"),
        (lambda p: p["v_003"].update(text="..."), "text of v_003 must hold a word, got '...'"),
        (lambda p: p.update(v_003=[1]), "'v_003' must hold saliency and text"),
    ],
)
def test_predictions_that_do_not_fit_are_named(corpus: Path, tmp_path: Path, change: Any, told: str) -> None:
    from vtsum.evaluation.videoxum_score import score

    made = predictions(corpus)
    change(made)
    (tmp_path / "p.json").write_text(json.dumps(made))
    settings = EvaluationSettings(checkpoint=str(tmp_path / "p.json"), data=str(corpus), caption_tokenizer="plain")
    with pytest.raises(VTSumError, match=told.replace("...", r"\.\.\.")):
        score(settings, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
