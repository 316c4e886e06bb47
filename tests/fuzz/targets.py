"""Everything that reads a file of a stranger's: its name, good and once bad inputs to begin from, and how it is called.

What the long run finds is added to the seeds of its target.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.guard import ADDRESSES, MEMORY
from tests.vtsum.hostile import Payload

NOWHERE = Path("/nonexistent/mark")


@dataclass(frozen=True)
class Target:
    """A parser. `read` gets the path of a file called `file`, in a folder that `prepare` has made ready, which holds
    `wrap` of an input: behind a checksum few changed inputs would get through. `is_json`: most seeds are JSON.
    `memory`: bytes it may take; PyTorch's older form asks a file for as many as it states, which need not be there."""

    name: str
    file: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    tokens: tuple[bytes, ...] = ()
    is_json: bool = False
    wrap: Callable[[bytes], bytes] = bytes
    prepare: Callable[[Path], object] = lambda folder: None
    memory: int = MEMORY


def texts(*values: str) -> Callable[[], list[bytes]]:
    return lambda: [value.encode() for value in values]


def documents(*values: Any) -> Callable[[], list[bytes]]:
    return lambda: [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]


def _transcript(path: Path) -> None:
    from vtsum.enhance.speech.subtitle_text import as_srt, as_vtt
    from vtsum.enhance.speech.subtitles import read_transcript

    said = read_transcript(path, duration=60.0)
    as_srt(said), as_vtt(said)


SRT = (
    "1\n00:00:01,000 --> 00:00:04,000\n<i>Hello</i> there [applause]\n\n2\n00:05 --> 00:07.5\nJOHN: &amp; &#39;x&#39;\n"
)
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


def _annotations(path: Path) -> None:
    from vtsum.data.videoxum import join_sentences, read_annotations

    for annotation in read_annotations(path, unannotated=True):
        join_sentences(annotation.tsum)


def _captions(path: Path) -> None:
    from vtsum.data.activitynet import load_activitynet_captions, videoxum_entries

    json.dumps(videoxum_entries(load_activitynet_captions(path)), allow_nan=False)


CAPTIONS = {"v_1": {"duration": 9.5, "timestamps": [[0, 4.0], [9, 3]], "sentences": ["A cat. ", " "]}}


def _features(path: Path) -> None:
    from vtsum.data.feature_files import array_header, read_array

    shape, _ = array_header(path, "features")
    assert read_array(path, "features").shape == shape


def _npy(*arrays: np.ndarray) -> list[bytes]:
    made = []
    for array in arrays:
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        made.append(file.getvalue())
    return made


def _arrays() -> list[bytes]:
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    code = np.array([Payload(NOWHERE)], dtype=object)
    whole = _npy(numbers, numbers.T.astype(np.float64), np.zeros((0, 3), np.float16), np.arange(3) > 1, code)
    # On these two, Python's compiler and NumPy remark on the terminal.
    odd = [whole[0].replace(b"(3, 4), }     ", shape) for shape in (b"(3L, 4L), }   ", b"(1if 1else 2)}")]
    return [*whole, *odd, *_npy(np.full((1, 1), 1e300))]


def _as_member(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", content)
    return file.getvalue()


def _frames(path: Path) -> None:
    from vtsum.data.frames import read_frames

    read_frames(path)


def _pictures() -> list[bytes]:
    from PIL import Image

    made = []
    for mode in ("RGB", "L", "CMYK"):
        file = io.BytesIO()
        Image.new(mode, (16, 8)).save(file, "JPEG")
        made.append(file.getvalue())
    return made


def _as_frames(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("00001.jpg", "00002.jpg"):
            archive.writestr(name, content)
    return file.getvalue()


def _torch_saved(*, new_form: bool) -> list[bytes]:
    import torch

    tensor = torch.arange(6.0).reshape(2, 3)
    made = []
    for value in ({"model": {"a": tensor, "b": [tensor.T, 3]}, "step": 4, "lr": 0.5}, {"x": Payload(NOWHERE)}):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=new_form)
        made.append(file.getvalue())
    return made


@cache
def _torch_archive() -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(_torch_saved(new_form=True)[0])) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _pickles() -> list[bytes]:
    made = [content for name, content in _torch_archive() if name.endswith("data.pkl")]
    old = b"\x80\0" + made[0][2:]  # a protocol on which torch remarks on the terminal
    return [*made, pickle.dumps({"x": Payload(NOWHERE)}, 2), pickle.dumps({"a/b": [1, (2.5, None)]}, 2), old]


def _as_torch_archive(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, held in _torch_archive():
            archive.writestr(name, content if name.endswith("data.pkl") else held)
    return file.getvalue()


PICKLE_TOKENS = (
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"cbuiltins\neval\n",
    b"R",
    b"b",
    b"(",
    b"t",
    b"h\0",
    b"Q",
    b".",
)


def _weights(path: Path) -> None:
    from vtsum.model.files import read_pt

    read_pt(path, "load")


def _shards(path: Path) -> None:
    from vtsum.training import shards
    from vtsum.training.checkpoints import Checkpoint

    shards.check(Checkpoint(path.parents[1], {"files": {"zero/states.pt": 0}}))


def _marker(path: Path) -> None:
    from vtsum.training import checkpoints
    from vtsum.training.resuming import check_resumable
    from vtsum.training.settings import TrainSettings

    found, _ = checkpoints.find(path.parents[2])
    if found is not None:
        check_resumable(found, TrainSettings(), None, "d" * 64)


def _markers() -> list[bytes]:
    from vtsum.training.settings import TrainSettings

    facts = {"engine": "plain", "ranks": 1, "global_batch": 16, "data": "d" * 64, "files": {"state.pt": 3}}
    settings = dataclasses.asdict(TrainSettings())
    return documents({"format": "vtsum-checkpoint/1", "step": 4, **facts, "settings": settings})()


def _model(path: Path) -> None:
    from vtsum.model.checkpoint import load_checkpoint

    load_checkpoint(path.parent)


def _write_model(folder: Path) -> None:
    from tests.vtsum.test_model import small_model

    small_model(folder).save_pretrained(folder / "model", facts={"trained": "never"})


def _model_configs() -> list[bytes]:
    from vtsum.config import TextConfig, VTSumConfig
    from vtsum.model.checkpoint import config_text

    text = TextConfig(12, 16, 1, 2, 32, 32, 0.0, "")
    config = VTSumConfig(width=32, num_heads=4, max_positions=24, memory_slots=8, text=text)
    return [config_text(config, {"trained": "never"}).encode()]


def _transformers(path: Path) -> None:
    from vtsum.model.pretrained import check_folder

    check_folder(path.parent, "load")


def _settings(path: Path) -> None:
    from vtsum.config import VTSumConfig
    from vtsum.training.settings import TrainSettings, _put, build, read_yaml, to_yaml

    values: dict[str, Any] = {"model": {}}
    for name, value in read_yaml(path)[0].items():
        _put(values, name, value)
    values["model"] = build(VTSumConfig, values["model"])
    to_yaml(TrainSettings(**values))


YAML = (
    "data: corpus  # here\ninit_lr: 2e-5\nseed: 3\nmodel:\n  kernel_size: null\n  text: {dropout: 0.5, prompt: 'a '}\n"
)
BOMB = "a: &a [x, x]\nb: [*a, *a]\nseed: !!python/object/apply:os.mkdir [/nonexistent/mark]\n"


def _deepspeed(path: Path) -> None:
    from vtsum.training.deepspeed_config import read

    read(path)


DEEPSPEED = {
    "zero_optimization": {
        "stage": 3,
        "reduce_bucket_size": 5e8,
        "overlap_comm": True,
        "offload_optimizer": {"device": "nvme", "nvme_path": "/tmp", "pin_memory": True},
    },
    "data_types": {"grad_accum_dtype": "fp32"},
}


def _evaluation(path: Path) -> None:
    from vtsum.evaluation.videoxum_file import read_evaluation
    from vtsum.evaluation.videoxum_table import FORMATS, describe, results_table, row_names

    data = read_evaluation(path)
    describe(data)
    for form in FORMATS:
        results_table([data, data], row_names([data, data], [path, path]), form=form)


def _evaluations() -> list[bytes]:
    from vtsum.evaluation.videoxum_scores import MEASURES

    cells = {name: {"value": 0.25, "low": 0.125, "high": 0.5} for name in MEASURES}
    missing = {"value": None, "low": None, "high": None, "reason": "no Java runtime"}
    values = {"f1": 0.5, "kendall": 0.25, "spearman": -0.5, "rouge_l": 0.5, "cider": 2.5, "vt_clipscore": 0.25}
    counts = {"bleu_counts": [15, 15, 15, 14, 13, 12, 11, 5, 2, 1], "meteor_counts": None}
    whole = {
        "format": "vtsum-evaluation/1",
        "protocol": "videoxum-strict",
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


def _part(path: Path) -> None:
    from vtsum.evaluation.videoxum_file import PartFile

    PartFile(path.with_name("e.json"), 0, 1, {"seed": 1}).read()


def _metrics(path: Path) -> None:
    from vtsum.training.records import read_metrics

    read_metrics(path)


def _summary(path: Path) -> None:
    from vtsum.summary.schema import read

    read(path)


_CLIP = {"start": 1.0, "end": 2.0, "summary_start": 0.0, "summary_end": 1.0, "keyframe": None, "keyframe_time": 1.5}
_SHOT = {"saliency": 0.5, "liveliness": 0.5, "score": 0.5, "reason": "x"}
SUMMARY = {
    "schema": "vtsum-summary/1",
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
        **{"denoiser": None, "speech_limit": None},
    },
    "model": {"name": "embedded", "weights_sha256": "0", "embedded": True, "text_is_guess": True},
    "summary": {"file": None, "duration": 1.0, "share": 0.2, "has_audio": False, "width": 160, "height": 90},
    "shots": [
        {"index": 0, "start": 0.0, "end": 3.0, "rank": 1, "chosen": True, "clip": _CLIP, **_SHOT},
        {"index": 1, "start": 3.0, "end": 6.0, "rank": 2, "chosen": False, "clip": None, **_SHOT},
    ],
    "frames": {"time": [0.0, 1.0], "saliency": [0.5, 0.25], "encoded_share": 1.0, "boundary": None},
    "text": [
        {
            **{"text": "A cat.", "origin": "seen", "confidence": 0.5, "guess": True},
            **{"times": [{"start": 1.0, "end": 2.0}], "shots": [0]},
        }
    ],
    "speech": {
        **{"source": "subtitles", "language": None, "guess": False, "warnings": []},
        "utterances": [
            {"start": 0.5, "end": 1.0, "words": [{"text": "so", "start": 0.5, "end": 1.0, "confidence": 1.0}]}
        ],
    },
    "broken": True,
    "truncated_at": 6.0,
    "damaged": [{"start": 1.0, "end": 2.0}],
    "warnings": ["x"],
    "timings": {"read": 0.5},
}


def _tvsum(path: Path) -> None:
    from vtsum.data.tvsum import load_captions, load_splits
    from vtsum.errors import VTSumError

    try:
        load_captions(path)
    except VTSumError:
        load_splits(path)


def _boxes(path: Path) -> None:
    from vtsum.video.boxes import excessive_edits, is_encrypted
    from vtsum.video.formats import HEAD, describe, refers_elsewhere

    head = path.read_bytes()[:HEAD]
    assert refers_elsewhere(head) in (True, False)
    assert describe(head)
    assert is_encrypted(path) in (True, False)
    excessive_edits(path)


def _box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def _films() -> list[bytes]:
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


_JSON_WORDS = tuple(
    f'"{name}"'.encode() for name in ("video_id", "duration", "step", "format", "auto_map", "__class__")
)

TARGETS = (
    Target("transcript", "t.en.srt", texts(SRT, VTT, PLAIN, "just words. And more"), _transcript, (b"-->", b"00:01")),
    Target("annotations", "train_videoxum.json", documents([VIDEO]), _annotations, _JSON_WORDS, True),
    Target("captions", "c.json", documents(CAPTIONS), _captions, _JSON_WORDS, True),
    Target("captions unpacked", "c.json.gz", documents(CAPTIONS), _captions, _JSON_WORDS, True, gzip.compress),
    Target("captions packed", "c.json.gz", lambda: [gzip.compress(json.dumps(CAPTIONS).encode())], _captions),
    Target("TVSum's captions and splits", "s.json", documents(
        {"video_1": [{"caption": "A cat.", "start_mmss": "0:00", "end_mmss": "1:02"}]},
        {"folds": [{"train": ["video_1"], "test": ["video_2"]}]},
    ), _tvsum, _JSON_WORDS, True),
    Target("npz", "a.npz", lambda: [_as_member(array) for array in _arrays()], _features,
           (b"PK\x03\x04", b"PK\x01\x02")),
    Target("npy within an npz", "a.npz", _arrays, _features, (b"'shape': (", b"'|O'", b"'<f8'", b"\x93NUMPY\x03\0"),
           wrap=_as_member),
    Target("frames", "v.zip", lambda: [_as_frames(picture) for picture in _pictures()], _frames),
    Target("picture within frames", "v.zip", _pictures, _frames, (b"\xff\xc0", b"\xff\xd9"), wrap=_as_frames),
    Target("weights", "w.pth", lambda: [*_torch_saved(new_form=True), *_torch_saved(new_form=False)], _weights,
           PICKLE_TOKENS, memory=ADDRESSES),
    Target("pickle within weights", "w.pth", _pickles, _weights, PICKLE_TOKENS, wrap=_as_torch_archive),
    Target("shards", "zero/states.pt", _pickles, _shards, PICKLE_TOKENS, wrap=_as_torch_archive),
    Target("model's config", "model/config.json", _model_configs, _model, _JSON_WORDS, True, prepare=_write_model),
    Target("transformers' config", "config.json", documents({"model_type": "clip", "text_config": {"auto_map": {}}}),
           _transformers, _JSON_WORDS, True),
    Target("checkpoint's marker", "checkpoints/step-00000004/complete.json", _markers, _marker, _JSON_WORDS, True,
           prepare=lambda folder: (folder / "checkpoints/step-00000004/state.pt").write_bytes(b"abc")),
    Target("settings", "s.yaml", texts(YAML, BOMB, '{"seed": 1, "model": {"text": {}, "width": 64}}'), _settings,
           (b"? ", b"- ", b": ", b"|2+\n", b"%YAML 1.1\n---\n", b"<<: ", b"2001-01-99", b"0x", b"1:2"), True),
    Target("DeepSpeed's settings", "ds.json", documents(DEEPSPEED), _deepspeed, _JSON_WORDS, True),
    Target("evaluation", "e.json", _evaluations, _evaluation, _JSON_WORDS, True),
    Target("part of an evaluation", "e.json.part.jsonl", lambda: [
        b'{"format": "vtsum-evaluation-part/1", "settings": {"seed": 1}}\n{"batch": 0, "videos": [{"f1": 0.5}]}\n'
    ], _part, _JSON_WORDS),
    Target("metrics", "metrics.jsonl", texts('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": null}\n'), _metrics,
           _JSON_WORDS),
    Target("summary", "summary.json", documents(SUMMARY), _summary, _JSON_WORDS, True),
    Target("boxes and first bytes", "a.mp4", _films, _boxes,
           (b"moov", b"trak", b"elst", b"stsz", b"\0\0\0\1", b"ftyp")),
)  # fmt: skip
