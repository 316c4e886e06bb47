"""Everything that reads a file of a stranger's: its name, the inputs to begin from, and how it is called.

What the long run finds is added to the seeds of its target (seeds.py).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.guard import MEMORY
from tests.fuzz.seeds import (
    BENCHMARK,
    BOMB,
    CAPTIONS,
    DEEPSPEED,
    FAR_BOX,
    LONG_STRING,
    PLAIN,
    SRT,
    SUMMARY,
    TTML,
    VIDEO,
    VTT,
    YAML,
    arrays,
    as_frames,
    as_member,
    as_stream_state,
    as_torch_archive,
    documents,
    evaluations,
    films,
    markers,
    model_configs,
    of_another_zip,
    parquet_lists,
    pickles,
    pictures,
    recordings,
    stream_arrays,
    texts,
    torch_saved,
)


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


def _transcript(path: Path) -> None:
    from vtsum.enhance.speech.subtitle_text import as_srt, as_vtt
    from vtsum.enhance.speech.subtitles import read_transcript

    said = read_transcript(path, duration=60.0)
    as_srt(said), as_vtt(said)


def _annotations(path: Path) -> None:
    from vtsum.data.videoxum import join_sentences, read_annotations

    for annotation in read_annotations(path, unannotated=True):
        join_sentences(annotation.tsum)


def _captions(path: Path) -> None:
    from vtsum.data.activitynet import load_activitynet_captions, videoxum_entries

    json.dumps(videoxum_entries(load_activitynet_captions(path)), allow_nan=False)


def _features(path: Path) -> None:
    from vtsum.data.feature_files import array_header, read_array

    shape, _ = array_header(path, "features")
    assert read_array(path, "features").shape == shape


def _stream_state(path: Path) -> None:
    from vtsum.errors import VTSumError
    from vtsum.summary.live import state

    _, arrays = state.load(path)
    try:
        state.store_of(arrays, 30, 1.0)
    except (KeyError, TypeError, ValueError, IndexError) as error:  # as a run that goes on has it
        raise VTSumError(f"{path}: {error!r:.200}") from None


def _parquet_list(path: Path) -> None:
    from vtsum.batches.parquet_list import unpacked

    unpacked(path, "batch")


def _frames(path: Path) -> None:
    from vtsum.data.frames import read_frames

    read_frames(path)


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


def _model(path: Path) -> None:
    from vtsum.model.vtsum import VTSum

    VTSum.load_checkpoint(path.parent)


def _write_model(folder: Path) -> None:
    from tests.vtsum.test_model import small_model

    small_model(folder).save_pretrained(folder / "model", facts={"trained": "never"})


def _transformers(path: Path) -> None:
    from vtsum.model.pretrained import check_folder

    check_folder(path.parent, "load")


def _entry(path: Path) -> object:
    from vtsum.video.entry_points import begins_anew

    data = path.read_bytes()
    forms = (b"", b"\x01" + bytes(20) + b"\x03", b"\x01\0\0\0\x03")
    return [begins_anew(data, codec, form) for codec in ("h264", "hevc") for form in forms]


def _options(path: Path) -> object:
    from vtsum.training.yaml_file import read_mapping

    return read_mapping(path, "recut", words=True)


def _settings(path: Path) -> None:
    from vtsum.config import VTSumConfig
    from vtsum.training.settings import build, parse, to_yaml

    given = parse(["--config", str(path)])
    to_yaml(given.settings(build(VTSumConfig, given.model)))


def _deepspeed(path: Path) -> None:
    from vtsum.training.deepspeed_config import read

    read(path)


def _evaluation(path: Path) -> None:
    from vtsum.evaluation.videoxum_file import read_evaluation
    from vtsum.evaluation.videoxum_table import FORMATS, describe, results_table, row_names

    data = read_evaluation(path)
    describe(data)
    for form in FORMATS:
        results_table([data, data], row_names([data, data], [path, path]), form=form)


def _predictions(path: Path) -> None:
    from vtsum.evaluation.videoxum_score import read_predictions

    read_predictions(path)


def _part(path: Path) -> None:
    from vtsum.evaluation.videoxum_file import PartFile

    PartFile(path.with_name("e.json"), 0, 1, {"seed": 1}).read()


def _metrics(path: Path) -> None:
    from vtsum.training.records import read_metrics

    read_metrics(path)


def _summary(path: Path) -> None:
    from vtsum.summary.schema import read

    read(path)


def _ratings(path: Path) -> None:
    from vtsum.data.ratings import load_ratings

    for raters in load_ratings(path).values():
        for rating in raters.values():
            assert len(rating.starts) == len(rating.scores) > 0


def _tvsum(path: Path) -> None:
    from vtsum.data.tvsum import load_captions, load_splits
    from vtsum.errors import VTSumError

    try:
        load_captions(path)
    except VTSumError:
        load_splits(path)


def _benchmark(path: Path) -> None:
    from vtsum.benchmarks.figures import figures
    from vtsum.benchmarks.records import parse_records
    from vtsum.benchmarks.table import table
    from vtsum.reading import read_file

    head, rows = parse_records(read_file(path, "benchmark"), "benchmark: b.jsonl")
    assert table(head, figures(head, rows))


def _boxes(path: Path) -> None:
    from vtsum.video.boxes import excessive_index, is_encrypted
    from vtsum.video.formats import HEAD, describe, refers_elsewhere
    from vtsum.video.sample_tables import index_agrees

    head = path.read_bytes()[:HEAD]
    assert refers_elsewhere(head) in (True, False)
    assert describe(head)
    assert is_encrypted(path) in (True, False)
    if excessive_index(path) is None:
        assert index_agrees(path) in (True, False)


def _structure(path: Path) -> None:
    from vtsum.video import avi_index, mxf_index
    from vtsum.video.matroska import tracks_are_whole
    from vtsum.video.structure import holes_of

    for form in ("avi", "ogg", "asf", "mxf", "flv", "mpeg", "matroska", "mpegts"):
        holes = holes_of(path, form, 2, [0x100, 0x101])
        assert holes is not None
        assert holes.at_end() in (True, False)
        holes.close()
    assert tracks_are_whole(path) in (True, False)
    assert avi_index.index_is_true(path) in (True, False)
    assert mxf_index.index_is_true(path) in (True, False)


_JSON_WORDS = tuple(
    f'"{name}"'.encode() for name in ("video_id", "duration", "step", "format", "auto_map", "__class__")
)

TARGETS = (
    Target("transcript", "t.en.srt", texts(SRT, VTT, PLAIN, "just words. And more", TTML, "{25}{50}Two|lines\n"),
           _transcript, (b"-->", b"00:01")),
    Target("annotations", "train_videoxum.json", documents([VIDEO]), _annotations, _JSON_WORDS, True),
    Target("captions", "c.json", documents(CAPTIONS), _captions, _JSON_WORDS, True),
    Target("captions unpacked", "c.json.gz", documents(CAPTIONS), _captions, _JSON_WORDS, True, gzip.compress),
    Target("captions packed", "c.json.gz", lambda: [gzip.compress(json.dumps(CAPTIONS).encode())], _captions),
    Target("TVSum's captions and splits", "s.json", documents(
        {"video_1": [{"caption": "A cat.", "start_mmss": "0:00", "end_mmss": "1:02"}]},
        {"folds": [{"train": ["video_1"], "test": ["video_2"]}]},
        [{"train_keys": ["a.h5/video_1"], "test_keys": ["a.h5/video_2"]}],
        {"train_keys": ["video_1"], "val_keys": ["video_3"], "test_keys": ["video_2"]},
    ), _tvsum, _JSON_WORDS, True),
    Target("ratings", "r.json", documents({"a": {"x": [[0, 2], [2.5, 4]], "y": [[0, 3]]}}), _ratings, _JSON_WORDS,
           True),
    Target("ratings in lines", "r.csv", texts('video,rater,start,score\na,x,0,2\na,x,2.5,4\n"a, b",y,0,1e3\n'),
           _ratings, (b'"', b",", b"\r\n", b"1e999")),
    Target("rows of a benchmark", "b.jsonl", lambda: [BENCHMARK], _benchmark, (b'"videos"', b'"folds"', b"\n")),
    Target("npz", "a.npz", lambda: [as_member(array) for array in arrays()], _features,
           (b"PK\x03\x04", b"PK\x01\x02")),
    Target("npy within an npz", "a.npz", arrays, _features, (b"'shape': (", b"'|O'", b"'<f8'", b"\x93NUMPY\x03\0"),
           wrap=as_member),
    Target("state of a stream", "live.npz", stream_arrays, _stream_state,
           (b"'shape': (", b"'|O'", b"'<f8'", b"\xff" * 8), wrap=as_stream_state),
    Target("list in Parquet", "list.parquet", parquet_lists, _parquet_list, (b"PAR1", b"\xff" * 4)),
    Target("frames", "v.zip", lambda: [*(as_frames(picture) for picture in pictures()), of_another_zip()],
           _frames),
    Target("picture within frames", "v.zip", pictures, _frames, (b"\xff\xc0", b"\xff\xd9"), wrap=as_frames),
    Target("weights", "w.pth", lambda: [*torch_saved(new_form=True), *torch_saved(new_form=False), LONG_STRING],
           _weights, PICKLE_TOKENS),
    Target("pickle within weights", "w.pth", pickles, _weights, PICKLE_TOKENS, wrap=as_torch_archive),
    Target("shards", "zero/states.pt", pickles, _shards, PICKLE_TOKENS, wrap=as_torch_archive),
    Target("model's config", "model/config.json", model_configs, _model, _JSON_WORDS, True, prepare=_write_model),
    Target("transformers' config", "config.json", documents({"model_type": "clip", "text_config": {"auto_map": {}}}),
           _transformers, _JSON_WORDS, True),
    Target("checkpoint's marker", "checkpoints/step-00000004/complete.json", markers, _marker, _JSON_WORDS, True,
           prepare=lambda folder: (folder / "checkpoints/step-00000004/state.pt").write_bytes(b"abc")),
    Target("settings", "s.yaml", texts(YAML, BOMB, '{"seed": 1, "model": {"text": {}, "width": 64}}'), _settings,
           (b"? ", b"- ", b": ", b"|2+\n", b"%YAML 1.1\n---\n", b"<<: ", b"2001-01-99", b"0x", b"1:2"), True),
    Target("DeepSpeed's settings", "ds.json", documents(DEEPSPEED), _deepspeed, _JSON_WORDS, True),
    Target("evaluation", "e.json", evaluations, _evaluation, _JSON_WORDS, True),
    Target("part of an evaluation", "e.json.part.jsonl", lambda: [
        b'{"format": "vtsum-evaluation-part/1", "settings": {"seed": 1}}\n{"batch": 0, "videos": [{"f1": 0.5}]}\n'
    ], _part, _JSON_WORDS),
    Target("predictions", "p.json", documents(
        {"v_1": {"saliency": [0.1, 2], "text": "a dog runs"}},
        {"videos": [{"video_id": "v_1", "saliency_logits": [0.1, -1e30], "text": "A dog."}]},
    ), _predictions, _JSON_WORDS, True),
    Target("metrics", "metrics.jsonl", texts('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": null}\n'), _metrics,
           _JSON_WORDS),
    Target("summary", "summary.json", documents(SUMMARY), _summary, _JSON_WORDS, True),
    Target("boxes and first bytes", "a.mp4", lambda: [*films(), b"moovmoov" + bytes(17), FAR_BOX], _boxes,
           (b"moov", b"trak", b"elst", b"stsz", b"\0\0\0\1", b"ftyp")),
    Target("pictures that stand alone", "packet", lambda: [
        b"\0\0\0\1\x09\xf0\0\0\1\x65\x88" + bytes(9), b"\0\0\0\2\x09\xf0\0\0\0\5\x65\x88\x80\x10\0", b"\0\0\1\x26\1"
    ], _entry, (b"\0\0\1", b"\0\0\0\0", b"\xff\xff\xff\xff")),
    Target("options of a command", "o.yaml", texts("budget: 1:30\nkeep: [0:10-0:20, 1-2]\nquiet: true\n", YAML, BOMB),
           _options, (b"? ", b"- ", b": ", b"|2+\n", b"<<: ", b"&a *a"),
           True),
    Target("parts of media", "a.avi", recordings, _structure, (b"RIFF", b"LIST", b"movi", b"OggS")),
)  # fmt: skip
