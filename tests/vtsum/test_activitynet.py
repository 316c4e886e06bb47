"""ActivityNet Captions: cleaning, and one clear line for a broken file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from vtsum.data.activitynet import ActivityNetVideo, load_activitynet_captions
from vtsum.errors import VTSumError


def write(path: Path, content: object) -> Path:
    text = json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["train.json", "train.json.gz"])
def test_sentences_are_cleaned_and_spans_put_right(tmp_path: Path, name: str) -> None:
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
        ([], "must hold an object by video id, got list"),
        (
            {"v_1": {"duration": 1, "timestamps": []}},
            r"v_1 must have duration, timestamps and sentences, got \['duration'",
        ),
        ({"v_1": {"duration": 1, "timestamps": [[0]], "sentences": ["x"]}}, "v_1 must have duration, timestamps"),
        ({"v_1": {"duration": 1, "timestamps": [[0, 1]], "sentences": []}}, "a sentence for each span, got 1 and 0"),
        ({"v_1": 3}, "v_1 must have duration, timestamps and sentences, got int"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, content: object, message: str) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(VTSumError, match=rf"load_activitynet_captions: .*a\.json.*{message}"):
        load_activitynet_captions(path)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VTSumError, match=r"path must be a file, got .*gone\.json"):
        load_activitynet_captions(tmp_path / "gone.json")
    path = write(tmp_path / "a.json.gz", {"v_1": {"duration": 1, "timestamps": [], "sentences": []}})
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(VTSumError, match=r"a\.json\.gz must be readable JSON"):
        load_activitynet_captions(path)


def test_the_whole_training_file(shared: Path) -> None:
    videos = load_activitynet_captions(shared / "activitynet/train.json.gz")
    assert len(videos) == 10009
    assert sum(len(video.sentences) for video in videos) == 37421
    assert all(0 <= start <= end <= video.duration for video in videos for start, end in video.timestamps)
    assert all(sentence == " ".join(sentence.split()) for video in videos for sentence in video.sentences)
