"""Good inputs of every kind, and those that once went wrong."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.vtsum.hostile import Payload

NOWHERE = Path("/nonexistent/mark")


def texts(*values: str) -> Callable[[], list[bytes]]:
    return lambda: [value.encode() for value in values]


def documents(*values: Any) -> Callable[[], list[bytes]]:
    return lambda: [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]


SRT = (
    "1\n00:00:01,000 --> 00:00:04,000\n<i>Hello</i> there [applause]\n\n2\n00:05 --> 00:07.5\nJOHN: &amp; &#39;x&#39;\n"
)

TTML = "<tt><body><div begin='1s'><p begin='00:00:01:12' dur='5f'>One,<br/>two &lt;</p></div></body></tt>"
VTT = "WEBVTT\nLanguage: en\n\nNOTE x\n\n00:01.000 --> 00:04.000 align:start\nso<00:02.000><c> what</c>\n \n"

PLAIN = "[0:12] So we begin.\n(1:02:03) - And end.\nMore of it!\n"

VIDEO = {
    "video_id": "v_1",
    "duration": 5.0,
    "sampled_frames": 5,
    "timestamps": [[0.0, 2.5], [2, 5]],
    "tsum": ["A cat sits.", "It runs!"],
    "vsum_onehot": [[0, 1, 0, 1, 1], [1, 1, 0, 0, 0]],
}

CAPTIONS = {"v_1": {"duration": 9.5, "timestamps": [[0, 4.0], [9, 3]], "sentences": ["A cat. ", " "]}}

_FOLDS = [{"train": ["video_1", "video_2"], "test": ["video_3"]}]
_ROW = {"code": None, "fold": 0, "seed": 0, "seconds": 0.5, "device": "", "vtsum": "1.0"}
BENCHMARK = b"\n".join(
    json.dumps(line).encode()
    for line in (
        {"format": "vtsum-benchmark/1", "benchmark": "tvsum", "h5_sha256": "a", "folds_name": "b", "folds": _FOLDS},
        {"method": "ridge", **_ROW, "videos": {"video_3": [0.25, 0.5, 1]}},
        {"method": "a|b", **_ROW, "videos": {"video_3": [None, None, 0.5]}},
    )
)


def _npy(*arrays: np.ndarray) -> list[bytes]:
    made = []
    for array in arrays:
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        made.append(file.getvalue())
    return made


def arrays() -> list[bytes]:
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    code = np.array([Payload(NOWHERE)], dtype=object)
    whole = _npy(numbers, numbers.T.astype(np.float64), np.zeros((0, 3), np.float16), np.arange(3) > 1, code)
    # On these two, Python's compiler and NumPy remark on the terminal.
    odd = [whole[0].replace(b"(3, 4), }     ", shape) for shape in (b"(3L, 4L), }   ", b"(1if 1else 2)}")]
    return [*whole, *odd, *_npy(np.full((1, 1), 1e300))]


def as_member(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", content)
    return file.getvalue()


def stream_arrays() -> list[bytes]:
    """The edges of three shots of a stream, and what is no such array."""
    return [*_npy(np.array([0, 1, 2, 2, 3, 3, 5], np.int64)), *arrays()]


def as_stream_state(content: bytes) -> bytes:
    """A stream's state whose shots' edges are these."""
    facts = {"format": "vtsum-live-state/1", "asked": {"fps": "1"}, "rate": 1.0, "restarts": 0, "warnings": []}
    exact = np.array([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]]).view(np.int64)
    kept = {
        "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
        "saliency": np.array([0.1, 0.5, 0.2, 0.9], np.float32),
        "frames": np.array([2, 1, 1]),
        "means.f64": exact,
        "levels.f64": np.array([1.0, 2.0, 0.5]).view(np.int64),
        "peaks": np.array([1, 2, 4]),
        "pictures": np.arange(6, dtype=np.uint8),
        "sizes": np.array([1, 2, 3]),
        "rows.f64": np.array([1.0, 2.0]).view(np.int64),
        "numbers.f64": np.array([0.1, 0.9, 0.5, 2.0, 3.0, 1.0, 2.0, 3.0, 0.0]).view(np.int64),
        "counts": np.array([3, 4, 0]),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("edges.npy", content)
        for name, (array,) in ((name, _npy(value)) for name, value in kept.items()):
            archive.writestr(f"{name}.npy", array)
    return file.getvalue()


def parquet_lists() -> list[bytes]:
    """Lists of videos, and files that are none."""
    import pyarrow as pa
    from pyarrow import parquet

    made = []
    for table in ({"path": ["a.mp4", None, "b/c.mkv"] * 40}, {"path": [1, 2]}, {"other": ["a.mp4"]}):
        for packed in ("none", "snappy"):
            file = io.BytesIO()
            parquet.write_table(pa.table(table), file, compression=packed)
            made.append(file.getvalue())
    return made


def pictures() -> list[bytes]:
    from PIL import Image

    made = []
    for mode in ("RGB", "L", "CMYK"):
        file = io.BytesIO()
        Image.new(mode, (16, 8)).save(file, "JPEG")
        made.append(file.getvalue())
    return made


def as_frames(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("00001.jpg", "00002.jpg"):
            archive.writestr(name, content)
    return file.getvalue()


def of_another_zip() -> bytes:
    """Frames in an archive that wants a version of the format which is still to come."""
    content = bytearray(as_frames(b"x"))
    content[content.index(b"PK\1\2") + 6] = 64
    return bytes(content)


def torch_saved(*, new_form: bool) -> list[bytes]:
    import torch

    tensor = torch.arange(6.0).reshape(2, 3)
    made = []
    for value in ({"model": {"a": tensor, "b": [tensor.T, 3]}, "step": 4, "lr": 0.5}, {"x": Payload(NOWHERE)}):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=new_form)
        made.append(file.getvalue())
    return made


#: A box of nearly 2^64 bytes.
FAR_BOX = b"\0\0\0\1free" + b"\xff" * 8 + bytes(8)
#: A pickle of the older form, whose string says it has 2 GB.
LONG_STRING = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\0(X\x10\0\0\x80..."


@cache
def _torch_archive() -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(torch_saved(new_form=True)[0])) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def pickles() -> list[bytes]:
    made = [content for name, content in _torch_archive() if name.endswith("data.pkl")]
    old = b"\x80\0" + made[0][2:]  # a protocol on which torch remarks on the terminal
    endless = b"c" + b"c\0" * 10_000 + b"\nx\n."  # the name of a class: torch makes a message of it
    escaped = made[0].replace(b"ctorch._utils", b"c\\ud800torch._utils", 1)
    return [
        *made,
        endless,
        escaped,
        pickle.dumps({"x": Payload(NOWHERE)}, 2),
        pickle.dumps({"a/b": [1, (2.5, None)]}, 2),
        old,
    ]


def as_torch_archive(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, held in _torch_archive():
            archive.writestr(name, content if name.endswith("data.pkl") else held)
    return file.getvalue()


def markers() -> list[bytes]:
    from vtsum.training.settings import TrainSettings

    facts = {"engine": "plain", "ranks": 1, "global_batch": 16, "data": "d" * 64, "files": {"state.pt": 3}}
    settings = dataclasses.asdict(TrainSettings())
    return documents({"format": "vtsum-checkpoint/1", "step": 4, **facts, "settings": settings})()


def model_configs() -> list[bytes]:
    from vtsum.config import TextConfig, VTSumConfig
    from vtsum.model.checkpoint import config_text

    text = TextConfig(12, 16, 1, 2, 32, 32, 0.0, "")
    config = VTSumConfig(width=32, num_heads=4, max_positions=24, memory_slots=8, text=text)
    return [config_text(config, {"trained": "never"}).encode()]


YAML = (
    "data: corpus  # here\ninit_lr: 2e-5\nseed: 3\nmodel:\n  kernel_size: null\n  text: {dropout: 0.5, prompt: 'a '}\n"
)

BOMB = "a: &a [x, x]\nb: [*a, *a]\nseed: !!python/object/apply:os.mkdir [/nonexistent/mark]\n"

DEEPSPEED = {
    "zero_optimization": {
        "stage": 3,
        "reduce_bucket_size": 5e8,
        "overlap_comm": True,
        "offload_optimizer": {"device": "nvme", "nvme_path": "/tmp", "pin_memory": True},
    },
    "data_types": {"grad_accum_dtype": "fp32"},
}


def evaluations() -> list[bytes]:
    from vtsum.evaluation.videoxum_scores import MEASURES

    cells = {name: {"value": 0.25, "low": 0.125, "high": 0.5} for name in MEASURES}
    missing = {"value": None, "low": None, "high": None, "reason": "no Java runtime"}
    values = {"f1": 0.5, "kendall": 0.25, "spearman": -0.5, "rouge_l": 0.5, "cider": 2.5, "vt_clipscore": 0.25}
    counts = {"bleu_counts": [15, 15, 15, 14, 13, 12, 11, 5, 2, 1], "meteor_counts": None}
    whole = {
        "format": "vtsum-evaluation/1",
        "protocol": "videoxum-strict",
        "protocol_revision": 2,
        "split": "test",
        "data": {"path": "corpus", "name": "corpus", "annotations_sha256": "d" * 64},
        "checkpoint": {"name": "memory"},
        "clip": {"name": "clip", "sha256": "c" * 64},
        "settings": {"caption_tokenizer": "ptb", "resamples": 20, "seed": 0},
        "measures": cells | {"meteor": missing},
        "baselines": {"random": cells, "uniform": cells},
        "videos": [{"video_id": f"v_{i}", **values, **counts} for i in range(3)],
    }
    unnamed = whole | {"baselines": {"random": cells, "uniform": cells, "": {}}, "videos": [None]}
    large = whole | {"videos": [{"video_id": "v", **values, **counts, "f1": 1e308}] * 2}
    return documents(whole, unnamed, large, whole | {"videos": []})()


_CLIP = {"start": 1.0, "end": 2.0, "summary_start": 0.0, "summary_end": 1.0, "keyframe": None, "keyframe_time": 1.5}

_SHOT = {"saliency": 0.5, "liveliness": 0.5, "score": 0.5, "reason": "x"}

SUMMARY = {
    "schema": "vtsum-summary/2",
    "vtsum_version": "0.1.0",
    "created": "2026-01-01T00:00:00Z",
    "source": {
        **{"name": "a.mp4", "title": None, "size_bytes": 9, "container": "mp4", "video_codec": "h264"},
        **{"audio_codec": None, "has_audio": False, "width": 160, "height": 90, "rotation": 0, "fps": 25.0},
        "duration": 6.0,
    },
    "settings": {
        **{"budget": "15%", "budget_seconds": 0.9, "model": "embedded", "fps": 1.0, "formats": ["mp4"]},
        **{"sampler": "coverage", "segmenter": "joint", "refine": "dpp", "speech": None, "transcript": None},
        **{
            "denoiser": None,
            "captioner": "auto",
            "speech_limit": None,
            "ocr": True,
            "offline_default": False,
            "writer": None,
            "device": "auto",
        },
    },
    "model": {"name": "embedded", "weights_sha256": "0", "embedded": True, "text_is_guess": True},
    "models": [{"part": "saliency", "name": "embedded", "sha256": {"weights": "0"}, "device": "cpu"}],
    "summary": {"file": None, "duration": 1.0, "share": 0.2, "has_audio": False, "width": 160, "height": 90},
    "shots": [
        {"index": 0, "start": 0.0, "end": 3.0, "rank": 1, "chosen": True, "clip": _CLIP, **_SHOT},
        {"index": 1, "start": 3.0, "end": 6.0, "rank": 2, "chosen": False, "clip": None, **_SHOT},
    ],
    "frames": {"time": [0.0, 1.0], "saliency": [0.5, 0.25], "encoded_share": 1.0, "boundary": None},
    "title": {"text": "a.mp4", "origin": "name", "times": []},
    "chapters": [{"start": 0.0, "title": "Part 1", "origin": "number"}],
    "text": [
        {
            **{"text": "A cat.", "origin": "seen", "confidence": 0.5, "guess": True},
            **{"times": [{"start": 1.0, "end": 2.0}], "shots": [0]},
        }
    ],
    "speech": {
        **{"source": "subtitles", "language": None, "warnings": []},
        "utterances": [
            {"start": 0.5, "end": 1.0, "words": [{"text": "so", "start": 0.5, "end": 1.0, "confidence": 1.0}]}
        ],
    },
    "screen": {
        **{"source": "PP-OCRv6", "sha256": {"a.onnx": "0"}},
        "lines": [
            {
                **{"text": "NEWS", "start": 1.0, "end": 2.0, "score": 0.9, "confirmed": True},
                "box": {"left": 0.1, "top": 0.1, "right": 0.5, "bottom": 0.2},
            }
        ],
    },
    "broken": True,
    "truncated_at": 6.0,
    "damaged": [{"start": 1.0, "end": 2.0}],
    "warnings": ["x"],
    "timings": {"read": 0.5},
}


def _box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def films() -> list[bytes]:
    edits = _box(b"edts", _box(b"elst", struct.pack(">IIIiI", 0, 1, 1000, 0, 65536)))
    sizes = _box(b"stbl", _box(b"stsd", b"encv", b"sinf"), _box(b"stsz", struct.pack(">III", 0, 1, 100)))
    track = _box(b"trak", edits, _box(b"mdia", _box(b"minf", sizes)))
    movie = _box(b"moov", _box(b"mvhd", bytes(100)), track, track)
    large = struct.pack(">I4sQ", 1, b"mdat", 24) + bytes(8)
    return [
        _box(b"ftyp", b"isom") + large + movie,
        _box(b"ftyp", b"qt  ") + movie + _box(b"mdat", bytes(50)),
        b"\x1aE\xdf\xa3" + bytes(60),
        b"\xef\xbb\xbf\n#EXTM3U\npipe\n",
        b"RIFF\0\0\0\0WEBP",
    ]


def recordings() -> list[bytes]:
    """Of AVI, Ogg, ASF, MXF and transport streams: a head and a few parts."""
    chunk = b"00dc" + struct.pack("<I", 6) + bytes(6)
    movie = b"LIST" + struct.pack("<I", 4 + 3 * len(chunk)) + b"movi" + 3 * chunk
    page = b"OggS\0\2" + bytes(8) + struct.pack("<III", 7, 0, 0) + b"\2\1\1ab"
    properties = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365") + bytes(76) + struct.pack("<II", 128, 128)
    head = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + struct.pack("<Q", 30 + len(properties)) + bytes(6)
    data = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c") + struct.pack("<Q", 50 + 256) + bytes(26)
    packets = b"".join(
        b"\x82\0\0\x09\x5d\x0d" + bytes(6) + b"\x81\1" + bytes([n]) + struct.pack("<IBIIH", 0, 8, 85, n, 85) + bytes(98)
        for n in (1, 2)
    )
    key = b"\x06\x0e\x2b\x34" + bytes(12)
    partition = _mxf("020501010d01020101020400", struct.pack(">HHIQQQQQIQI", 1, 3, 1, 0, 0, 0, 0, 102, 2, 0, 1))
    numbers = struct.pack(">HHIIHHQHHQHHIHHI", 0x3F0B, 8, 25, 1, 0x3F0C, 8, 0, 0x3F0D, 8, 1, 0x3F06, 4, 2, 0x3F07, 4, 1)
    entries = struct.pack(">HHIIbbBQ", 0x3F0A, 19, 1, 11, 0, 0, 0x80, 0)
    index = _mxf("025301010d01020101100100", numbers + entries)
    sound = b"\x47\x41\1\x10\0\0\1\xc0\1\x6a" + bytes(178)
    return [
        b"RIFF" + struct.pack("<I", 4 + len(movie)) + b"AVI " + movie,
        page + page[:5] + b"\0" + page[6:],
        head + properties + data + 2 * (b"\x82\0\0" + bytes(125)),
        head + properties + data + packets,
        key + b"\x02ab" + key + b"\x83\0\0\4abcd",
        partition + index + _mxf("010201010d01030115010500", b"abcd"),
        10 * (sound + b"\x47\1\1\x11" + bytes(184)),
    ]


def _mxf(name: str, content: bytes) -> bytes:
    return b"\x06\x0e\x2b\x34" + bytes.fromhex(name) + b"\x83" + len(content).to_bytes(3, "big") + content
