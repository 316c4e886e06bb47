"""VideoXum's files as items and batches: order, cuts, text, and what broken ones are told."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.vtsum.training_corpus import entry
from vtsum.data.collate import collate
from vtsum.data.feature_files import array_header, read_array, write_npz
from vtsum.data.videoxum import VideoXumDataset, join_sentences, parse_annotation, read_annotations
from vtsum.errors import VTSumError

C, D = 6, 4


def write(root: Path, entries: list[dict[str, Any]], frames: dict[str, int], split: str = "train") -> Path:
    (root / "anno").mkdir(parents=True, exist_ok=True)
    (root / "anno" / f"{split}_videoxum.json").write_text(json.dumps(entries))
    for number, (video, count) in enumerate(frames.items()):
        rng = np.random.default_rng(number)
        write_npz(root / "feat/blip" / f"{video}.npz", features=rng.normal(size=(count, C)).astype(np.float16))
        write_npz(
            root / "feat/vt_clipscore" / f"{video}.npz",
            vision=rng.normal(size=(count, D)).astype(np.float32),
            text=rng.normal(size=(1, D)).astype(np.float32),
        )
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four videos; features and labels differ by up to two frames, two durations are equal."""
    entries = [entry("long", 9.5, 9), entry("same_b", 5.0, 5), entry("short", 4.2, 4), entry("same_a", 5.0, 5)]
    return write(tmp_path, entries, {"long": 11, "same_b": 5, "short": 3, "same_a": 5})


def test_items_by_duration_hold_what_the_files_hold(root):
    dataset = VideoXumDataset(root, "train", with_clip=True)
    assert dataset.video_ids == ["short", "same_b", "same_a", "long"]
    assert dataset.lengths == [4, 5, 5, 9]
    assert (len(dataset), dataset.width) == (4, C)
    item = dataset[3]
    assert (item.video_id, item.duration, item.tsum) == ("long", 9.5, "a dog runs fast it sleeps")
    stored = np.load(root / "feat/blip/long.npz")["features"].astype(np.float32)
    assert item.features.dtype == torch.float32
    assert torch.equal(item.features, torch.from_numpy(stored[:9]))
    assert torch.equal(item.vsum_labels, torch.tensor(entry("long", 9.5, 9)["vsum_onehot"], dtype=torch.float32))
    clip = np.load(root / "feat/vt_clipscore/long.npz")
    assert torch.equal(item.clip_vision, torch.from_numpy(clip["vision"][:9]))
    assert torch.equal(item.clip_text, torch.from_numpy(clip["text"]))
    short = dataset[0]  # features end before the labels
    assert torch.equal(short.vsum_labels, torch.tensor(entry("short", 4.2, 4)["vsum_onehot"])[:, :3].float())
    assert VideoXumDataset(root, "train")[3].clip_vision is None


def test_frames_beyond_the_limit_are_cut(root):
    whole, cut = VideoXumDataset(root), VideoXumDataset(root, max_frames=4)
    assert cut.lengths == [4, 4, 4, 4]
    assert torch.equal(cut[3].features, whole[3].features[:4])
    assert torch.equal(cut[3].vsum_labels, whole[3].vsum_labels[:, :4])


def test_folders_can_be_given_one_by_one(root):
    dataset = VideoXumDataset(
        ann_root=root / "anno", video_embeddings_root=root / "feat/blip", clip_root=root / "feat/vt_clipscore"
    )
    assert dataset[1].clip_text.shape == (1, D)
    with pytest.raises(VTSumError, match="root or video_embeddings_root must be given"):
        VideoXumDataset(ann_root=root / "anno")
    with pytest.raises(VTSumError, match=r"ann_root must be a folder, got .*nowhere"):
        VideoXumDataset(root / "nowhere")
    with pytest.raises(VTSumError, match="split must be one of train, val, test, got 'valid'"):
        VideoXumDataset(root, "valid")


@pytest.mark.parametrize(
    ("sentences", "expected"),
    [
        (["A man walks.", "He sits."], "a man walks he sits"),
        (["A man walks", "He sits"], "a man walkshe sits"),
        (['  Two  (2) dogs: *play* #1; "hi" ~!\n'], "two 2 dogs play 1 hi"),
        (["a\tb", " it's, ok?"], "a\tb it's, ok?"),
        (["x " * 600], " ".join(["x"] * 512)),
    ],
)
def test_text_is_prepared_as_published(sentences, expected):
    assert join_sentences(sentences) == expected


def test_padded_batch(root):
    dataset = VideoXumDataset(root, with_clip=True)
    items = [dataset[i] for i in (0, 3, 1)]
    batch = collate(items)
    assert batch.video_ids == ["short", "long", "same_b"]
    assert batch.lengths == [3, 9, 5]
    assert batch.video_embeddings.shape == (3, 9, C)
    assert batch.vsum_labels.shape == (3, 10, 9)
    assert batch.video_mask.dtype == torch.bool
    for row, item in enumerate(items):
        n = len(item.features)
        assert batch.video_mask[row].tolist() == [True] * n + [False] * (9 - n)
        assert torch.equal(batch.video_embeddings[row, :n], item.features)
        assert not batch.video_embeddings[row, n:].any()
        assert torch.equal(batch.vsum_labels[row, :, :n], item.vsum_labels)
        assert not batch.vsum_labels[row, :, n:].any()
        assert torch.equal(batch.clip_vision[row], item.clip_vision)
    inputs = batch.to("cpu", torch.bfloat16).model_inputs()
    assert sorted(inputs) == ["tsum_labels", "video_embeddings", "video_mask", "vsum_labels"]
    assert inputs["video_embeddings"].dtype == torch.bfloat16
    assert inputs["vsum_labels"].dtype == torch.float32


def test_packed_batch(root):
    dataset = VideoXumDataset(root)
    items = [dataset[i] for i in (0, 3, 1)]
    batch = collate(items, packed=True)
    assert batch.cu_seqlens.tolist() == [0, 3, 12, 17]
    assert batch.cu_seqlens.dtype == torch.int32
    assert batch.lengths == [3, 9, 5]
    assert torch.equal(batch.video_embeddings, torch.cat([item.features for item in items]))
    assert torch.equal(batch.vsum_labels[:, 3:12], items[1].vsum_labels)
    assert sorted(batch.model_inputs()) == ["cu_seqlens", "tsum_labels", "video_embeddings", "vsum_labels"]


def test_batches_from_several_workers(root):
    loader = DataLoader(VideoXumDataset(root), batch_size=3, num_workers=2, collate_fn=partial(collate, packed=True))
    batches = list(loader)
    assert [batch.video_ids for batch in batches] == [["short", "same_b", "same_a"], ["long"]]
    assert batches[1].lengths == [9]


def test_videos_that_cannot_share_a_batch(root):
    dataset = VideoXumDataset(root)
    short = dataset[0]
    wider = type(short)("wide", 1.0, torch.zeros(3, C + 1), torch.zeros(10, 3), "x")
    lonely = type(short)("lonely", 1.0, torch.zeros(3, C), torch.zeros(9, 3), "x")
    with pytest.raises(VTSumError, match=r"width 6 \(short\), got 7 \(wide\)"):
        collate([short, wider])
    with pytest.raises(VTSumError, match=r"10 annotators \(short\), got 9 \(lonely\)"):
        collate([short, lonely])
    with pytest.raises(VTSumError, match="at least one video"):
        collate([])


def test_videos_that_nobody_annotated(tmp_path):
    entries = [entry("a", 5.0, 5, vsum_onehot=None), entry("b", 4.0, 4, vsum_onehot=None, sampled_frames=None)]
    root = write(tmp_path, entries, {"a": 6, "b": 9})
    with pytest.raises(VTSumError, match="entry 0: a: vsum_onehot must be there"):
        VideoXumDataset(root)
    dataset = VideoXumDataset(root, unannotated=True)
    assert dataset.lengths == [4, 5]
    batch = collate([dataset[0], dataset[1]])
    assert batch.vsum_labels.shape == (2, 0, 9)
    assert batch.lengths == [9, 6]
    assert "vsum_labels" not in batch.model_inputs()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"duration": None}, "v: duration must be there"),
        ({"duration": -1}, "v: duration must be a number of seconds above 0, up to 10,000,000, got -1"),
        ({"tsum": None}, "v: tsum must be there"),
        ({"tsum": [1]}, "v: tsum must be a list of sentences"),
        ({"tsum": [" ."]}, "v: tsum must hold at least one word"),
        ({"sampled_frames": 0}, "v: sampled_frames must be a whole number from 1 to 10,000,000, got 0"),
        ({"timestamps": [[1]]}, "v: timestamps must be pairs of seconds"),
        ({"timestamps": [[0, 1e300]]}, r"v: timestamps must be .* none beyond 10,000,000, got \[\[0, 1e\+300\]\]"),
        ({"timestamps": [["0", "nan"]]}, "v: timestamps must be pairs of seconds"),
        ({"timestamps": ["12"]}, "v: timestamps must be pairs of seconds"),
        ({"vsum_onehot": []}, r"v: vsum_onehot must be \[annotators x frames\]"),
        ({"vsum_onehot": [[], []]}, r"v: vsum_onehot must have annotators and frames, got \[2, 0\]"),
        ({"vsum_onehot": [[0, 1], [0]]}, r"v: vsum_onehot must be .* got rows of \[1, 2\] numbers"),
        ({"vsum_onehot": [[0, 1], [0, 0.5]]}, "v: vsum_onehot must be 0 or 1, got 0.5 for annotator 1, frame 1"),
        ({"video_id": "../v"}, "video_id must be a file's name"),
        ({"video_id": None}, "video_id must be a file's name"),
    ],
)
def test_broken_entries_are_told(changes, told):
    with pytest.raises(VTSumError, match=told):
        parse_annotation({name: value for name, value in (entry("v", 4.0, 4) | changes).items() if value is not None})


def test_broken_annotation_files_are_told(root):
    path = root / "anno/train_videoxum.json"
    text = path.read_text()
    twice = [*json.loads(text), json.loads(text)[0]]
    path.write_text(json.dumps(twice))
    with pytest.raises(VTSumError, match="entry 4: long: must be there once, got it in entry 0"):
        read_annotations(path)
    half = ('["é", ' + text)[: len(text) // 2]
    path.write_text(half)
    with pytest.raises(VTSumError, match=r"train_videoxum\.json must be JSON, got: .* \(char \d+\)"):
        VideoXumDataset(root)
    path.write_bytes(b'["\xff"]')
    with pytest.raises(VTSumError, match="JSON in UTF-8, got byte 0xff at 2"):
        VideoXumDataset(root)
    path.write_text("{}")
    with pytest.raises(VTSumError, match="must hold a list, got an object"):
        VideoXumDataset(root)
    path.unlink()
    with pytest.raises(VTSumError, match=r"train_videoxum\.json must be a readable file, got: no such file"):
        VideoXumDataset(root)


def test_broken_feature_files_are_told(root):
    dataset = VideoXumDataset(root, with_clip=True)
    path = root / "feat/blip/short.npz"
    good = path.read_bytes()

    def told(words: str) -> None:
        with pytest.raises(VTSumError, match=words) as caught:
            dataset[0]
        assert str(path) in str(caught.value)

    path.write_bytes(good[:-30])
    told("must be a whole npz file, got one that is cut off")
    flipped = bytearray(good)
    flipped[good.index(b"\n") + 9] ^= 255  # within the numbers, which begin after the header's line end
    path.write_bytes(bytes(flipped))
    told("features must be a whole NumPy array, got: Bad CRC-32")
    path.write_bytes(b"")
    told("empty file")
    path.write_bytes(b"no archive at all")
    told("no zip archive")
    path.unlink()
    told("must exist")
    write_npz(path, feature=np.zeros((3, C)))
    told("must hold an array 'features', got feature")
    write_npz(path, features=np.zeros(3))
    told(r"features must be \[T, C\], got \[3\]")
    write_npz(path, features=np.zeros((0, C)))
    told(r"features must be \[T, C\], got \[0, 6\]")
    write_npz(path, features=np.zeros((7, C)))
    told(r"features must have as many frames as the labels \(4\), give or take 2, got 7")
    np.savez(path, features=np.array([{"a": 1}], object))
    told("must hold real numbers, got dtype object")
    write_npz(path, features=np.array([["a"]]))
    told("must hold real numbers")


def test_feature_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_npz(path, features=np.arange(6.0).reshape(2, 3))
    assert array_header(path, "features") == ((2, 3), np.dtype(np.float64))
    assert read_array(path, "features").dtype == np.float32

    def full(file: Any, **arrays: np.ndarray) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        write_npz(path, features=np.zeros((1, 1)))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    assert read_array(path, "features").tolist() == [[0, 1, 2], [3, 4, 5]]
