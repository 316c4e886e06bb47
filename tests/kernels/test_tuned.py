"""The files of tuned sizes: what is written is read, what is broken is named and ignored, and which file is taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from vtsum_kernels.triton_kit import tuning
from vtsum_kernels.triton_kit.tuning import Choices, Config, read, tuned, tuned_file, write

TILE = Config("tile", 64, 64, 4, 1)


@pytest.fixture(autouse=True)
def unread() -> Iterator[None]:
    tuning._read_once.cache_clear()
    yield
    tuning._read_once.cache_clear()


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "tuned.json"
    write(path, Choices("triton 3.6.0", {"a GPU fwd": TILE}))
    assert read(path) == Choices("triton 3.6.0", {"a GPU fwd": TILE})
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644
    assert json.loads(path.read_text())["made_with"] == "triton 3.6.0"
    monkeypatch.setenv("VTSUM_KERNELS_TUNED", str(path))
    assert tuned() == {"a GPU fwd": TILE}
    monkeypatch.setenv("VTSUM_KERNELS_TUNED", "")
    assert tuned() == {}


def test_the_package_s_own_file_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VTSUM_KERNELS_TUNED", raising=False)
    path = tuned_file()
    assert path == Path(tuning.__file__).parents[1] / "tuned.json"
    forms = {config.form for config in read(path).configs.values()}  # without a warning
    assert forms <= {"strip", "tile", "fused", "walk", "tiles", "single"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"format": 2, "made_with": "1", "choices": {"a": ["tile", 64, 64, 4, 1]}}',
        '{"format": 1, "made_with": "1", "choices": {}}',
        '{"format": 3, "choices": {}}',
        '{"format": 3, "made_with": "1", "choices": 3}',
        '{"format": 3, "made_with": "1", "choices": {"a": ["tile", 64, 64, 4, 1]}}',
        '{"format": 3, "made_with": "1", "choices": {"a": ["tile", 64, 64, 4, 1, "0"]}}',
        '{"format": 3, "made_with": "1", "choices": {"a": 5}}',
    ],
)
def test_a_broken_file_is_named_and_ignored(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(text)
    with pytest.warns(UserWarning, match=f"ignoring the tuned sizes of {path}"):
        assert read(path) == Choices("", {})
    assert read(tmp_path / "none.json") == Choices("", {})
