"""The procedural corpus: VideoXum's layout, told by its seed alone, learnable, continued where it was stopped."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import forked
from tests.vtsum.samples import ENVIRONMENT
from tests.vtsum.synthetic_corpus import SHORT, SIZES, synthetic_corpus
from vtsum import cli
from vtsum.data.collate import collate
from vtsum.data.videoxum import VideoXumDataset, join_sentences
from vtsum.errors import VTSumError
from vtsum.recipes import synthetic, tiny_clip
from vtsum.recipes.procedural import EVENT_KINDS
from vtsum.recipes.synthetic import make_corpus
from vtsum.recipes.synthetic_scenes import (
    COLOURS,
    PHRASES,
    Artist,
    CorpusParameters,
    all_sentences,
    annotation,
    plan_video,
)
from vtsum.recipes.tiny_clip import TinyClip, byte_pair_vocabulary

USUAL = CorpusParameters()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_corpus(tmp_path_factory)


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def test_plans_follow_from_the_seed_and_the_number_alone():
    def told(*key: Any) -> str:
        return json.dumps(annotation(plan_video(*key, USUAL), USUAL))

    assert told(3, "train", 7) == told(3, "train", 7)
    assert len({told(seed, split, n) for seed in (0, 1) for split in ("train", "test") for n in range(3)}) == 12
    plan = plan_video(3, "train", 7, USUAL)
    assert np.array_equal(Artist(plan).draw(5.0), Artist(plan).draw(5.0))


def test_events_lie_in_their_scenes_and_videos_vary():
    plans = [plan_video(0, "train", n, USUAL) for n in range(80)]
    for plan in plans:
        assert 40 <= plan.duration <= 160
        assert plan.scenes[0].start == 0
        assert plan.scenes[-1].end == pytest.approx(plan.duration)
        for before, after in zip(plan.scenes, plan.scenes[1:], strict=False):
            assert before.end == after.start
            assert before.scenery != after.scenery
        for scene in plan.events:
            assert scene.start <= scene.event[0] < scene.event[1] <= scene.end
            assert scene.event[1] - scene.event[0] >= 2.98
        assert 1 <= len(plan.events) <= 3
        assert len({scene.kind for scene in plan.events}) == len(plan.events)
    assert {scene.kind for plan in plans for scene in plan.events} == set(EVENT_KINDS)
    assert {len(plan.events) for plan in plans} == {1, 2, 3}
    assert {scene.scenery.colour for plan in plans for scene in plan.scenes} == set(COLOURS)


def test_annotators_mark_events_but_not_quite_the_same():
    shares, on, off, alike = [], [], [], []
    for number in range(80):
        plan = plan_video(0, "train", number, USUAL)
        entry = annotation(plan, USUAL)
        marks = np.array(entry["vsum_onehot"])
        assert marks.shape == (10, plan.frames)
        assert len(entry["timestamps"]) == len(entry["tsum"]) == len(entry["vsum"]) == len(plan.events)
        assert all(len(spans) == 10 for spans in entry["vsum"])
        shown = np.isin(np.arange(plan.frames), [t for n in range(len(plan.events)) for t in plan.event_frames(n)])
        shares.append(marks.mean())
        on.append(marks[:, shown].mean())
        off.append(marks[:, ~shown].mean())
        alike.append(len({row.tobytes() for row in marks}))
    assert 0.13 < np.mean(shares) < 0.17  # VideoXum: 15 %
    assert 0.65 < np.mean(on) < 0.9
    assert 0.01 < np.mean(off) < 0.06
    assert np.mean(alike) > 8


def test_text_is_a_small_language_and_fits_the_decoder():
    words = {word for text in all_sentences() for word in join_sentences([text]).split()} | {"video", "of"}
    assert 40 <= len(words) <= 100
    texts = [join_sentences(plan_video(0, "train", n, USUAL).sentences) for n in range(80)]
    assert max(len(text.split()) for text in texts) <= 25
    assert len(set(texts)) == 80
    assert all(any(text.startswith(phrase) for phrase in PHRASES.values()) for text in texts)


def test_pictures_show_what_the_text_says():
    """The colour said is the ground's, and frames of an event are lively."""
    hits = 0
    for number in range(40):
        plan = plan_video(0, "train", number, USUAL)
        artist, scene = Artist(plan), plan.events[0]
        before, event = artist.draw(scene.start).astype(int), artist.draw(plan.event_frames(0)[1]).astype(int)
        ground = before.mean((0, 1))
        changed = np.abs(event - before).max(2) > 60
        assert changed.mean() > 0.005, scene
        assert (np.abs(artist.draw(scene.event[0] - 0.1).astype(int) - before).max(2) > 60).mean() < 0.001, scene
        strongest = {"red": 0, "green": 1, "blue": 2}.get(scene.scenery.colour)
        if scene.scenery.colour == "grey":
            assert np.ptp(ground) < 8
        elif strongest is not None:
            assert ground.argmax() == strongest
            hits += 1
    assert hits > 5


def test_corpus_has_the_layout(corpus):
    assert sorted(os.listdir(corpus)) == ["anno", "clip", "feat", "manifest.json", "videos", "vocab.txt"]
    manifest = json.loads((corpus / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert manifest["videos"] == {"train": 3, "val": 1, "test": 12}
    for split, count in manifest["videos"].items():
        dataset = VideoXumDataset(corpus, split, with_clip=True)
        assert (len(dataset), dataset.width) == (count, 256)
        items = [dataset[n] for n in range(count)]
        assert [len(item.features) for item in items] == dataset.lengths
        batch = collate(items)
        assert batch.video_embeddings.isfinite().all()
        # the embedded encoder's rows have length 16, whatever they show
        np.testing.assert_allclose(batch.video_embeddings.norm(dim=2)[batch.video_mask], 16, rtol=1e-4)
    from vtsum.model.checkpoint import load_tokenizer

    tokenizer = load_tokenizer(corpus / "vocab.txt")
    words = (corpus / "vocab.txt").read_text().split()
    assert words[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for text in ("a video of " + join_sentences([text]) for text in all_sentences()):
        assert tokenizer.tokenize(text) == text.split()
    assert tokenizer.tokenize("dogs") == ["d", "##o", "##g", "##s"]


def test_features_tell_events_from_dull_frames(corpus):
    """A ridge regression from single frames, fitted on the test videos' first half, finds the marked frames of the
    second: the features are of the pictures, frame by frame."""
    dataset = VideoXumDataset(corpus, "test")
    items = [dataset[n] for n in range(12)]
    x = [np.c_[item.features.numpy(), np.ones(len(item.features))] for item in items]
    y = [item.vsum_labels.mean(0).numpy() for item in items]
    a, b = np.concatenate(x[::2]), np.concatenate(y[::2])
    weights = np.linalg.solve(a.T @ a + 300 * np.eye(a.shape[1]), a.T @ b)
    correlations = [np.corrcoef(p @ weights, q)[0, 1] for p, q in zip(x[1::2], y[1::2], strict=True)]
    print("correlation with held-out annotators:", np.round(correlations, 2))
    assert np.mean(correlations) > 0.6


def test_clip_matches_texts_with_the_frames_they_speak_of(corpus):
    dataset = VideoXumDataset(corpus, "test", with_clip=True)
    items = [dataset[n] for n in range(12)]
    plans = {plan.video_id: plan for plan in (plan_video(5, "test", n, SHORT) for n in range(12))}

    def unit(rows: list[np.ndarray]) -> np.ndarray:
        stacked = np.stack(rows)
        return stacked / np.linalg.norm(stacked, axis=1, keepdims=True)

    shown = [
        np.isin(np.arange(len(item.clip_vision)), [t for n in range(len(p.events)) for t in p.event_frames(n)])
        for item, p in ((item, plans[item.video_id]) for item in items)
    ]
    events = unit([item.clip_vision.numpy()[rows].mean(0) for item, rows in zip(items, shown, strict=True)])
    dull = unit([item.clip_vision.numpy()[~rows].mean(0) for item, rows in zip(items, shown, strict=True)])
    texts = unit([item.clip_text[0].numpy() for item in items])
    scores = events @ texts.T
    own, others = scores.diagonal(), scores[~np.eye(12, dtype=bool)]
    print(f"own text {own.mean():.2f}, others' {others.mean():.2f}, dull frames {(dull * texts).sum(1).mean():.2f}")
    assert own.mean() > others.mean() + 0.4
    assert own.mean() > (dull * texts).sum(1).mean() + 0.1
    assert (scores.argmax(0) == np.arange(12)).mean() > 0.6
    # the stored text is what the folder's own text tower says
    clip = TinyClip.load(corpus / "clip")
    read = clip.text_features([item.tsum for item in items])
    np.testing.assert_allclose(read, [item.clip_text[0].numpy() for item in items], atol=1e-4)


def test_clip_reads_whole_words_and_anything_else(corpus):
    texts = [join_sentences([text]) for text in all_sentences()]
    assert byte_pair_vocabulary(texts) == byte_pair_vocabulary(texts) == byte_pair_vocabulary(texts[::-1])
    tokenizer = TinyClip.load(corpus / "clip").tokenizer
    for text in texts:
        read = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
        assert read == ["<|startoftext|>", *(word + "</w>" for word in text.split()), "<|endoftext|>"]
    odd = "Größe: 7 ½ – naïve 東京"
    assert tokenizer.decode(tokenizer(odd).input_ids, skip_special_tokens=True).replace(" ", "") == "größe:7½–naïve東京"


def test_clip_folder_is_a_frame_encoder(corpus):
    from vtsum.model import load_frame_encoder
    from vtsum.recipes.tiny_clip import shrink

    plan = plan_video(5, "test", 0, SHORT)
    artist = Artist(plan)
    pictures = shrink(np.stack([artist.draw(t) for t in range(4)]))
    encoder = load_frame_encoder(str(corpus / "clip"))
    assert (encoder.image_size, encoder.dim) == (64, 64)
    with np.load(corpus / "feat/vt_clipscore" / f"{plan.video_id}.npz") as stored:
        np.testing.assert_allclose(encoder.encode(pictures), stored["vision"][:4], atol=1e-4)


def test_films_show_the_same_pictures(corpus):
    from vtsum.video import FrameSampler, probe

    plan = plan_video(5, "test", 0, SHORT)
    path = corpus / "videos" / f"{plan.video_id}.mp4"
    assert probe(path).duration == pytest.approx(plan.duration, abs=0.1)
    artist = Artist(plan)
    frames = [frame.image for frame in FrameSampler(path, size=(128, 128))]
    assert len(frames) == plan.frames
    apart = [np.abs(artist.draw(t).astype(int) - frame).mean() for t, frame in enumerate(frames)]
    assert np.mean(apart) < 6


def test_second_run_writes_nothing_and_a_larger_one_adds(corpus, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(corpus, folder)
    before = files(folder)
    drawn: list[str] = []
    draw = Artist.__init__

    def noted(self: Artist, plan: Any, *size: Any) -> None:
        drawn.append(plan.video_id)
        draw(self, plan, *size)

    monkeypatch.setattr(Artist, "__init__", noted)
    make_corpus(folder, **SIZES)
    assert drawn == []
    after = files(folder)
    assert {name: content for name, (_, content) in after.items()} == {n: c for n, (_, c) in before.items()}
    assert {n for n in after if after[n][0] != before[n][0]} <= {"manifest.json"}
    # one more, and a broken one
    (folder / "feat/blip/v_val_00000.npz").write_bytes(before["feat/blip/v_val_00000.npz"][1][:500])
    make_corpus(folder, **{**SIZES, "train": 4})
    assert sorted(drawn) == ["v_train_00003", "v_val_00000"]
    larger = files(folder)
    assert all(larger[name][1] == content for name, (_, content) in before.items() if "npz" in name)
    assert len(VideoXumDataset(folder, "train")) == 4


def test_what_was_stopped_is_continued(corpus, tmp_path):
    folder = tmp_path / "stopped"
    (folder).mkdir()
    shutil.copytree(corpus / "clip", folder / "clip")
    shutil.copy(corpus / "manifest.json", folder)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "videos" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_corpus(folder, **SIZES, progress=stop)
    assert json.loads((folder / "manifest.json").read_text())["complete"] is False
    assert len(list((folder / "feat/blip").iterdir())) == 5
    make_corpus(folder, **SIZES)
    made = {name: content for name, (_, content) in files(folder).items()}
    expected = {name: content for name, (_, content) in files(corpus).items() if "videos" not in name}
    assert made == expected


def test_what_a_killed_process_left_half_written_is_swept(corpus, tmp_path):
    folder, end = tmp_path / "killed", "0123456789abcdef.part"
    shutil.copytree(corpus, folder)
    shutil.rmtree(folder / "clip")
    (folder / ".clip.abcd0123").mkdir()
    half = [".manifest.json", ".vocab.txt", "anno/.val_videoxum.json", "feat/blip/.v_val_00000.npz"]
    half = [*(f"{name}.{end}" for name in (*half, "feat/vt_clipscore/.v_val_00000.npz")), ".clip.abcd0123/config.json"]
    mine = [f"feat/blip/.other.npz.{end}", "feat/blip/.v_val_00000.npz.part", ".clip.notes"]
    for name in (*half, *mine):
        (folder / name).write_text("half")
    words = "import sys; from tests.vtsum.synthetic_corpus import SIZES, make_corpus; make_corpus(sys.argv[1], **SIZES)"
    done = forked.run([sys.executable, "-c", words, folder], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert [name for name in (*half, *mine) if (folder / name).exists()] == mine
    assert not (folder / ".clip.abcd0123").exists()
    assert (folder / "clip/model.safetensors").is_file()


def test_broken_clip_is_told_and_made_anew(corpus, tmp_path, monkeypatch):
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    weights = folder / "clip/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(VTSumError, match=r"clip/model\.safetensors must be a safetensors file, got: "):
        TinyClip.load(folder / "clip")
    (folder / "clip/config.json").unlink()
    with pytest.raises(VTSumError, match=r"clip must hold a CLIP in transformers' format, got no config\.json"):
        TinyClip.load(folder / "clip")
    good = TinyClip.load(corpus / "clip")
    monkeypatch.setattr(synthetic, "_clip_examples", lambda seed, parameters: iter(()))
    monkeypatch.setattr(tiny_clip, "train_tiny_clip", lambda *arguments, **options: (good, {}))
    make_corpus(folder, **SIZES)
    assert weights.read_bytes() == whole
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 6}, r"seed must be that of the corpus in .* \(5\), got 6; give another folder"),
        ({"parameters": USUAL}, "parameters must be that of the corpus"),
        ({"test": 11}, "test must be at least 12, as"),
        ({"train": 0}, "train must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"films": 13}, "films must be at most the 12 test videos, got 13"),
        ({"clip_steps": 10}, "clip_steps must be at least 11, got 10"),
    ],
)
def test_mistakes(corpus, changes, told):
    before = files(corpus)
    with pytest.raises(VTSumError, match=told):
        make_corpus(corpus, **{**SIZES, **changes})
    assert files(corpus) == before


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(VTSumError, match=r"new, empty or an older corpus, got .* without manifest\.json"):
        make_corpus(tmp_path, **SIZES)
    with pytest.raises(VTSumError, match="folder must be a folder, got the file"):
        make_corpus(tmp_path / "mine.txt", **SIZES)
    (tmp_path / "manifest.json").write_text('{"format": "x"}')
    with pytest.raises(VTSumError, match=r"format of .* must be 'vtsum-synthetic/1', got 'x'"):
        make_corpus(tmp_path, **SIZES)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(VTSumError, match=r"manifest\.json must be JSON, got: "):
        make_corpus(tmp_path, **SIZES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "mine.txt"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("vocab.txt", r"vocab\.txt must be as it was written, got another one"),
        ("anno/val_videoxum.json", r"val_videoxum\.json must be as it was written, got another one"),
        ("feat/blip/v_val_00000.npz", r"v_val_00000\.npz must hold {'features': .*}, got .*; move it away"),
        ("feat/vt_clipscore/v_val_00000.npz", r"must hold an array 'vision', got features; move it away"),
        (
            "feat/blip/v_test_00000.npz",
            r"v_test_00000\.npz must hold {'features': .*}, got .* no regular file; move it away",
        ),
        ("clip/model.safetensors", r"clip must hold the corpus's own CLIP, got another one .*; move it away"),
        ("clip/notes.txt", r"clip must hold nothing but an older tiny CLIP: notes\.txt in it would be lost"),
        ("anno", "anno must lie where it is named, got a symbolic link"),
        ("feat/blip", "blip must lie where it is named, got a symbolic link"),
        ("clip", "clip must lie where it is named, got a symbolic link"),
    ],
)
def test_what_the_user_put_into_a_corpus_is_never_lost(corpus, tmp_path, monkeypatch, name, told):
    folder, path = tmp_path / "corpus", tmp_path / "corpus" / name
    shutil.copytree(corpus, folder)
    if path.is_dir():
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif name == "feat/blip/v_test_00000.npz":
        path.unlink()
        os.mkfifo(path)
    elif name.endswith(".npz"):
        np.savez(path, features=np.ones((3, 512), np.float32))
    elif name == "clip/model.safetensors":
        save_file({"another.weight": torch.ones(2)}, path)
    else:
        path.write_text(path.read_text() + "mine\n" if path.exists() else "mine\n")
    if name == "clip/notes.txt":
        good = TinyClip.load(folder / "clip")
        monkeypatch.setattr(tiny_clip, "train_tiny_clip", lambda *arguments, **options: (good, {}))
        (folder / "clip/config.json").unlink()  # else it is taken as it is
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(VTSumError, match=told):
        make_corpus(folder, **{**SIZES, "train": 4})
    changed = {str(path.relative_to(folder)) for path, held in before.items() if path.read_bytes() != held}
    assert changed <= {"manifest.json", "anno/train_videoxum.json"}  # ours, which now know of one video more


@pytest.fixture
def fake_corpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    asked: dict[str, Any] = {}

    def make(folder: Path, **options: Any) -> dict[str, Any]:
        asked.update(options, folder=folder)
        return {"videos": {"train": options["train"], "val": 1, "test": 2}, "frames": 7200}

    monkeypatch.setattr(synthetic, "make_corpus", make)
    return asked


def test_command(fake_corpus, tmp_path, capsys):
    assert cli.main(["data", "synth", str(tmp_path / "x"), "--train", "9", "--films", "2", "--seed", "4"]) == 0
    assert capsys.readouterr().out == f"9 train, 1 val, 2 test videos, 2.0 hours, in {tmp_path / 'x'}\n"
    assert {k: fake_corpus[k] for k in ("train", "val", "test", "seed", "films")} == {
        **{"train": 9, "val": 16, "test": 16, "seed": 4, "films": 2}
    }
    assert cli.main(["data", "synth", str(tmp_path / "x"), "-q"]) == 0
    assert capsys.readouterr().out == ""
