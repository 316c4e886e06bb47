"""`vtsum extract`: the files it writes, what it does not do twice, and what it says of broken videos."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import forked
from tests.vtsum.clips import number_of, number_picture, write_clip
from tests.vtsum.samples import ENVIRONMENT
from vtsum import cli
from vtsum.batches.extract import by_id, extract
from vtsum.batches.inputs import find_videos
from vtsum.data import features
from vtsum.data.feature_files import read_array
from vtsum.data.features import FeatureFolder
from vtsum.errors import VTSumError
from vtsum.model import encoders
from vtsum.video import FrameSampler


class NumberEncoder:
    """Reads the number drawn into each picture: features that say which frames were taken."""

    name, image_size, dim, weights_sha256 = "numbers", 64, 3, "a" * 64

    def encode(self, images: np.ndarray) -> np.ndarray:
        return np.array([[number_of(image), image.mean(), 1.0] for image in images], np.float32)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos at 5 pictures a second, of 6 and 11.4 s, one of them in a folder below."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "below").mkdir()
    for name, count in (("below/b.mkv", 57), ("a.mp4", 30)):
        times = [n / 5 for n in range(count)]
        write_clip(folder / name, times, lambda n, time: number_picture(n, 192, 108), rate=5, last_duration=0.2)
    (folder / "notes.txt").write_text("no video")
    (folder / ".hidden.mp4").write_text("no video")
    return folder


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """NumberEncoder in place of the embedded one; the batches it was given."""
    batches: list[int] = []

    class Counting(NumberEncoder):
        def encode(self, images: np.ndarray) -> np.ndarray:
            batches.append(len(images))
            return super().encode(images)

    monkeypatch.setattr(encoders, "load_frame_encoder", lambda name, device="cpu": Counting())
    return batches


def test_frames_of_each_video_at_the_rate(films, tmp_path, numbers):
    told: list[tuple[str, int, int, str]] = []
    report = extract([films], tmp_path / "new" / "f", fps=2.0, batch_size=8, progress=lambda *x: told.append(x))
    assert (report.done, report.skipped, report.failed) == (["a", "b"], [], {})
    assert (report.frames, report.dim) == (12 + 23, 3)
    for name, count in (("a", 12), ("b", 23)):
        features = read_array(tmp_path / "new/f" / f"{name}.npz", "features")
        assert features.dtype == np.float32
        # at n / 2 s the picture that began last at 5 a second
        assert features[:, 0].tolist() == [n * 5 // 2 for n in range(count)]
    assert numbers == [8, 4, 8, 8, 7]
    manifest = json.loads((tmp_path / "new/f/manifest.json").read_text())
    assert {key: manifest[key] for key in ("format", "encoder", "weights_sha256", "fps", "image_size", "dim")} == {
        "format": "vtsum-features/1",
        "encoder": "numbers",
        "weights_sha256": "a" * 64,
        "fps": 2.0,
        "image_size": 64,
        "dim": 3,
    }
    assert manifest["videos"]["b"] == {
        "source": "b.mkv",
        "bytes": (films / "below/b.mkv").stat().st_size,
        "frames": 23,
        "duration": pytest.approx(11.4, abs=0.01),
    }
    assert told[0] == ("videos", 0, 2, "")
    assert ("frames", 12, 12, "a.mp4") in told
    assert told[-1] == ("videos", 2, 2, "")
    assert {path.name for path in (tmp_path / "new/f").glob("[!.]*")} == {"a.npz", "b.npz", "manifest.json"}


def test_embedded_features_are_those_of_the_frames(films, tmp_path):
    extract([films / "a.mp4"], tmp_path)
    images = np.stack([frame.image for frame in FrameSampler(films / "a.mp4", size=(128, 128))])
    encoder = encoders.load_frame_encoder("embedded")
    np.testing.assert_allclose(read_array(tmp_path / "a.npz", "features"), encoder.encode(images), atol=1e-4)
    assert json.loads((tmp_path / "manifest.json").read_text())["weights_sha256"] == encoder.weights_sha256


def test_nothing_is_done_twice(films, tmp_path, numbers):
    shutil.copy(films / "a.mp4", tmp_path / "a.mp4")
    shutil.copy(films / "below/b.mkv", tmp_path / "b.mkv")
    videos, out = [tmp_path / "a.mp4", tmp_path / "b.mkv"], tmp_path / "f"
    extract(videos, out)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    numbers.clear()
    assert extract(videos, out).skipped == ["a", "b"]
    assert numbers == []
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()} == before
    # a feature file that was lost or damaged, and a video that has changed, are done again
    (out / "b.npz").write_bytes(before["b.npz"][1][:80])
    assert (extract(videos, out).done, sum(numbers)) == (["b"], 12)
    assert (out / "b.npz").read_bytes() == before["b.npz"][1]
    shutil.copy(films / "below/b.mkv", tmp_path / "a.mp4")
    assert extract(videos, out).done == ["a"]
    assert len(read_array(out / "a.npz", "features")) == 12


def test_a_folder_holds_one_encoder_at_one_rate(films, tmp_path, numbers, monkeypatch):
    extract([films / "a.mp4"], tmp_path)
    with pytest.raises(VTSumError, match=r"fps must be that of .*, 1, got 2; give another folder"):
        extract([films], tmp_path, fps=2.0)
    monkeypatch.setattr(NumberEncoder, "weights_sha256", "b" * 64)
    with pytest.raises(VTSumError, match=r"encoder must be that of .*'numbers' \(a{12}\), got 'numbers' \(b{12}\)"):
        extract([films], tmp_path)
    assert not (tmp_path / "b.npz").exists()


def test_other_folders_are_refused(films, tmp_path, numbers):
    np.savez(tmp_path / "x.npz", features=np.zeros((1, 1)))
    with pytest.raises(VTSumError, match="with feature files and no manifest"):
        extract([films], tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(VTSumError, match="must be 'vtsum-features/1', got none"):
        extract([films], tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "vtsum-synthetic/1"}')
    with pytest.raises(VTSumError, match="must be 'vtsum-features/1', got 'vtsum-synthetic/1'"):
        extract([films], tmp_path)
    with pytest.raises(VTSumError, match="output must be a folder, got the file"):
        extract([films], tmp_path / "x.npz")


def test_videos_are_found_by_name(films, tmp_path):
    assert by_id(find_videos([films / "a.mp4", films], "extract")) == {
        "a": films / "a.mp4",
        "b": films / "below/b.mkv",
    }
    shutil.copy(films / "a.mp4", tmp_path / "a.avi")
    with pytest.raises(VTSumError, match=r"^extract: videos must have names of their own, got .*a\.mp4 and .*a\.avi"):
        extract([films, tmp_path], tmp_path / "f")
    with pytest.raises(VTSumError, match=r"^extract: .*nowhere\.mp4: no such file"):
        extract([films, films / "nowhere.mp4"], tmp_path / "f")


def test_processes_give_the_same_and_one_bad_file_stops_nobody(films, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/bad.mp4").write_text("no video")
    (tmp_path / "list").write_text(f"{films}/**/*.m*\n")
    extract([films], tmp_path / "one")
    words = ["extract", str(tmp_path / "in"), f"@{tmp_path / 'list'}", "-o", str(tmp_path / "two"), "--workers", "2"]
    done = forked.run([sys.executable, "-m", "vtsum", *words], env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stdout == f"2 videos encoded, 1 failed; 18 frames of 256 numbers, in {tmp_path / 'two'}\n"
    assert "bad.mp4" in done.stderr
    for name in ("a", "b"):
        one, two = (read_array(tmp_path / folder / f"{name}.npz", "features") for folder in ("one", "two"))
        np.testing.assert_allclose(one, two, atol=1e-5)
    late = extract([films], tmp_path / "late", limit=0.01)
    assert set(late.failed) == {str(films / "a.mp4"), str(films / "below/b.mkv")}
    for path, why in late.failed.items():
        assert why == f"{path}: took longer than the limit of 0.01 s"


def test_another_video_of_the_same_name_is_refused(films, tmp_path, numbers):
    extract([films / "a.mp4"], tmp_path / "f")
    shutil.copy(films / "a.mp4", tmp_path / "a.mov")
    with pytest.raises(VTSumError, match=r"names of their own, got .*a\.mov, and a\.mp4 is in"):
        extract([tmp_path / "a.mov"], tmp_path / "f")


def test_runs_side_by_side_keep_each_others_entries(films, tmp_path):
    one, two = (FeatureFolder(tmp_path, NumberEncoder(), 1.0) for _ in range(2))
    one.add("a", films / "a.mp4", np.zeros((6, 3), np.float32), 6.0)
    two.add("b", films / "below/b.mkv", np.zeros((12, 3), np.float32), 11.4)
    again = FeatureFolder(tmp_path, NumberEncoder(), 1.0)
    assert again.has("a", films / "a.mp4")
    assert again.has("b", films / "below/b.mkv")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"fps": 0}, "fps must be 0.0001 to 1000, got 0"),
        ({"batch_size": 0}, "batch_size must be 1 to 1048576, got 0"),
        ({"device": "nonesuch"}, "device must be one that PyTorch can use here, got 'nonesuch'"),
        ({"encoder": "nonesuch"}, "must be one of embedded, "),
    ],
)
def test_mistakes(films, tmp_path, options, told):
    with pytest.raises(VTSumError, match=told):
        extract([films], tmp_path / "f", **options)
    assert not (tmp_path / "f").exists()


def test_broken_videos_are_told_and_the_others_done(films, tmp_path, numbers, capsys):
    (tmp_path / "in").mkdir()
    shutil.copy(films / "below/b.mkv", tmp_path / "in/whole.mkv")
    (tmp_path / "in/empty.mp4").touch()
    (tmp_path / "in/cut.mp4").write_bytes((films / "a.mp4").read_bytes()[:400])
    (tmp_path / "in/half.mkv").write_bytes(
        (films / "below/b.mkv").read_bytes()[: (films / "below/b.mkv").stat().st_size // 2]
    )
    assert cli.main(["extract", str(tmp_path / "in"), "-o", str(tmp_path / "f")]) == 2
    printed = capsys.readouterr()
    half = len(read_array(tmp_path / "f/half.npz", "features"))
    assert 1 <= half < 12
    assert printed.out == f"2 videos encoded, 2 failed; {12 + half} frames of 3 numbers, in {tmp_path / 'f'}\n"
    errors = printed.err.splitlines()
    assert len(errors) == 3
    assert "note: half: " in errors[0]
    assert "the video breaks off at" in errors[0]
    assert errors[1].startswith(f"vtsum: probe: {tmp_path}/in/cut.mp4: must be a video file")
    assert errors[2] == f"vtsum: probe: {tmp_path}/in/empty.mp4: must be a video file, got an empty file (0 bytes)"
    assert sorted(path.name for path in (tmp_path / "f").glob("*.npz")) == ["half.npz", "whole.npz"]
    assert cli.main(["extract", str(films), "-o", str(tmp_path / "g"), "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["extract", str(films), "-o", str(tmp_path / "g")]) == 0
    assert capsys.readouterr().out == f"0 videos encoded, 2 there already; 0 frames of 3 numbers, in {tmp_path / 'g'}\n"


def test_full_disk_is_told(films, tmp_path, numbers, monkeypatch):
    def full(*arguments: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(VTSumError, match="must be writable and have room: the disk is full"):
        extract([films], tmp_path / "f")
    assert list((tmp_path / "f").glob("*.npz")) == []
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == [".manifest.json.lock", "manifest.json"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_leaves_nothing_half_written(films, tmp_path, number):
    """A run that was stopped is continued by the next."""
    videos = tmp_path / "in"
    videos.mkdir()
    for n in range(60):
        os.link(films / "below/b.mkv", videos / f"v{n:02d}.mkv")
    command = [sys.executable, "-m", "vtsum.cli", "extract", str(videos), "-o", str(tmp_path / "f")]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.time() + 60
        while not (tmp_path / "f/v01.npz").exists():
            assert process.poll() is None, process.communicate()
            assert time.time() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode != 0, (out, err)
    assert "Traceback" not in err
    left = {path.name for path in (tmp_path / "f").iterdir() if path.name != ".manifest.json.lock"}
    held = json.loads((tmp_path / "f/manifest.json").read_text())["videos"]
    written = {name.removesuffix(".npz") for name in left - {"manifest.json"}}
    assert all(name.endswith(".npz") and not name.startswith(".") for name in left - {"manifest.json"})
    assert written <= set(held)  # what the manifest does not name is the user's
    assert {name for name, entry in held.items() if entry["frames"]} <= written  # and the number of frames comes last
    assert 2 <= len(written) < 60
    for name in written:
        assert read_array(tmp_path / "f" / f"{name}.npz", "features").shape == (12, 256)


def test_what_a_killed_run_left_half_written_is_swept(films, tmp_path, numbers):
    out, left = tmp_path / "out", "0123456789abcdef.part"
    extract([films / "a.mp4"], out)
    (tmp_path / "mine").write_text("mine")
    for name in (f".a.npz.{left}", f".manifest.json.{left}", f".b.npz.{left}", ".a.npz.notes.part", f"a.npz.{left}"):
        (out / name).write_text("half")
    (out / ".a.npz.fedcba9876543210.part").symlink_to(tmp_path / "mine")
    extract([films / "a.mp4"], out)
    kept = [".a.npz.fedcba9876543210.part", ".a.npz.notes.part", f".b.npz.{left}", f"a.npz.{left}"]
    assert sorted(os.listdir(out)) == sorted([*kept, "a.npz", "manifest.json", ".manifest.json.lock"])
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_another_run_is_writing_is_not_swept(films, tmp_path, numbers, monkeypatch):
    """It holds the lock as long as a file has but its temporary name."""
    written, told = features.write_npz, []

    def write(path, **arrays):
        other = os.open(tmp_path / "out" / ".manifest.json.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
        told.append(path)
        written(path, **arrays)

    monkeypatch.setattr(features, "write_npz", write)
    extract([films / "a.mp4"], tmp_path / "out")
    assert told == [tmp_path / "out" / "a.npz"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"videos": 5}, '5 in "videos", which must be an object'),
        ({"videos": {"a": 5}}, '5 in "a", which must be an object'),
        ({"videos": {"a": {}}}, 'no "source"'),
        ({"videos": {"a": {"source": "a.mp4", "bytes": "many", "frames": 1}}}, '"many" in "bytes"'),
        ({"fps": "x"}, '"x" in "fps", which must be a number'),
        ({"weights_sha256": 5}, '5 in "weights_sha256", which must be text'),
        ({"weights_sha256": "b" * 64, "encoder": ["x"]}, '["x"] in "encoder", which must be text'),
    ],
)
def test_what_is_wrong_in_a_manifest_is_told_in_the_files_words(films, tmp_path, numbers, change, told):
    extract([films / "a.mp4"], tmp_path)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(VTSumError, match="must be a manifest of features, got: ") as caught:
        extract([films], tmp_path)
    assert told in str(caught.value)
