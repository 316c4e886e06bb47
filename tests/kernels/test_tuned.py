"""The file of sizes that were measured elsewhere: what is read from it, what is ignored, and who takes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from vtsum_kernels import tuned as module
from vtsum_kernels.sliding_window_attention import cuda_waves
from vtsum_kernels.tuned import Tuned, read, tuned, tuned_file, write

TILE = ("tile", 64, 64, 4, 1)
KEY = cuda_waves.key_of("NVIDIA H200", "bwd", torch.bfloat16, 64, 5, 8 * 12 * 8192)


@pytest.fixture(autouse=True)
def unread() -> Iterator[None]:
    module._read_once.cache_clear()
    yield
    module._read_once.cache_clear()


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "tuned.json"
    write(path, Tuned({"a GPU fwd": TILE}, {KEY: 3}), "triton 3.6.0")
    assert read(path) == Tuned({"a GPU fwd": TILE}, {KEY: 3})
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert json.loads(path.read_text())["made_with"] == "triton 3.6.0"
    monkeypatch.setenv("VTSUM_KERNELS_TUNED", str(path))
    assert tuned().cuda == {KEY: 3}
    monkeypatch.setenv("VTSUM_KERNELS_TUNED", "")
    assert tuned() == Tuned({}, {})


def test_the_package_s_own_file_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VTSUM_KERNELS_TUNED", raising=False)
    assert tuned_file() == Path(module.__file__).parent / "tuned.json"
    read_without_a_warning = read(Path(module.__file__).parent / "tuned.json")
    assert all(
        choice[0] in ("strip", "tile", "fused", "walk", "tiles", "single")
        for choice in read_without_a_warning.triton.values()
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 2, "triton": {}, "cuda": {}}',
        '{"format": 1, "triton": {}}',
        '{"format": 1, "triton": {"a": ["tile", 64, 64, 4]}, "cuda": {}}',
        '{"format": 1, "triton": {"a": ["tile", 64, 64, 4, "1"]}, "cuda": {}}',
        '{"format": 1, "triton": {}, "cuda": {"a": 0}}',
        '{"format": 1, "triton": {}, "cuda": {"a": 65}}',
        '{"format": 1, "triton": {}, "cuda": {"a": true}}',
    ],
)
def test_a_broken_file_is_named_and_ignored(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(text)
    with pytest.warns(UserWarning, match=f"ignoring the tuned choices of {path}"):
        assert read(path) == Tuned({}, {})
    assert read(tmp_path / "none.json") == Tuned({}, {})


def test_keys_say_what_they_are_for() -> None:
    assert KEY == "NVIDIA H200 bwd torch.bfloat16 D=64 keys=5 rows~2^20"
    found = cuda_waves.KEY.fullmatch(KEY)
    assert found is not None
    assert found.groupdict() == {
        "gpu": "NVIDIA H200",
        "pass": "bwd",
        "dtype": "bfloat16",
        "dim": "64",
        "keys": "5",
        "log": "20",
    }
    assert cuda_waves.key_of("x", "fwd", torch.float16, 32, 3, 1).endswith("rows~2^1")
    assert cuda_waves.key_of("x", "fwd", torch.float16, 32, 3, 1024).endswith("rows~2^10")
    assert cuda_waves.key_of("x", "fwd", torch.float16, 32, 3, 1025).endswith("rows~2^11")
    with pytest.raises(ValueError, match="key must be as key_of makes it, got 'something'"):
        cuda_waves.choose("something", 1)


def test_choices_for_this_gpu_are_handed_over_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tuned.json"
    other = cuda_waves.key_of("another GPU", "fwd", torch.float32, 64, 5, 1024)
    write(path, Tuned({}, {KEY: 3, other: 2, "NVIDIA H200 nonsense": 4}), "")
    monkeypatch.setenv("VTSUM_KERNELS_TUNED", str(path))
    handed: list[tuple[Any, ...]] = []

    class Ops:
        def sliding_window_attention_waves(self, *values: Any) -> None:
            handed.append(values)

    monkeypatch.setattr(torch.ops, "vtsum_kernels", Ops())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    monkeypatch.setattr(cuda_waves, "_applied", set())
    monkeypatch.setattr(cuda_waves.library, "refusal", lambda name: None)
    with pytest.warns(UserWarning, match="ignoring a tuned choice: .*key must be as key_of makes it"):
        cuda_waves.apply(torch.device("cuda", 0))
    cuda_waves.apply(torch.device("cuda", 0))
    assert handed == [(True, torch.bfloat16, 64, 5, 20, 3)]


def test_without_the_compiled_kernels_a_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_waves.library, "refusal", lambda name: "not built")
    with pytest.raises(RuntimeError, match="the compiled CUDA kernels are not loaded: not built"):
        cuda_waves.choose(KEY, 2)
