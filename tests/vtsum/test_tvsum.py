"""Loaders of TVSum and SumMe: whole files, and one clear line for each way they can be broken."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from vtsum.data.frames import FRAME_INDEX_RATE, read_frames, read_teacher
from vtsum.data.tvsum import Caption, Split, load_captions, load_splits, load_summe, load_tvsum
from vtsum.errors import VTSumError


def write_h5(
    path: Path, change: Callable[[h5py.Group], None] = lambda group: None, keys: tuple[int, ...] = (2, 10, 1)
) -> Path:
    """A small file in the schema: 100 frames, 7 picks, 3 shots, 20 raters; `change` breaks it."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for key in keys:
            group = file.create_group(f"video_{key}")
            group["video_name"], group["title"], group["category"] = f"id{key}", f"Title {key} é", "VT"
            group["fps"], group["n_frames"], group["picks"] = 30.0, 100, np.arange(0, 100, 15)
            group["features"] = rng.random((7, 4), dtype=np.float32)
            group["user_scores"] = rng.integers(1, 6, (20, 100), dtype=np.uint8)
            group["user_summary"] = rng.integers(0, 2, (20, 100)).astype(np.float32)
            group["change_points"] = np.array([[0, 29], [30, 30], [31, 99]])
            group["n_frame_per_seg"] = np.array([30, 1, 69])
            group["gtscore"] = rng.random(7, dtype=np.float32)
            change(group)
    return path


def replace(name: str, value: object) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        del group[name]
        group[name] = value

    return change


def test_videos_come_in_the_order_of_their_numbers(tmp_path):
    path = write_h5(tmp_path / "a.h5")
    videos = load_tvsum(path)
    assert [video.key for video in videos] == ["video_1", "video_2", "video_10"]
    video = videos[0]
    assert (video.name, video.title, video.category, video.dataset) == ("id1", "Title 1 é", "VT", "TVSum")
    assert video.duration == pytest.approx(100 / 30)
    with h5py.File(path) as file:
        assert np.array_equal(video.user_scores, file["video_1/user_scores"])
        assert np.array_equal(video.user_summary, file["video_1/user_summary"][()] == 1)
        assert np.array_equal(video.features, file["video_1/features"])


def test_ratings_at_times_are_those_of_the_frame_shown(tmp_path):
    video = load_tvsum(write_h5(tmp_path / "a.h5"))[0]
    ratings = video.ratings_at(np.array([0.0, 0.034, 1.0, 99.0]))
    assert np.array_equal(ratings, video.user_scores[:, [0, 1, 30, 99]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace("picks", np.arange(0, 115, 15)), "picks must rise within 0 to 99"),
        (replace("picks", np.array([0, 15, 15, 30, 45, 60, 75])), "picks must rise"),
        (replace("user_scores", np.ones((20, 99), np.uint8)), r"user_scores must be .*\[20, 100\], got \[20, 99\]"),
        (replace("user_summary", np.ones((20, 101))), r"user_summary must be of shape \[20, 100\], got \[20, 101\]"),
        (replace("change_points", np.array([[0, 29], [31, 31], [32, 99]])), "change_points must tile frames 0 to 99"),
        (replace("n_frame_per_seg", np.array([30, 2, 68])), "n_frame_per_seg must be the lengths"),
        (replace("features", np.ones((6, 4))), r"features must be of shape \[7, 4\], got \[6, 4\]"),
        (replace("features", np.ones((7, 8193))), r"features must be 1 to 8,192 wide, got shape \[7, 8193\]"),
        (replace("features", np.ones((7, 0))), r"features must be 1 to 8,192 wide, got shape \[7, 0\]"),
        (replace("features", np.full((7, 4), np.nan)), "features must be finite, got nan"),
        (replace("user_scores", np.full((20, 100), np.inf)), "user_scores must be finite, got inf"),
        (lambda group: group.pop("fps"), "must have the field fps, got"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, message):
    path = write_h5(tmp_path / "broken.h5", change, keys=(3,))
    with pytest.raises(VTSumError, match=f"load_tvsum: .*broken.h5: video_3.*{message}"):
        load_tvsum(path)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(VTSumError, match=r"h5_path must be a file, got .*gone\.h5"):
        load_tvsum(tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(VTSumError, match=r"text\.h5 must be an h5 file"):
        load_tvsum(tmp_path / "text.h5")
    h5py.File(tmp_path / "empty.h5", "w").close()
    with pytest.raises(VTSumError, match=r"must have groups video_1, video_2"):
        load_tvsum(tmp_path / "empty.h5")


def test_summe_needs_no_scores(tmp_path):
    path = write_h5(tmp_path / "a.h5", lambda group: group.pop("user_scores"))
    with pytest.raises(VTSumError, match="must have the field user_scores"):
        load_tvsum(path)
    video = load_summe(path)[0]
    assert video.user_scores is None
    with pytest.raises(VTSumError, match="must have importance scores, got SumMe video_1"):
        video.ratings_at(np.zeros(1))


def test_the_file_that_the_field_exchanges_has_the_mean_rating_alone(tmp_path):
    def exchanged(group: h5py.Group) -> None:
        for name in ("user_scores", "fps", "title", "category", "video_name"):
            del group[name]

    path = write_h5(tmp_path / "a.h5", exchanged)
    video = load_tvsum(path, exchanged=True)[0]
    assert (video.user_scores, video.ratings) == (None, None)
    assert np.isnan(video.duration)
    summe = load_summe(path, exchanged=True)[0]
    assert np.array_equal(summe.ratings, summe.user_summary[:, ::15])
    whole = load_tvsum(write_h5(tmp_path / "b.h5"), exchanged=True)[0]
    assert (whole.fps, np.array_equal(whole.ratings, whole.user_scores[:, ::15])) == (30.0, True)


def test_captions_in_seconds(tmp_path):
    path = tmp_path / "captions.json"
    entry = {"start_mmss": "01:05", "end_mmss": "61:00", "caption": " A man\n walks. "}
    path.write_text(json.dumps({"video_1": [entry]}))
    assert load_captions(path) == {"video_1": [Caption(65.0, 3660.0, "A man walks.")]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_mmss": "00:61"}, "start_mmss must be mm:ss, got '00:61'"),
        ({"end_mmss": None}, "end_mmss must be mm:ss, got null"),
        ({"start_mmss": "00:09"}, "end must not be before start, got 9 to 8 s"),
        ({"caption": " "}, "must have a caption"),
    ],
)
def test_a_wrong_caption_is_named(tmp_path, change, message):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"video_7": [{"start_mmss": "00:01", "end_mmss": "00:08", "caption": "x"} | change]}))
    with pytest.raises(VTSumError, match=rf"captions\.json: video_7\[0\].*{message}"):
        load_captions(path)


def test_splits_never_test_on_a_training_video(tmp_path):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"folds": [{"train": ["video_1"], "test": ["video_2"]}]}))
    split = load_splits(path)["folds"][0]
    assert (split.train, split.test) == (("video_1",), ("video_2",))
    path.write_text(json.dumps({"folds": [{"train": ["video_1", "video_2"], "test": ["video_2"]}]}))
    with pytest.raises(VTSumError, match=r"folds\[0\] must not train on a test video, got \['video_2'\]"):
        load_splits(path)
    path.write_text("{")
    with pytest.raises(VTSumError, match="must be JSON, got"):
        load_splits(path)


@pytest.mark.parametrize("name", ["splits.json", "splits.yml"])
def test_splits_as_others_exchange_them(tmp_path, name):
    """JSON is YAML too, as far as these files go."""
    path, folder = tmp_path / name, "../datasets/eccv16_dataset_tvsum_google_pool5.h5"
    path.write_text(json.dumps([{"train_keys": [f"{folder}/video_1", "video_3"], "test_keys": [f"{folder}/video_2"]}]))
    assert load_splits(path) == {"splits": [Split(("video_1", "video_3"), ("video_2",))]}
    path.write_text(json.dumps([{"train_keys": ["video_1", "a/video_1"], "test_keys": ["video_2"]}]))
    with pytest.raises(VTSumError, match=r"splits\[0\]: train must name each video once"):
        load_splits(path)
    path.write_text(json.dumps([{"train_keys": ["video_1"]}]))
    with pytest.raises(VTSumError, match=r"splits\[0\] must have the lists train and test, got"):
        load_splits(path)


def test_splits_in_yaml_are_plain_yaml(tmp_path):
    path = tmp_path / "splits.yaml"
    path.write_text("- train_keys: [video_1]\n  test_keys: [x/video_2]\n")
    assert load_splits(path)["splits"][0].test == ("video_2",)
    path.write_text("- &a [video_1]\n- *a\n")
    with pytest.raises(VTSumError, match=r"load_splits: .*splits\.yaml: line 2: must be plain YAML without aliases"):
        load_splits(path)


def jpeg(color: tuple[int, int, int], size: tuple[int, int] = (16, 12)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_frames_come_in_order_with_their_index(tmp_path):
    path = tmp_path / "frames.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index, value in ((10, 200), (2, 50), (0, 10)):
            archive.writestr(f"{index:05d}.jpg", jpeg((value, 0, 0)))
    indices, images = read_frames(path)
    assert indices.tolist() == [0, 2, 10]
    assert images.shape == (3, 12, 16, 3)
    assert np.allclose(images[..., 0].mean(axis=(1, 2)), [10, 50, 200], atol=3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("00004.jpg", jpeg((1, 2, 3))[:200], "00004.jpg must be a whole JPEG"),
        ("00004.jpg", b"no picture", "00004.jpg must be a whole JPEG"),
        ("00004.jpg", jpeg((1, 2, 3), (8, 8)), "00004.jpg must be 12x16, got 8x8"),
        ("notes.txt", b"", "must hold frames named like 00042.jpg, got"),
        ("0.jpg", jpeg((1, 2, 3)), "must hold each index once"),
    ],
)
def test_a_broken_frame_is_named(tmp_path, name, content, message):
    path = tmp_path / "frames.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("00000.jpg", jpeg((0, 0, 0)))
        archive.writestr(name, content)
    with pytest.raises(VTSumError, match=rf"read_frames: .*frames\.zip.*{message}"):
        read_frames(path)


def test_a_damaged_zip_is_named(tmp_path):
    path = tmp_path / "frames.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("00000.jpg", jpeg((0, 0, 0)))
    content = bytearray(path.read_bytes())
    content[60] ^= 255  # within the JPEG: the checksum no longer holds
    path.write_bytes(content)
    with pytest.raises(VTSumError, match=r"00000\.jpg must be a whole JPEG"):
        read_frames(path)
    path.write_bytes(bytes(content[:100]))
    with pytest.raises(VTSumError, match=r"frames\.zip must be a zip file"):
        read_frames(path)


def test_teacher_features_are_scaled(tmp_path):
    path = tmp_path / "teacher.npz"
    np.savez(
        path, index=np.array([0, 2], np.int32), features=np.array([[0, 4], [8, 255]], np.uint8), scale=np.float32(0.25)
    )
    index, features = read_teacher(path)
    assert index.tolist() == [0, 2]
    assert features.dtype == np.float32
    assert features.tolist() == [[0.0, 1.0], [2.0, 63.75]]
    np.savez(path, index=np.array([0]), features=np.zeros((2, 2), np.uint8), scale=np.float32(1))
    with pytest.raises(VTSumError, match=r"features must be \[N, C\] and index \[N\]"):
        read_teacher(path)
    np.savez(path, index=np.array([0]))
    with pytest.raises(VTSumError, match="must hold an array 'features'"):
        read_teacher(path)


def test_the_whole_of_tvsum(shared):
    videos = load_tvsum(shared / "tvsum/tvsum.h5")
    assert [video.key for video in videos] == [f"video_{i}" for i in range(1, 51)]
    assert all(video.user_scores.shape == (20, video.n_frames) for video in videos)
    assert {int(value) for video in videos for value in np.unique(video.user_scores)} == {1, 2, 3, 4, 5}
    keys = {video.key for video in videos}
    captions, splits = load_captions(shared / "tvsum/captions.json"), load_splits(shared / "tvsum/splits.json")
    assert captions.keys() == keys
    for video in videos:
        spans = [(caption.start, caption.end) for caption in captions[video.key]]
        assert spans[0][0] == 0.0
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))
        assert spans[-1][0] <= video.duration + 0.5
    folds = splits["disjoint_folds"]
    assert sorted(key for fold in folds for key in fold.test) == sorted(keys)
    assert all(len(fold.train) == 40 for fold in folds)


def test_stored_frames_and_teacher_features_belong_together(shared):
    video = load_tvsum(shared / "tvsum/tvsum.h5")[0]
    indices, images = read_frames(shared / f"tvsum/frames/{video.name}.zip")
    teacher_indices, features = read_teacher(shared / f"tvsum/teacher/{video.name}.npz")
    assert np.array_equal(indices, teacher_indices)
    assert images.shape[1:] == (128, 128, 3)
    assert features.shape == (len(indices), 1024)
    assert indices[-1] / FRAME_INDEX_RATE == pytest.approx(video.duration, abs=1.0)


def test_the_whole_of_summe(shared):
    videos = load_summe(shared / "summe/summe.h5")
    assert len(videos) == 25
    assert {len(video.user_summary) for video in videos} == {15, 16, 17, 18}
