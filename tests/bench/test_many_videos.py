"""The benchmark of a library by several executors, and the projections that stand on what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.kit import record
from bench.summary import many_videos
from bench.summary.tables import scale


def test_a_library_has_so_many_files_of_a_few_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_videos, "SIZE", (64, 48))
    monkeypatch.setattr(many_videos, "FPS", 10)
    monkeypatch.setattr(many_videos, "KINDS", 2)
    many_videos.make_library(tmp_path, 5, 2.0)
    made = [path.read_bytes() for path in sorted(tmp_path.glob("*.mp4"))]
    assert len(made) == 5
    assert len(set(made)) == 2


def test_start_and_videos_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start of 5 s and 2 s a video."""
    for name, videos in (("large", 20), ("few", many_videos.FEW)):
        (tmp_path / name).mkdir()
        for number in range(videos):
            (tmp_path / name / f"{number}.mp4").touch()
    monkeypatch.setattr(many_videos, "took", lambda folder, words: 5.0 + 2.0 * len(list(folder.iterdir())))
    lines = list(many_videos.measured(tmp_path / "large", tmp_path / "few", 8.0, 2))
    assert [line["way"] for line in lines] == list(many_videos.WAYS)
    assert all(line["s"]["p50"] == 45.0 for line in lines)
    assert all(line["start_s"]["p50"] == pytest.approx(5.0) for line in lines)


def test_a_batch_that_leaves_videos_out_is_no_measurement(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(SystemExit, match="ended with 2"):
        many_videos.took(tmp_path, ["--workers", "1"])


def test_the_tables_are_the_records_times_the_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert scale.many_videos() == "Not measured yet."
    assert scale.rates() == scale.libraries() == "Not measured yet."
    facts = {"device": "a CPU", "threads": 2, "commit": "abc", "load_before": 0.5, "versions": {"ray": "2"}}
    shape = {"minutes": 10, "width": 640, "height": 360, "fps": 30}
    job = {**facts, "shape": shape, "job_s": {"p50": 20.0}, "decode_s": {"p50": 10.0}}
    record.append(tmp_path / "summarize.jsonl", job)
    for op, rate, flops in (("embedded_encoder", 600.0, 10**9), ("blip_encoder", 2.0, 4 * 10**10)):
        line = {**facts, "op": op, "frames_a_second": {"p50": rate}, "flops_a_frame": flops}
        record.append(tmp_path / "encoder.jsonl", line)
    found = scale.rates()
    assert "| the whole job, listening and reading | 120 | 30 |" in found
    assert "| BLIP's ViT-B/16, every frame | 1,800 | 2 |" in found
    day = next(line for line in scale.libraries().splitlines() if line.startswith("| 500 hours"))
    cells = [cell.strip() for cell in day.strip("|").split("|")]
    assert cells[1:4] == ["720,000", "2.59 G", "389 TB"]
    assert cells[5] == "2.59 E · 104 E"
    assert cells[6:9] == ["24,000", "12,000", "360,000"]
    assert float(cells[9]) == pytest.approx(2.592e9 * 4e10 / (989e12 * 0.4) / 3600, rel=0.01)
    line = {**facts, "way": "Ray", "repeats": 1, "s": {"p50": 100.0}, "start_s": {"p50": 7.0}}
    line["shape"] = {"videos": 200, "seconds": 8.0, "width": 320, "height": 180, "fps": 30}
    record.append(tmp_path / "many_videos.jsonl", line)
    assert "| Ray | 100 s | 120 | 7.0 s |" in scale.many_videos()
