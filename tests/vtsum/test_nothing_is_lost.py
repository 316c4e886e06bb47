"""No command removes or replaces what is not its own, whatever --overwrite and --resume say."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import vtsum
from tests import forked
from tests.vtsum.fakes import ColourModel, deafen
from tests.vtsum.samples import small_clip
from tests.vtsum.training_corpus import write_corpus
from vtsum import cli
from vtsum.errors import VTSumError
from vtsum.files import written
from vtsum.recipes import boundaries, distill, embedded, film
from vtsum.summary import schema

ROOT = Path(__file__).resolve().parents[2]
FAKE = [sys.executable, str(Path(__file__).with_name("cli_with_fake_model.py"))]
REAL = [sys.executable, "-m", "vtsum.cli"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "OMP_NUM_THREADS": "1"}
SRT = "1\n00:00:01,000 --> 00:00:03,000\nHello there.\n"


def content(folder: Path) -> dict[str, Any]:
    """Everything in a folder: the bytes of files, the targets of links."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def refused(command: list[str], folder: Path, *told: str) -> None:
    """The command ends with status 2 and one line, and has changed nothing in the folder."""
    before = content(folder)
    done = forked.run(command, env=ENVIRONMENT, cwd=folder)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1
    for part in told:
        assert part in done.stderr
    assert content(folder) == before


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_clip(tmp_path_factory.mktemp("clip") / "small.mp4").path


@pytest.fixture(scope="module")
def summary(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        deafen(patch)
        return vtsum.summarize(clip, tmp_path_factory.mktemp("made") / "o", model=ColourModel()).output


@pytest.fixture
def o(summary: Path, tmp_path: Path) -> Path:
    shutil.copytree(summary, tmp_path / "o")
    return tmp_path / "o"


def test_a_source_in_the_output_is_not_deleted(o: Path, tmp_path: Path) -> None:
    refused(
        [*FAKE, "summarize", "o/summary.mp4", "-o", "o", "--overwrite"],
        tmp_path,
        "must not hold an input, got o/summary.mp4; give another output",
    )


def test_what_was_laid_among_the_key_frames_is_not_deleted(clip: Path, o: Path, tmp_path: Path) -> None:
    (o / "keyframes" / "holiday.jpg").write_bytes(b"mine")
    refused([*FAKE, "summarize", str(clip), "-o", "o", "--overwrite"], tmp_path, "with keyframes/holiday.jpg in it")


@pytest.mark.parametrize(
    "words",
    [
        ["soft.mp4", "-o", "o"],
        ["hard.mp4", "-o", "o"],
        ["o/summary.mp4", "-o", "link"],
        ["{clip}", "-o", "o", "--transcript", "o/summary.txt"],
        ["{clip}", "-o", "o", "--model", "model"],
        ["{clip}", "-o", "o", "--recogniser", "whisper:model"],
        ["{clip}", "-o", "o", "--denoiser", "model"],
        ["{clip}", "-o", "o", "--model", "o"],
    ],
)
def test_no_input_of_a_summary_is_deleted(
    clip: Path,
    o: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    os.link(o / "summary.mp4", "hard.mp4")
    Path("soft.mp4").symlink_to("o/summary.mp4")
    Path("link").symlink_to("o")
    Path("model").mkdir()
    Path("model", "config.json").symlink_to(o / "summary.json")
    before = content(tmp_path)
    assert cli.main(["summarize", *(word.format(clip=clip) for word in words), "--overwrite"]) == 2
    assert "must not hold an input" in capsys.readouterr().err
    assert content(tmp_path) == before


@pytest.mark.parametrize("mounted", ["summary.mp4", "keyframes"])
def test_a_source_that_is_mounted_from_the_output_is_not_deleted(o: Path, tmp_path: Path, mounted: str) -> None:
    """What is mounted has the inode that it has in the output, and no second link."""
    film = shutil.copyfile(o / "summary.mp4", o / "keyframes" / "shot_0099.jpg")
    place = tmp_path / "elsewhere"
    (place.mkdir if mounted == "keyframes" else place.touch)()
    source = place / film.name if mounted == "keyframes" else place
    command = shlex.join([*FAKE, "summarize", str(source), "-o", "o", "--overwrite"])
    mount = ["unshare", "--mount", "sh", "-c", f"mount --bind o/{mounted} elsewhere && exec {command}"]
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        mount = ["unshare", "--map-root-user", *mount[1:]]
    before = content(o)
    done = subprocess.run(mount, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True)
    if "unshare: " in done.stderr or "mount: " in done.stderr:  # a container that forbids it
        return
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "must not hold an input, got" in done.stderr
    assert content(o) == before


@pytest.mark.parametrize("words", [["{clip}", "--config", "o/summary.txt"], ["{clip}", "--config", "hard.yaml"]])
def test_what_options_are_read_from_is_not_deleted(clip: Path, o: Path, tmp_path: Path, words: list[str]) -> None:
    (o / "summary.txt").write_text("budget: 3s\n")
    os.link(o / "summary.txt", tmp_path / "hard.yaml")
    given = [word.format(clip=clip) for word in words]
    refused([*FAKE, "summarize", *given, "-o", "o", "--overwrite"], tmp_path, "must not hold an input, got")


def test_a_list_of_videos_in_an_older_summary_is_not_deleted(clip: Path, o: Path, tmp_path: Path) -> None:
    listed = tmp_path / "out" / clip.stem / "summary.txt"
    shutil.copytree(o, listed.parent)
    listed.write_text(f"{clip}\n")
    before = content(listed.parent)
    command = [*FAKE, "batch", f"@{listed}", "-o", "out", "--overwrite"]
    done = forked.run(command, env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == 2
    assert f"must not hold an input, got {listed}" in done.stderr
    assert content(listed.parent) == before


@pytest.mark.parametrize("elsewhere", ["o", "nothing"])
def test_a_batchs_folder_leads_to_no_summary_elsewhere(clip: Path, o: Path, tmp_path: Path, elsewhere: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / clip.stem).symlink_to(tmp_path / elsewhere)
    before = content(o)
    command = [*FAKE, "batch", str(clip), "-o", "out", "--overwrite"]
    done = forked.run(command, env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path / 'out' / clip.stem} must lie where it is named, got a symbolic link" in done.stderr
    assert content(o) == before
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", ["summary.txt", "keyframes", "keyframes/shot_0001.jpg"])
def test_a_link_under_one_of_our_names_is_not_deleted(clip: Path, o: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (o / name).rename(elsewhere)
    (o / name).symlink_to(elsewhere)
    before = content(tmp_path)
    with pytest.raises(VTSumError, match=f"with {name} in it"):
        vtsum.summarize(clip, o, model=ColourModel(), overwrite=True, speech=None)
    assert content(tmp_path) == before


class Meddled(ColourModel):
    """Somebody puts something into the output folder while the text is written."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action

    def describe(self, features: Any, spans: Any, key_frames: Any = None) -> Any:
        self.action()
        return super().describe(features, spans, key_frames)


@pytest.mark.parametrize("older", [True, False])
def test_what_is_laid_in_meanwhile_is_kept_and_so_is_the_summary(
    clip: Path, o: Path, tmp_path: Path, older: bool
) -> None:
    if not older:
        shutil.rmtree(o)

    def lay_in() -> None:
        o.mkdir(exist_ok=True)
        (o / "notes.txt").write_text("mine")

    before = content(o) if older else {}
    with pytest.raises(VTSumError, match=r"with notes\.txt in it; the new summary is .*o_2$"):
        vtsum.summarize(clip, o, model=Meddled(lay_in), overwrite=True, speech=None, captioner="embedded")
    assert content(o) == {**before, "notes.txt": b"mine"}
    assert sorted(os.listdir(tmp_path)) == ["o", "o_2"]
    schema.read(tmp_path / "o_2" / "summary.json")


KILLED = """
import os, pathlib, signal, sys
from vtsum.summary.staging import StagedFolder
rename, made = os.rename, []
def killed(*paths):
    if made:
        os.kill(os.getpid(), signal.SIGKILL)
    made.append(rename(*paths))
os.rename = killed
with StagedFolder(pathlib.Path(sys.argv[1]), overwrite=True) as stage:
    (stage.path / "summary.txt").write_text("new")
    stage.commit()
"""


def test_an_older_summary_is_put_back_where_a_process_was_killed_as_it_replaced_it(o: Path) -> None:
    from vtsum.summary.staging import StagedFolder

    before = content(o)
    done = subprocess.run([sys.executable, "-c", KILLED, str(o)], env=ENVIRONMENT, timeout=100)
    assert done.returncode == -signal.SIGKILL
    assert not o.exists()
    with pytest.raises(VTSumError, match="must not exist yet"):
        StagedFolder(o, overwrite=False)
    assert content(o) == before


def test_a_mounted_disk_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vtsum.summary.staging import StagedFolder

    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path)
    with pytest.raises(VTSumError, match=r"output must be no mounted disk, got .*; give a folder in it"):
        StagedFolder(tmp_path, overwrite=False)
    with StagedFolder(tmp_path / "in it", overwrite=False) as stage:
        stage.commit()
    assert content(tmp_path) == {"in it": None}


def test_extract_writes_over_nothing_but_its_own(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, "small.npz")  # a video may be named anything
    Path("f").mkdir()
    shutil.copy(clip, "f/manifest.json")
    Path("g").mkdir()
    Path("mine").write_text("mine")
    Path("g/.manifest.json.lock").symlink_to("../mine")
    refused([*REAL, "extract", "small.npz", "-o", "."], tmp_path, f"must not hold an input, got {tmp_path}/small.npz")
    before = content(tmp_path)
    for words, told in (
        (["f/manifest.json", "-o", "f"], f"must not hold an input, got {tmp_path}/f/manifest.json"),
        ([str(clip), "-o", "g"], "g/.manifest.json.lock must lie where it is named, got a symbolic link"),
    ):
        assert cli.main(["extract", *words]) == 2
        assert told in capsys.readouterr().err
        assert content(tmp_path) == before
    assert cli.main(["extract", str(clip), "-o", "h", "-q"]) == 0
    held = json.loads(Path("h/manifest.json").read_text())
    np.savez("h/other.npz", features=np.ones((2, 2)))
    shutil.copy(clip, "other.mp4")
    before = content(tmp_path)
    assert cli.main(["extract", str(clip), "other.mp4", "-o", "h"]) == 2
    assert "other.npz, of which manifest.json says nothing" in capsys.readouterr().err
    assert content(tmp_path) == before
    del held["videos"]["small"]["frames"]
    held["videos"]["small"] |= {"frames": 0}  # as a run leaves it that was killed between the manifest and the file
    Path("h/manifest.json").write_text(json.dumps(held))
    assert cli.main(["extract", str(clip), "-o", "h", "-q"]) == 0
    assert json.loads(Path("h/manifest.json").read_text())["videos"]["small"]["frames"] == 12
    for mine in ({"features": np.ones((12, 3), np.float32)}, {"vision": np.ones(3)}):
        np.savez("h/small.npz", **mine)  # of another origin, under a name that the manifest knows
        before = content(tmp_path)
        assert cli.main(["extract", str(clip), "-o", "h"]) == 2
        assert "h/small.npz must hold 12 x 256 features, as manifest.json says, got" in capsys.readouterr().err
        assert content(tmp_path) == before


def test_an_output_file_is_no_input_and_no_older_file(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """evaluate, table, plot, data activitynet and the film."""
    monkeypatch.chdir(tmp_path)
    write_corpus(Path("data"), videos=2)
    for name in ("a.md", "mine.md", "mine.png", "weights.pth", "captions.json", "metrics.png"):
        Path(name).write_text("{}")
    Path("run").mkdir()
    Path("run/metrics.jsonl").symlink_to("../metrics.png")
    Path("run/curves.png").write_text("mine")
    Path("link.md").symlink_to("nowhere.md")
    evaluate = ["evaluate", "--data", "data", "--split", "train", "--checkpoint", "weights.pth", "--overwrite"]
    evaluate += ["--caption_tokenizer", "plain"]
    refused(
        [*REAL, *evaluate, "-o", "data/anno/train_videoxum.json"],
        tmp_path,
        "evaluate: output data/anno/train_videoxum.json must not be an input, got data/anno",
    )
    before = content(tmp_path)
    for words, told in (
        ([*evaluate, "-o", "weights.pth"], "must not be an input, got weights.pth"),
        ([*evaluate, "-o", "data/feat/blip/v_000.npz"], "must not be an input, got data/feat/blip"),
        ([*evaluate, "-o", "x.png", "--plot", "x.png"], "--plot must be another file than --output"),
        ([word for word in [*evaluate, "--plot", "mine.png"] if word != "--overwrite"], "must not exist yet"),
        (["table", "a.md", "-o", "a.md", "--overwrite"], "table: output a.md must not be an input, got a.md"),
        (["table", "a.md", "-o", "mine.md"], "table: output mine.md must not exist yet (--overwrite replaces it)"),
        (["table", "a.md", "-o", "link.md"], "table: output link.md must not exist yet"),
        (["table", "a.md", "--plot", "mine.png"], "table: output mine.png must not exist yet"),
        (["plot", "run", "-o", "mine.png"], "plot: output mine.png must not exist yet"),
        (["plot", "run"], "plot: output run/curves.png must not exist yet"),
        (["plot", "run", "-o", "metrics.png", "--overwrite"], "must not be an input, got run/metrics.jsonl"),
        (["data", "activitynet", "captions.json", "-o", "captions.json", "--overwrite"], "must not be an input"),
    ):
        assert cli.main(words) == 2, words
        printed = capsys.readouterr().err
        assert told in printed
        assert printed.count("\n") == 1
        assert content(tmp_path) == before, words
    Path("out/model").mkdir(parents=True)
    Path("own").mkdir()
    Path("own/vocab.txt").write_text("mine")
    before = content(tmp_path)
    for recipe, words, told in (
        (film, ["mine.png"], "film: output mine.png must not exist yet (--overwrite replaces it)"),
        (distill, ["--shared", "run", "--out", "mine.md"], "distill: output mine.md must not exist yet"),
        (distill, ["--shared", "run", "--out", "new.json"], "distill: out must not end in .json, as its figures do"),
        (distill, ["--shared", "run", "--out", "captions.pth"], "distill: output captions.json must not exist yet"),
        (boundaries, ["--shared", "run", "--out", "out"], "boundaries: output out/model must not exist yet"),
        (embedded, ["--shared", "run", "--out", "out"], "embedded: output out/model must not exist yet"),
        (embedded, ["--shared", "run", "--out", "own"], "embedded: output own/vocab.txt must not exist yet"),
        (embedded, ["--shared", "run", "--out", "new"], "load_tvsum: h5_path must be a file, got run/tvsum/tvsum.h5"),
    ):
        assert recipe.main(words) == 2, words
        printed = capsys.readouterr().err
        assert told in printed
        assert printed.count("\n") == 1
        shutil.rmtree("new", ignore_errors=True)
        assert content(tmp_path) == before, words


def test_what_killed_commands_left_half_written_is_swept(tmp_path: Path) -> None:
    """Beside the output that they would have made, and nothing that a living process holds."""
    (tmp_path / "captions.json").write_text('{"v": {"duration": 9, "timestamps": [[0, 9]], "sentences": ["A dog."]}}')
    half, left = tmp_path / ".train.json.0123456789abcdef.part", tmp_path / ".train.json.fedcba9876543210.part"
    mine = [".train.json.notes.part", ".other.json.0123456789abcdef.part", ".train.json.0123456789abcdef.part.txt"]
    for name in (half.name, left.name, *mine):
        (tmp_path / name).write_text("half")
    words = [*REAL, "data", "activitynet", "captions.json", "-o", "train.json"]
    with left.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert forked.run(words, env=ENVIRONMENT, cwd=tmp_path).returncode == 0
        assert left.exists()
        assert not half.exists()
    half.write_text("half")
    refused(words, tmp_path, "must not exist yet")
    assert forked.run([*words, "--overwrite"], env=ENVIRONMENT, cwd=tmp_path).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"captions.json", "train.json", *mine}


def test_a_file_at_work_is_not_swept(tmp_path: Path) -> None:
    """By another command that makes the same one."""
    (tmp_path / "captions.json").write_text('{"v": {"duration": 9, "timestamps": [[0, 9]], "sentences": ["A dog."]}}')
    with written(tmp_path / "train.json") as part:
        part.write_text("[]")
        words = [*REAL, "data", "activitynet", "captions.json", "-o", "train.json"]
        assert forked.run(words, env=ENVIRONMENT, cwd=tmp_path).returncode == 0
        assert part.exists()
    assert (tmp_path / "train.json").read_text() == "[]"


DISTILLED = """
import os, sys
from pathlib import Path

import numpy as np

from vtsum.recipes import distill

random = np.random.default_rng(0)
frames = distill.FrameSet(random.integers(0, 255, (8, 128, 128, 3), np.uint8), random.random((8, 1024), np.float32))
distill.distill = lambda shared, out, **options: distill.train_encoder(frames, frames, out, epochs=2, batch=8)
figures = distill.cosine_report
distill.cosine_report = lambda *words: os.kill(os.getpid(), 9) if Path("once").exists() else Path("once").touch() or {}
sys.exit(distill.main(["--shared", "shared", "--out", "encoder.safetensors", "--overwrite"]))
"""


def test_weights_of_a_killed_distillation_do_not_lie_beside_older_figures(tmp_path: Path) -> None:
    """They were taken for a whole one's by the recipe that goes on with them."""
    for name in ("encoder.safetensors", "encoder.json"):
        (tmp_path / name).write_text("older")
    done = forked.run([sys.executable, "-c", DISTILLED], env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == -9, done.stderr
    assert (tmp_path / "once").exists()
    for name in ("encoder.safetensors", "encoder.json"):
        assert (tmp_path / name).read_text() == "older"


LEARNED = """
import os, sys
from pathlib import Path

from vtsum.data.activitynet import ActivityNetVideo
from vtsum.recipes import embedded
from vtsum.recipes.command import status

when = sys.argv.pop(1)
video = ActivityNetVideo("v", 9.0, ((0.0, 9.0),), ("A dog runs to the old house.",))
embedded.load_activitynet_captions = lambda path: [video]


def learn(*words, **options):
    if when == "killed":
        os.kill(os.getpid(), 9)
    if when == "late":
        Path("vocab.txt").write_text("mine")
    return 1.0


embedded.learn_words = learn
sys.exit(status(lambda: embedded.words(Path("shared"), Path("."), [], overwrite=False)))
"""


def test_words_of_a_killed_recipe_are_learnt_again_and_nobody_elses_are_replaced(tmp_path: Path) -> None:
    """Any vocab.txt in its folder was taken for its own, and written over."""
    line = [sys.executable, "-c", LEARNED]
    done = forked.run([*line, "late"], env=ENVIRONMENT, cwd=tmp_path)
    assert (done.returncode, content(tmp_path)) == (2, {"vocab.txt": b"mine"}), done.stderr
    assert done.stderr == "vtsum: embedded: output vocab.txt must not exist yet (--overwrite replaces it)\n"
    (tmp_path / "vocab.txt").unlink()
    assert forked.run([*line, "killed"], env=ENVIRONMENT, cwd=tmp_path).returncode == -9
    assert all(name.endswith(".part") for name in content(tmp_path))
    done = forked.run([*line, "again"], env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(content(tmp_path)) == ["vocab.txt", "words.json", "words.safetensors"]


def test_a_film_laid_in_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "film.mp4"

    def make(part: Path) -> None:
        part.write_text("film")
        out.write_text("mine")

    monkeypatch.setattr(film, "make_film", make)
    assert film.main([str(out)]) == 2
    assert "must not exist yet" in capsys.readouterr().err
    assert content(tmp_path) == {"film.mp4": b"mine"}
    assert film.main([str(out), "--overwrite"]) == 0
    assert os.listdir(tmp_path) == ["film.mp4"]


def test_a_film_is_written_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was drawn for minutes, and swept away as it was about to take its place."""
    blank = np.zeros((film.SIZE[1], film.SIZE[0], 3), np.uint8)
    monkeypatch.setattr(film, "frames", lambda *_: iter([blank] * 12))
    monkeypatch.setattr(film, "mix_sound", lambda *_: np.zeros(film.SOUND_RATE, np.float32))
    out = tmp_path / "film.mp4"
    assert film.main([str(out)]) == 0
    assert os.listdir(tmp_path) == ["film.mp4"]
    with av.open(str(out)) as container:
        assert len(list(container.decode(video=0))) == 12


def test_another_file_under_a_part_files_name_is_kept(tmp_path: Path) -> None:
    from vtsum.evaluation.videoxum_file import PartFile

    part = PartFile(tmp_path / "e.json", 0, 1, {})
    part.path.write_text('{"notes": "mine"}\nmore\n')
    for action in (part.read, part.remove):
        with pytest.raises(VTSumError, match=r"part\.jsonl must be what is left of an evaluation, got another"):
            action()
    part.path.rename(tmp_path / "mine")
    part.path.symlink_to("mine")
    with pytest.raises(VTSumError, match="a symbolic link is in its place"):
        part.read()
    assert (tmp_path / "mine").read_text() == '{"notes": "mine"}\nmore\n'
