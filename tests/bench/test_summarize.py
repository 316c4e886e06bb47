"""The benchmark of the whole job: where its videos lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bench import bench_summarize


def test_videos_lie_in_a_folder_of_the_runs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in one that others can foresee; kept only where the user names it."""
    used: list[Path] = []

    def make_video(folder: Path, minutes: int) -> Path:
        used.append(folder)
        assert os.listdir(folder) == []
        assert folder == tmp_path or folder.stat().st_mode & 0o077 == 0
        return folder / "v.mp4"

    def measure(*arguments: Any) -> dict[str, Any]:
        times = {"p50": 1.0}
        return {
            **dict.fromkeys(("job_s", "decode_s", "decode_threaded_s", "job_cpu_s", "decode_cpu_s"), times),
            **dict.fromkeys(("ratio", "ratio_to_threaded", "peak_mib"), 1.0),
        }

    monkeypatch.setattr(bench_summarize, "make_video", make_video)
    monkeypatch.setattr(bench_summarize, "measure", measure)
    monkeypatch.setattr(bench_summarize, "append", lambda path, line: None)
    for more in ([], [], ["--folder", str(tmp_path)]):
        monkeypatch.setattr("sys.argv", ["bench_summarize", "--minutes", "1", *more])
        bench_summarize.main()
    assert len(set(used)) == 3
    assert [folder.exists() for folder in used] == [False, False, True]
