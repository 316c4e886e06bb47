"""Feature files, stored frames and h5 files of a stranger: nothing run, bounded work, no other file read."""

from __future__ import annotations

import io
import json
import resource
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.vtsum.hostile import Payload, refused
from tests.vtsum.test_training_run import words
from tests.vtsum.test_tvsum import replace, write_h5
from tests.vtsum.training_corpus import write_corpus
from vtsum.benchmarks.data import load_data
from vtsum.data.feature_files import array_header, read_array
from vtsum.data.frames import read_frames, read_teacher
from vtsum.data.tvsum import load_captions, load_splits, load_tvsum
from vtsum.errors import VTSumError


def npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def member(content: bytes) -> Callable[[Path, Path], None]:
    def write(path: Path, mark: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("features.npy", content)

    return write


def shaped(shape: str, dtype: str = "<f4", data: bytes = b"\0" * 64) -> Callable[[Path, Path], None]:
    return member(npy(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}") + data)


def pickled(path: Path, mark: Path) -> None:
    np.savez(path, features=np.array([Payload(mark)], dtype=object))


def encrypted(path: Path, mark: Path) -> None:
    shaped("(4, 4)")(path, mark)
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag in both headers
        content[content.index(signature) + at] |= 1
    path.write_bytes(content)


def crowded(path: Path, mark: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", b"")
        for number in range(3000):
            archive.writestr(f"{number}.npy", b"")


def twice(path: Path, mark: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's own, that a name is there already
        for number in (1.0, 2.0):
            stored = io.BytesIO()
            np.save(stored, np.full((4, 4), number, np.float32))
            archive.writestr("features.npy", stored.getvalue())


NPZ: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "a pickle": (pickled, "must hold real numbers, got dtype object"),
    "encrypted": (encrypted, "must be a whole NumPy array, got: .*encrypted"),
    "10^12 numbers": (shaped("(1000000, 1000000)"), "must be a whole NumPy array, got: shape"),
    "10^400 numbers": (shaped(f"({'9' * 400},)"), "must be a whole NumPy array, got: shape"),
    "10^30 times no numbers": (shaped(f"(0, 1{'0' * 30})"), "must be a whole NumPy array, got: shape"),
    "fewer than none": (shaped("(-4, -4)"), "must be a whole NumPy array, got: shape"),
    "numbers that do not fit": (shaped("(3,)"), "must be a whole NumPy array, got: shape"),
    "large items": (shaped("(1,)", "|V64"), "must hold real numbers"),
    "a header that is no header": (member(npy("{" * 3000)), "must be a whole NumPy array"),
    "a long header": (member(npy(" " * 11_000)), "got: a header of more than 10,000 bytes$"),
    "a deep header": (member(npy("(" * 9000)), "got: a header that is none of NumPy's$"),
    "a header that nests": (member(npy("-" * 9000 + "1")), "got: a header that is none of NumPy's$"),
    "a header that calculates": (member(npy("9**9**9")), "got: a header that is none of NumPy's$"),
    "a header that calls": (member(npy("__import__('os').mkdir('mark')")), "got: a header that is none of NumPy's$"),
    "no array": (member(b"text"), "got: one that begins with 74 65 78 74$"),
    "members without number": (crowded, "must be a whole npz file, got a list of its members of"),
    "a name twice": (twice, "must be a whole npz file, got two members named 'features.npy'$"),
}


@pytest.fixture
def little_memory() -> Any:
    """What a test allocates may not pass 3 GiB more than it has: a stated size must not be believed."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("kind", NPZ)
def test_a_hostile_feature_file_is_one_line(kind: str, tmp_path: Path, little_memory: Any) -> None:
    write, message = NPZ[kind]
    path, mark = tmp_path / "a.npz", tmp_path / "mark"
    write(path, mark)
    for read in (array_header, read_array):
        with pytest.raises(VTSumError, match=message) as caught:
            read(path, "features")
        assert str(caught.value).startswith(f"{path}")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400 + len(str(path))
    assert not mark.exists()


def test_a_small_file_of_a_large_array_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vtsum.data.feature_files.LIMIT", 10**6)
    np.savez_compressed(tmp_path / "a.npz", features=np.zeros(10**6, np.uint8))
    assert read_array(tmp_path / "a.npz", "features").shape == (10**6,)
    np.savez_compressed(tmp_path / "a.npz", features=np.zeros(10**6 + 1, np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 2000
    with pytest.raises(VTSumError, match="features must have at most 1000000 bytes, got 1000001"):
        read_array(tmp_path / "a.npz", "features")


def test_the_reader_of_npz_files_refuses_pickles(tmp_path: Path) -> None:
    code = np.array([Payload(tmp_path / "mark")], dtype=object)
    names = ("features", "scale", "index")
    np.savez(tmp_path / "a.npz", **dict.fromkeys(names, code))  # type: ignore[arg-type]
    with pytest.raises(VTSumError, match=r"a\.npz.* must hold real numbers, got dtype object"):
        read_teacher(tmp_path / "a.npz")
    assert not (tmp_path / "mark").exists()


def test_stored_frames_are_bounded(tmp_path: Path) -> None:
    from PIL import Image

    def png() -> bytes:
        out = io.BytesIO()
        Image.new("RGB", (8, 8)).save(out, "PNG")
        return out.getvalue()

    for content, message in ((bytes(2**26 + 1), "must have at most 67108864 bytes"), (png(), "must be a whole JPEG")):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("00001.jpg", content)
        with pytest.raises(VTSumError, match=rf"a\.zip: 00001\.jpg {message}"):
            read_frames(tmp_path / "a.zip")


def test_pictures_that_state_more_than_they_hold_are_not_made_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, little_memory: Any
) -> None:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG")
    small = out.getvalue()
    at = small.index(b"\xff\xc0") + 5  # height and width, as the frame's header states them
    large = small[:at] + struct.pack(">HH", 12_000, 12_000) + small[at + 4 :]
    for content, limit, message in (
        (large, 2**32, "must be a whole JPEG, got: 12000 x 12000 pixels"),
        (small, 2000, "must hold at most 2000 bytes of pictures, states 2304"),
        (small, 2304, None),
    ):
        monkeypatch.setattr("vtsum.data.frames.FRAMES_LIMIT", limit)
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for number in range(3):
                archive.writestr(f"{number:05d}.jpg", content)
        if message is None:
            assert read_frames(tmp_path / "a.zip")[1].shape == (3, 16, 16, 3)
        else:
            with pytest.raises(VTSumError, match=message):
                read_frames(tmp_path / "a.zip")
    assert not recwarn.list


def linked(make: Callable[[Path], Any]) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        other = Path(group.file.filename).with_name("other.h5")
        with h5py.File(other, "w") as file:
            file["secret"] = np.arange(7, dtype=np.float32)
        del group["gtscore"]
        group["gtscore"] = make(other)

    return change


def mapped(group: h5py.Group) -> None:
    linked(lambda other: 0)(group)
    del group["gtscore"]
    layout = h5py.VirtualLayout((7,), np.float32)
    layout[:] = h5py.VirtualSource(str(Path(group.file.filename).with_name("other.h5")), "secret", (7,))
    group.create_virtual_dataset("gtscore", layout)


def stored_outside(group: h5py.Group) -> None:
    other = Path(group.file.filename).with_name("other.raw")
    other.write_bytes(bytes(28))
    del group["gtscore"]
    group.create_dataset("gtscore", (7,), np.float32, external=[(str(other), 0, 28)])


def large(group: h5py.Group) -> None:
    del group["features"]
    group.create_dataset("features", (7, 10**12), np.float32, chunks=(1, 1024))


def references(group: h5py.Group) -> None:
    del group["picks"]
    group.create_dataset("picks", data=np.array([group.ref] * 7, dtype=h5py.ref_dtype))


def never_written(group: h5py.Group) -> None:
    del group["gtscore"]
    group.create_dataset("gtscore", (21 * 10**7,), np.float32, chunks=(1 << 20,))


def many_names(group: h5py.Group) -> None:
    del group["features"]
    group.create_dataset("features", (7, 8192), np.float32, chunks=(1, 1024))
    for i in range(2, 1500):
        group.file[f"video_{i}"] = group


def packed(group: h5py.Group, chunk: tuple[int, int], raw: int, times: int) -> None:
    """Features whose one chunk, of zlib's words, unpacks `times` over to `raw` bytes."""
    del group["features"]
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk(chunk)
    for _ in range(times):
        made.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
    space = h5py.h5s.create_simple((7, 4), (h5py.h5s.UNLIMITED,) * 2)
    h5py.h5d.create(group.id, b"features", h5py.h5t.NATIVE_FLOAT, space, made)
    stored = bytes(raw)
    for _ in range(times):
        stored = zlib.compress(stored)
    group["features"].id.write_direct_chunk((0, 0), stored, 0)


def nameless(group: h5py.Group) -> None:
    h5py.h5g.create(group.id, b"\xff")
    del group["picks"]


def shots_of_a_frame(group: h5py.Group) -> None:
    """A small file of which the choice of shots would be work for hours."""
    frames = 20_000
    for name, value in {
        "n_frames": frames,
        "user_summary": np.ones((20, frames), np.uint8),
        "user_scores": np.ones((20, frames), np.uint8),
        "change_points": np.repeat(np.arange(frames), 2).reshape(-1, 2),
        "n_frame_per_seg": np.ones(frames, np.int64),
    }.items():
        replace(name, value)(group)


def raters_of_many_frames(group: h5py.Group) -> None:
    """A file of a megabyte whose raters would be held against each other for hours."""
    frames = 100_000
    replace("n_frames", frames)(group)
    del group["user_summary"]
    group.create_dataset("user_summary", data=np.zeros((400, frames), np.uint8), compression="gzip")


def filtered(number: int) -> Callable[[h5py.Group], None]:
    """28 bytes in a chunk that a filter of HDF5's is said to have packed: of szip, they state 1 GB."""

    def change(group: h5py.Group) -> None:
        del group["gtscore"]
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((7,))
        made.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (1, 2))
        space = h5py.h5s.create_simple((7,))
        field = h5py.h5d.create(group.id, b"gtscore", h5py.h5t.IEEE_F32LE, space, made)
        field.write_direct_chunk((0,), np.full(7, 0.5, np.float32).tobytes())

    return change


H5: dict[str, tuple[Callable[[h5py.Group], None], str]] = {
    "a link to another file": (linked(lambda p: h5py.ExternalLink(p, "secret")), "gtscore must lie in the file itself"),
    "a link within": (linked(lambda p: h5py.SoftLink("/video_1/features")), "gtscore must lie in the file itself"),
    "mapped from another file": (mapped, "gtscore must lie in the file itself, got one mapped"),
    "stored in another file": (stored_outside, "gtscore must lie in the file itself, got one mapped"),
    "10^12 numbers": (large, "features must have at most 1073741824 bytes"),
    "840 MB that were never written": (never_written, "must hold what it states, got a file that unpacks to more"),
    "one video by 1,500 names": (many_names, "must hold what it states, got a file that unpacks to more"),
    "a chunk of 2 GB for 28 numbers": (
        lambda group: packed(group, (1 << 15, 1 << 14), 28, 1),
        r"features must have at most 1073741824 bytes, got shape \(7, 4\) in chunks of \(32768, 16384\)",
    ),
    "a chunk of 256 MB for 28 numbers": (
        lambda group: packed(group, (1 << 13, 1 << 13), 28, 1),
        "must hold what it states, got a file that unpacks to more",
    ),
    **{
        f"28 bytes behind filter {number}": (filtered(number), f"gtscore must be packed by gzip or lzf, .* {number}$")
        for number in (4, 5, 6, 32001)
    },
    "28 numbers packed twice": (
        lambda group: packed(group, (7, 4), 1 << 28, 2),
        "features must be packed at most once, got 2 times",
    ),
    "references": (references, "picks must hold numbers or text"),
    "a list for a number": (replace("n_frames", np.arange(3)), r"n_frames must have 0 dimensions, got shape \[3\]"),
    "text for numbers": (replace("picks", "many"), "picks must hold numbers, got text"),
    "text for a number": (replace("n_frames", "100"), "n_frames must hold numbers, got text"),
    "text for ratings": (
        replace("user_summary", np.full((20, 100), b"1")),
        "user_summary must be one text or hold num",
    ),
    "many texts": (
        replace("title", np.full(9, b"same")),
        r"title must be one text or hold numbers, got text of .* \(9,\)",
    ),
    "a pick that is none": (
        replace("picks", np.array([0, 15, 30, 45, 60, 75, np.nan])),
        "picks must be whole numbers, got nan",
    ),
    "a pick between frames": (replace("picks", np.arange(0, 100, 15) + 0.5), "picks must be whole numbers, got 0.5"),
    "a pick of 64 bits": (
        replace("picks", np.array([2**64 - 1] * 7, np.uint64)),
        "picks must be whole numbers, got 18",
    ),
    "half a frame": (replace("n_frames", 100.5), "n_frames must be whole numbers, got 100.5"),
    "frames without end": (replace("n_frames", 1e300), r"n_frames must be whole numbers, got 1e\+300"),
    "no number of frames": (replace("n_frames", np.nan), "n_frames must be whole numbers, got nan"),
    "a rate of none": (replace("fps", np.nan), "fps must be finite, got nan"),
    "a rate of next to nothing": (replace("fps", 1e-300), "n_frames / fps must be at most 10,000,000 s"),
    "a score beyond float32": (replace("gtscore", np.full(7, 1e300)), r"gtscore must be finite, got 1e\+300"),
    "features beyond float32": (replace("features", np.full((7, 4), -1e300)), "features must be finite, got -1e"),
    "ratings beyond the scale": (
        replace("user_scores", np.full((20, 100), -6)),
        r"user_scores must be from 0 to 1e\+06, got -6",
    ),
    "more than kept": (replace("user_summary", np.full((20, 100), 2.0)), "user_summary must be from 0 to 1, got 2.0"),
    "a shot for each frame": (shots_of_a_frame, "shots times frames must be at most 300,000,000, got 20,000 of 20,000"),
    "raters without end": (
        replace("user_summary", np.ones((20_000, 100), np.uint8)),
        "user_summary: raters must be at most 500, got 20,000",
    ),
    "raters of frames without end": (
        raters_of_many_frames,
        "user_summary: raters times raters times frames must be at most 10,000,000,000, got 400 and 100,000 frames",
    ),
    "no shots": (replace("change_points", np.zeros((0, 2), int)), "change_points must tile frames 0 to 99"),
    "a shot that ends before it starts": (
        replace("change_points", np.array([[0, 49], [50, 20], [21, 99]])),
        "change_points must tile frames 0 to 99",
    ),
    "no text": (replace("title", np.bytes_(b"\xff\xfe")), r"video_1: title must be text in UTF-8, got b'\\xff\\xfe'$"),
    "no values": (replace("gtscore", h5py.Empty("f4")), "gtscore must hold values, got a field without any$"),
    "no text at all": (replace("title", h5py.Empty("S4")), "title must hold values, got a field without any$"),
    "a group of no name": (
        lambda group: h5py.h5g.create(group.file.id, b"video_\xff"),
        r"groups must have names in UTF-8, got b'video_\\xff'$",
    ),
    "a field of no name, and one less": (nameless, r"must have the field picks, got \["),
    "no rate": (replace("fps", 0.0), "n_frames and fps must be positive, got 100 and 0.0"),
}


@pytest.mark.parametrize("kind", H5)
def test_a_hostile_h5_file_is_one_line(kind: str, tmp_path: Path, little_memory: Any) -> None:
    change, message = H5[kind]
    path = write_h5(tmp_path / "a.h5", change, keys=(1,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a command would show one before its own line
        with pytest.raises(VTSumError, match=message) as caught:
            load_tvsum(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_command_refuses_an_h5_file_that_unpacks_to_a_million_times_its_size(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", lambda group: packed(group, (7, 4), 1 << 28, 3))
    assert path.stat().st_size < 100_000
    told = refused("benchmark", "tvsum", "--h5", str(path), "--records", str(tmp_path / "r.jsonl"), names=path)
    assert "features must be packed at most once, got 3 times" in told


def test_a_command_refuses_chunks_without_end(tmp_path: Path) -> None:
    """HDF5 takes some 4 kB for each, also where nothing was ever written: a file of 100 kB took 3.7 GB, or 200."""
    path = write_h5(tmp_path / "a.h5", lambda group: chunked(group, 1_000_000))
    assert path.stat().st_size < 200_000
    told = refused("benchmark", "tvsum", "--h5", str(path), "--records", str(tmp_path / "r.jsonl"), names=path)
    assert "gtscore must have at most 1073741824 bytes, got shape (1000000,) in chunks of (1,)" in told
    path = write_h5(tmp_path / "a.h5", lambda group: chunked(group, 100_000))
    assert path.stat().st_size < 200_000
    told = refused("benchmark", "tvsum", "--h5", str(path), "--records", str(tmp_path / "r.jsonl"), names=path)
    assert "must hold what it states, got a file that unpacks to more" in told


def chunked(group: Any, count: int) -> None:
    del group["gtscore"]
    group.create_dataset("gtscore", (count,), "f4", chunks=(1,))


def test_a_command_refuses_raters_without_end(tmp_path: Path) -> None:
    """Each is held against each other one: it was at work for hours."""
    path = write_h5(tmp_path / "a.h5", H5["raters without end"][0])
    told = refused("benchmark", "tvsum", "--h5", str(path), "--records", str(tmp_path / "r.jsonl"), names=path)
    assert "user_summary: raters must be at most 500, got 20,000" in told


def test_a_whole_video_may_not_be_a_link(tmp_path: Path) -> None:
    write_h5(tmp_path / "other.h5", keys=(1,))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["video_1"] = h5py.ExternalLink(tmp_path / "other.h5", "video_1")
    with pytest.raises(VTSumError, match="video_1 must lie in the file itself, got a link"):
        load_tvsum(tmp_path / "a.h5")


@pytest.mark.parametrize("content", ["[" * 100_000, "[3]", '{"a": ' + "9" * 401 + "}", '{"a": 3}', '{"a": [[]]}'])
def test_hostile_captions_and_splits_are_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    for read in (load_captions, load_splits):
        with pytest.raises(VTSumError) as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["n", "n" * 100_000])
def test_what_a_splits_file_calls_things_fills_no_screen(name: str, tmp_path: Path) -> None:
    path, h5 = tmp_path / "a.json", write_h5(tmp_path / "a.h5")
    fold = {"train": ["video_1", "video_2"], "test": ["k" * 100_000]}
    for content in ({name: 3}, {name: [fold]}, {f"{name}{number}": [fold] for number in range(100)}):
        path.write_text(json.dumps(content))
        with pytest.raises(VTSumError) as caught:
            load_data("tvsum", h5, path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 500 + 2 * len(str(path))


def test_splits_name_videos(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [{"train": [["video_1"]], "test": [{}]}]}')
    with pytest.raises(VTSumError, match="must have the lists train and test"):
        load_splits(tmp_path / "a.json")


def test_a_command_refuses_members_without_number_at_once(tmp_path: Path) -> None:
    path = tmp_path / "analysis.npz"
    crowded(path, tmp_path / "mark")
    told = refused("recut", str(tmp_path), "-o", str(tmp_path / "o"), names=path)
    assert "a list of its members of" in told


def test_a_command_refuses_a_feature_file_that_holds_code(tmp_path: Path) -> None:
    data = write_corpus(tmp_path / "data")
    path = data / "feat" / "blip" / "v_003.npz"
    pickled(path, tmp_path / "mark")
    told = refused("train", *words(data, tmp_path / "run"), names=path)
    assert "must hold real numbers, got dtype object" in told
    assert not (tmp_path / "mark").exists()


def test_a_command_refuses_folds_that_set_a_name_twice_by_a_merge(tmp_path: Path) -> None:
    data, splits = write_h5(tmp_path / "tvsum.h5"), tmp_path / "splits.yml"
    splits.write_text("- <<: {train_keys: [video_10], test_keys: [video_2]}\n  train_keys: [video_1]\n")
    asked = ["benchmark", "tvsum", "--h5", str(data), "--splits", str(splits), "--records", str(tmp_path / "r.jsonl")]
    assert "line 1: must be plain YAML without merge keys (<<)" in refused(*asked, "--seeds", "1", names=splits)
    assert not (tmp_path / "r.jsonl").exists()
