"""The benchmark of the whole job: the videos that it makes, and where they lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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


def test_videos_lie_in_a_folder_of_the_runs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in one that others can foresee; kept only where the user names it."""
    used: list[Path] = []

    def make_video(folder: Path, minutes: int) -> Path:
        used.append(folder)
        assert os.listdir(folder) == []
        assert folder == tmp_path or folder.stat().st_mode & 0o077 == 0
        return folder / "v.mp4"

    def measure(*arguments: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(summarize, "make_video", make_video)
    monkeypatch.setattr(summarize, "measure", measure)
    results = str(tmp_path.with_suffix(".jsonl"))
    for more in ([], [], ["--folder", str(tmp_path)]):
        monkeypatch.setattr("sys.argv", ["summarize", "--minutes", "1", "--results", results, *more])
        summarize.main()
    assert len(set(used)) == 3
    assert [folder.exists() for folder in used] == [False, False, True]
