"""ActivityNet Captions: cleaning, and one clear line for a broken file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.vtsum.hostile import refused
from vtsum import cli
from vtsum.data.activitynet import (
    ActivityNetVideo,
    load_activitynet_captions,
    videoxum_entries,
    write_videoxum_annotations,
)
from vtsum.data.feature_files import write_npz
from vtsum.data.videoxum import VideoXumDataset, join_sentences, read_annotations
from vtsum.errors import VTSumError


def write(path: Path, content: object) -> Path:
    text = json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["train.json", "train.json.gz"])
def test_sentences_are_cleaned_and_spans_put_right(tmp_path, name):
    entry = {
        "duration": 20.5,
        "timestamps": [[0, 10], [15, 5], [18, 25], [1, 2]],
        "sentences": ["A man  runs.", "  He\nfalls. ", "He gets up.", " "],
    }
    videos = load_activitynet_captions(write(tmp_path / name, {"v_1": entry, "v_0": entry}))
    expected = ((0.0, 10.0), (5.0, 15.0), (18.0, 20.5)), ("A man runs.", "He falls.", "He gets up.")
    assert videos == [ActivityNetVideo("v_1", 20.5, *expected), ActivityNetVideo("v_0", 20.5, *expected)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold an object, got a list"),
        (
            {"v_1": {"duration": 1, "timestamps": []}},
            r"v_1 must have duration, timestamps and sentences, got \['duration'",
        ),
        ({"v_1": {"duration": 1, "timestamps": [[0]], "sentences": ["x"]}}, "v_1: timestamps must be pairs of seconds"),
        (
            {"v_1": {"duration": 1, "timestamps": [[0, 1]], "sentences": [True]}},
            "v_1: sentences must be a list of texts",
        ),
        ({"v_1": {"duration": 1, "timestamps": [[0, 1]], "sentences": []}}, "a sentence for each span, got 1 and 0"),
        ({"v_1": 3}, "v_1 must have duration, timestamps and sentences, got a whole number"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, content, message):
    path = write(tmp_path / "a.json", content)
    with pytest.raises(VTSumError, match=rf"load_activitynet_captions: .*a\.json.*{message}"):
        load_activitynet_captions(path)


@pytest.mark.parametrize("value", ["1e300", "-5", "0", "NaN", "1" + "0" * 400, "10000001", '"1e300"', '"10"', "true"])
def test_a_number_that_is_no_length_of_a_video_is_refused_by_name(tmp_path, value):
    path = tmp_path / "a.json"
    path.write_text(f'{{"v_1": {{"duration": {value}, "timestamps": [[0, 1]], "sentences": ["A cat."]}}}}')
    told = "must be JSON, got: a number" if value == "NaN" or len(value) > 400 else ": v_1: duration must be a number"
    with pytest.raises(VTSumError, match=rf"a\.json{' ' * (told[0] == 'm')}{told}"):
        load_activitynet_captions(path)


def test_the_command_writes_nothing_where_a_duration_is_none(tmp_path):
    path = write(tmp_path / "a.json", {"v_1": entry(8.0, "A cat."), "v_2": entry(1e300, "A cat.")})
    assert "v_2: duration must be" in refused("data", "activitynet", str(path), "-o", str(tmp_path / "o"), names=path)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("value", ["1e300", "-1e300", '"nan"', '"inf"', '"3"', "false", str(2**63)])
def test_a_time_that_is_none_is_not_clipped_to_the_video(tmp_path, value):
    path = tmp_path / "a.json"
    path.write_text(f'{{"v_1": {{"duration": 9, "timestamps": [[0, {value}]], "sentences": ["A cat."]}}}}')
    with pytest.raises(VTSumError, match="v_1: timestamps must be pairs of seconds, none beyond 10,000,000"):
        load_activitynet_captions(path)


@pytest.mark.parametrize(
    "features", [np.float32(3), np.zeros((0, 4), np.float32), np.zeros((10_000_001, 1), np.float16)]
)
def test_features_that_are_no_frames_are_refused_where_they_give_the_length(tmp_path, features):
    captions = write(tmp_path / "val.json", {"v_a": entry(3.0, "A cat sleeps.")})
    write_npz(tmp_path / "v_a.npz", features=features)
    with pytest.raises(VTSumError, match=r"v_a\.npz: features must "):
        videoxum_entries(load_activitynet_captions(captions), tmp_path)


def test_a_broken_file_is_named(tmp_path):
    with pytest.raises(VTSumError, match=r"gone\.json must be a readable file, got: no such file"):
        load_activitynet_captions(tmp_path / "gone.json")
    path = write(tmp_path / "a.json.gz", {"v_1": {"duration": 1, "timestamps": [], "sentences": []}})
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(VTSumError, match=r"a\.json\.gz must be a whole gzip file"):
        load_activitynet_captions(path)


def test_the_whole_training_file(shared):
    videos = load_activitynet_captions(shared / "activitynet/train.json.gz")
    assert len(videos) == 10009
    assert sum(len(video.sentences) for video in videos) == 37421
    assert all(0 <= start <= end <= video.duration for video in videos for start, end in video.timestamps)
    assert all(sentence == " ".join(sentence.split()) for video in videos for sentence in video.sentences)


def entry(duration: float, *sentences: str) -> dict[str, object]:
    return {
        "duration": duration,
        "timestamps": [[n, n + 1.5] for n in range(len(sentences))],
        "sentences": list(sentences),
    }


def test_captions_as_annotations_without_marks(tmp_path, capsys):
    captions = write(
        tmp_path / "val.json.gz",
        {
            "v_b": entry(8.2, "A man runs", " Does he fall?", "He (almost) does."),
            "v_a": entry(3.0, "..."),
            "v_c": entry(5, "X"),
        },
    )
    for video, frames in (("v_b", 9), ("v_other", 3)):
        write_npz(tmp_path / "feat/blip" / f"{video}.npz", features=np.zeros((frames, 4), np.float32))
    path = tmp_path / "anno/val_videoxum.json"
    assert cli.main(["data", "activitynet", str(captions), "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"2 of 3 videos, in {path}\n"
    written = json.loads(path.read_text())
    assert [(e["video_id"], e["duration"], e["sampled_frames"]) for e in written] == [("v_b", 8.2, 9), ("v_c", 5.0, 5)]
    assert written[0]["timestamps"] == [[0, 1.5], [1, 2.5], [2, 3.5]]
    assert "vsum_onehot" not in written[0]

    features = ["--features", str(tmp_path / "feat/blip")]
    assert cli.main(["data", "activitynet", str(captions), "-o", str(path), *features]) == 2
    assert "must not exist yet (--overwrite replaces it)" in capsys.readouterr().err
    assert cli.main(["data", "activitynet", str(captions), "-o", str(path), "--overwrite", *features]) == 0
    assert capsys.readouterr().out == f"1 of 3 videos, in {path}\n"
    (item,) = VideoXumDataset(tmp_path, "val", unannotated=True)
    assert item.tsum == "a man runs does he fall? he almost does"
    assert (item.features.shape, item.vsum_labels.shape) == ((9, 4), (0, 9))
    assert cli.main(["data", "check", str(tmp_path), "--split", "val", "--unannotated"]) == 0
    assert [p.name for p in path.parent.iterdir()] == ["val_videoxum.json"]


def test_captions_without_a_fitting_video_are_told(tmp_path, capsys):
    captions = write(tmp_path / "val.json", {"v_a": entry(3.0, "A cat sleeps.")})
    target = ["-o", str(tmp_path / "out.json")]
    assert cli.main(["data", "activitynet", str(captions), *target, "--features", str(tmp_path)]) == 2
    assert "must hold videos with text (and features), got none of 1" in capsys.readouterr().err
    assert cli.main(["data", "activitynet", str(captions), *target, "--features", str(tmp_path / "no")]) == 2
    assert "features must be a folder" in capsys.readouterr().err
    assert cli.main(["data", "activitynet", str(captions), "-o", str(captions / "x.json")]) == 2
    assert "must be writable" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_published_captions_as_annotations(shared, tmp_path):
    videos = load_activitynet_captions(shared / "activitynet" / "val_1.json.gz")
    write_videoxum_annotations(videoxum_entries(videos), tmp_path / "val_videoxum.json")
    read = read_annotations(tmp_path / "val_videoxum.json", unannotated=True)
    assert len(read) == len(videos) > 1000
    assert all(a.frames >= a.duration for a in read)
    assert all(join_sentences(a.tsum).isprintable() for a in read)
