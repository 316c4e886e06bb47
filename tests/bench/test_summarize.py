"""The benchmark of the whole job: the videos that it makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.summary import summarize


def test_a_video_of_some_minutes_is_one_minute_over_and_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summarize, "SIZE", (64, 48))
    monkeypatch.setattr(summarize, "FPS", 5)
    path = summarize.make_video(tmp_path, 3)
    assert summarize.decode(path, "default")[2] == 3 * 60 * 5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bench_64x48_3min.mp4", "bench_base.mp4"]
    made = path.stat().st_mtime_ns
    assert summarize.make_video(tmp_path, 3).stat().st_mtime_ns == made
